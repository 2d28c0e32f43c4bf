"""Prompts of a task as tokens, `apple, January: 0` an example, and which tokens answer."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.levels.task import LevelTask
from icl_circuits.models import LensModel, device_of
from icl_circuits.prompts import (
    Prompt,
    TokenBatch,
    bos_of,
    require_characters,
    require_known,
    require_offsets,
    shown,
    tell_apart,
    token_batch,
    tokenized,
)

NEW_LINE = "\n"
"""Between examples; the paper does not say."""


@dataclass(frozen=True)
class LabelTokens:
    """The tokens of a task's labels behind `: `."""

    words: tuple[tuple[int, ...], ...]
    """All tokens of each label; a space may be a token of its own."""
    shared: tuple[int, ...]
    """Those that all labels begin with. They join the prompt."""
    following: tuple[int, ...]
    """The next one of each label, which tells it apart. It is predicted at a prompt's last position."""


def level_batch(model: LensModel, prompts: Sequence[Prompt], *, separator: str = NEW_LINE) -> TokenBatch:
    r"""Tokenise prompts as `<text>: <label>\n` a demonstration, then `<query>:` (arXiv 2402.13055, table 1).

    Labels are told apart by the first token in which they differ. The tokens that all begin with join the prompt behind
    the final `:`: a space that is a token of its own, say. So `last` predicts the token that tells.

    Args:
        model: gives the tokenizer, the context length and the device.
        prompts: as `level_prompts` makes them, all with the same labels.
        separator: between examples.

    Raises:
        InputError: no prompts, or prompts of other labels; labels that no token tells apart; a label that is other
            tokens in a prompt than elsewhere; a word that the tokenizer has no token for; a prompt longer than the
            model's context.
    """
    kinds = {prompt.labels for prompt in prompts}
    if len(kinds) != 1:
        raise InputError(f"prompts have {len(kinds)} sets of labels: give one or more prompts of one task")
    bos, told = bos_of(model, None), label_tokens(model, *kinds, separator=separator)
    texts, rows = [], []
    for prompt in prompts:
        text, tokens = _written(model, prompt, told, separator)
        rows.append([*bos, *tokens, *told.shared])
        texts.append(text)
        if len(rows[-1]) > model.cfg.n_ctx:
            raise InputError(
                f"{prompt.origin}: {len(prompt.demos)} shots make {len(rows[-1])} tokens, but "
                f"{model.cfg.model_name!r} reads at most {model.cfg.n_ctx}: ask for fewer shots"
            )
    batch = token_batch(model, rows, [told.following[prompt.gold] for prompt in prompts])
    return replace(batch, texts=tuple(texts))


def label_tokens(model: LensModel, labels: Sequence[str], *, separator: str = NEW_LINE) -> LabelTokens:
    """The tokens of labels where they stand behind a text, and what tells them apart.

    Raises:
        InputError: no separator, or one that is a label; a label without tokens of its own, or that no token tells from
            another; a model without tokenizer, or one that does not say which characters its tokens are of.
    """
    if not isinstance(separator, str) or not separator or separator.strip() in labels:
        raise InputError(f"separator {shown(separator)}: give text that is no label, such as a new line")
    bos_of(model, None)  # raises where there is no tokenizer
    require_offsets(model.tokenizer)
    words = [_label_word(model, label, separator) for label in labels]
    apart = tell_apart(words, [f"label {label!r}" for label in labels], about="labels")
    for label, token in zip(labels, apart.following, strict=True):
        if not reading(model, token):
            raise InputError(
                f"label {label!r} begins with a space that is a token of its own, and others do not, so no one token "
                "tells them apart: use labels of one kind, all words or all numbers"
            )
    return LabelTokens(tuple(map(tuple, words)), tuple(apart.shared), tuple(apart.following))


def reading(model: LensModel, token: int) -> str:
    """A token as text, without the spaces around it."""
    return str(model.tokenizer.decode([token])).strip()


def vocabulary(model: LensModel) -> list[str]:
    """Every token's reading. Takes part of a second, so ask once."""
    return [reading(model, token) for token in range(min(len(model.tokenizer), model.cfg.d_vocab))]


def format_tokens(
    model: LensModel, task: LevelTask, readings: Sequence[str], *, separator: str = NEW_LINE
) -> Bool[Tensor, " d_vocab"]:
    """Which next tokens keep to the format of a task (arXiv 2402.13055, section 5).

    Numbers: tokens of decimal digits alone. Labels: those that read as a whole label. In both, spaces around do not
    count. The tokens that tell the labels apart always belong to them.

    Args:
        model: the model.
        task: the task.
        readings: as `vocabulary` gives them.
        separator: between examples.
    """
    keeps = torch.zeros(model.cfg.d_vocab, dtype=torch.bool)
    for token, text in enumerate(readings):
        keeps[token] = text.isdecimal() if task.format == "number" else text in task.labels
    keeps[list(label_tokens(model, task.labels, separator=separator).following)] = True
    return keeps.to(device_of(model))


def _label_word(model: LensModel, label: str, separator: str) -> list[int]:
    require_characters(label + separator, f"label {label!r}, separator {separator!r}")
    text = f"x: {label}{separator}x"
    tokens, offsets = tokenized(model.tokenizer, text)
    places = _label_places(offsets, 3, 3 + len(label))
    word = [tokens[i] for i in places]
    if not places or offsets[places[0]][0] < 2 or model.tokenizer.unk_token_id in word:
        raise InputError(
            f"label {label!r} has no tokens of its own for this tokenizer in {text!r}: choose another label or "
            "separator"
        )
    return word


def _written(model: LensModel, prompt: Prompt, told: LabelTokens, separator: str) -> tuple[str, list[int]]:
    """One prompt as text and tokens, up to the final `:`."""
    text, starts = "", []
    for demo in prompt.demos:
        text += f"{demo.text}: "
        starts.append(len(text))
        text += f"{prompt.labels[demo.label]}{separator}"
    text += f"{prompt.query}:"
    require_characters(text, prompt.origin)
    tokens, offsets = tokenized(model.tokenizer, text)
    require_known(model.tokenizer, text, tokens, offsets, prompt.origin)
    for demo, start in zip(prompt.demos, starts, strict=True):
        label = prompt.labels[demo.label]
        found = tuple(tokens[i] for i in _label_places(offsets, start, start + len(label)))
        if found != told.words[demo.label]:
            raise InputError(
                f"{prompt.origin}: in {text[max(0, start - 20) : start + len(label) + 5]!r} the label {label!r} is not "
                "the tokens it is elsewhere: choose another label or separator"
            )
    return text, tokens


def _label_places(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> list[int]:
    """The tokens of the label whose characters are `start` to `stop`, the space before it included."""
    first = bisect_right(offsets, start - 1, key=lambda span: span[1])
    last = bisect_right(offsets, stop - 1, key=lambda span: span[0])
    return list(range(first, last))
