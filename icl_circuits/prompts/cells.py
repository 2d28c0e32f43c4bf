"""Single values as people give them: is one missing, is one text, and how a message shows it."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from reprlib import Repr
from typing import Any, TypeGuard

import pandas as pd

from icl_circuits.errors import InputError

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def shown(value: object) -> str:
    """A value as a message shows it, never longer than about 60 characters."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python writes no number of more than 4300 digits
        return f"{type(value).__name__} of more than 4300 digits"


def named(columns: Iterable[object]) -> str:
    """Names of columns as a message lists them: 20 at most, odd ones in quotes, long ones cut."""
    names = [
        name if name and name.isprintable() and len(name) <= _SHORT.maxstring else shown(name)
        for name in map(str, columns)
    ]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def frame_of(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Rows as a table, whatever their values and names are; what a row lacks is missing."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    names = pd.Index(columns, dtype=object, tupleize_cols=False)  # pandas' own texts hold no half of a character
    return pd.DataFrame([[row.get(name) for name in columns] for row in rows], columns=names, dtype=object)


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: `None`, NaN, `pd.NA`, `pd.NaT`."""
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def plain(value: object) -> object:
    """A number out of a tensor or array as Python's own; other values as they are."""
    return value.tolist() if hasattr(value, "tolist") else value


def text_of(value: object, where: str) -> str:
    """A value as text: words, or a number as it is written; empty where it is missing.

    Raises:
        InputError: what is no text (lists, dicts, true and false, bytes, dates), or text that no tokenizer reads.
    """
    value = plain(value)
    if is_missing(value):
        return ""
    if isinstance(value, str):
        require_characters(value, where)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise InputError(f"{where}: {shown(value)} is {kind(value)}, no text: write it as text")
    return str(value)


def stripped(value: object, where: str) -> str:
    """A value as text, without spaces around it. Raises what `text_of` does."""
    return text_of(value, where).strip()


def class_of(value: object, where: str) -> str:
    """A value as the name of a class: text, true or false, or a number. `1` and `1.0` are the class `1`.

    Raises:
        InputError: whatever else.
    """
    value = plain(value)
    name = str(value) if isinstance(value, bool) else stripped(value, where)
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", name)


def require_characters(text: str, where: str) -> None:
    """Raise `InputError` where a text holds half of a surrogate pair, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {shown(text)} holds {text[error.start]!r}, half of a character (a lone surrogate): save the "
            "data again with whole characters, or leave the row out"
        ) from None


def _is_finite(value: int | float) -> bool:
    """Whether a number can be written; one too large to be a float can, up to Python's 4300 digits."""
    return abs(value) < 10**4300 if isinstance(value, int) else math.isfinite(value)


def kind(value: object) -> str:
    """A value's type as a message says it: `a list`, `an int`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
