"""Tables in files: whichever encoding and delimiter they have, with rows that fit their header."""

import csv
import gzip
import io
import json
import stat
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from icl_circuits.characters import visible
from icl_circuits.errors import InputError
from icl_circuits.prompts.cells import frame_of, kind, named

MARKS = {  # UTF-32's begins with UTF-16's
    b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
"""Byte order marks that tell an encoding other than UTF-8."""
DELIMITERS = (",", ";", "\t", "|")


def path_of(name: str | Path) -> Path:
    """A path as it was given, `~` and all. Raises `InputError` for a home folder that nobody has, and for a name that
    no disk takes.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
        return path
    except OSError as error:
        raise InputError(f"file {str(name)!r} cannot be read: {error.strerror}") from None
    except RuntimeError as error:
        raise InputError(f"file {str(name)!r} cannot be found: {error}") from None


def kind_of(path: Path) -> str:
    """What a file holds by its name, `.gz` at the end or not: `.csv`, `.tsv`, `.jsonl`, or another ending."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_csv(path: Path, encoding: str | None, delimiter: str | None) -> pd.DataFrame:
    """The rows of a CSV file, every cell text.

    Args:
        path: the file, perhaps packed with gzip.
        encoding: any that Python knows; default what its byte order mark says, else UTF-8.
        delimiter: between cells; default a tab in a `.tsv`, else a comma, else the only one that its header has of a
            semicolon, a tab and a bar.

    Raises:
        InputError: a file that cannot be read, or a row with more or fewer cells than the header, naming its line.
    """
    text = read_text(path, encoding)
    rows = _csv_rows(path, text, _delimiter(path, text, delimiter))
    header = [name.strip() for name in next(rows, (0, []))[1]]
    if not header:
        raise InputError(f"file {str(path)!r} is empty: its first line must name the columns")
    found = []
    for line, row in rows:
        if len(row) != len(header):
            cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
            raise InputError(
                f"file {str(path)!r}, line {line}: {cells}, but the header names {len(header)} columns "
                f"({named(header)}): put texts that hold the delimiter in double quotes"
            )
        found.append(row)
    return pd.DataFrame(found, columns=pd.Index(header, dtype=object), dtype=object)


def read_jsonl(path: Path, encoding: str | None) -> pd.DataFrame:
    """The rows of a file with a JSON object on each line.

    Raises:
        InputError: a file that cannot be read, or a line that holds no object, naming it.
    """
    return frame_of([row for _, row in json_objects(path, encoding)])


def json_objects(path: Path, encoding: str | None = None) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with one on each line, and their lines, counted from 1. Empty lines are left out.

    Raises:
        InputError: a file that cannot be read, or a line that holds no object, naming it.
    """
    lines = read_text(path, encoding).split("\n")  # JSON strings may hold other line separators
    return [(number, _json_object(path, number, line)) for number, line in enumerate(lines, start=1) if line.strip()]


def require_file(path: Path) -> None:
    """Raise `InputError` that says why a path is no file that can be read."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"file {str(path)!r} does not exist: check the path") from None
    except (OSError, ValueError) as error:  # a name too long, a null character, no permission, a loop of links
        raise InputError(f"file {str(path)!r} cannot be read: {_reason(error)}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{str(path)!r} is a folder: name a file in it")
    if not stat.S_ISREG(mode):
        raise InputError(f"{str(path)!r} is a pipe or a device: save the data as a file first")


def read_text(path: Path, encoding: str | None = None) -> str:
    """A file's text, unpacked, without its byte order mark.

    Args:
        path: the file, perhaps packed with gzip.
        encoding: any that Python knows; default what its byte order mark says, else UTF-8.

    Raises:
        InputError: a file that cannot be read, is not of that encoding, or is no text.
    """
    require_file(path)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"file {str(path)!r} cannot be read: {_reason(error)}") from None
    found = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that `unicode_escape` does not know
            text = data.decode(found if encoding is None else encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"file {str(path)!r}, line {line}: byte 0x{data[error.start]:02x} is not {encoding or found}: save the "
            "file as UTF-8, or give its encoding (latin-1, cp1252, utf-16)"
        ) from None
    except (LookupError, ValueError, TypeError):
        raise InputError(
            f"encoding {encoding!r} is unknown: use utf-8, utf-16, latin-1 or another of Python's"
        ) from None
    if "\0" in text:
        raise InputError(
            f"file {str(path)!r} holds null characters, so it is no text in {encoding or found}: give its encoding "
            "(utf-16, say), or save it as CSV or JSONL"
        )
    return text.removeprefix("\ufeff")


def _delimiter(path: Path, text: str, given: str | None) -> str:
    if given is not None:
        if not isinstance(given, str) or len(given) != 1 or given in '"\r\n':
            raise InputError(f"delimiter {given!r}: give one character, such as a comma, a semicolon or a tab")
        return given
    if kind_of(path) == ".tsv":
        return "\t"
    header = next(iter(text.split("\n")))
    found = [delimiter for delimiter in DELIMITERS if delimiter in header]
    return found[0] if found and (found[0] == "," or len(found) == 1) else ","


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row's last line, from 1, and its cells; empty lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise InputError(
            f"file {str(path)!r}, line {reader.line_num}: cannot be read as CSV ({visible(str(error))}): put texts "
            'with quotes in double quotes, and write each quote in them twice ("")'
        ) from None


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    where = f"file {str(path)!r}, line {number}"
    try:
        found = json.loads(line, object_pairs_hook=_with_each_name_once)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply: write an object with a text and a class") from None
    except ValueError as error:
        raise InputError(f"{where} cannot be read as JSON ({error}): write one object a line") from None
    if not isinstance(found, dict):
        held = "null" if found is None else kind(found)
        raise InputError(f"{where} holds {held}, no object: write each row as {{...}} on a line of its own")
    return found


def _with_each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
