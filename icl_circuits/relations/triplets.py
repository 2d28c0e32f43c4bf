"""Triplets of a knowledge graph in texts: the built-in ones, SciERC's, AGENDA's, or yours."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from icl_circuits.errors import InputError
from icl_circuits.prompts import json_objects, kind_of, read_text, shown
from icl_circuits.relations.corpus import Corpus, RelationText, counted
from icl_circuits.relations.forms import (
    of_agenda,
    of_agenda_row,
    of_released_scierc,
    of_scierc,
    written_out,
)
from icl_circuits.relations.given import corpus_file

TRIPLETS = "triplets"
"""The name of the built-in texts."""

Form = Callable[[Mapping[str, Any], str, Counter[str]], RelationText]
FORMS: tuple[tuple[tuple[str, ...], Form], ...] = (
    (("text", "triplets"), written_out),
    (("sentences", "relations"), of_released_scierc),
    (("tokens", "relations"), of_scierc),
    (("text", "mentions", "relations"), of_agenda),
)
"""The fields that tell each form of a line, and how it is read."""


def load_triplets(path: str | Path = TRIPLETS) -> Corpus:
    """Load texts whose entities stand in relations, a text for each line of a file (perhaps packed with gzip).

    A `.jsonl` file has one of these forms, told by its fields:

    - `{"text": ..., "triplets": [{"head": ..., "relation": ..., "tail": ...}]}`: a head or tail is a string that the
      text has once, as whole words. Or it is its characters, `[from, to]` (exclusive).
    - SciERC's: `sentences` with `relations` sentence by sentence and perhaps `clusters`, as released; or `tokens` with
      `relations` of `head`, `relation`, `tail` and perhaps `entities` and `coref_clusters`. Spans are tokens, the last
      one included. Entities of one cluster are one entity.
    - AGENDA's, with `text`, `relations` (numbers of entities) and `mentions`, `[entity, from, to]`.

    A `.tsv` file is AGENDA's own, as GraphWriter has it, without a header: title, entities, types, relations, the text
    with `<method_0>` for entities. Where an entity has several mentions, a triplet takes the two nearest ones.

    The seven relations are named `Used-for`, `Feature-of`, `Hyponym-of`, `Part-of`, `Compare`, `Evaluate-for` and
    `Conjunction`, however they are written; others keep their names.

    Args:
        path: `triplets` (built in: texts of ours with the seven relations), or a file.

    Left out and counted: entities that their text does not mention, heads and tails of the same words, and triplets
    that a text has twice.

    Raises:
        InputError: no such file, or no triplet in it. A line of no known form, a number of no entity or relation, or a
            span outside of the text. It names the line.
    """
    left_out: Counter[str] = Counter()
    with corpus_file(path, {TRIPLETS: "triplets.jsonl"}) as (name, file):
        texts = [text for text in _texts(file, left_out) if text.triplets]
    if not texts:
        reasons = f" ({', '.join(left_out)})" if left_out else ""
        raise InputError(f"data {shown(name)} has no triplet to use{reasons}: give texts with relations")
    return Corpus(name, tuple(texts), counted((), left_out))


def _texts(file: Path, left_out: Counter[str]) -> Iterator[RelationText]:
    if kind_of(file) == ".tsv":
        for number, line in enumerate(read_text(file).split("\n"), start=1):
            if line.strip():
                yield of_agenda_row(line.rstrip("\r").split("\t"), f"file {str(file)!r}, line {number}", left_out)
    elif kind_of(file) == ".jsonl":
        for number, row in json_objects(file):
            where = f"file {str(file)!r}, line {number}"
            yield _form(row, where)(row, where, left_out)
    else:
        raise InputError(f"file {str(file)!r} is neither .jsonl nor .tsv by its name: name it by what it holds")


def _form(row: Mapping[str, Any], where: str) -> Form:
    for fields, form in FORMS:
        if all(field in row for field in fields):
            return form
    raise InputError(
        f"{where} has the fields {', '.join(map(shown, list(row)[:8])) or 'none'}, no known form: give 'text' and "
        "'triplets', or SciERC's or AGENDA's fields"
    )
