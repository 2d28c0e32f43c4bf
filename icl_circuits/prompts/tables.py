"""Tables of texts as people give them: a built-in one, a CSV or JSONL file, the Hub, or one in memory."""

import importlib.resources
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from icl_circuits.errors import InputError
from icl_circuits.prompts.cells import frame_of, kind, named, shown
from icl_circuits.prompts.files import kind_of, path_of, read_csv, read_jsonl
from icl_circuits.prompts.hub import HUB_PREFIX, HubDataset, named_classes, read_hub

Data = str | Path | pd.DataFrame | HubDataset | Sequence[Mapping[str, Any]]
"""The name of a data set, or one in memory: a data frame, a list of dicts, or a `datasets.Dataset`."""


def read_table(
    data: Data, built_in: Mapping[str, str], encoding: str | None, delimiter: str | None
) -> tuple[str, pd.DataFrame]:
    """What a data set is called, and its rows.

    Args:
        data: a name, a path, or a table in memory.
        built_in: the file of this package behind each name.
        encoding: of a file.
        delimiter: of a CSV file.

    Raises:
        InputError: no such data set, a file that cannot be read, or a data set without rows.
    """
    name, frame = _read(data, built_in, encoding, delimiter)
    if not len(frame):
        raise InputError(f"data {name!r} has no rows: give some")
    return name, frame


def require_three(columns: Mapping[str, object]) -> None:
    """Raise `InputError` where two of three arguments, by their names, name one column."""
    if any(one == other for one, other in combinations(columns.values(), 2)):
        given = shown(list(columns.values()))
        raise InputError(f"{' and '.join(columns)} are {given}: name three columns")


def require_column(name: str, frame: pd.DataFrame, column: str, argument: str | None = None) -> None:
    """Raise `InputError` unless the data set has a column of that name, once; `argument` would name another."""
    found = list(frame.columns).count(column)
    if found != 1:
        problem = f"{found} columns" if found else "no column"
        fix = f"; name the right one with {argument}" if argument else ""
        raise InputError(f"data {name!r} has {problem} {shown(column)}: its columns are {named(frame)}{fix}")


def cells_of(
    name: str, frame: pd.DataFrame, columns: Sequence[tuple[str, str | None, Callable[[object, str], str]]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Row by row, where it is (rows are counted from 0) and its cells as text, none of them empty.

    Args:
        name: what the data set is called.
        frame: its rows.
        columns: the columns to read, each with the argument that names it, if any, and with what makes text of a cell,
            given also where that is.

    Raises:
        InputError: no such column, one that stands there twice, or an empty or unreadable cell.
    """
    for column, argument, _ in columns:
        require_column(name, frame, column, argument)
    named_columns = [(named([column]), read) for column, _, read in columns]
    for number, row in enumerate(zip(*(frame[column] for column, *_ in columns), strict=True)):
        where = f"data {name!r}, row {number} (from 0)"
        cells = tuple(read(cell, f"{where}, {column}") for cell, (column, read) in zip(row, named_columns, strict=True))
        for (column, _), cell in zip(named_columns, cells, strict=True):
            if not cell:
                raise InputError(f"{where}: empty {column}: fill it in, or leave the row out")
        yield where, cells


def _read(
    data: Data, built_in: Mapping[str, str], encoding: str | None, delimiter: str | None
) -> tuple[str, pd.DataFrame]:
    if isinstance(data, str) and "://" in data:
        raise InputError(f"data {data!r} is a web address: download it, and give the file")
    if isinstance(data, str | Path) and not str(data).startswith(HUB_PREFIX):
        path = path_of(data)
        if kind_of(path) == ".jsonl" and delimiter is None:
            return str(data), read_jsonl(path, encoding)
        if kind_of(path) in (".csv", ".tsv"):
            return str(data), read_csv(path, encoding, delimiter)
    if encoding is not None or delimiter is not None:
        raise InputError("only files have an encoding, and only CSV files a delimiter: leave them out")
    return (str(data), _named(str(data), built_in)) if isinstance(data, str | Path) else _in_memory(data)


def _named(name: str, built_in: Mapping[str, str]) -> pd.DataFrame:
    if name in built_in:
        with importlib.resources.as_file(importlib.resources.files(__package__) / built_in[name]) as words:
            return read_csv(words, None, None)
    if name.startswith(HUB_PREFIX):
        return read_hub(name.removeprefix(HUB_PREFIX))
    if name and path_of(name).is_dir():
        raise InputError(
            f"data {name!r} is a folder: name a file in it, or {HUB_PREFIX}{name} if it is laid out as a Hub data set"
        )
    raise InputError(
        f"data {name!r} is unknown: give {' or '.join(map(repr, built_in))}, a .csv, .tsv or .jsonl file, or "
        f"{HUB_PREFIX}NAME (of the Hub, or a folder laid out as there)"
    )


def _in_memory(data: Any) -> tuple[str, pd.DataFrame]:
    """What a data set in memory is called, and its rows."""
    if isinstance(data, pd.DataFrame):
        frame = data
    elif isinstance(data, HubDataset):
        frame = named_classes(data)
    elif isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        frame = frame_of(data)
    else:
        raise InputError(
            f"data is {kind(data)}: give a name or path, a data frame, a list of dicts, or a datasets.Dataset"
        )
    return f"{type(data).__name__} of {len(frame)} rows", frame
