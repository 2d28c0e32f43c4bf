"""Prompts as tokens: exact label positions, right padding, and the position where the answer is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, Unfit
from icl_circuits.models import LensModel, device_of, model_card
from icl_circuits.prompts.cells import shown
from icl_circuits.prompts.prompt import Prompt
from icl_circuits.prompts.tokens import TokenBatch, padded

DEFAULT_SEPARATOR = " "


@dataclass(frozen=True, kw_only=True)
class PromptBatch(TokenBatch):
    """Prompts of demonstrations and a query: `last` holds the final `:`, the target is the right label's token."""

    label_positions: Int[Tensor, "batch demo"]
    """Position of each demonstration's label token."""
    demo_labels: Int[Tensor, "batch demo"]
    """Index of each demonstration's label word."""
    gold: Int[Tensor, " batch"]
    """Index of the right label word."""
    label_tokens: Int[Tensor, " label"]
    """Vocabulary id of each label word in its place after a `:`."""
    prompts: tuple[Prompt, ...]
    separator: str
    n_prepended: int
    """How many positions before the text hold a BOS token: 0 or 1."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label words."""
        return self.prompts[0].labels

    @property
    def n_demos(self) -> int:
        """How many demonstrations each prompt has."""
        return self.label_positions.shape[1]

    @property
    def answer_tokens(self) -> Int[Tensor, " label"]:
        """The label words' tokens."""
        return self.label_tokens

    def margin(self, logits: Float[Tensor, "*rows batch label"]) -> Float[Tensor, "*rows batch"]:
        """Each prompt's logit of the right label less that of the best other label, from the labels' logits."""
        gold = self.gold.expand(logits.shape[:-1])[..., None]
        return logits.gather(-1, gold)[..., 0] - logits.scatter(-1, gold, float("-inf")).amax(-1)

    @property
    def segments(self) -> Int[Tensor, "batch pos"]:
        """Which demonstration each position belongs to, its label included; the query, its `:` included, comes after
        the last one; -1 before the text and after it.
        """
        position = torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens).contiguous()
        segment = torch.searchsorted(self.label_positions, position)
        return segment.masked_fill((position < self.n_prepended) | ~self.is_text, -1)

    def _of_rows(self, rows: list[int]) -> dict[str, Any]:
        return super()._of_rows(rows) | {
            "label_positions": self.label_positions[rows],
            "demo_labels": self.demo_labels[rows],
            "gold": self.gold[rows],
            "prompts": tuple(self.prompts[row] for row in rows),
        }


def label_positions_of(batch: TokenBatch) -> Int[Tensor, "batch demo"]:
    """The label positions of prompts with demonstrations; none, `[batch 0]`, of others."""
    return batch.label_positions if isinstance(batch, PromptBatch) else batch.last.new_zeros(len(batch), 0)


def encode(
    model: LensModel,
    prompts: Sequence[Prompt],
    *,
    separator: str = DEFAULT_SEPARATOR,
    prepend_bos: bool | None = None,
) -> PromptBatch:
    """Tokenise prompts in the paper's template `<text> : <label>`, units joined by `separator`.

    Args:
        model: gives the tokenizer, the context length and the device.
        prompts: all with the same label words and the same number of demonstrations.
        separator: between units; the paper uses a single space.
        prepend_bos: default: as the model's own tokenizer does (Llama: yes, GPT-2: no); a model of yours follows its
            `cfg.default_prepend_bos`.

    Raises:
        InputError: labels whose first tokens coincide; a label of several tokens; a prompt longer than the context;
            prompts that cannot stand in one batch. Label positions come from the tokenizer's character offsets, never
            from a search for the string.
    """
    if not prompts:
        raise InputError("no prompts to encode")
    labels = prompts[0].labels
    n_demos = len(prompts[0].demos)
    for i, prompt in enumerate(prompts):
        if prompt.labels != labels or len(prompt.demos) != n_demos:
            raise InputError(
                f"prompt {i} has labels {prompt.labels} and {len(prompt.demos)} demonstrations, prompt 0 has "
                f"{labels} and {n_demos}: encode them apart"
            )
    bos, tokenizer = bos_of(model, prepend_bos), model.tokenizer
    label_tokens = _label_tokens(tokenizer, labels, separator)
    rows = [_encode_one(tokenizer, bos, prompt, separator, label_tokens, i) for i, prompt in enumerate(prompts)]
    require_context(model, [row.tokens for row in rows], "prompt")
    tokens, last = padded([row.tokens for row in rows], device_of(model))

    def integers(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=tokens.device)

    gold, labelled = integers([prompt.gold for prompt in prompts]), integers(label_tokens)
    return PromptBatch(
        tokens=tokens,
        last=last,
        label_positions=integers([row.label_positions for row in rows]).reshape(len(rows), n_demos),
        demo_labels=integers([[demo.label for demo in p.demos] for p in prompts]).reshape(len(rows), n_demos),
        gold=gold,
        label_tokens=labelled,
        target=labelled[gold],
        prompts=tuple(prompts),
        texts=tuple(row.text for row in rows),
        separator=separator,
        n_prepended=len(bos),
    )


