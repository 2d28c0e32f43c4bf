"""What every component has written at some positions, along a direction: by component, and by source position.

The state that enters a layer is the sum of the embedding and of every earlier head's and MLP's output.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models import (
    LensModel,
    Place,
    at_least_float32,
    attention_weights,
    has_mlp,
    kv_heads,
    mlp_sites,
    require_identities,
)
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual.capture import Capture
from icl_circuits.residual.components import Bias, Component, Embedding, Head, Mlp
from icl_circuits.residual.run import answer_logits


class Written:
    """What every component below layer `n_layers` writes at the positions `at` of some prompts."""

    def __init__(self, model: LensModel, batch: TokenBatch, at: Int[Tensor, "batch chosen"], n_layers: int) -> None:
        """Run the prompts once.

        Raises:
            Unfit: heads do not add up to `attn_out`, or layers to the residual stream.
        """
        require_identities(model, batch.tokens, batch.last, "values", "heads", "layers")
        self.model, self.batch, self.at = model, batch, at
        below = range(n_layers)
        places: list[Place] = [("resid_pre", layer) for layer in range(min(n_layers + 1, model.cfg.n_layers))]
        places += [(site, layer) for layer in below for site in ("z", "pattern", *mlp_sites(model))]
        here = Capture(places, at)
        everywhere = Capture([("v", layer) for layer in below])
        answer_logits(model, batch, here, everywhere)
        self.here = {place: here.at(*place) for place in here.found}
        self.v = [everywhere.at("v", layer) for layer in below]
        self.weights = [attention_weights(model, layer) for layer in below]

    def along(
        self, directions: Float[Tensor, "batch some d_model"], layer: int, places: slice
    ) -> tuple[Float[Tensor, "batch some component"], Float[Tensor, "batch some src_pos"]]:
        """The inner products of what each component below `layer` wrote with a direction a place.

        Args:
            directions: one for each of the places, or for one place several.
            layer: components below it are asked for.
            places: which of the chosen positions.

        Returns:
            By component, in the order of `components_below`; and by source position: what heads moved from there, and
            at the place itself its embedding and MLPs. The biases have no source position.
        """
        own = self.at[:, places].expand(*directions.shape[:2])
        embed = (self.here["resid_pre", 0][:, places] * directions).sum(-1)
        sources = directions.new_zeros(*directions.shape[:2], self.batch.tokens.shape[1])
        by_heads, by_mlps, bias, standing = [], [], torch.zeros_like(embed), embed
        of_heads = kv_heads(self.model)
        for below in range(layer):
            weights = self.weights[below]
            scale = weights.outlet_scale(self.here["z", below][:, places])
            through = weights.outlet.pull_back(directions, scale)
            onto = torch.einsum("bdm,hkm->bdhk", through, at_least_float32(weights.W_O))
            by_heads.append((self.here["z", below][:, places] * onto).sum(-1))
            moved = torch.einsum("bshk,bdhk->bdhs", self.v[below][:, :, of_heads], onto)
            sources = sources + (self.here["pattern", below][:, places] * moved).sum(2)
            bias = bias + (directions * weights.bias(scale)).sum(-1)
            if has_mlp(self.model):
                by_mlps.append((self.here["mlp_out", below][:, places] * directions).sum(-1))
                standing = standing + by_mlps[-1]
        columns = [embed[..., None], *by_heads, *(column[..., None] for column in by_mlps), bias[..., None]]
        return torch.cat(columns, -1), sources.scatter_add(2, own[..., None], standing[..., None])


def components_below(model: LensModel, layer: int) -> tuple[Component, ...]:
    """What the state that enters `layer` is the sum of: the embedding, heads, MLPs, and the biases of the heads."""
    heads = [Head(below, head) for below in range(layer) for head in range(model.cfg.n_heads)]
    return (Embedding(), *heads, *(Mlp(below) for below in range(layer if has_mlp(model) else 0)), Bias())
