"""Loss reduction: how much better a model predicts tokens that stand late in a text than early ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.costs import count_forwards
from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, Unfit
from icl_circuits.models import (
    LOGITS_AT_ONCE,
    LensModel,
    at_least_float32,
    require_alike,
    require_causal,
)
from icl_circuits.progress import tracked
from icl_circuits.prompts import Texts, TokenBatch, bos_of, ids_of, prompts_of, require_known_words, token_batch
from icl_circuits.stats import bootstrap_mean, mean_of_finite

LEAST, MOST = 100, 501
"""How many tokens of a text the first measure needs, and how many the last one reads."""


@dataclass(frozen=True, repr=False)
class LossReduction(Displayed):
    """Loss late in each text less loss early in it, nats: below 0 where context helps.

    NaN where a text, or the model's context, is too short for a measure.

    A text's own tokens are counted from 0, a BOS token before them not. Tokens a-b are those from a up to but not
    including b. Without a BOS token nothing predicts token 0, so tokens 0-50 are 49 then.
    """

    n_tokens: Int[np.ndarray, " text"]
    """How many tokens each text has."""
    by_100: Float[np.ndarray, " text"]
    """Mean loss of tokens 50-100 less that of tokens 0-50. Needs 100 tokens."""
    by_500: Float[np.ndarray, " text"]
    """Mean loss of tokens 450-500 less that of tokens 0-50. Needs 500 tokens."""
    token_500: Float[np.ndarray, " text"]
    """Loss of token 500 less that of token 50 (Olsson et al. 2022). Needs 501 tokens."""

    @property
    def headline(self) -> str:
        """Its main number."""
        by_100, by_500 = mean_of_finite(self.by_100), mean_of_finite(self.by_500)
        return f"loss_reduction of tokens 50-100 {by_100:.3g}, of tokens 450-500 {by_500:.3g}"

    def to_frame(self) -> pd.DataFrame:
        """One row a measure: its mean over texts with a 95 % bootstrap interval, and how many texts do not reach it.

        Columns: measure, loss_reduction, loss_reduction_low, loss_reduction_high, n_texts, n_too_short.
        """
        rows = []
        for measure, values in (
            ("tokens 50-100 less 0-50", self.by_100),
            ("tokens 450-500 less 0-50", self.by_500),
            ("token 500 less token 50", self.token_500),
        ):
            long = values[~np.isnan(values)]
            row: dict[str, object] = {"measure": measure}
            row |= bootstrap_mean(long).columns("loss_reduction")
            rows.append(row | {"n_texts": len(long), "n_too_short": len(values) - len(long)})
        return pd.DataFrame(rows)


def loss_reduction(model: LensModel, texts: Texts, *, prepend_bos: bool | None = None) -> LossReduction:
    """Measure the first level of in-context learning (Ren et al. 2024, arXiv 2402.13055, section 5).

    The first 501 tokens of each text are read, or as many as the model's context holds. Texts go through the model
    a few at a time, and only the loss of each token is kept.

    Args:
        model: any TransformerLens model. Strings need its tokenizer.
        texts: strings, or lists of token ids, which are taken as they are: their first is token 0.
        prepend_bos: of strings. Default: as the model's own tokenizer does.

    Raises:
        InputError: no texts, an empty one, none that reaches 100 tokens, or a loss that is not finite.
        Unfit: a model that sees what comes later, or whose context holds no 100 tokens.
    """
    given = prompts_of(texts, "text")
    bos = bos_of(model, prepend_bos) if isinstance(given[0], str) else []
    for number, text in enumerate(given):
        if isinstance(text, str):
            require_known_words(model, text, f"text {number}")
    ids = [ids_of(model, text) if isinstance(text, str) else text for text in given]
    n_tokens = np.array([len(row) for row in ids])
    room = min(MOST, model.cfg.n_ctx + 1 - len(bos))  # the last token is predicted, not read
    if room < LEAST:
        raise Unfit(
            f"{model.cfg.model_name!r} reads at most {model.cfg.n_ctx} tokens, too few for loss reduction, which needs "
            f"{LEAST}: use another model"
        )
    long = np.flatnonzero(n_tokens >= LEAST)
    if not len(long):
        raise InputError(f"no text reaches {LEAST} tokens, the longest has {n_tokens.max()}: give longer texts")
    rows = [[*bos, *ids[i][:room]] for i in long]
    batch = token_batch(model, [row[:-1] for row in rows], [row[-1] for row in rows])
    losses = np.full((len(ids), MOST), np.nan)
    found = _losses(model, batch, long)
    start = 1 - len(bos)
    losses[long, start : start + found.shape[1]] = found
    early = losses[:, start:50].mean(axis=1)
    return LossReduction(
        n_tokens,
        losses[:, 50:100].mean(axis=1) - early,
        losses[:, 450:500].mean(axis=1) - early,
        losses[:, 500] - losses[:, 50],
    )


@torch.no_grad()
def _losses(model: LensModel, batch: TokenBatch, numbers: Int[np.ndarray, " batch"]) -> Float[np.ndarray, "batch pos"]:
    """The loss of what follows each position, nats; NaN behind the text.

    Args:
        model: the model.
        batch: the texts up to their last token, which is the target.
        numbers: what messages call the texts.
    """
    require_causal(model)
    found = np.full(batch.tokens.shape, np.nan)
    start = 0
    for chunk in tracked(list(batch.chunks(LOGITS_AT_ONCE // model.cfg.d_vocab)), "loss of each token"):
        n_texts, width = chunk.tokens.shape
        require_alike(model, chunk.last + 1, width)
        losses = _following_loss(model(chunk.tokens), chunk)
        count_forwards(len(chunk))
        wrong = (~torch.isfinite(losses) & chunk.is_text).any(1)
        if wrong.any():
            raise InputError(
                f"{model.cfg.model_name!r} gives no finite loss for text {numbers[start + int(wrong.nonzero()[0])]}: "
                "its weights are corrupt or its dtype is too narrow; load it with dtype=torch.float32"
            )
        found[start : start + n_texts, :width] = losses.masked_fill(~chunk.is_text, torch.nan).cpu().numpy()
        start += n_texts
    return found


def _following_loss(logits: Float[Tensor, "batch pos d_vocab"], batch: TokenBatch) -> Float[Tensor, "batch pos"]:
    """The loss of the token behind each position, text by text, so that no second copy of all logits is made."""
    following = batch.tokens.roll(-1, 1)
    following[torch.arange(len(batch), device=following.device), batch.last] = batch.target
    losses = []
    for row, tokens in zip(logits, following, strict=True):
        wide = at_least_float32(row)
        losses.append(wide.logsumexp(-1) - wide.gather(-1, tokens[:, None])[:, 0])
    return torch.stack(losses)