def require_labels(batch: TokenBatch, purpose: str) -> None:
    """Raise `InputError` for prompts that `encode` did not make: `purpose` says what label words are needed for."""
    if not isinstance(batch, PromptBatch):
        raise InputError(
            f"a {type(batch).__name__} has no demonstrations and label words {purpose}: give a PromptBatch, which "
            "encode(model, prompts) makes"
        )


def require_demonstrations(batch: TokenBatch, purpose: str) -> None:
    """Raise `Unfit` where prompts are zero-shot, and `InputError` where `encode` did not make them.

    Args:
        batch: the prompts.
        purpose: what demonstrations are needed for, as the message goes on: `to compare with`.
    """
    require_labels(batch, purpose)
    if not label_positions_of(batch).shape[1]:
        raise Unfit(f"zero-shot prompts have no demonstrations {purpose}: use 1 shot or more")


def bos_of(model: LensModel, prepend_bos: bool | None) -> list[int]:
    """The BOS token that prompts start with, or none; by default as the model's own tokenizer does.

    Raises:
        InputError: the model has no tokenizer, or its tokenizer no BOS token to prepend.
    """
    name, tokenizer = model.cfg.model_name, model.tokenizer
    if tokenizer is None:
        raise InputError(f"model {name!r} has no tokenizer: set one with model.set_tokenizer")
    if not (model_card(model).prepend_bos if prepend_bos is None else prepend_bos):
        return []
    if tokenizer.bos_token_id is None:
        raise InputError(f"the tokenizer of {name!r} has no BOS token to prepend: use prepend_bos=False")
    return [tokenizer.bos_token_id]


def ids_of(model: LensModel, text: str) -> list[int]:
    """The tokens of a text, without special ones. Raises `InputError` where the model has no tokenizer."""
    if model.tokenizer is None:
        raise InputError(f"{shown(text)} is text, but {model.cfg.model_name!r} has no tokenizer: give token ids")
    found: list[int] = model.tokenizer(text, add_special_tokens=False).input_ids
    return found


def require_context(model: LensModel, rows: Sequence[Sequence[int]], what: str) -> None:
    """Raise `InputError` naming the first row of tokens that is longer than the model reads."""
    for i, row in enumerate(rows):
        if len(row) > model.cfg.n_ctx:
            raise InputError(
                f"{what} {i} has {len(row)} tokens, but {model.cfg.model_name!r} reads at most {model.cfg.n_ctx}: use "
                "fewer shots or shorter texts"
            )


@dataclass(frozen=True)
class _Encoded:
    text: str
    tokens: list[int]
    label_positions: list[int]


def _label_tokens(tokenizer: Any, labels: Sequence[str], separator: str) -> list[int]:
    """The token of each label word after a `:`; several tokens, or one token for two labels, is an error."""
    ids = [_tokens_between(tokenizer, f"x : {label}{separator}x", (3, 4 + len(label))) for label in labels]
    for i, (label, found) in enumerate(zip(labels, ids, strict=True)):
        for other, theirs in zip(labels[:i], ids[:i], strict=True):
            if theirs[:1] == found[:1]:
                raise InputError(
                    f"labels {other!r} and {label!r} start with the same token {tokenizer.decode(found[:1])!r}, so an "
                    "answer cannot be told from its first token: choose other words"
                )
    for label, found in zip(labels, ids, strict=True):
        if len(found) != 1:
            pieces = ", ".join(repr(tokenizer.decode([token])) for token in found)
            raise InputError(
                f"label {label!r} is {len(found)} tokens for this tokenizer ({pieces}), and a prediction is read as "
                "one token: choose a word of one token, such as foo or bar"
            )
    return [found[0] for found in ids]


def _tokens_between(tokenizer: Any, text: str, span: tuple[int, int]) -> list[int]:
    """The tokens of `text` that cover the characters `span`, but for a lone space before a word."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    found = zip(encoded.input_ids, encoded.offset_mapping, strict=True)
    return [token for token, (start, end) in found if start < span[1] and end > span[0] and text[start:end].strip()]


def _encode_one(
    tokenizer: Any, bos: list[int], prompt: Prompt, separator: str, label_tokens: list[int], row: int
) -> _Encoded:
    """One prompt's text, tokens and label positions, its last token the one that ends with the final `:`."""
    text = ""
    spans: list[tuple[int, int]] = []
    for demo in prompt.demos:
        text += f"{demo.text} : "
        spans.append((len(text), len(text) + len(prompt.labels[demo.label])))
        text += f"{prompt.labels[demo.label]}{separator}"
    text += f"{prompt.query} :"
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens, offsets = list(encoded.input_ids), list(encoded.offset_mapping)
    if offsets[-1][1] != len(text):
        raise InputError(f"prompt {row}: the tokenizer drops the end of {text[-20:]!r}")
    positions = []
    for demo, (start, end) in zip(prompt.demos, spans, strict=True):
        position = next((i for i, (_, stop) in enumerate(offsets) if stop > start and stop >= end), -1)
        if position < 0 or tokens[position] != label_tokens[demo.label]:
            raise InputError(
                f"prompt {row}: in {text[max(0, start - 20) : end + 5]!r} the label {prompt.labels[demo.label]!r} is "
                "not the single token it is elsewhere: choose another label or separator"
            )
        positions.append(position)
    return _Encoded(text, bos + tokens, [len(bos) + position for position in positions])
