"""The batch that every task shares: tokens, where the answer is read, and which tokens answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar, cast

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.models import TOKENS_AT_ONCE
from icl_circuits.prompts.cells import is_whole, plain, shown

Batch = TypeVar("Batch", bound="TokenBatch")


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenBatch(Displayed):
    """Prompts ready for a model, with the tokens that answer them.

    Right padding (with each prompt's own last token) is exact in a causal model whatever its position embedding:
    nothing after `last` is read.
    """

    tokens: Int[Tensor, "batch pos"]
    last: Int[Tensor, " batch"]
    """Position where the answer is predicted: the last of the prompt."""
    target: Int[Tensor, " batch"]
    """Vocabulary id of each prompt's right answer."""
    foil: Int[Tensor, " batch"] | None = None
    """Vocabulary id of the wrong answer that the right one is compared with; None: none is given."""
    texts: tuple[str, ...]
    """The prompts as given, without a BOS token and without the tokens that answer and foil share, which `tokens` has
    behind the text. Of prompts given as tokens, what the tokenizer makes of them, if there is one."""
    part_of: Int[Tensor, " batch"] | None = None
    """Of a part of a batch: which of its prompts these are. None: this is no part."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return repr(self.texts[0]) if self.texts else "no prompts"

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt: its text, its number of tokens and the vocabulary ids of answer and foil (if given)."""
        foil = {} if self.foil is None else {"foil": self.foil.tolist()}
        n_tokens = (self.last + 1).tolist()
        return pd.DataFrame({"text": self.texts, "n_tokens": n_tokens, "target": self.target.tolist(), **foil})

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def rows(self) -> Int[Tensor, " batch"]:
        """Which prompts of the whole batch these are: what a metric looks up what it knows of each prompt by."""
        return torch.arange(len(self), device=self.tokens.device) if self.part_of is None else self.part_of

    @property
    def is_text(self) -> Bool[Tensor, "batch pos"]:
        """True at the prompt's own positions, False at the padding after `last`."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) <= self.last[:, None]

    @property
    def answer_tokens(self) -> Int[Tensor, " answer"]:
        """The vocabulary ids that `margin` compares: every target and foil, each once.

        Raises:
            InputError: the batch has no foils.
        """
        if self.foil is None:
            raise InputError("a logit difference needs a wrong answer for each prompt: give foils, or another metric")
        return torch.cat([self.target, self.foil]).unique()

    def margin(self, logits: Float[Tensor, "*rows batch answer"]) -> Float[Tensor, "*rows batch"]:
        """Each prompt's logit of the right answer less that of the wrong one, from the logits of `answer_tokens`."""
        assert self.foil is not None  # `answer_tokens` has raised otherwise
        right, wrong = (
            torch.searchsorted(self.answer_tokens, tokens.contiguous()).expand(logits.shape[:-1])[..., None]
            for tokens in (self.target, self.foil)
        )
        return (logits.gather(-1, right) - logits.gather(-1, wrong))[..., 0]

    def chunks(self: Batch, max_tokens: int = TOKENS_AT_ONCE) -> Iterator[Batch]:
        """The batch in parts of at most `max_tokens` tokens (never less than one prompt), each padded no further than
        its own longest prompt.
        """
        for start, stop in self.parts(max_tokens):
            part = self.part(start, stop)
            yield replace(part, tokens=part.tokens[:, : int(part.last.max()) + 1])

    def parts(self, max_tokens: int = TOKENS_AT_ONCE) -> Iterator[tuple[int, int]]:
        """The bounds of consecutive parts, all alike, of at most `max_tokens` tokens and never less than one prompt."""
        most = max(1, max_tokens // self.tokens.shape[1])
        n_parts = -(-len(self) // most) or 1
        yield from pairwise(len(self) * part // n_parts for part in range(n_parts + 1))

    def part(self: Batch, start: int, stop: int) -> Batch:
        """The prompts `start` to `stop`, padded as they are, which know their `rows`. All are the batch itself."""
        if stop - start == len(self):
            return self
        return replace(self.select(range(start, stop)), part_of=self.rows[start:stop])

    def followed_by(self: Batch, tokens: Sequence[int]) -> Batch:
        """The prompts with some tokens more behind each, the last of which is then `last`."""
        rows = [[*row[: last + 1], *tokens] for row, last in zip(self.tokens.tolist(), self.last.tolist(), strict=True)]
        longer, last = padded(rows, self.tokens.device)
        return replace(self, tokens=longer, last=last)

    def select(self: Batch, rows: Sequence[int]) -> Batch:
        """The prompts with the numbers `rows`, in that order, padded as they are.

        Raises:
            InputError: a mask of true and false, or a number that no prompt has.
        """
        chosen = [plain(row) for row in rows]
        for row in chosen:
            if not is_whole(row) or not -len(self) <= row < len(self):
                raise InputError(
                    f"select: {shown(row)} is no prompt's number: give whole numbers 0..{len(self) - 1} (of a mask, "
                    "mask.nonzero()[:, 0])"
                )
        return replace(self, **self._of_rows(cast(list[int], chosen)))

    def first(self: Batch, n: int) -> Batch:
        """The first `n` prompts, or all where there are no more."""
        return self if len(self) <= n else self.select(range(n))

    def _of_rows(self, rows: list[int]) -> dict[str, Any]:
        """The fields that have a row a prompt, of some prompts."""
        return {
            "tokens": self.tokens[rows],
            "last": self.last[rows],
            "target": self.target[rows],
            "foil": None if self.foil is None else self.foil[rows],
            "texts": tuple(self.texts[row] for row in rows),
            "part_of": None if self.part_of is None else self.part_of[rows],
        }


def padded(rows: Sequence[list[int]], device: torch.device) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """Rows of token ids as one tensor, each padded on the right with its own last token, and their last positions."""
    width = max(len(row) for row in rows)
    tokens = [[*row, *row[-1:] * (width - len(row))] for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor([len(row) - 1 for row in rows], device=device)
