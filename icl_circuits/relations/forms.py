"""One text with its triplets, out of one line of each form that files have."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from typing import Any

from icl_circuits.errors import InputError
from icl_circuits.prompts import is_whole, kind, require_characters, shown
from icl_circuits.relations.corpus import ITSELF, RelationText, Span, Triplet, kept, require_span

KNOWLEDGE = ("Used-for", "Feature-of", "Hyponym-of", "Part-of", "Compare", "Evaluate-for", "Conjunction")
"""The seven relations of SciERC and AGENDA."""
AGENDA_RELATIONS = ("Used-for", "Conjunction", "Feature-of", "Part-of", "Compare", "Evaluate-for", "Hyponym-of")
"""What the numbers of AGENDA's own files mean: the order of `relations.vocab` in rikdz/GraphWriter."""
TAG = re.compile(r"<[a-z]+_(\d+)>")
"""An entity in AGENDA's own files, by its number."""

NOT_MENTIONED = "an entity that is not in the text"

LISTS: Mapping[type, str] = {list: " of lists", str: " of words"}
"""What a message asks for."""

Row = Mapping[str, Any]
Related = tuple[str, tuple[Span, ...], tuple[Span, ...]]
"""A relation, and the mentions of its head and of its tail."""


def written_out(row: Row, where: str, left_out: Counter[str]) -> RelationText:
    """`text` and `triplets`; heads and tails are words or spans."""
    text = _text(row["text"], f"{where}, text")
    triplets = []
    for number, triplet in enumerate(_listed(row["triplets"], f"{where}, triplets")):
        said = f"{where}, triplet {number} (from 0)"
        spans = [_words(text, _field(triplet, end, said), f"{said}, {end}") for end in ("head", "tail")]
        triplets.append(Triplet(_relation(_field(triplet, "relation", said), said), *spans))
    return RelationText(text, kept(triplets, left_out))


def of_scierc(row: Row, where: str, left_out: Counter[str]) -> RelationText:
    """`tokens` with `relations` of `head`, `relation` and `tail`: numbers of `entities`, or spans of tokens."""
    tokens = _tokens(row["tokens"], f"{where}, tokens")
    text, place = _joined(tokens, row.get("text"), where)
    entities = [
        place(_field(entity, "span", f"{where}, entity {number} (from 0)") if isinstance(entity, Mapping) else entity)
        for number, entity in enumerate(_listed(row.get("entities", []), f"{where}, entities"))
    ]
    groups = _clusters(row.get("coref_clusters", []), place, where)
    related: list[Related] = []
    for number, relation in enumerate(_listed(row["relations"], f"{where}, relations")):
        said = f"{where}, relation {number} (from 0)"
        ends = (_field(relation, end, said) for end in ("head", "tail"))
        head, tail = (_numbered(entities, end, f"{said}: entity") if is_whole(end) else place(end) for end in ends)
        related.append((_relation(_field(relation, "relation", said), said), (head,), (tail,)))
    return _related_text(text, related, groups, left_out)


def of_released_scierc(row: Row, where: str, left_out: Counter[str]) -> RelationText:
    """`sentences` of tokens, and `relations` sentence by sentence: `[head from, to, tail from, to, relation]`."""
    sentences = _listed(row["sentences"], f"{where}, sentences")
    tokens = [token for sentence in sentences for token in _tokens(sentence, f"{where}, sentences")]
    text, place = _joined(tokens, None, where)
    related: list[Related] = []
    for number, relation in enumerate(chain(*_listed(row["relations"], f"{where}, relations", list))):
        if not isinstance(relation, list) or len(relation) != 5:
            raise InputError(
                f"{where}, relation {number} (from 0) is {shown(relation)}: give [from, to, from, to, relation]"
            )
        name = _relation(relation[4], f"{where}, relation {number} (from 0)")
        related.append((name, (place(relation[:2]),), (place(relation[2:4]),)))
    return _related_text(text, related, _clusters(row.get("clusters", []), place, where), left_out)


def of_agenda(row: Row, where: str, left_out: Counter[str]) -> RelationText:
    """`text`, `mentions` (`[entity, from, to]` in characters), and `relations` of numbers of entities."""
    text = _text(row["text"], f"{where}, text")
    mentions: dict[int, list[Span]] = {}
    for mention in _listed(row["mentions"], f"{where}, mentions", list):
        if len(mention) != 3 or not is_whole(mention[0]) or mention[0] < 0:
            raise InputError(f"{where}, mention {shown(mention)}: give [entity, from, to]")
        mentions.setdefault(mention[0], []).append(require_span(text, mention[1:], f"{where}, mention"))
    n_entities = (
        len(_listed(row["entities"], f"{where}, entities")) if "entities" in row else max(mentions, default=-1) + 1
    )
    for number in mentions:
        _require_number(number, n_entities, f"{where}, mention: entity")
    related: list[Related] = []
    for number, relation in enumerate(_listed(row["relations"], f"{where}, relations")):
        said = f"{where}, relation {number} (from 0)"
        ends = [_require_number(_field(relation, end, said), n_entities, f"{said}: entity") for end in ("head", "tail")]
        head, tail = (tuple(mentions.get(end, ())) for end in ends)
        related.append((_relation(_field(relation, "relation", said), said), head, tail))
    return _related_text(text, related, mentions.values(), left_out)


