"""What neurons write to the answer position: a coefficient times a direction each.

A neuron's direction is what the papers call its subvalue. FFN neuron k of a layer writes `m_k W_out[k]`. Attention
neuron (head, k) writes `alpha_p v_pk W_O[head, k]` from source position p: its subvalue is that row of W_O.

That is so where the identities `neurons`, `heads` and `values` hold: `AnswerRun` asks for them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, Unfit
from icl_circuits.models import (
    Identity,
    LensModel,
    Norm,
    Place,
    ReadSite,
    at_least_float32,
    attention_weights,
    has_mlp,
    kv_heads,
    mlp_weights,
    readout,
    require_identities,
    require_layer,
    require_per_head_z,
)
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Head, Neuron, answer_logits, final_state, require_heads
from icl_circuits.subvalues.exact import Added

Kind = Literal["ffn", "attention"]
"""FFN neurons, or attention neurons: a head, one of its dimensions, and a source position."""

Addresses = tuple[Int[np.ndarray, "prompt _"], Int[np.ndarray, "prompt _"], Int[np.ndarray, "prompt _"]]
"""Neurons of each prompt: their layers, heads (-1: FFN neurons), and numbers in the MLP or dimensions of the head."""
EVERY = slice(None)
"""All prompts."""


@dataclass(frozen=True)
class Writers:
    """The neurons of one layer, and what they write at the answer positions of some prompts."""

    base: Float[Tensor, "batch d_model"]
    """The state that each is added to: what enters the layer, and of an MLP's neurons its attention's output too."""
    directions: Float[Tensor, "neuron d_model"]
    """Rows of W_out, or of W_O: all dimensions of the first head, then of the next."""
    outlet: Norm
    """What `directions` get through on their way to the residual stream, its scale being in the coefficients."""
    coefficients: Float[Tensor, "batch neuron source"]
    """`source` counts source positions; of FFN neurons there is one."""

    def written(self, neurons: Int[Tensor, " some"] | slice) -> Float[Tensor, "some d_model"]:
        """What a coefficient of 1 adds to the residual stream: the subvalue."""
        directions = self.directions[neurons]
        return self.outlet.linear(directions, directions.new_ones(1, 1))

    def along(self, slopes: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch neuron"]:
        """The inner products of all subvalues with a direction a prompt."""
        return self.outlet.pull_back(slopes, slopes.new_ones(1, 1)) @ self.directions.T


class AnswerRun:
    """One run of some prompts, and what neurons write at their answer positions."""

    def __init__(self, model: LensModel, batch: TokenBatch, *kinds: Kind) -> None:
        """Run the prompts once.

        Raises:
            InputError: no prompts.
            Unfit: `require_kinds` says what.
        """
        require_kinds(model, batch, *kinds)
        self.model, self.batch, self.out = model, batch, readout(model)
        n_layers = model.cfg.n_layers
        sites: list[ReadSite] = ["resid_pre", "attn_out"]
        sites += ["mlp_post", "mlp_out"] if "ffn" in kinds else []
        sites += ["pattern", "z"] if "attention" in kinds else []
        places: list[Place] = [(site, n) for n in range(n_layers) for site in sites]
        self.here = Capture([*places, final_state(model)], batch.last)
        self._values = Capture([("v", n) for n in range(n_layers) if "attention" in kinds])
        self.logits = answer_logits(model, batch, self.here, self._values)
        self.scale = self.out.norm.scale(self.here.at(*final_state(model)))
        """The final norm's scale at each answer position, which every projection is frozen at."""

    def base(self, kind: Kind, layer: int, prompts: slice = EVERY) -> Float[Tensor, "batch d_model"]:
        """The state that the neurons of a layer are added to."""
        resid_pre = self.here.at("resid_pre", layer)[prompts]
        return resid_pre if kind == "attention" else resid_pre + self.here.at("attn_out", layer)[prompts]

    def added_to(self, writers: Writers) -> Added:
        """The states that some neurons are added to on all prompts, read out."""
        return Added.to(self.out, writers.base, self.scale, self.batch.target)

    def writers(self, kind: Kind, layer: int, prompts: slice = EVERY) -> Writers:
        """The FFN or attention neurons of a layer."""
        base = self.base(kind, layer, prompts)
        if kind == "ffn":
            mlp, post = mlp_weights(self.model, layer), self.here.at("mlp_post", layer)[prompts]
            return Writers(base, at_least_float32(mlp.W_out), mlp.outlet, (post / mlp.outlet_scale(post))[..., None])
        weights, z = attention_weights(self.model, layer), self.here.at("z", layer)[prompts]
        v = self._values.at("v", layer)[prompts][:, :, kv_heads(self.model)]
        alpha = self.here.at("pattern", layer)[prompts] / weights.outlet_scale(z)[..., None]
        coefficients = torch.einsum("bhs,bshk->bhks", alpha, v).flatten(1, 2)
        return Writers(base, at_least_float32(weights.W_O).flatten(0, 1), weights.outlet, coefficients)


