"""Log-probability increase: how much each layer, head and source position adds to log p(label) (methods 1.4, paper 3).

With h^{l-1} the state entering layer l at the answer position T, a vector v that the layer adds scores

    Imp(v) = log p(b | h^{l-1} + v) - log p(b | h^{l-1})    for attention layers, heads and positions inside heads,
    Imp(v) = log p(b | h^{l-1} + A^l + v) - log p(b | h^{l-1} + A^l)    for MLP layers,

in nats, where p comes from `softmax(bs(.))` under the final norm's scale at T, frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions import Capture, answer_logits
from icl_circuits.models import (
    Head,
    LensModel,
    Readout,
    attention_weights,
    kv_head,
    readout,
    require_heads,
    require_per_head_z,
)
from icl_circuits.progress import progress
from icl_circuits.prompts import PromptBatch

LOGITS_AT_ONCE = 2**26
"""How many logits a chunk of projections may hold: 256 MB in float32."""


@dataclass(frozen=True)
class LogProbIncrease:
    """Log-probability increase of every layer and head at the answer position, in nats, a value for each prompt."""

    attn: Float[np.ndarray, "prompt layer"]
    mlp: Float[np.ndarray, "prompt layer"]
    heads: Float[np.ndarray, "prompt layer head"]

    def head_means(self) -> Float[np.ndarray, "layer head"]:
        """The mean over prompts of each head's increase: the static score of methods 1.5."""
        return self.heads.mean(axis=0)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: layer, head, its mean increase and the standard deviation over prompts."""
        means, spread = self.head_means(), self.heads.std(axis=0)
        return pd.DataFrame(
            [
                {"layer": layer, "head": head, "log_prob_increase": means[layer, head], "std": spread[layer, head]}
                for layer, head in np.ndindex(*means.shape)
            ]
        )


@dataclass(frozen=True)
class PositionIncrease:
    """What each source position adds through a head, and its attention; NaN after a prompt's answer position."""

    heads: tuple[Head, ...]
    increase: Float[np.ndarray, "prompt selected src_pos"]
    """In nats: Imp of `alpha_p * vo_p`, the position's part of the head's output."""
    attention: Float[np.ndarray, "prompt selected src_pos"]
    """Attention probability from the answer position to the source position."""


def log_prob_increase(model: LensModel, batch: PromptBatch) -> LogProbIncrease:
    """Score every layer and head by the log-probability it adds to the right label (methods 1.4 and 1.5).

    Args:
        model: any model with per-head z; its head outputs must add up to `attn_out` (no norm between them).
        batch: prompts; `b` is each prompt's gold label token.

    Raises:
        InputError: the model has no per-head z, or normalises its attention output before adding it.
    """
    require_per_head_z(model)
    parts = [_increase_of_chunk(model, chunk) for chunk in progress(list(batch.chunks()), "log-probability increase")]
    return LogProbIncrease(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("attn", "mlp", "heads"))
    )


@torch.no_grad()
def _increase_of_chunk(model: LensModel, batch: PromptBatch) -> LogProbIncrease:
    n_layers = model.cfg.n_layers
    sites = ["hook_resid_pre", "attn.hook_z", "hook_attn_out"]
    if not getattr(model.cfg, "attn_only", False):
        sites.append("hook_mlp_out")
    capture = Capture([f"blocks.{layer}.{site}" for layer in range(n_layers) for site in sites], batch.last)
    final = Capture([f"blocks.{n_layers - 1}.hook_resid_post"], batch.last)
    answer_logits(model, batch, capture, final)
    found = capture.found
    out = readout(model)
    scale = out.scale(final.found[f"blocks.{n_layers - 1}.hook_resid_post"])
    target = batch.gold_tokens
    attn, mlp, heads = [], [], []
    for layer in range(n_layers):
        resid_pre, z, attn_out, *mlp_out = (found[f"blocks.{layer}.{site}"] for site in sites)
        weights = attention_weights(model, layer)
        head_out = torch.einsum("bhd,hdm->bhm", z, weights.W_O)
        _require_sum(model, head_out.sum(1) + weights.b_O, attn_out, layer)
        with_attn = resid_pre + attn_out
        whole = torch.stack([resid_pre, with_attn, sum(mlp_out, with_attn)], 1)
        states = torch.cat([whole, resid_pre[:, None] + head_out], 1)
        log_probs = target_log_probs(out, states, scale, target)
        attn.append(log_probs[:, 1] - log_probs[:, 0])
        mlp.append(log_probs[:, 2] - log_probs[:, 1])
        heads.append(log_probs[:, 3:] - log_probs[:, :1])
    return LogProbIncrease(*(torch.stack(part, 1).cpu().numpy() for part in (attn, mlp, heads)))


