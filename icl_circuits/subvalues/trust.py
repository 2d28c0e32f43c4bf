"""Scores beside effects: how far the static scores of FFN neurons agree with zeroing each alone, for real."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions import Patch
from icl_circuits.models import LensModel, Place, at_least_float32, mlp_weights
from icl_circuits.patching import gradients, run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.stats import bootstrap_means, generator
from icl_circuits.subvalues.exact import projected
from icl_circuits.subvalues.writers import AnswerRun, require_kinds

PREDICTORS = ("increase", "first_order", "attribution")


@dataclass(frozen=True)
class ZeroedAlone:
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
    """Its first order, the upper bound that the search uses."""
    attribution: Float[np.ndarray, "neuron prompt"]
    """Attribution patching: minus the gradient at mlp_out times the change."""

    def rank_correlations(self, predictor: str) -> Float[np.ndarray, "layer prompt"]:
        """Spearman's rank correlation of a predictor with the exact loss, over the neurons of each layer."""
        found = []
        for layer in np.unique(self.layer):
            rows = self.layer == layer
            ranks = [pd.DataFrame(values[rows]).rank().to_numpy() for values in (getattr(self, predictor), self.lost)]
            centred = [rank - rank.mean(axis=0) for rank in ranks]
            length = np.sqrt((centred[0] ** 2).sum(axis=0) * (centred[1] ** 2).sum(axis=0))
            found.append((centred[0] * centred[1]).sum(axis=0) / np.where(length == 0, np.nan, length))
        return np.stack(found)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and predictor: mean rank correlation with its 95 % bootstrap interval over prompts."""
        frames = []
        for predictor in PREDICTORS:
            values = self.rank_correlations(predictor)
            columns = bootstrap_means(np.nan_to_num(values)).columns("rank_correlation")
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
        per_layer: how many neurons of each layer, drawn at random.
        seed: of the draw.
        verify: how many of them to check against `run_with_hooks`, as for `run_each`.

    Raises:
        InputError: a number of neurons that a layer does not have.
        Unfit: as for `score_neurons`.
    """
    require_kinds(model, batch, "ffn")
    rng, layers = generator(seed), range(model.cfg.n_layers)
    run = AnswerRun(model, batch, "ffn")
    variants, numbers, increases, firsts, changes = [], [], [], [], []
    for layer in layers:
        writers = run.writers("ffn", layer)
        n_neurons = len(writers.directions)
        if not 1 <= per_layer <= n_neurons:
            raise InputError(f"cannot draw {per_layer} of the {n_neurons} neurons of a layer: ask for 1 to {n_neurons}")
        chosen = torch.as_tensor(np.sort(rng.permutation(n_neurons)[:per_layer]), device=batch.tokens.device)
        numbers.append(chosen)
        without = _without(model, layer, run.here.at("mlp_post", layer), chosen)
        variants += [(Patch("mlp_out", layer, without[:, i : i + 1], batch.last[:, None]),) for i in range(per_layer)]
        changes.append(without - run.here.at("mlp_out", layer)[:, None])
        added = run.added_to(writers)
        t = writers.coefficients[:, chosen, 0] / run.scale
        first = t * writers.along(added.slopes())[:, chosen]
        u = projected(run.out, writers.written(chosen))
        prompt, place = (part.flatten() for part in torch.meshgrid(*(torch.arange(n) for n in t.shape), indexing="ij"))
        exact = added.of(prompt).exact(u[place], t.flatten(), first.flatten())
        increases.append(exact.view(t.shape).T)
        firsts.append(first.T)
    found = run_each(model, batch, variants, "log_prob", verify=verify, description="zeroing neurons one by one")
    places: list[Place] = [("mlp_out", layer) for layer in layers]
    slopes = gradients(model, batch, places, "log_prob", None, 1).of
    rows = torch.arange(len(batch), device=batch.tokens.device)
    guessed = [
        -(c * slopes[place][rows, batch.last][:, None]).sum(-1).T for c, place in zip(changes, places, strict=True)
    ]
    return ZeroedAlone(
        np.repeat(np.arange(len(layers)), per_layer),
        torch.cat(numbers).cpu().numpy(),
        (found.base - found.values).numpy(),
        *(torch.cat(parts).cpu().numpy() for parts in (increases, firsts, guessed)),
    )


def _without(
    model: LensModel, layer: int, post: Float[Tensor, "batch d_mlp"], neurons: Int[Tensor, " some"]
) -> Float[Tensor, "batch some d_model"]:
    """What the MLP writes without each of some neurons. A post-norm's scale is that of what is left."""
    weights = mlp_weights(model, layer)
    W_out = at_least_float32(weights.W_out)
    left = (post @ W_out + weights.b_out)[:, None] - post[:, neurons, None] * W_out[neurons]
    return weights.outlet.linear(left, weights.outlet.scale(left)) + weights.outlet.bias
