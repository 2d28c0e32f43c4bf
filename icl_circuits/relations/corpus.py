"""Texts with relations between their words: what every loader gives, and every treatment of texts takes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import pandas as pd

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.prompts import is_whole, shown

Span = tuple[int, int]
"""Characters of a text, from and to (exclusive)."""
REVERSED = " reversed"
"""Behind the name of a relation from tail to head."""
ITSELF = "head and tail are the same words"
TWICE = "a triplet that its text has twice"


@dataclass(frozen=True)
class Triplet:
    """A relation of a head to a tail: attending to the head, a semantic induction head raises the tail."""

    relation: str
    head: Span
    tail: Span

    @property
    def spans(self) -> tuple[Span, Span]:
        """Head and tail."""
        return self.head, self.tail


@dataclass(frozen=True)
class RelationText:
    """A text, its triplets, and where else the text names what they relate."""

    text: str
    triplets: tuple[Triplet, ...]
    entities: tuple[tuple[Span, ...], ...] = ()
    """All mentions of an entity, entity by entity. Heads and tails in none of them are entities of one mention."""

    def __post_init__(self) -> None:
        for span in chain(*(triplet.spans for triplet in self.triplets), *self.entities):
            require_span(self.text, span, f"text {shown(self.text)}")

    @property
    def related(self) -> tuple[tuple[Span, ...], ...]:
        """The mentions of each entity that a triplet relates, entities and mentions in order of appearance."""
        ends = {span for triplet in self.triplets for span in triplet.spans}
        groups = [tuple(sorted(set(entity))) for entity in self.entities if ends & set(entity)]
        alone = ends.difference(*groups)
        return tuple(sorted([*groups, *((span,) for span in alone)]))

    def moved(self, text: str, place: Callable[[Span], Span]) -> "RelationText":
        """The same triplets of a changed text, `place` giving where each span went; entities of no triplet go."""
        triplets = (Triplet(triplet.relation, *map(place, triplet.spans)) for triplet in self.triplets)
        return RelationText(text, tuple(triplets), tuple(tuple(map(place, entity)) for entity in self.related))


@dataclass(frozen=True, repr=False)
class Corpus(Displayed):
    """Texts with triplets, the name they were loaded by, and what was left out. Every text has a triplet."""

    name: str
    texts: tuple[RelationText, ...]
    left_out: tuple[tuple[str, int], ...] = ()
    """Reasons, and how many triplets were left out for each."""

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations, most frequent first, ties in order of appearance."""
        return tuple(name for name, _ in Counter(self._names()).most_common())

    def reversed(self) -> "Corpus":
        """The triplets from tail to head, `(tail, relation, head)`, each relation's name with ` reversed` behind it."""
        return replace(self, texts=tuple(replace(text, triplets=_turned(text.triplets)) for text in self.texts))

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.name}, {len(self.texts)} texts, {len(self.relations)} relations"

    def to_frame(self) -> pd.DataFrame:
        """How many triplets and texts there are of each relation, and behind them how many were left out, by reason.

        Columns: `relation` (empty for what was left out), `left_out` (the reason; empty for what was kept),
        `triplets`, and `texts` (missing for what was left out).
        """
        texts = Counter(chain(*({triplet.relation for triplet in text.triplets} for text in self.texts)))
        rows: list[tuple[str, str, int, int | None]]
        rows = [(name, "", count, texts[name]) for name, count in Counter(self._names()).most_common()]
        rows += [("", reason, count, None) for reason, count in self.left_out]
        frame = pd.DataFrame(rows, columns=pd.Index(["relation", "left_out", "triplets", "texts"]))
        return frame.astype({"triplets": "int64", "texts": "Int64"})

    def changed(self, texts: Iterable[RelationText], left_out: Mapping[str, int]) -> "Corpus":
        """The corpus with other texts, those without a triplet gone, and more left out."""
        return Corpus(self.name, tuple(text for text in texts if text.triplets), counted(self.left_out, left_out))

    def _names(self) -> list[str]:
        return [triplet.relation for text in self.texts for triplet in text.triplets]


def counted(before: Sequence[tuple[str, int]], more: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Reasons and numbers of what was left out, with more of them; a reason of nothing is none."""
    total = Counter(dict(before))
    total.update(more)
    return tuple((reason, count) for reason, count in total.items() if count)


def kept(triplets: Iterable[Triplet], left_out: Counter[str]) -> tuple[Triplet, ...]:
    """Triplets of one text, each once and of two different spans; `left_out` counts the others."""
    found: dict[Triplet, None] = {}
    for triplet in triplets:
        if triplet.head == triplet.tail:
            left_out[ITSELF] += 1
        elif triplet in found:
            left_out[TWICE] += 1
        else:
            found[triplet] = None
    return tuple(found)


def require_span(text: str, span: object, where: str) -> Span:
    """A span as given, `[from, to]` or a tuple. Raises `InputError` unless words of the text begin and end there."""
    start, stop = span if isinstance(span, list | tuple) and len(span) == 2 else (None, None)
    if not is_whole(start) or not is_whole(stop) or not 0 <= start < stop <= len(text):
        raise InputError(
            f"{where}: {shown(span)} are no characters of it: give [from, to] with 0 <= from < to <= {len(text)}"
        )
    if text[start].isspace() or text[stop - 1].isspace():
        raise InputError(f"{where}: {shown(text[start:stop])} begins or ends with a space: give the words alone")
    return start, stop


def _turned(triplets: Iterable[Triplet]) -> tuple[Triplet, ...]:
    return tuple(Triplet(triplet.relation + REVERSED, triplet.tail, triplet.head) for triplet in triplets)
