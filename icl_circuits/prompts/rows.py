"""Data sets as rows of (text, label): the built-in words, a CSV or JSONL file, or the Hub."""

import importlib.resources
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas as pd

from icl_circuits.errors import InputError
from icl_circuits.prompts.cells import class_of, text_of
from icl_circuits.stats import generator

WORD_CATEGORIES = "word-categories"
HUB_PREFIX = "hf:"


class Row(NamedTuple):
    """One text and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True)
class Rows:
    """A labelled data set: its rows, at least two classes, and the name it was loaded by."""

    name: str
    rows: tuple[Row, ...]

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


@runtime_checkable
class HubDataset(Protocol):
    """A `datasets.Dataset` that you have, known by what it can do."""

    features: Any
    """What each column holds; class numbers come with their names."""

    def to_pandas(self) -> Any:
        """The rows as a data frame."""
        ...


Data = str | Path | pd.DataFrame | HubDataset | Sequence[Mapping[str, Any]]
"""The name of a data set, or one in memory: a data frame, a list of dicts, or a `datasets.Dataset`."""


def load_rows(data: Data, *, text_column: str = "text", label_column: str = "label") -> Rows:
    """Load a data set for classification in context.

    Args:
        data: `word-categories` (built in: 14 categories of 40 common words), the path of a `.csv` or `.jsonl` file, or
            `hf:NAME` for a Hub data set's train split (needs the `data` extra); or a data frame, a list of dicts, or a
            `datasets.Dataset` in memory.
        text_column: the column with the text to classify.
        label_column: the column with the class: a name, a number, or true and false. `1` and `1.0` are one class.

    Raises:
        InputError: no such data set or column, a column that stands there twice, an empty text or label or one of
            another kind, no rows, or a single class. Rows are counted from 0.
    """
    name, frame = (str(data), _read_frame(str(data))) if isinstance(data, str | Path) else _in_memory(data)
    if not len(frame):
        raise InputError(f"data {name!r} has no rows: give some")
    for column in (text_column, label_column):
        found = list(frame.columns).count(column)
        if found != 1:
            problem = f"{found} columns" if found else "no column"
            raise InputError(f"data {name!r} has {problem} {column!r}: its columns are {', '.join(map(str, frame))}")
    rows: list[Row] = []
    for number, (text, label) in enumerate(zip(frame[text_column], frame[label_column], strict=True)):
        where = f"data {name!r}, row {number} (from 0)"
        row = Row(text_of(text, f"{where}, {text_column}").strip(), class_of(label, f"{where}, {label_column}"))
        if not row.text or not row.label:
            empty = label_column if row.text else text_column
            raise InputError(f"{where}: empty {empty}: fill it in, or leave the row out")
        rows.append(row)
    classes = sorted({row.label for row in rows})
    if len(classes) < 2:
        raise InputError(f"data {name!r} has one class only ({classes[0]!r}): learning in context needs at least two")
    return Rows(name, tuple(rows))


def _read_frame(name: str) -> pd.DataFrame:
    if name == WORD_CATEGORIES:
        with importlib.resources.files(__package__).joinpath("word_categories.csv").open(encoding="utf-8") as handle:
            return pd.read_csv(handle)
    if name.startswith(HUB_PREFIX):
        return _read_hub(name.removeprefix(HUB_PREFIX))
    path = Path(name).expanduser()
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(
            f"data {name!r} is unknown: give {WORD_CATEGORIES!r}, a .csv or .jsonl file, or {HUB_PREFIX}NAME (the Hub)"
        )
    if not path.is_file():
        raise InputError(f"data file {name!r} does not exist")
    try:
        if path.suffix.lower() == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON strings may hold other line separators
        return pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
    except (ValueError, OSError) as error:  # the errors of pandas' parser, json and UTF-8 decoding are ValueErrors
        raise InputError(f"data file {name!r} cannot be read as {path.suffix[1:].upper()}: {error}") from error


def _in_memory(data: Any) -> tuple[str, pd.DataFrame]:
    """What a data set in memory is called, and its rows."""
    kind = type(data).__name__
    if isinstance(data, pd.DataFrame):
        frame = data
    elif isinstance(data, HubDataset):
        frame = _named_classes(data)
    elif isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        frame = pd.DataFrame(list(data), dtype=object)
    else:
        raise InputError(f"data is a {kind}: give a name or path, a data frame, a list of dicts, or a datasets.Dataset")
    return f"{kind} of {len(frame)} rows", frame


def _named_classes(dataset: HubDataset) -> pd.DataFrame:
    """The rows of a `datasets.Dataset`, its class numbers as names."""
    from datasets import ClassLabel

    frame: pd.DataFrame = dataset.to_pandas()
    for column, feature in dataset.features.items():
        if isinstance(feature, ClassLabel):
            names = dict(enumerate(feature.names))
            frame[column] = [names.get(value) for value in frame[column]]  # -1 stands for no label
    return frame


def _read_hub(name: str) -> pd.DataFrame:
    if importlib.util.find_spec("datasets") is None:
        raise InputError(f"data 'hf:{name}' needs the datasets package: run `pip install 'icl_circuits[data]'`")
    from datasets import load_dataset

    try:
        dataset = load_dataset(name, split="train")
    except Exception as error:  # the Hub client raises many kinds
        raise InputError(
            f"data 'hf:{name}' cannot be loaded from the Hub ({type(error).__name__}): check the name and the network"
        ) from error
    return _named_classes(dataset)
