"""Texts made plain for knowledge-graph relations (arXiv 2402.13055, section 3.1): letters for entities, fewer words.

Each treatment stands alone. The paper splits into sentences for dependencies; for knowledge graphs it puts single
letters for entities, and takes out the most frequent function words.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from icl_circuits.errors import InputError
from icl_circuits.prompts import shown
from icl_circuits.relations.corpus import Corpus, RelationText, Span, Triplet

LETTERS = "BCDFGHJKLMOPQRTUVXYZ"
"""The paper's: A, I, N, S, W and E often stand alone and mean something."""
FUNCTION_WORDS = (
    "the", "of", "and", "to", "in", "is", "that", "are", "be", "this", "by", "on", "with", "as", "which", "an", "it",
    "from", "can", "these",
)  # fmt: skip
"""The most frequent function words of abstracts, but for `a`, `for` and `we`, which the paper's example keeps.

The paper's own list is not published."""

TWO_MENTIONS = "an entity that occurs twice"
OVERLAP = "an entity within or across another"
NO_LETTER = "an entity beyond the letters"
ACROSS = "head and tail in two sentences"

_WORD = re.compile(r"[\w'\u2019-]+")
_END = re.compile(r"[.!?]+[\"'\u201d\u2019)\]]*(?=\s)")
"""The end of a sentence, if what stands around it says no more."""
_GOES_ON = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]|al|approx|cf|dr|eq|figs?|mrs?|ms|prof|resp|vs")
"""What a full stop does not end a sentence behind: initials and abbreviations."""
_OPENING = "([\"'\u201c\u2018"


def with_letters(corpus: Corpus, *, letters: str = LETTERS) -> Corpus:
    """Put a single capital letter for every entity that a triplet relates, in order of appearance, at all its mentions.

    Letters that a text has already as words are passed over in it.

    Args:
        corpus: the texts.
        letters: the letters to put, in their order.

    Left out and counted: triplets of entities within or across another (the outer one, or the first, has its letter).
    So are those of entities that occur twice (the next letter would not tell where it is), and of those beyond the
    letters.

    Raises:
        InputError: letters that are none, or one that comes twice.
    """
    if not isinstance(letters, str) or not re.fullmatch(r"[^\W\d_]+", letters) or len(set(letters)) != len(letters):
        raise InputError(f"letters are {shown(letters)}: give different letters in one string, such as {LETTERS!r}")
    left_out: Counter[str] = Counter()
    return corpus.changed([_lettered(text, letters, left_out) for text in corpus.texts], left_out)


def without_words(corpus: Corpus, words: Collection[str] = FUNCTION_WORDS) -> Corpus:
    """Take words out of the texts, with the space at one side; words of the entities stay. For knowledge graphs only.

    Args:
        corpus: the texts.
        words: whole words, in capital letters or not.

    Raises:
        InputError: words that are no list of words.
    """
    if isinstance(words, str) or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        raise InputError(f"words are {shown(words)}: give a list of single words")
    gone = {word.casefold() for word in words}
    return corpus.changed([_shortened(text, gone) for text in corpus.texts], {})


def in_sentences(corpus: Corpus) -> Corpus:
    """Split texts into single sentences, each a text of its own.

    A sentence ends behind `.`, `!` or `?` that a space follows, outside of the entities. Behind a single letter or a
    common abbreviation it goes on, and before a small letter, unless a space stands before the mark.

    Left out and counted: triplets whose head and tail stand in two sentences.
    """
    left_out: Counter[str] = Counter()
    texts = [sentence for text in corpus.texts for sentence in _sentences(text, left_out)]
    return corpus.changed(texts, left_out)


