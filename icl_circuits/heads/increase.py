"""Log-probability increase: how much each layer, head and source position adds to log p(label).

The score of Yu and Ananiadou (arXiv 2312.12141, and its authors' code), which their arXiv 2402.02872 finds heads with.

With h^{l-1} the state entering layer l at the answer position T, a vector v that the layer adds scores

    Imp(v) = log p(b | h^{l-1} + v) - log p(b | h^{l-1})    for attention layers, heads and positions inside heads,
    Imp(v) = log p(b | h^{l-1} + A^l + v) - log p(b | h^{l-1} + A^l)    for MLP layers,

in nats, where p comes from `softmax(bs(.))` under the final norm's scale at T, frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.models import (
    LOGITS_AT_ONCE,
    LensModel,
    Readout,
    Site,
    attention_weights,
    mlp_sites,
    readout,
    require_identities,
    require_per_head_z,
)
from icl_circuits.patching import run_hooked
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Head, HeadLike, Moved, Moves, by_source, final_state, require_some_heads
from icl_circuits.stats import ALPHA, bootstrap_means, corrected_above_zero


@dataclass(frozen=True, repr=False)
class LogProbIncrease(Displayed):
    """Log-probability increase of every layer and head at the answer position, in nats, a value for each prompt."""

    attn: Float[np.ndarray, "prompt layer"]
    mlp: Float[np.ndarray, "prompt layer"]
    heads: Float[np.ndarray, "prompt layer head"]

    def head_means(self) -> Float[np.ndarray, "layer head"]:
        """The mean over prompts of each head's increase: the static score of arXiv 2402.02872."""
        return self.heads.mean(axis=0)

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("log_prob_increase", self.head_means(), Head)

    @property
    def p_corrected(self) -> Float[np.ndarray, "layer head"]:
        """p-values that a head adds nothing, corrected for having looked at all heads.

        One-sided t-tests over prompts, with Benjamini and Hochberg's false-discovery rate. NaN for a single prompt.
        """
        shape = self.heads.shape[1:]
        return corrected_above_zero(self.heads.reshape(len(self.heads), -1).T).reshape(shape)

    @property
    def significant(self) -> Bool[np.ndarray, "layer head"]:
        """Whether what a head adds can be told from zero, at a false-discovery rate of 5 %."""
        return np.asarray(self.p_corrected < ALPHA)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: its mean increase, the 95 % bootstrap interval, the corrected p-value and a flag."""
        layer, head = np.indices(self.heads.shape[1:]).reshape(2, -1)
        interval = bootstrap_means(self.heads.reshape(len(self.heads), -1).T.astype(float))
        return pd.DataFrame({"layer": layer, "head": head}).assign(
            **interval.columns("log_prob_increase"),
            p_corrected=self.p_corrected.ravel(),
            significant=self.significant.ravel(),
        )


@dataclass(frozen=True, repr=False)
class PositionIncrease(Displayed):
    """What each source position adds through a head, and its attention; NaN after a prompt's answer position."""

    heads: tuple[Head, ...]
    increase: Float[np.ndarray, "prompt selected src_pos"]
    """In nats: Imp of `alpha_p * vo_p`, the position's part of the head's output."""
    attention: Float[np.ndarray, "prompt selected src_pos"]
    """Attention probability from the answer position to the source position."""

    def summed(
        self,
        quantity: Literal["increase", "attention"],
        label_positions: Int[np.ndarray, "prompt demo"],
        chosen: Bool[np.ndarray, "prompt demo"],
    ) -> Float[np.ndarray, "prompt selected"]:
        """`increase` or `attention`, summed over the `chosen` ones of the label positions."""
        at_labels = np.take_along_axis(getattr(self, quantity), label_positions[:, None], axis=2)
        return np.where(chosen[:, None], at_labels, 0).sum(axis=2)

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("log_prob_increase", np.nansum(self.increase, axis=-1).mean(axis=0), self.heads.__getitem__)

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt, head and source position up to the answer position."""
        shown = np.argwhere(~np.isnan(self.increase))
        return pd.DataFrame(
            {
                "prompt": shown[:, 0],
                "layer": [self.heads[i].layer for i in shown[:, 1]],
                "head": [self.heads[i].head for i in shown[:, 1]],
                "src_pos": shown[:, 2],
                "log_prob_increase": self.increase[tuple(shown.T)],
                "attention": self.attention[tuple(shown.T)],
            }
        )


def log_prob_increase(model: LensModel, batch: TokenBatch) -> LogProbIncrease:
    """Score every layer and head by the log-probability it adds to the right label (arXiv 2402.02872).

    Args:
        model: any model with per-head z whose layers and heads add up to the residual stream. A post-norm's scale is
            frozen at its own value, so heads add up behind it too.
        batch: prompts; `b` is each prompt's target token.

    Raises:
        Unfit: the model has no per-head z, or an identity that the scores rest on fails. The identities are: heads add
            up to `attn_out`, layers to the final state, norm and unembedding make the logits.
    """
    require_per_head_z(model)
    require_identities(model, batch.tokens, batch.last, "heads", "layers", "readout")
    parts = [_increase_of_chunk(model, chunk) for chunk in tracked(list(batch.chunks()), "log-probability increase")]
    return LogProbIncrease(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("attn", "mlp", "heads"))
    )


@torch.no_grad()
def _increase_of_chunk(model: LensModel, batch: TokenBatch) -> LogProbIncrease:
    n_layers = model.cfg.n_layers
    sites: list[Site] = ["resid_pre", "z", "attn_out", *mlp_sites(model)]
    capture = Capture([*((s, n) for n in range(n_layers) for s in sites), final_state(model)], batch.last)
    run_hooked(model, batch, capture)
    out = readout(model)
    scale = out.norm.scale(capture.at(*final_state(model)))
    attn, mlp, heads = [], [], []
    for layer in range(n_layers):
        resid_pre, z, attn_out, *mlp_out = (capture.at(site, layer) for site in sites)
        head_out, _ = attention_weights(model, layer).added(z)
        with_attn = resid_pre + attn_out
        whole = torch.stack([resid_pre, with_attn, sum(mlp_out, with_attn)], 1)
        states = torch.cat([whole, resid_pre[:, None] + head_out], 1)
        log_probs = target_log_probs(out, states, scale, batch.target)
        attn.append(log_probs[:, 1] - log_probs[:, 0])
        mlp.append(log_probs[:, 2] - log_probs[:, 1])
        heads.append(log_probs[:, 3:] - log_probs[:, :1])
    return LogProbIncrease(*(torch.stack(part, 1).cpu().numpy() for part in (attn, mlp, heads)))


@torch.no_grad()
def position_increase(model: LensModel, batch: TokenBatch, heads: Sequence[HeadLike]) -> PositionIncrease:
    """Score every source position inside each of `heads` by what it adds to log p(target).

    The head's output is a sum over positions, `o = sum_p alpha_p vo_p` with `vo_p = v_p W_O`; each is scored alone.
    `W_O` is projected onto the vocabulary once for each head, which takes far less than projecting every `vo_p`.

    Raises:
        InputError: no heads, or one that does not exist.
        Unfit: an identity fails that this rests on. The identities are: z is attention times values, heads add up to
            `attn_out`, and layers to the residual stream. Norm and unembedding make the logits.
    """
    heads = require_some_heads(model, heads)
    require_identities(
        model, batch.tokens, batch.last, "values", "heads", "layers", "readout", layers=[h.layer for h in heads]
    )
    out = readout(model)
    increase, attention = [], []
    for chunk in tracked(list(batch.chunks()), "positions inside heads"):
        states = Capture([*(("resid_pre", n) for n in {h.layer for h in heads}), final_state(model)], chunk.last)
        moves = Moves(heads, chunk.last)
        run_hooked(model, chunk, states, moves)
        scale = out.norm.scale(states.at(*final_state(model)))
        gained, alpha = [], []
        for head in heads:
            resid_pre, moved = states.at("resid_pre", head.layer), moves.of(model, head)
            gained.append(_gained(out, resid_pre, moved, scale, chunk.target))
            alpha.append(moved.alpha)
        increase.append(torch.stack(gained, 1))
        attention.append(torch.stack(alpha, 1))
    return PositionIncrease(heads, by_source(batch, increase), by_source(batch, attention))


def target_log_probs(
    out: Readout,
    states: Float[Tensor, "batch state d_model"],
    scale: Float[Tensor, "batch 1"],
    target: Int[Tensor, " batch"],
) -> Float[Tensor, "batch state"]:
    """The log-probability of the target at each residual state under the prompt's frozen final scale, in nats."""
    rows = out.norm.linear(states, scale[:, None]).flatten(0, 1)
    found = out.standing(rows, target.repeat_interleave(states.shape[1]))
    return (found.right - found.log_sum).view(states.shape[:2])


