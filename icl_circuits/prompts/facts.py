"""Cloze facts as rows of (text, answer, type): the built-in ones, a CSV or JSONL file, or in memory."""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.prompts.cells import class_of, shown, stripped, text_of
from icl_circuits.prompts.tables import Data, cells_of, read_table, require_three

FACTS = "facts"


class Fact(NamedTuple):
    """The beginning of a sentence, the word that goes on with it, and what type of knowledge that takes."""

    text: str
    answer: str
    type: str


@dataclass(frozen=True, repr=False)
class Facts(Displayed):
    """Facts, in the order of their rows, and the name they were loaded by."""

    name: str
    facts: tuple[Fact, ...]

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.name}, {len(self.facts)} facts of {len(self.types)} types"

    def to_frame(self) -> pd.DataFrame:
        """One row a fact: `text`, `answer` and `type`."""
        return pd.DataFrame(self.facts, columns=pd.Index(Fact._fields))

    @property
    def types(self) -> tuple[str, ...]:
        """The types of knowledge, in the order in which they come."""
        return tuple(dict.fromkeys(fact.type for fact in self.facts))


def load_facts(
    data: Data = FACTS,
    *,
    text_column: str = "text",
    answer_column: str = "answer",
    type_column: str = "type",
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Facts:
    """Load facts: what a model should say next, and what type of knowledge that is.

    Args:
        data: `facts` (built in: six types of knowledge, those of arXiv 2312.12141), or whatever `load_rows` takes.
        text_column: the column with the beginnings of sentences.
        answer_column: the column with the words that go on with them, without the space before.
        type_column: the column with the types of knowledge. Without it, all facts are of one type, `fact`.
        encoding: of a file, as for `load_rows`.
        delimiter: of a file, as for `load_rows`.

    Raises:
        InputError: no such data set or column, a file that cannot be read, or a column that stands there twice. A text
            that comes with two answers, or an empty or unreadable cell. Rows are counted from 0.
    """
    columns = {"text_column": text_column, "answer_column": answer_column, "type_column": type_column}
    require_three(columns)
    name, frame = read_table(data, {FACTS: "facts.csv"}, encoding, delimiter)
    readers = [(text_column, "text_column", _beginning), (answer_column, "answer_column", stripped)]
    if type_column != "type" or type_column in list(frame.columns):
        readers.append((type_column, "type_column", class_of))
    facts: dict[str, Fact] = {}
    for where, (text, answer, *kind) in cells_of(name, frame, readers):
        fact = Fact(text, answer, kind[0] if kind else "fact")
        if facts.setdefault(fact.text, fact).answer != fact.answer:
            raise InputError(f"{where}: {shown(fact.text)} has two answers: give one row a text")
    return Facts(name, tuple(facts.values()))


def _beginning(value: object, where: str) -> str:
    """A text without the space behind it, which belongs to what goes on."""
    return text_of(value, where).rstrip()
