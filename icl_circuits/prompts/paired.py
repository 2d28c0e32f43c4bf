"""Prompts as plain strings or tokens with their answers, alone or in pairs of clean and corrupted ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, device_of
from icl_circuits.prompts.batch import bos_of, require_context
from icl_circuits.prompts.tokens import TokenBatch, padded

Texts = Sequence[str] | Sequence[Sequence[int]] | Int[Tensor, "_ _"]
"""Prompts as strings, or as tokens: a tensor, or a list of ids for each prompt."""
AnswerWords = Sequence[str] | Sequence[int] | Int[Tensor, " _"]
"""An answer for each prompt: a word as it follows the prompt, its leading space included, or a vocabulary id."""
COLUMNS = {"clean": "clean", "corrupted": "corrupted", "answers": "correct", "foils": "incorrect"}
"""Columns of the field's circuit benchmarks (EAP-IG, MIB)."""
IDS = "_idx"
"""Columns whose names end so hold vocabulary ids."""


class Pairs(NamedTuple):
    """The clean and the corrupted prompts, row by row partners, with the same answers and foils."""

    clean: TokenBatch
    corrupted: TokenBatch


def pairs(
    model: LensModel,
    data: str | Path | pd.DataFrame | None = None,
    *,
    clean: Texts | str | None = None,
    corrupted: Texts | str | None = None,
    answers: AnswerWords | str | None = None,
    foils: AnswerWords | str | None = None,
    prepend_bos: bool | None = None,
) -> Pairs:
    """Clean and corrupted prompts as two batches, row by row partners: IOI, greater-than, facts.

    `icl.pairs(model, clean=[...], corrupted=[...], answers=[...], foils=[...])` takes the prompts themselves;
    `icl.pairs(model, "ioi.csv")` takes them from a table, in which the other arguments name columns.

    Prompts and partners may differ in length: what is patched at their last positions works all the same, and what is
    patched position by position says which prompts differ.

    Args:
        model: any TransformerLens model. Strings need its tokenizer; tokens need none.
        data: a CSV file or a data frame.
        clean: the clean prompts, or their column; default `clean`.
        corrupted: a partner for each, or their column; default `corrupted`.
        answers: the right answer to each clean prompt, or their column; default `correct`, else `correct_idx`.
        foils: the wrong answer, or their column; default `incorrect`, else `incorrect_idx`, else none. `logit_diff`
            needs them.
        prepend_bos: default: what the model's own tokenizer does. Tokens are taken as they are.

    Raises:
        InputError: a missing file or column, other numbers of prompts, partners, answers and foils, and what
            `token_batch` raises.
    """
    given: dict[str, Any] = {"clean": clean, "corrupted": corrupted, "answers": answers, "foils": foils}
    if data is not None:
        given = _from_table(_read_table(data), given)
    for name in ("clean", "corrupted", "answers"):
        if given[name] is None or isinstance(given[name], str):
            raise InputError(f"pairs need {name}: give a list of them, or a file or data frame as data")
    sizes = {name: len(values) for name, values in given.items() if values is not None}
    if len(set(sizes.values())) > 1 or not len(given["clean"]):
        raise InputError(f"pairs need one of each for every prompt, but there are {_counted(sizes)}")
    told = _told_apart(model, given["clean"], given["answers"], given["foils"])
    return Pairs(
        _batch(model, given["clean"], told, "prompt", prepend_bos),
        _batch(model, given["corrupted"], told, "corrupted prompt", prepend_bos),
    )


def token_batch(
    model: LensModel,
    texts: Texts,
    answers: AnswerWords,
    foils: AnswerWords | None = None,
    *,
    prepend_bos: bool | None = None,
) -> TokenBatch:
    """Prompts with their answers, as a batch that sweeps, paths, attribution and metrics take.

    An answer of several tokens is read by its first, which the last position predicts. Where it begins as its foil
    does, it is read by the first token in which they differ. The tokens before that one join the prompt.

    Args:
        model: any TransformerLens model. Strings need its tokenizer; tokens need none.
        texts: the prompts, as strings or as tokens.
        answers: the right answer to each, as it follows the prompt (` Paris`, with its space), or a vocabulary id.
        foils: the wrong answer that `logit_diff` compares it with.
        prepend_bos: default: what the model's own tokenizer does. Tokens are taken as they are.

    Raises:
        InputError: no prompts, an empty one or one too long; another number of answers; an empty answer, an id out of
            the vocabulary, or an answer that no token tells from its foil; strings for a model without tokenizer.
    """
    if not len(texts):
        raise InputError("there is no prompt: give one or more")
    return _batch(model, texts, _told_apart(model, texts, answers, foils), "prompt", prepend_bos)


@dataclass(frozen=True)
class _Told:
    """What tells each right answer from the wrong one: the tokens they share first, and the next of either."""

    shared: list[list[int]]
    target: list[int]
    foil: list[int] | None


