"""Prompts of demonstrations as tokens: label positions, and where the answer is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, Unfit, require_one_of
from icl_circuits.models import TextModel, device_of, model_card
from icl_circuits.prompts.apart import tell_apart
from icl_circuits.prompts.cells import shown
from icl_circuits.prompts.prompt import Prompt
from icl_circuits.prompts.template import reading, require_known, template_of, tokenized, written
from icl_circuits.prompts.tokens import TokenBatch, padded

DEFAULT_SEPARATOR = " "
LabelScore = Literal["first", "whole"]
"""How an answer is scored: by the first token that tells the labels apart, or by all of its label's from there on."""


@dataclass(frozen=True, kw_only=True, repr=False)
class PromptBatch(TokenBatch):
    """Prompts of demonstrations and a query.

    Labels are told apart by the first token in which they differ. The tokens that all begin with join the prompt behind
    the final `:`: a space that is a token of its own, say. So `last` predicts the token that tells.
    """

    label_positions: Int[Tensor, "batch demo"]
    """Position of the token of each demonstration's label that tells it apart."""
    demo_labels: Int[Tensor, "batch demo"]
    """Index of each demonstration's label word."""
    gold: Int[Tensor, " batch"]
    """Index of the right label word."""
    label_tokens: Int[Tensor, " label"]
    """Vocabulary id of each label word's token that tells it apart."""
    label_words: tuple[tuple[int, ...], ...]
    """Vocabulary ids of each label word from that token on."""
    label_score: LabelScore
    """How answers are scored where a label has several tokens. Sweeps, paths and metrics read the first alone."""
    prompts: tuple[Prompt, ...]
    separator: str
    n_prepended: int
    """How many positions before the text hold a BOS token: 0 or 1."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label words."""
        return self.prompts[0].labels

    @property
    def scored_whole(self) -> bool:
        """Whether scoring by the first token would be another score: some label has several, and all are to count."""
        return self.label_score == "whole" and any(len(word) > 1 for word in self.label_words)

    @property
    def n_demos(self) -> int:
        """How many demonstrations each prompt has."""
        return self.label_positions.shape[1]

    @property
    def answer_tokens(self) -> Int[Tensor, " label"]:
        """The label words' tokens that tell them apart."""
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
        more = torch.tensor([len(word) - 1 for word in self.label_words], device=position.device)
        segment = torch.searchsorted(self.label_positions + more[self.demo_labels], position)
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
    model: TextModel,
    prompts: Sequence[Prompt],
    *,
    separator: str = DEFAULT_SEPARATOR,
    prepend_bos: bool | None = None,
    label_score: LabelScore = "first",
) -> PromptBatch:
    """Tokenise prompts in the paper's template `<text> : <label>`, units joined by `separator`.

    Args:
        model: gives the tokenizer, the context length and the device; an `outline` will do.
        prompts: all with the same label words and the same number of demonstrations.
        separator: between units; the paper uses a single space.
        prepend_bos: default: as the model's own tokenizer does (Llama: yes, GPT-2: no); a model of yours follows its
            `cfg.default_prepend_bos`.
        label_score: how answers are scored whose labels have several tokens. `first`: by the first token that tells
            them apart. `whole`: by the whole label's log-probability from there on.

    Label positions come from the tokenizer's character offsets, never from a search for the string.

    Raises:
        InputError: labels that no token tells apart, or that are none for this tokenizer. A label that is the
            separator, or is other tokens in a prompt than elsewhere. A text or token that is none for the model. A
            prompt longer than the context. Prompts that cannot stand in one batch.
    """
    require_one_of(label_score, get_args(LabelScore), "label_score")
    _require_alike(prompts)
    labels = prompts[0].labels
    template = template_of(model.tokenizer, bos_of(model, prepend_bos), labels, separator)
    for label, word in zip(labels, template.words, strict=True):
        require_vocabulary(model, word, f"label {label!r}")
    apart = tell_apart(template.words, [f"label {label!r}" for label in labels], about="labels")
    n_shared = len(apart.shared)
    rows = [written(template, prompt, number) for number, prompt in enumerate(prompts)]
    ids = [row.tokens + apart.shared for row in rows]
    words = tuple(tuple(word[n_shared:]) for word in template.words)
    room = max(map(len, words)) - 1 if label_score == "whole" else 0
    require_context(model, ids, "prompt", room=room, about="shots")
    for number, row in enumerate(ids):
        require_vocabulary(model, row, f"prompt {number}")
    tokens, last = padded(ids, device_of(model))

    def integers(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=tokens.device)

    by_demo, gold = (len(rows), len(prompts[0].demos)), integers([prompt.gold for prompt in prompts])
    label_tokens = integers(apart.following)
    return PromptBatch(
        tokens=tokens,
        last=last,
        label_positions=integers([[start + n_shared for start in row.label_starts] for row in rows]).reshape(by_demo),
        demo_labels=integers([[demo.label for demo in prompt.demos] for prompt in prompts]).reshape(by_demo),
        gold=gold,
        label_tokens=label_tokens,
        label_words=words,
        label_score=label_score,
        target=label_tokens[gold],
        prompts=tuple(prompts),
        texts=tuple(row.text for row in rows),
        separator=separator,
        n_prepended=len(template.bos),
    )


