"""What activates an FFN neuron: what it reads, split over all that was written before it, norms and all.

A neuron reads `x . k + b`, where x is the state behind the layer's norm. With the norm's scale frozen at its own value
that is linear in the state, so each earlier head and MLP has its part of it (the first version of arXiv 2312.12141).
Query importance leaves the norm out and takes inner products only; here the parts add up exactly.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import require_whole
from icl_circuits.models import (
    LensModel,
    at_least_float32,
    block_norms,
    is_parallel,
    mlp_weights,
    require_identities,
)
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Component, Mlp, answer_logits
from icl_circuits.residual.written import Written, components_below
from icl_circuits.subvalues.top import TopNeurons, require_values
from icl_circuits.subvalues.writers import EVERY, require_kinds


@dataclass(frozen=True, repr=False)
class CoefficientSplit(Displayed):
    """What FFN neurons read at the answer position, before their activation function, by what wrote it."""

    layer: Int[np.ndarray, "prompt rank"]
    neuron: Int[np.ndarray, "prompt rank"]
    components: tuple[Component, ...]
    """The embedding, every head and MLP, and the biases of heads; those behind a neuron add nothing to it."""
    parts: Float[np.ndarray, "prompt rank component"]
    """What each adds to `read`."""
    constant: Float[np.ndarray, "prompt rank"]
    """What the biases of the norm and of the neuron add."""
    read: Float[np.ndarray, "prompt rank"]
    """The sum of `parts` and `constant`: `mlp_pre`, the input of the activation function, of a gated MLP its gate's."""
    coefficient: Float[np.ndarray, "prompt rank"]
    """The neuron's coefficient, as in `TopNeurons`."""

    def shares(self) -> Float[np.ndarray, "prompt rank component"]:
        """Each component's proportional share of the coefficient: its part over `read`, times the coefficient."""
        return self.parts / self.read[..., None] * self.coefficient[..., None]

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("part", self.parts, lambda prompt, _, i: f"{self.components[i]}, prompt {prompt}")

    def to_frame(self, n: int = 10) -> pd.DataFrame:
        """The `n` components of the largest parts of each neuron: one row a prompt, rank and component.

        Raises:
            InputError: an `n` that is no whole number of components.
        """
        require_whole(n, 1, f"n is {n}: give how many components of a neuron to list, 1 or more")
        n = min(n, len(self.components))
        order = np.argsort(-np.abs(self.parts), axis=2, kind="stable")[..., :n]
        prompt, rank, _ = np.indices(order.shape)
        best = (prompt.ravel(), rank.ravel(), order.ravel())
        return pd.DataFrame(
            {
                "prompt": best[0],
                "rank": best[1],
                "layer": self.layer[best[:2]],
                "neuron": self.neuron[best[:2]],
                "component": [str(self.components[i]) for i in best[2]],
                "part": self.parts[best],
                "share_of_coefficient": self.shares()[best],
                "read": self.read[best[:2]],
            }
        )


@torch.no_grad()
def coefficient_split(model: LensModel, batch: TokenBatch, values: TopNeurons) -> CoefficientSplit:
    """Split what the FFN neurons of each prompt read at its answer position over all that was written before.

    Args:
        model: the model.
        batch: the prompts.
        values: their FFN neurons, from `top_neurons` on the same prompts.

    Raises:
        InputError: no prompts, attention neurons, or neurons of other prompts.
        Unfit: an identity fails that this rests on. The identities are: what neurons read is the normed state times
            their subkeys, and heads and layers add up to that state.
    """
    require_kinds(model, batch, "ffn")
    require_values(model, batch, values, "ffn")
    require_identities(model, batch.tokens, batch.last, "activations")
    components = components_below(model, model.cfg.n_layers)
    place = {component: i for i, component in enumerate(components)}
    parts = np.zeros((*values.layer.shape, len(components)), np.float32)
    constant = np.zeros(values.layer.shape, np.float32)
    start = 0
    for chunk in tracked(list(batch.chunks()), "what activates FFN neurons"):
        reading = _Reading(model, chunk)
        layers = values.layer[start : start + len(chunk)]
        for layer in np.unique(layers).tolist():
            prompt, rank = np.nonzero(layers == layer)
            before, found, fixed = reading.of_layer(layer, prompt, values.neuron[start + prompt, rank])
            columns = np.array([place[component] for component in before])
            parts[start + prompt[:, None], rank[:, None], columns] = found.cpu().numpy()
            constant[start + prompt, rank] = fixed.cpu().numpy()
        start += len(chunk)
    read = parts.sum(axis=2) + constant
    return CoefficientSplit(values.layer, values.neuron, components, parts, constant, read, values.coefficient)


class _Reading:
    """One run of some prompts: what was written to their answer positions, and what the MLPs' norms make of it."""

    def __init__(self, model: LensModel, batch: TokenBatch) -> None:
        self.model, n_layers = model, model.cfg.n_layers
        self.written = Written(model, batch, batch.last[:, None], n_layers)
        self.seen = Capture([(site, n) for n in range(n_layers) for site in ("resid_pre", "attn_out")], batch.last)
        answer_logits(model, batch, self.seen)

    def of_layer(
        self, layer: int, prompt: Int[np.ndarray, " some"], neuron: Int[np.ndarray, " some"]
    ) -> tuple[tuple[Component, ...], Float[Tensor, "some component"], Float[Tensor, " some"]]:
        """The parts of what a layer's neurons read, neuron by neuron, its prompts in order; and what biases add."""
        model, parallel = self.model, is_parallel(self.model)
        norm, (W, b) = block_norms(model, layer).before_mlp, mlp_weights(model, layer).read_by("gate")
        state = self.seen.at("resid_pre", layer)
        if not parallel:
            state = state + self.seen.at("attn_out", layer)
        W, b = at_least_float32(W)[:, neuron], at_least_float32(b)[neuron]
        own = norm.pull_back(W.T, norm.scale(state)[prompt])
        counts = np.bincount(prompt, minlength=len(state))
        slot = np.arange(len(prompt)) - (np.cumsum(counts) - counts)[prompt]  # first, second, .. of its prompt
        directions = own.new_zeros(len(state), int(counts.max()), own.shape[1])
        directions[prompt, slot] = own
        n_before = layer if parallel else layer + 1
        found, _ = self.written.along(directions, n_before, EVERY)
        before = components_below(model, n_before)
        kept = [i for i, component in enumerate(before) if component != Mlp(layer)]  # an MLP does not read itself
        return tuple(before[i] for i in kept), found[prompt, slot][:, kept], norm.bias @ W + b