def _told_apart(model: LensModel, texts: Texts, answers: AnswerWords, foils: AnswerWords | None) -> _Told:
    """Read the answers behind their prompts."""
    right = _answer_tokens(model, texts, answers, "answer")
    if foils is None:
        return _Told([[] for _ in right], [tokens[0] for tokens in right], None)
    shared, target, foil = [], [], []
    for row, (ours, theirs) in enumerate(zip(right, _answer_tokens(model, texts, foils, "foil"), strict=True)):
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if same is None:
            raise InputError(
                f"prompt {row}: no token tells the answer {answers[row]!r} from the foil {foils[row]!r}: choose another"
            )
        shared.append(ours[:same])
        target.append(ours[same])
        foil.append(theirs[same])
    return _Told(shared, target, foil)


def _answer_tokens(model: LensModel, texts: Texts, answers: AnswerWords, what: str) -> list[list[int]]:
    """The tokens of each answer: of a word, as it follows its prompt, or alone where they would run together."""
    if len(answers) != len(texts):
        raise InputError(f"there are {len(texts)} prompts and {len(answers)} {what}s: give each prompt one")
    found = []
    for row, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        if isinstance(answer, str):
            before = _ids(model, text) if isinstance(text, str) else []
            together = _ids(model, text + answer) if isinstance(text, str) else []
            apart = together[: len(before)] == before and len(together) > len(before)
            found.append(together[len(before) :] if apart else _ids(model, answer))
        else:
            found.append([int(answer)])
        if not found[-1]:
            raise InputError(f"prompt {row}: {what} {answer!r} is empty: give a word")
        _require_vocabulary(model, found[-1], f"{what} {row}")
    return found


def _batch(model: LensModel, texts: Texts, told: _Told, what: str, prepend_bos: bool | None) -> TokenBatch:
    """Prompts as a batch, each with what its answers share behind it."""
    if isinstance(texts[0], str):
        bos, words = bos_of(model, prepend_bos), tuple(str(text) for text in texts)
        alone = [bos + _ids(model, text) for text in words]
    else:
        alone = [[int(token) for token in row] for row in texts]
        words = tuple("" if model.tokenizer is None else str(model.tokenizer.decode(row)) for row in alone)
    for i, row in enumerate(alone):
        if not row:
            raise InputError(f"{what} {i} is empty: give it a token at least")
        _require_vocabulary(model, row, f"{what} {i}")
    rows = [row + shared for row, shared in zip(alone, told.shared, strict=True)]
    require_context(model, rows, what)
    device = device_of(model)
    tokens, last = padded(rows, device)
    foil = None if told.foil is None else torch.tensor(told.foil, device=device)
    return TokenBatch(tokens=tokens, last=last, target=torch.tensor(told.target, device=device), foil=foil, texts=words)


def _ids(model: LensModel, words: str) -> list[int]:
    if model.tokenizer is None:
        raise InputError(f"{words!r} is text, but {model.cfg.model_name!r} has no tokenizer: give token ids")
    found: list[int] = model.tokenizer(words, add_special_tokens=False).input_ids
    return found


def _require_vocabulary(model: LensModel, ids: Sequence[int], where: str) -> None:
    wrong = next((token for token in ids if not 0 <= token < model.cfg.d_vocab), None)
    if wrong is not None:
        raise InputError(f"{where}: id {wrong} is not in the vocabulary, which has ids 0..{model.cfg.d_vocab - 1}")


def _read_table(data: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    try:
        return pd.read_csv(data, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"pairs file {str(data)!r} does not exist") from None
    except (ValueError, OSError) as error:  # the errors of pandas' parser and UTF-8 decoding are ValueErrors
        raise InputError(f"pairs file {str(data)!r} cannot be read as CSV: {error}") from error


def _from_table(table: pd.DataFrame, given: dict[str, Any]) -> dict[str, Any]:
    """The columns that are named, or of the default names."""
    found: dict[str, Any] = {}
    for name, wanted in given.items():
        if wanted is not None and not isinstance(wanted, str):
            raise InputError(f"{name}: with data given, name its column; without, give the {name} themselves")
        default = COLUMNS[name] if COLUMNS[name] in table or COLUMNS[name] + IDS not in table else COLUMNS[name] + IDS
        column = default if wanted is None else wanted
        if column in table:
            values = table[column].tolist()
            found[name] = [_id(value, column, row) for row, value in enumerate(values)] if _is_ids(column) else values
        elif name == "foils" and wanted is None:
            found[name] = None
        else:
            raise InputError(f"the pairs have no column {column!r} for {name}: theirs are {', '.join(map(str, table))}")
    return found


def _is_ids(column: str) -> bool:
    return column.endswith(IDS)


def _id(value: object, column: str, row: int) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise InputError(f"column {column!r}, row {row + 1}: {value!r} is no vocabulary id, a whole number") from None


def _counted(sizes: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sizes.items())