def _require_alike(prompts: Sequence[Prompt]) -> None:
    """Raise `InputError` unless the prompts can stand in one batch."""
    if not isinstance(prompts, Sequence) or not all(isinstance(prompt, Prompt) for prompt in prompts):
        raise InputError(f"prompts are {shown(prompts)}: give a list of Prompts, as sample_prompts makes them")
    if not prompts:
        raise InputError("no prompts to encode: give one or more")
    labels, n_demos = prompts[0].labels, len(prompts[0].demos)
    if len(labels) < 2 or not all(isinstance(label, str) and label for label in labels):
        raise InputError(f"labels {labels}: give at least two words")
    for number, prompt in enumerate(prompts):
        if prompt.labels != labels or len(prompt.demos) != n_demos:
            raise InputError(
                f"prompt {number} has labels {prompt.labels} and {len(prompt.demos)} demonstrations, prompt 0 has "
                f"{labels} and {n_demos}: encode them apart"
            )
        wrong = {*(demo.label for demo in prompt.demos), prompt.gold} - set(range(len(labels)))
        if wrong:
            raise InputError(
                f"prompt {number}: label {wrong.pop()} does not exist: its labels are 0..{len(labels) - 1}"
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


def bos_of(model: TextModel, prepend_bos: bool | None) -> list[int]:
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


def ids_of(model: TextModel, text: str) -> list[int]:
    """The tokens of a text, without special ones. Raises `InputError` where the model has no tokenizer."""
    if model.tokenizer is None:
        raise InputError(f"{shown(text)} is text, but {model.cfg.model_name!r} has no tokenizer: give token ids")
    with reading(text):
        found: list[int] = model.tokenizer(text, add_special_tokens=False).input_ids
    return found


def require_known_words(model: TextModel, text: str, where: str) -> None:
    """Raise `InputError` for a word that the tokenizer reads as an unknown one, as far as it says where words stand."""
    if model.tokenizer is not None and getattr(model.tokenizer, "is_fast", False):
        require_known(model.tokenizer, text, *tokenized(model.tokenizer, text), where)


def require_vocabulary(model: TextModel, ids: Sequence[int], where: str) -> None:
    """Raise `InputError` for a token that the model does not have."""
    wrong = next((token for token in ids if not 0 <= token < model.cfg.d_vocab), None)
    if wrong is not None:
        raise InputError(
            f"{where}: id {shown(wrong)} is not in the vocabulary, which has ids 0..{model.cfg.d_vocab - 1}: use this "
            "model's own tokenizer"
        )


def require_context(
    model: TextModel, rows: Sequence[Sequence[int]], what: str, *, room: int = 0, about: str = ""
) -> None:
    """Raise `InputError` naming the first row of tokens that is longer than the model reads, `room` more behind it."""
    for i, row in enumerate(rows):
        if len(row) + room > model.cfg.n_ctx:
            raise InputError(
                f"{what} {i} has {len(row) + room} tokens, but {model.cfg.model_name!r} reads at most "
                f"{model.cfg.n_ctx}: use fewer shots or shorter texts",
                about=about,
            )