def n_neurons(model: LensModel, kind: Kind) -> int:
    """How many neurons each layer has.

    Raises:
        Unfit: layers with different numbers of FFN neurons, or without any that can be read one by one.
    """
    if kind == "attention":
        return int(model.cfg.n_heads * model.cfg.d_head)
    widths = [mlp_weights(model, layer).W_out.shape[0] for layer in range(model.cfg.n_layers)]
    if len(set(widths)) > 1:
        raise Unfit(f"{model.cfg.model_name!r} has MLPs of {min(widths)} to {max(widths)} neurons: one width is needed")
    return widths[0]


def require_prompts(batch: TokenBatch) -> None:
    """Raise `InputError` for a batch without prompts."""
    if not len(batch):
        raise InputError("there are no prompts to ask about neurons: the batch is empty")


def require_neurons(model: LensModel, neurons: Addresses) -> None:
    """Raise `InputError` naming a neuron that `model` does not have."""
    layer, head, number = (part.ravel() for part in neurons)
    head = np.maximum(head, -1)
    for n, h in np.unique(np.stack([layer, head]), axis=1).T.tolist():
        mine = number[(layer == n) & (head == h)]
        for one in (int(mine.min()), int(mine.max())):
            require_neuron(model, Neuron(n, one)) if h < 0 else require_dimension(model, Head(n, h), one)


def require_neuron(model: LensModel, neuron: Neuron) -> None:
    """Raise `InputError` for an FFN neuron that `model` does not have."""
    require_layer(model, neuron.layer)
    n_neurons = mlp_weights(model, neuron.layer).W_out.shape[0]
    if not 0 <= neuron.neuron < n_neurons:
        raise InputError(f"{neuron} does not exist: layer {neuron.layer} has neurons 0..{n_neurons - 1}")


def require_dimension(model: LensModel, head: Head, dimension: int) -> None:
    """Raise `InputError` for an attention neuron that `model` does not have."""
    require_heads(model, [head])
    if not 0 <= dimension < model.cfg.d_head:
        raise InputError(f"{head} has no dimension {dimension}: its dimensions are 0..{model.cfg.d_head - 1}")


def require_kinds(model: LensModel, batch: TokenBatch, *kinds: Kind) -> None:
    """Raise `InputError` for no prompts, `Unfit` for a model without such neurons, or one that an identity fails of."""
    require_prompts(batch)
    needed: list[Identity] = ["layers", "readout"]
    if "attention" in kinds:
        require_per_head_z(model)
        needed += ["heads", "values"]
    if "ffn" in kinds:
        if not has_mlp(model):
            raise Unfit(f"{model.cfg.model_name!r} has no MLPs, so no FFN neurons: ask for attention neurons")
        n_neurons(model, "ffn")
        needed += ["neurons"]
    require_identities(model, batch.tokens, batch.last, *needed)