@torch.no_grad()
def position_increase(model: LensModel, batch: PromptBatch, heads: Sequence[Head]) -> PositionIncrease:
    """Score every source position inside each of `heads` by what it adds to log p(gold label) (methods 1.4).

    The head's output is a sum over positions, `o = sum_p alpha_p vo_p` with `vo_p = v_p W_O`; each is scored alone.

    Raises:
        InputError: a head that does not exist.
    """
    heads = tuple(heads)
    require_heads(model, heads)
    n_layers = model.cfg.n_layers
    out = readout(model)
    shape = (len(batch), len(heads), batch.tokens.shape[1])
    increase, attention = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    start = 0
    for chunk in progress(list(batch.chunks()), "positions inside heads"):
        layers = sorted({head.layer for head in heads})
        rows = Capture(
            [f"blocks.{layer}.{site}" for layer in layers for site in ("hook_resid_pre", "attn.hook_pattern")]
            + [f"blocks.{n_layers - 1}.hook_resid_post"],
            chunk.last,
        )
        values = Capture([f"blocks.{layer}.attn.hook_v" for layer in layers])
        answer_logits(model, chunk, rows, values)
        scale = out.scale(rows.found[f"blocks.{n_layers - 1}.hook_resid_post"])
        stop, width = start + len(chunk), chunk.tokens.shape[1]
        text = chunk.is_text.cpu().numpy()
        for place, head in enumerate(heads):
            resid_pre = rows.found[f"blocks.{head.layer}.hook_resid_pre"]
            alpha = rows.found[f"blocks.{head.layer}.attn.hook_pattern"][:, head.head]
            v = values.found[f"blocks.{head.layer}.attn.hook_v"][:, :, kv_head(model, head.head)]
            weighted_vo = alpha[..., None] * (v @ attention_weights(model, head.layer).W_O[head.head])
            states = torch.cat([resid_pre[:, None], resid_pre[:, None] + weighted_vo], 1)
            log_probs = target_log_probs(out, states, scale, chunk.gold_tokens)
            gained = (log_probs[:, 1:] - log_probs[:, :1]).cpu().numpy()
            increase[start:stop, place, :width] = np.where(text, gained, np.nan)
            attention[start:stop, place, :width] = np.where(text, alpha.float().cpu().numpy(), np.nan)
        start = stop
    return PositionIncrease(heads, increase, attention)


def target_log_probs(
    out: Readout,
    states: Float[Tensor, "batch state d_model"],
    scale: Float[Tensor, "batch 1"],
    target: Int[Tensor, " batch"],
) -> Float[Tensor, "batch state"]:
    """The log-probability of the target at each residual state under the prompt's frozen final scale, in nats."""
    rows = states.flatten(0, 1)
    scales = scale.expand(-1, states.shape[1]).reshape(-1, 1)
    targets = target[:, None].expand(-1, states.shape[1]).reshape(-1, 1)
    size = max(1, LOGITS_AT_ONCE // out.W_U.shape[1])
    parts = [slice(start, start + size) for start in range(0, len(rows), size)]
    found = [out.log_probs(rows[part], scales[part]).gather(1, targets[part]) for part in parts]
    return torch.cat(found).view(states.shape[:2])


def _require_sum(model: LensModel, total: Tensor, attn_out: Tensor, layer: int) -> None:
    """Raise `InputError` unless the heads' outputs and the bias add up to what the layer adds to the stream."""
    tolerance = 1e-3 if attn_out.dtype in (torch.float32, torch.float64) else 5e-2
    if not (total - attn_out).abs().max() <= tolerance * attn_out.abs().max():
        raise InputError(
            f"the heads of layer {layer} of {model.cfg.model_name!r} do not add up to its attn_out: the block changes "
            "the attention output before adding it (a post-norm), so its heads cannot be scored one by one"
        )