def of_agenda_row(cells: Sequence[str], where: str, left_out: Counter[str]) -> RelationText:
    """Title, entities, types, relations and a text with tags: AGENDA's own files."""
    if len(cells) < 5:
        raise InputError(
            f"{where} has {len(cells)} cells with tabs between: give title, entities, types, relations and text"
        )
    _, names, _, numbers, tagged = cells[:5]
    entities = [name.strip() for name in names.split(" ; ")]
    text, at = "", 0
    groups: list[list[Span]] = [[] for _ in entities]
    for tag in TAG.finditer(tagged):
        text += tagged[at : tag.start()]
        number = _require_number(_whole(tag[1]), len(entities), f"{where}: entity")
        name = entities[number]
        groups[number].append((len(text), len(text) + len(name)))
        text, at = text + name, tag.end()
    text = _text(text + tagged[at:], where)
    related: list[Related] = []
    for triplet in (part.split() for part in numbers.split(";") if part.strip()):
        if len(triplet) != 3 or not all(number.isdecimal() for number in triplet):
            raise InputError(
                f"{where}: relation {shown(' '.join(triplet))}: give three numbers, head, relation and tail"
            )
        start, relation, end = map(_whole, triplet)
        head, tail = (tuple(_numbered(groups, number, f"{where}: entity")) for number in (start, end))
        related.append((_numbered(AGENDA_RELATIONS, relation, f"{where}: relation"), head, tail))
    return _related_text(text, related, groups, left_out)


def _related_text(
    text: str, related: Iterable[Related], entities: Iterable[Iterable[Span]], left_out: Counter[str]
) -> RelationText:
    """The text with its triplets, each of the two mentions that are nearest to one another."""
    triplets = []
    for relation, heads, tails in related:
        if heads and heads == tails:
            left_out[ITSELF] += 1
        elif heads and tails:
            triplets.append(Triplet(relation, *min(product(sorted(heads), sorted(tails)), key=_distance)))
        else:
            left_out[NOT_MENTIONED] += 1
    found = RelationText(text, kept(triplets, left_out), tuple(map(tuple, entities)))
    return found.moved(text, lambda span: span)


def _distance(spans: tuple[Span, Span]) -> int:
    """How many characters lie between two spans; those that overlap are farther apart than any others."""
    (start, stop), (begin, end) = spans
    between = max(begin - stop, start - end)
    return between if between >= 0 else stop + end


def _joined(tokens: Sequence[str], text: object, where: str) -> tuple[str, Any]:
    """The text of tokens with a space between, and what gives the characters of a span of them, its last included."""
    joined = _text(" ".join(tokens), where)
    if text is not None and text != joined:
        raise InputError(f"{where}: the text is not its tokens with a space between: leave it out, or correct it")
    ends = [-1]
    for token in tokens:
        ends.append(ends[-1] + 1 + len(token))

    def place(span: object) -> Span:
        if (
            isinstance(span, list)
            and len(span) >= 2
            and all(map(is_whole, span[:2]))
            and 0 <= span[0] <= span[1] < len(tokens)
        ):
            return ends[span[0]] + 1, ends[span[1] + 1]
        raise InputError(
            f"{where}: {shown(span)} is no span of its {len(tokens)} tokens: give [first, last], counted from 0"
        )

    return joined, place


def _clusters(clusters: object, place: Any, where: str) -> list[list[Span]]:
    return [[place(span) for span in cluster] for cluster in _listed(clusters, f"{where}, clusters", list)]


def _words(text: str, given: object, where: str) -> Span:
    """Characters as given, or those of words that the text has once."""
    if not isinstance(given, str):
        return require_span(text, given, where)
    found = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(given)}(?!\w)", text)] if given else []
    if len(found) != 1:
        raise InputError(
            f"{where}: the text has {shown(given)} {len(found)} times: give words that it has once, or [from, to]"
        )
    return found[0]


def _relation(name: object, where: str) -> str:
    """One name for each way in which the seven relations are written; other names as they are."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: {shown(name)} is no relation: give its name")
    require_characters(name, where)
    uniform = "-".join(re.split(r"[\s_-]+", name.strip())).capitalize()
    return uniform if uniform in KNOWLEDGE else name.strip()


def _numbered(values: Sequence[Any], number: object, what: str) -> Any:
    return values[_require_number(number, len(values), what)]


def _require_number(number: object, n: int, what: str) -> int:
    if not is_whole(number) or not 0 <= number < n:
        raise InputError(f"{what} {shown(number)} does not exist: give a number from 0 to {shown(n - 1)}")
    return number


def _whole(digits: str) -> int | str:
    """A number out of its digits; of more than Python makes a number of, the digits."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _field(row: object, name: str, where: str) -> Any:
    if not isinstance(row, Mapping) or name not in row:
        raise InputError(f"{where} has no {name!r}: give it one")
    return row[name]


def _listed(value: object, where: str, of: type = object) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(one, of) for one in value):
        raise InputError(f"{where}: {shown(value)} is {kind(value)}: give a list{LISTS.get(of, '')}")
    return value


def _tokens(value: object, where: str) -> list[str]:
    return _listed(value, where, str)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {shown(value)} is no text: give one")
    require_characters(value, where)
    return value
