"""Prompts and answers as people give them, row by row: words, or vocabulary ids."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Int
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.prompts.cells import is_missing, is_whole, kind, plain, require_characters, shown

Texts: TypeAlias = Sequence[str] | Sequence[Sequence[int]] | Int[Tensor, "_ _"] | np.ndarray | pd.Series
"""Prompts as strings, or as tokens: a list of ids for each prompt, or a tensor of prompts that are equally long."""
AnswerWords: TypeAlias = Sequence[str] | Sequence[int] | Int[Tensor, " _"] | np.ndarray | pd.Series
"""An answer for each prompt: a word as it follows the prompt, its leading space included, or a vocabulary id."""

Prompts: TypeAlias = list[str] | list[list[int]]


def prompts_of(values: object, what: str) -> Prompts:
    """Prompts as strings, or as lists of ids, in the order given.

    Args:
        values: what was given.
        what: what a message calls one of them.

    Raises:
        InputError: no list, an empty one, or a row that is missing, empty, of another kind than the first, or neither
            text nor whole numbers. Rows are counted from 0.
    """
    rows = [_prompt(value, f"{what} {row}") for row, value in enumerate(listed(values, f"{what}s"))]
    if not rows:
        raise InputError(f"there is no {what}: give one or more")
    for row, value in enumerate(rows):
        if isinstance(value, str) != isinstance(rows[0], str):
            raise InputError(f"{what} {row}: one of text and tokens, {what} 0 the other: give all of them alike")
    return rows  # type: ignore[return-value]  # all are alike


def answers_of(values: object, what: str, n_prompts: int) -> list[str | int]:
    """An answer for each of `n_prompts` prompts: a word, or a vocabulary id.

    Raises:
        InputError: no list, another number of them, or a row that is missing, empty, or neither.
    """
    rows = listed(values, f"{what}s")
    if len(rows) != n_prompts:
        raise InputError(f"there are {n_prompts} prompts and {len(rows)} {what}s: give each prompt one")
    return [_answer(value, f"{what} {row}") for row, value in enumerate(rows)]


def listed(values: object, what: str) -> list[Any]:
    """A list, tuple, tensor, array or column as a list; `InputError` for anything else."""
    values = plain(values)
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise InputError(f"{what}: {shown(values)} is {kind(values)}: give a list, a tensor or a column, one a prompt")
    return list(values)


def _prompt(value: object, where: str) -> str | list[int]:
    value = plain(value)
    if isinstance(value, str):
        return _word(value, where)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        if not value:
            raise InputError(f"{where} is empty: give it a token at least")
        return [_id(token, where) for token in value]
    _require_there(value, where)
    raise InputError(f"{where} is {shown(value)}: give a text, or a list of the prompt's token ids")


def _answer(value: object, where: str) -> str | int:
    value = plain(value)
    if isinstance(value, str):
        return _word(value, where)
    _require_there(value, where)
    return _id(value, where)


def _word(value: str, where: str) -> str:
    if not value:
        raise InputError(f"{where} is empty: give a text")
    require_characters(value, where)
    return value


def _id(value: object, where: str) -> int:
    value = plain(value)
    if not is_whole(value):
        raise InputError(f"{where}: {shown(value)} is neither text nor a vocabulary id, which is a whole number")
    return value


def _require_there(value: object, where: str) -> None:
    if is_missing(value):
        raise InputError(f"{where} is missing ({value}): give it, or leave out the row")
