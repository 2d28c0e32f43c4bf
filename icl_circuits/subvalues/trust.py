"""Scores beside effects: how far the static scores of FFN neurons agree with zeroing each alone, for real."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, require_whole
from icl_circuits.interventions import Patch
from icl_circuits.models import LensModel, Place, at_least_float32, mlp_weights
from icl_circuits.patching import gradients, run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.stats import bootstrap_means, generator
from icl_circuits.subvalues.exact import projected
from icl_circuits.subvalues.scores import OneLayer
from icl_circuits.subvalues.writers import AnswerRun, n_neurons, require_kinds

PREDICTORS = ("increase", "first_order", "attribution")


@dataclass(frozen=True, repr=False)
class ZeroedAlone(Displayed):
    """FFN neurons zeroed one by one at the answer position, and what was predicted of each; nats.

    All are losses of the target's log-probability: positive where the neuron helps.
    """

    layer: Int[np.ndarray, " neuron"]
    neuron: Int[np.ndarray, " neuron"]
    lost: Float[np.ndarray, "neuron prompt"]
    """Exact: log p(target) with nothing zeroed less that with this neuron zeroed at the answer position."""
    increase: Float[np.ndarray, "neuron prompt"]
    """The static score: log-probability increase."""
    first_order: Float[np.ndarray, "neuron prompt"]
    """Its first order; an upper bound of it unless the model caps its logits."""
    attribution: Float[np.ndarray, "neuron prompt"]
    """Attribution patching: minus the gradient at mlp_out times the change."""

    def rank_correlations(self, predictor: str) -> Float[np.ndarray, "layer prompt"]:
        """Spearman's rank correlation of a predictor with the exact loss, over the neurons of each layer.

        NaN where all losses or all predictions of a layer are the same.
        """
        found = []
        for layer in np.unique(self.layer):
            rows = self.layer == layer
            ranks = [pd.DataFrame(values[rows]).rank().to_numpy() for values in (getattr(self, predictor), self.lost)]
            centred = [rank - rank.mean(axis=0) for rank in ranks]
            length = np.sqrt((centred[0] ** 2).sum(axis=0) * (centred[1] ** 2).sum(axis=0))
            found.append((centred[0] * centred[1]).sum(axis=0) / np.where(length == 0, np.nan, length))
        return np.stack(found)

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("loss", self.lost.mean(axis=1), lambda i: f"L{self.layer[i]}N{self.neuron[i]}")

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and predictor: mean rank correlation with its 95 % bootstrap interval over prompts.

        Prompts without a rank correlation in every layer are left out.
        """
        frames = []
        for predictor in PREDICTORS:
            values = self.rank_correlations(predictor)
            columns = bootstrap_means(values[:, np.isfinite(values).all(axis=0)]).columns("rank_correlation")
            frames.append(pd.DataFrame({"layer": np.unique(self.layer), "score": predictor, **columns}))
        return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def zero_each_neuron(
    model: LensModel, batch: TokenBatch, *, per_layer: int = 32, seed: int = 0, verify: int = 0
) -> ZeroedAlone:
    """Zero FFN neurons one by one at the answer position, in the exact engine, and compare with static scores.

    Args:
        model: the model.
        batch: the prompts.
        per_layer: how many neurons of each layer, drawn at random; 3 or more, so that ranks tell.
        seed: of the draw.
        verify: how many of them to check against `run_with_hooks`, as for `run_each`.

    Raises:
        InputError: a number of neurons that a layer does not have.
        Unfit: as for `score_neurons`.
    """
    require_kinds(model, batch, "ffn")
    rng, layers, every = generator(seed), range(model.cfg.n_layers), n_neurons(model, "ffn")
    require_whole(per_layer, 3, f"per_layer is {per_layer}: give a whole number of neurons, 3 or more")
    if per_layer > every:
        raise InputError(f"cannot draw {per_layer} of the {every} neurons of a layer: ask for 3 to {every}")
    drawn = [np.sort(rng.permutation(every)[:per_layer]) for _ in layers]
    chosen = [torch.as_tensor(numbers, device=batch.tokens.device) for numbers in drawn]
    parts: list[tuple[Tensor, Tensor, Tensor, list[Tensor]]] = []
    for start, stop in batch.parts():
        parts.append(_predicted(model, batch.select(range(start, stop)), chosen))
    increase, first_order, attribution = (torch.cat([part[n] for part in parts], 1) for n in range(3))  # type: ignore[misc]
    without = [torch.cat([part[3][layer] for part in parts]) for layer in layers]
    variants = [
        (Patch("mlp_out", layer, without[layer][:, i : i + 1], batch.last[:, None]),)
        for layer in layers
        for i in range(per_layer)
    ]
    found = run_each(model, batch, variants, "log_prob", verify=verify, description="zeroing neurons one by one")
    return ZeroedAlone(
        np.repeat(np.arange(len(layers)), per_layer),
        np.concatenate(drawn),
        (found.base - found.values).numpy(),
        *(values.cpu().numpy() for values in (increase, first_order, attribution)),
    )


def _predicted(
    model: LensModel, batch: TokenBatch, chosen: list[Int[Tensor, " some"]]
) -> tuple[
    Float[Tensor, "neuron batch"],
    Float[Tensor, "neuron batch"],
    Float[Tensor, "neuron batch"],
    list[Float[Tensor, "batch some d_model"]],
]:
    """The three predictions for the chosen neurons of all layers, and what each layer's MLP writes without each."""
    run = AnswerRun(model, batch, "ffn")
    places: list[Place] = [("mlp_out", layer) for layer in range(model.cfg.n_layers)]
    slopes = gradients(model, batch, places, "log_prob", None, 1).of
    rows = torch.arange(len(batch), device=batch.tokens.device)
    increases, firsts, guessed, left = [], [], [], []
    for layer, numbers in enumerate(chosen):
        one = OneLayer.of(run, "ffn", layer)
        t, first = one.t[:, numbers, 0], one.first[:, numbers, 0]
        u = projected(run.out, one.writers.written(numbers))
        exact = [one.added.of(row.expand(len(numbers))).exact(u, t[row], first[row]) for row in rows]
        without = _without(model, layer, run.here.at("mlp_post", layer), numbers)
        change = without - run.here.at("mlp_out", layer)[:, None]
        slope = slopes["mlp_out", layer][rows, batch.last]
        increases.append(torch.stack(exact, 1))
        firsts.append(first.T)
        guessed.append(-(change * slope[:, None]).sum(-1).T)
        left.append(without)
    return torch.cat(increases), torch.cat(firsts), torch.cat(guessed), left


def _without(
    model: LensModel, layer: int, post: Float[Tensor, "batch d_mlp"], neurons: Int[Tensor, " some"]
) -> Float[Tensor, "batch some d_model"]:
    """What the MLP writes without each of some neurons. A post-norm's scale is that of what is left."""
    weights = mlp_weights(model, layer)
    W_out = at_least_float32(weights.W_out)
    left = (post @ W_out + weights.b_out)[:, None] - post[:, neurons, None] * W_out[neurons]
    return weights.outlet.linear(left, weights.outlet.scale(left)) + weights.outlet.bias