def _gained(
    out: Readout,
    resid_pre: Float[Tensor, "batch d_model"],
    moved: Moved,
    scale: Float[Tensor, "batch 1"],
    target: Int[Tensor, " batch"],
) -> Float[Tensor, "batch src_pos"]:
    """How much log p(target) rises when what a head moved from each position is added to the state, in nats."""
    before = out.project(resid_pre, scale)
    onto = out.norm.linear(moved.W_O, torch.ones_like(scale[:1])) @ out.W_U
    z = moved.alpha[..., None] * moved.v / scale[..., None]
    size = max(1, LOGITS_AT_ONCE // (z.shape[1] * onto.shape[1]))
    after = []
    for start in range(0, len(z), size):
        part = slice(start, start + size)
        projected = (z[part] @ onto).add_(before[part, None])
        after.append(_of_target(out.from_projected(projected), target[part, None, None].expand(-1, z.shape[1], -1)))
    return torch.cat(after)[..., 0] - _of_target(out.from_projected(before), target[:, None])


def _of_target(logits: Float[Tensor, "*rows d_vocab"], target: Int[Tensor, "*rows 1"]) -> Float[Tensor, "*rows 1"]:
    """The log-probability of each row's target token."""
    return logits.gather(-1, target) - logits.logsumexp(-1, keepdim=True)
