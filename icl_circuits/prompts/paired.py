"""Prompts as plain strings or tokens with their answers, alone or in pairs of clean and corrupted ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from icl_circuits.errors import InputError
from icl_circuits.models import TextModel, device_of
from icl_circuits.prompts.apart import Apart, tell_apart
from icl_circuits.prompts.batch import bos_of, ids_of, require_context, require_known_words, require_vocabulary
from icl_circuits.prompts.cells import is_missing, is_whole, kind, named, plain, shown
from icl_circuits.prompts.files import path_of, read_csv
from icl_circuits.prompts.given import AnswerWords, Prompts, Texts, answers_of, listed, prompts_of
from icl_circuits.prompts.tokens import TokenBatch, padded

COLUMNS = {"clean": "clean", "corrupted": "corrupted", "answers": "correct", "foils": "incorrect"}
"""Columns of the field's circuit benchmarks (EAP-IG, MIB)."""
IDS = "_idx"
"""Columns whose names end so hold vocabulary ids."""


class Pairs(NamedTuple):
    """The clean and the corrupted prompts, row by row partners, with the same answers and foils."""

    clean: TokenBatch
    corrupted: TokenBatch


def pairs(
    model: TextModel,
    data: str | Path | pd.DataFrame | None = None,
    *,
    clean: Texts | str | None = None,
    corrupted: Texts | str | None = None,
    answers: AnswerWords | str | None = None,
    foils: AnswerWords | str | None = None,
    prepend_bos: bool | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Pairs:
    """Clean and corrupted prompts as two batches, row by row partners: IOI, greater-than, facts.

    `icl.pairs(model, clean=[...], corrupted=[...], answers=[...], foils=[...])` takes the prompts themselves;
    `icl.pairs(model, "ioi.csv")` takes them from a table, in which the other arguments name columns.

    Prompts and partners may differ in length. What is patched at their last positions works all the same. What is
    patched position by position says which prompts differ.

    Args:
        model: any TransformerLens model. Strings need its tokenizer; tokens need none.
        data: a CSV file or a data frame.
        clean: the clean prompts, or their column; default `clean`. The rows of a tensor count as equally long, without
            padding; where lengths differ, give a list of ids for each prompt.
        corrupted: a partner for each, or their column; default `corrupted`.
        answers: the right answer to each clean prompt, or their column; default `correct`, else `correct_idx`.
        foils: the wrong answer, or their column; default `incorrect`, else `incorrect_idx`, else none. `logit_diff`
            needs them.
        prepend_bos: default: as the model's own tokenizer does; a model of yours follows its
            `cfg.default_prepend_bos`. Tokens are taken as they are.
        encoding: of a file, as for `load_rows`.
        delimiter: of a file, as for `load_rows`.

    Raises:
        InputError: a missing file or column, a column that stands there twice, other numbers of prompts, partners,
            answers and foils, and what `token_batch` raises. Rows are counted from 0.
    """
    given: dict[str, Any] = {"clean": clean, "corrupted": corrupted, "answers": answers, "foils": foils}
    if data is not None:
        given = _from_table(_read_table(data, encoding, delimiter), given)
    for name in ("clean", "corrupted", "answers"):
        if given[name] is None or isinstance(given[name], str):
            raise InputError(f"pairs need {name}: give a list of them, or a file or data frame as data")
    columns = {name: listed(values, name) for name, values in given.items() if values is not None}
    if len({len(values) for values in columns.values()}) > 1 or not columns["clean"]:
        sizes = ", ".join(f"{len(values)} {name}" for name, values in columns.items())
        raise InputError(f"pairs need one of each for every prompt, but there are {sizes}: give as many of each")
    texts, partners = prompts_of(columns["clean"], "prompt"), prompts_of(columns["corrupted"], "corrupted prompt")
    told = _told_apart(model, texts, columns["answers"], columns.get("foils"))
    return Pairs(
        _batch(model, texts, told, "prompt", prepend_bos),
        _batch(model, partners, told, "corrupted prompt", prepend_bos),
    )


def token_batch(
    model: TextModel,
    texts: Texts,
    answers: AnswerWords,
    foils: AnswerWords | None = None,
    *,
    prepend_bos: bool | None = None,
) -> TokenBatch:
    """Prompts with their answers, as a batch that sweeps, paths, attribution and metrics take.

    The last position predicts one token of an answer: the first in which it and its foil differ. Without a foil it is
    the first that is not space alone. The tokens before that one join the prompt.

    Args:
        model: any TransformerLens model. Strings need its tokenizer; tokens need none.
        texts: the prompts, as strings or as tokens. The rows of a tensor count as equally long, without padding; where
            lengths differ, give a list of ids for each prompt.
        answers: the right answer to each, as it follows the prompt (` Paris`, with its space), or a vocabulary id.
        foils: the wrong answer that `logit_diff` compares it with.
        prepend_bos: default: as the model's own tokenizer does; a model of yours follows its
            `cfg.default_prepend_bos`. Tokens are taken as they are.

    Raises:
        InputError: no prompts, an empty one or one too long. A row that is missing or neither text nor whole numbers.
            Another number of answers, an empty answer, an id out of the vocabulary, or an answer that no token tells
            from its foil. Strings for a model without tokenizer. Rows are counted from 0.
    """
    prompts = prompts_of(texts, "prompt")
    return _batch(model, prompts, _told_apart(model, prompts, answers, foils), "prompt", prepend_bos)


def _told_apart(model: TextModel, texts: Prompts, answers: object, foils: object) -> list[Apart]:
    """Where each right answer and its foil, if any, differ behind their prompt."""
    right = _answer_tokens(model, texts, answers, "answer")
    if foils is None:
        return [_behind_spaces(model, tokens) for _, tokens in right]
    both = zip(right, _answer_tokens(model, texts, foils, "foil"), strict=True)
    return [tell_apart([ours, theirs], [name, other]) for (name, ours), (other, theirs) in both]


def _behind_spaces(model: TextModel, tokens: list[int]) -> Apart:
    """An answer alone: tokens that are nothing but space join the prompt, and the next is predicted."""
    first = next((i for i, token in enumerate(tokens[:-1]) if _decoded(model, [token]).strip()), len(tokens) - 1)
    return Apart(tokens[:first], [tokens[first]])


def _answer_tokens(model: TextModel, texts: Prompts, answers: object, what: str) -> list[tuple[str, list[int]]]:
    """Each answer's name and tokens: of a word, as it follows its prompt, or alone where they would run together."""
    found = []
    for row, (text, answer) in enumerate(zip(texts, answers_of(answers, what, len(texts)), strict=True)):
        if isinstance(answer, int):
            tokens = [answer]
        else:
            before = ids_of(model, text) if isinstance(text, str) else []
            together = ids_of(model, text + answer) if isinstance(text, str) else []
            apart = together[: len(before)] == before and len(together) > len(before)
            tokens = together[len(before) :] if apart else ids_of(model, answer)
            require_known_words(model, answer, f"{what} {row}")
        _require_tokens(model, tokens, f"{what} {row}")
        found.append((f"{what} {row} ({shown(answer)})", tokens))
    return found


def _batch(model: TextModel, texts: Prompts, apart: list[Apart], what: str, prepend_bos: bool | None) -> TokenBatch:
    """Prompts as a batch, each with what its answers share behind it."""
    bos = bos_of(model, prepend_bos) if isinstance(texts[0], str) else []
    alone = [bos + (ids_of(model, text) if isinstance(text, str) else text) for text in texts]
    for row, (text, ids) in enumerate(zip(texts, alone, strict=True)):
        if isinstance(text, str):
            require_known_words(model, text, f"{what} {row}")
        _require_tokens(model, ids, f"{what} {row}")
    rows = [ids + told.shared for ids, told in zip(alone, apart, strict=True)]
    require_context(model, rows, what)
    tokens, last = padded(rows, device_of(model))
    following = torch.tensor([told.following for told in apart], device=tokens.device)
    return TokenBatch(
        tokens=tokens,
        last=last,
        target=following[:, 0],
        foil=following[:, 1] if following.shape[1] > 1 else None,
        texts=tuple(text if isinstance(text, str) else _decoded(model, text) for text in texts),
    )


def _decoded(model: TextModel, tokens: list[int]) -> str:
    return "" if model.tokenizer is None else str(model.tokenizer.decode(tokens))


def _require_tokens(model: TextModel, ids: Sequence[int], where: str) -> None:
    """Raise `InputError` for a token that the model does not have, or for none at all."""
    if not ids:
        raise InputError(f"{where} has no token for this tokenizer: give other words")
    require_vocabulary(model, ids, where)


def _read_table(data: str | Path | pd.DataFrame, encoding: str | None, delimiter: str | None) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if not isinstance(data, str | Path):
        raise InputError(f"pairs data is {kind(data)}: give a CSV file or a data frame, or name the columns")
    return read_csv(path_of(data), encoding, delimiter)


def _from_table(table: pd.DataFrame, given: dict[str, Any]) -> dict[str, Any]:
    """The columns that are named, or of the default names."""
    found: dict[str, Any] = {}
    for name, wanted in given.items():
        if wanted is not None and not isinstance(wanted, str):
            raise InputError(f"{name}: with data given, name its column; without, give the {name} themselves")
        column = _default_column(table, name) if wanted is None else wanted
        if column in table:
            found[name] = _column(table, column, name)
        elif name == "foils" and wanted is None:
            found[name] = None
        else:
            raise InputError(f"the pairs have no column {column!r} for {name}: theirs are {named(table)}")
    return found


def _default_column(table: pd.DataFrame, name: str) -> str:
    words, ids = COLUMNS[name], COLUMNS[name] + IDS
    return ids if name in ("answers", "foils") and words not in table and ids in table else words


def _column(table: pd.DataFrame, column: str, name: str) -> list[Any]:
    """A column as words or, by its name, as vocabulary ids: a frame's numbers are what its file's are."""
    if list(table.columns).count(column) > 1:
        raise InputError(f"column {column!r} stands in the pairs twice: rename one of them")
    values = [plain(value) for value in table[column]]
    if not column.endswith(IDS):
        return [str(value) if is_whole(value) else value for value in values]
    if name not in ("answers", "foils"):
        raise InputError(f"column {column!r} holds vocabulary ids, one a row: name a column of texts for {name}")
    return [_id(value, column, row) for row, value in enumerate(values)]


def _id(value: object, column: str, row: int) -> object:
    """A cell as a vocabulary id; a missing one stays as it is."""
    if is_missing(value) or is_whole(value):
        return value
    try:
        return int(value if isinstance(value, str) or (isinstance(value, float) and value.is_integer()) else "")
    except ValueError:
        raise InputError(f"column {column!r}, row {row}: {shown(value)} is no vocabulary id, a whole number") from None
