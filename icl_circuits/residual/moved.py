"""What heads move to the answer position, source position by source position.

At source position p a head has the value-output vector `vo_p = v_p W_O`. It adds `alpha_p vo_p` to the answer position.
Behind a post-norm or a multiplier `vo_p` is what gets through, under the norm's own scale at the answer position.

That is so where the identities `values` and `heads` hold: whoever uses this asks for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models import HookPair, LensModel, attention_weights
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual.capture import Capture
from icl_circuits.residual.components import Head


@dataclass(frozen=True)
class Moved:
    """One head's attention from the answer position, its values, and the matrix that writes them."""

    alpha: Float[Tensor, "batch src_pos"]
    v: Float[Tensor, "batch src_pos d_head"]
    """Over the scale of the post-norm, where there is one."""
    W_O: Float[Tensor, "d_head d_model"]
    """With the weights of the post-norm and the multiplier in it."""

    def vectors(self) -> Float[Tensor, "batch src_pos d_model"]:
        """The raw value-output vectors `vo_p`."""
        return self.v @ self.W_O

    def weighted(self) -> Float[Tensor, "batch src_pos d_model"]:
        """`alpha_p vo_p`, which add up to the head's output at the answer position."""
        return self.alpha[..., None] * self.vectors()

    def total(self, weights: Float[Tensor, "batch src_pos"]) -> Float[Tensor, "batch d_model"]:
        """`sum_p weight_p alpha_p vo_p`."""
        return torch.einsum("bs,bsk->bk", weights * self.alpha, self.v) @ self.W_O


class Moves:
    """Read what `heads` move to the answer positions `last`, while the model runs; changes nothing."""

    def __init__(self, heads: Sequence[Head], last: Int[Tensor, " batch"]) -> None:
        layers = sorted({head.layer for head in heads})
        self._rows = Capture([(site, layer) for layer in layers for site in ("pattern", "z")], last)
        self._values = Capture([("v", layer) for layer in layers])

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [*self._values.hooks(model), *self._rows.hooks(model)]

    def of(self, model: LensModel, head: Head) -> Moved:
        """What one of the heads moved in the run, in float32 or wider."""
        weights = attention_weights(model, head.layer)
        scale = weights.outlet_scale(self._rows.at("z", head.layer))
        W_O = weights.outlet.linear(weights.W_O[head.head], torch.ones_like(scale[:1]))
        v = self._values.of(model, "v", head) / scale[:, None]
        return Moved(self._rows.of(model, "pattern", head), v, W_O)


def by_source(
    batch: TokenBatch, chunks: Sequence[Float[Tensor, "_ selected _ *rest"]]
) -> Float[np.ndarray, "prompt selected src_pos *rest"]:
    """What was found chunk by chunk at every source position, for the whole batch: NaN after the answer positions."""
    first = chunks[0]
    found = np.full((len(batch), first.shape[1], batch.tokens.shape[1], *first.shape[3:]), np.nan, np.float32)
    start = 0
    for chunk in chunks:  # cut to its longest prompt
        rows = slice(start, start + len(chunk))
        shown = batch.is_text[rows, : chunk.shape[2]].cpu().numpy()[:, None]
        shown = shown.reshape(*shown.shape, *[1] * (chunk.ndim - 3))
        found[rows, :, : chunk.shape[2]] = np.where(shown, chunk.float().cpu().numpy(), np.nan)
        start += len(chunk)
    return found