def _lettered(text: RelationText, letters: str, left_out: Counter[str]) -> RelationText:
    entities = text.related
    entity_of = {span: number for number, entity in enumerate(entities) for span in entity}
    shown_spans, hidden = _outermost(entity_of)
    others = set(re.findall(r"\w+", _replaced(text.text, dict.fromkeys(shown_spans, " "))))
    free = iter([letter for letter in letters if letter not in others])
    letter_of = {number: next(free, "") for number in dict.fromkeys(entity_of[span] for span in shown_spans)}
    put = {span: letter_of[entity_of[span]] for span in shown_spans if letter_of[entity_of[span]]}

    def fits(triplet: Triplet) -> bool:
        numbers = [entity_of[span] for span in triplet.spans]
        overlap = any(span in hidden for number in numbers for span in entities[number])
        twice = any(len(entities[number]) > 1 for number in numbers)
        beyond = any(not letter_of.get(number) for number in numbers)
        for wrong, reason in ((overlap, OVERLAP), (twice, TWO_MENTIONS), (beyond, NO_LETTER)):
            if wrong:
                left_out[reason] += 1
                return False
        return True

    mentions = (tuple(span for span in entity if span not in hidden) for entity in text.entities)
    fitting = replace(
        text,
        triplets=tuple(triplet for triplet in text.triplets if fits(triplet)),
        entities=tuple(entity for entity in mentions if entity),
    )
    return fitting.moved(_replaced(text.text, put), _mover(put))


def _outermost(spans: Iterable[Span]) -> tuple[list[Span], set[Span]]:
    """The spans that lie outside of those before them, in order of appearance, and the others."""
    found: list[Span] = []
    inner: set[Span] = set()
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if found and span[0] < found[-1][1]:
            inner.add(span)
        else:
            found.append(span)
    return found, inner


def _shortened(text: RelationText, gone: set[str]) -> RelationText:
    stay = [span for entity in text.related for span in entity]
    put: dict[Span, str] = {}
    end = 0
    """Of what is taken out so far."""
    for word in _WORD.finditer(text.text):
        start, stop = word.span()
        if word[0].casefold() in gone and not any(start < to and begin < stop for begin, to in stay):
            if text.text[stop : stop + 1].isspace():
                stop += 1
            elif start > end and text.text[start - 1].isspace():
                start -= 1
            put[start, stop] = ""
            end = stop
    return text.moved(_replaced(text.text, put), _mover(put))


def _sentences(text: RelationText, left_out: Counter[str]) -> Iterator[RelationText]:
    spans = [span for entity in text.related for span in entity]
    bounds = [0, *_ends(text.text, spans), len(text.text)]
    sentence_of = {span: bisect_left(bounds, span[1]) - 1 for span in spans}
    left_out[ACROSS] += sum(sentence_of[triplet.head] != sentence_of[triplet.tail] for triplet in text.triplets)
    for number, (start, stop) in enumerate(pairwise(bounds)):
        sentence = text.text[start:stop]
        begin = stop - len(sentence.lstrip())
        inside = (triplet for triplet in text.triplets if {sentence_of[span] for span in triplet.spans} == {number})
        entities = (tuple(span for span in entity if sentence_of[span] == number) for entity in text.related)
        part = RelationText(text.text, tuple(inside), tuple(entities))
        yield part.moved(sentence.strip(), partial(_shifted, by=-begin))


def _ends(text: str, spans: Sequence[Span]) -> list[int]:
    """Where sentences end, but for the last."""
    found = []
    for mark in _END.finditer(text):
        following = text[mark.end() :].lstrip()[:1]
        before = "" if text[: mark.start()][-1:].isspace() else text[: mark.start()].rpartition(" ")[2].lstrip(_OPENING)
        goes_on = (
            not following
            or (before != "" and following.islower())
            or (
                mark[0][0] == "."
                and _GOES_ON.fullmatch(before.lower())
                and all(stop != mark.start() for _, stop in spans)
            )
            or any(start < mark.end() < stop for start, stop in spans)
        )
        if not goes_on:
            found.append(mark.end())
    return found


def _shifted(span: Span, by: int) -> Span:
    return span[0] + by, span[1] + by


def _replaced(text: str, put: dict[Span, str]) -> str:
    """The text with something else in some spans, which do not overlap."""
    parts, at = [], 0
    for span in sorted(put):
        parts += [text[at : span[0]], put[span]]
        at = span[1]
    return "".join([*parts, text[at:]])


def _mover(put: dict[Span, str]) -> Callable[[Span], Span]:
    """Where a span goes that holds no part of what was replaced, or is all of one."""
    spans = sorted(put)

    def moved(span: Span) -> Span:
        before = spans[: bisect_left(spans, span)]
        shift = sum(len(put[other]) - (other[1] - other[0]) for other in before)
        start = span[0] + shift
        return start, start + (len(put[span]) if span in put else span[1] - span[0])

    return moved
