"""Data sets as rows of (text, label): the built-in words, a CSV or JSONL file, or the Hub."""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.prompts.cells import class_of, shown, stripped
from icl_circuits.prompts.tables import Data, cells_of, read_table
from icl_circuits.stats import generator

WORD_CATEGORIES = "word-categories"


class Row(NamedTuple):
    """One text and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True, repr=False)
class Rows(Displayed):
    """A labelled data set: its rows, at least two classes, and the name it was loaded by."""

    name: str
    rows: tuple[Row, ...]

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.name}, {len(self.rows)} rows of {len({row.label for row in self.rows})} classes"

    def to_frame(self) -> pd.DataFrame:
        """One row a text: `text` and `label`."""
        return pd.DataFrame(self.rows, columns=pd.Index(Row._fields))

    def by_class(self) -> dict[str, list[str]]:
        """The texts of every class, classes in alphabetical order, texts in the data set's order.

        A text that comes again, in its own class or another, counts for the first class it came with.
        """
        first: dict[str, str] = {}
        for row in self.rows:
            first.setdefault(row.text, row.label)
        texts: dict[str, list[str]] = {label: [] for label in sorted(set(first.values()))}
        for text, label in first.items():
            texts[label].append(text)
        return texts

    def split(self, seed: int) -> tuple["Rows", "Rows"]:
        """Two halves without a text in common, each with half of every class: one to select on, one to evaluate on."""
        rng = generator(seed)
        halves: tuple[list[Row], list[Row]] = ([], [])
        for label, texts in self.by_class().items():
            for place, i in enumerate(rng.permutation(len(texts))):
                halves[place % 2].append(Row(texts[i], label))
        return Rows(self.name, tuple(halves[0])), Rows(self.name, tuple(halves[1]))


def load_rows(
    data: Data,
    *,
    text_column: str = "text",
    label_column: str = "label",
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Rows:
    """Load a data set for classification in context.

    Args:
        data: `word-categories` (built in: 14 categories of 40 common words), or the path of a `.csv`, `.tsv` or
            `.jsonl` file (packed as `.gz` or not). `hf:NAME/CONFIG@SPLIT` is a Hub data set. It needs the `data` extra,
            its configuration may be left out, and its split is `train` by default. In memory: a data frame, a list of
            dicts, or a `datasets.Dataset`.
        text_column: the column with the text to classify.
        label_column: the column with the class: a name, a number, or true and false. `1` and `1.0` are one class.
        encoding: of a file; default what its byte order mark says, else UTF-8.
        delimiter: of a CSV file; default a comma, else the only other one its header has: a semicolon, a tab, a bar.

    Raises:
        InputError: no such data set or column, a file that cannot be read, or a column that stands there twice. A row
            that does not fit its header, an empty text or label or one of another kind, no rows, or a single class.
            Rows are counted from 0, lines of files from 1.
    """
    if text_column == label_column:
        raise InputError(f"text_column and label_column are both {shown(text_column)}: name the column of each")
    name, frame = read_table(data, {WORD_CATEGORIES: "word_categories.csv"}, encoding, delimiter)
    columns = [(text_column, "text_column", stripped), (label_column, "label_column", class_of)]
    rows = [Row(*cells) for _, cells in cells_of(name, frame, columns)]
    classes = sorted({row.label for row in rows})
    if len(classes) < 2:
        raise InputError(
            f"data {name!r} has one class only ({shown(classes[0])}): learning in context needs at least two"
        )
    return Rows(name, tuple(rows))
