"""Which FFN neurons write what the two towers read: the link from in-context heads to subvalues.

`tower_reads` splits an attention score into what each earlier component adds, on the query's side and on the key's. An
MLP's part is the sum over its neurons, each its coefficient times its output direction, so the split goes down to them.
Attention metric learning needs a class gap: scores of same-class demonstrations above those of the others. A neuron's
part of it says how far that neuron helps the head tell the right demonstrations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, Unfit, require_whole
from icl_circuits.models import LensModel, at_least_float32, has_mlp, mlp_weights, require_identities
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.residual import Capture, Head, HeadLike, Neuron, answer_logits, require_some_heads
from icl_circuits.stats import bootstrap_means, mean_of_finite
from icl_circuits.towers.reads import SIDES, TowerInputs


@dataclass(frozen=True, repr=False)
class NeuronReads(Displayed):
    """The FFN neurons that add most to each head's class gap.

    Measured on other prompts than they were chosen on, if `neuron_reads` was given some; else they look better than
    they are.
    """

    heads: tuple[Head, ...]
    layer: Int[np.ndarray, "side selected rank"]
    """Of the chosen neurons, best first; axis `side` is the query tower, then the key tower. -1: none is left."""
    neuron: Int[np.ndarray, "side selected rank"]
    class_gap: Float[np.ndarray, "side selected rank prompt"]
    """What each adds to the mean score of same-class demonstrations over that of the others, logits. NaN where a prompt
    has demonstrations of one sort only."""
    all_neurons: Float[np.ndarray, "side selected prompt"]
    """The same of all FFN neurons below the head together."""

    @property
    def headline(self) -> str:
        """Its main number."""
        gaps = mean_of_finite(self.class_gap.transpose(3, 0, 1, 2))

        def place(side: int, head: int, rank: int) -> str:
            neuron = Neuron(int(self.layer[side, head, rank]), int(self.neuron[side, head, rank]))
            return f"{self.heads[head]}, {SIDES[side]} side, {neuron}"

        return highest("class_gap", gaps, place)

    def to_frame(self) -> pd.DataFrame:
        """One row a head, side and neuron: mean part of the class gap with a 95 % bootstrap interval over prompts."""
        frames = []
        for s, side in enumerate(SIDES):
            for h, head in enumerate(self.heads):
                kept = self.layer[s, h] >= 0
                names = [
                    str(Neuron(int(layer), int(neuron)))
                    for layer, neuron in zip(self.layer[s, h][kept], self.neuron[s, h][kept], strict=True)
                ]
                values = self.class_gap[s, h][kept].astype(float)
                found = bootstrap_means(values[:, np.isfinite(values).all(axis=0)])
                frame = pd.DataFrame({"layer": head.layer, "head": head.head, "side": side, "component": names})
                frames.append(frame.assign(**found.columns("class_gap")))
        return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def neuron_reads(
    model: LensModel,
    batch: PromptBatch,
    heads: Sequence[HeadLike],
    *,
    k: int = 10,
    choose_on: PromptBatch | None = None,
) -> NeuronReads:
    """Split each head's class gap into what single FFN neurons write, on either tower's side.

    Args:
        model: the model.
        batch: the prompts that the chosen neurons are measured on.
        heads: the in-context heads.
        k: how many neurons to choose for each head and side.
        choose_on: prompts to choose them on; default `batch`, where the best of many look better than they are.

    Raises:
        InputError: a head that does not exist, a `k` below 1, or prompts to choose on without a class gap.
        Unfit: as for `tower_reads`, and a model without FFN neurons, or whose neurons do not add up to `mlp_out`.
    """
    heads = require_some_heads(model, heads)
    require_demonstrations(batch, "to compare with")
    require_whole(k, 1, f"k is {k}: give how many neurons to choose, 1 or more")
    if not has_mlp(model):
        raise Unfit(f"{model.cfg.model_name!r} has no MLPs, so no FFN neurons write what its heads read")
    for layer in range(max(head.layer for head in heads)):
        mlp_weights(model, layer)  # names a mixture of experts
    chosen_on = batch if choose_on is None else choose_on
    if not torch.isfinite(_gap_weights(chosen_on)).all(1).any():
        raise InputError(
            "no prompt has demonstrations of the query's class and of another, so there is no class gap to choose by: "
            "give prompts with both"
        )
    means, _ = _gaps(model, chosen_on, heads, None)
    shape = (len(SIDES), len(heads), k)
    layers, neurons = np.full(shape, -1), np.full(shape, -1)
    for (s, h), found in means.items():
        best = found.flatten().topk(min(k, found.numel())).indices.cpu().numpy()
        if len(best):
            layers[s, h, : len(best)], neurons[s, h, : len(best)] = np.unravel_index(best, tuple(found.shape))
    _, (chosen, together) = _gaps(model, batch, heads, (layers, neurons))
    return NeuronReads(heads, layers, neurons, chosen, together)


Chosen = tuple[Int[np.ndarray, "side selected rank"], Int[np.ndarray, "side selected rank"]]


def _gaps(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], chosen: Chosen | None
) -> tuple[dict[tuple[int, int], Float[Tensor, "layer neuron"]], tuple[np.ndarray, np.ndarray]]:
    """Every neuron's part of the class gap, means over prompts by side and head; and of the chosen, each prompt's."""
    require_identities(model, batch.tokens, batch.last, "neurons")
    k = 0 if chosen is None else chosen[0].shape[2]
    of_chosen = np.full((len(SIDES), len(heads), k, len(batch)), np.nan, np.float32)
    together = np.full((len(SIDES), len(heads), len(batch)), np.nan, np.float32)
    sums: dict[tuple[int, int], Tensor] = {}
    n_counted, start = 0, 0
    for chunk in tracked(list(batch.chunks(1024)), "neurons that the towers read"):
        towers = TowerInputs(model, chunk, heads)
        at = torch.cat([chunk.last[:, None], chunk.label_positions], 1)
        below = range(max(head.layer for head in heads))
        seen = Capture([("mlp_post", layer) for layer in below], at)
        if below:
            answer_logits(model, chunk, seen)
        weights = _gap_weights(chunk)
        counted = torch.isfinite(weights).all(1)
        weights = weights.nan_to_num()
        rows = np.arange(start, start + len(chunk))[counted.cpu().numpy()]
        for h, head in enumerate(heads):
            _, directions, _ = towers.directions(head)
            for s, direction in enumerate(directions):
                parts = [_of_layer(model, layer, seen, direction, weights, s) for layer in range(head.layer)]
                if not parts:
                    sums[s, h] = direction.new_zeros(0, 0)
                    together[s, h, rows] = 0.0
                    continue
                of_layers = torch.stack(parts, 1)[counted]  # [batch layer neuron]
                sums[s, h] = sums.get((s, h), 0) + of_layers.sum(0)
                together[s, h, rows] = of_layers.sum((1, 2)).cpu().numpy()
                if chosen is not None:
                    kept = chosen[0][s, h] >= 0
                    picked = of_layers[:, chosen[0][s, h][kept], chosen[1][s, h][kept]]
                    of_chosen[s, h][np.ix_(kept, rows)] = picked.T.cpu().numpy()
        n_counted += len(rows)
        start += len(chunk)
    return {place: total / max(n_counted, 1) for place, total in sums.items()}, (of_chosen, together)


def _gap_weights(batch: PromptBatch) -> Float[Tensor, "batch demo"]:
    """What each demonstration's score is multiplied by in the class gap; NaN where one sort is missing."""
    same = batch.demo_labels == batch.gold[:, None]
    n_same, n_other = same.sum(1, keepdim=True), (~same).sum(1, keepdim=True)
    weights = torch.where(same, 1 / n_same, -1 / n_other)
    return weights.masked_fill((n_same == 0) | (n_other == 0), torch.nan)


def _of_layer(
    model: LensModel,
    layer: int,
    seen: Capture,
    directions: Float[Tensor, "batch demo d_model"],
    weights: Float[Tensor, "batch demo"],
    side: int,
) -> Float[Tensor, "batch neuron"]:
    """What each neuron of a layer adds to the class gap: written at the last position, or at label positions."""
    mlp, post = mlp_weights(model, layer), seen.at("mlp_post", layer)
    coefficients = post / mlp.outlet_scale(post)
    W_out, one = at_least_float32(mlp.W_out), post.new_ones(1, 1)
    if side == 0:
        gap = torch.einsum("bd,bdm->bm", weights, directions)
        return coefficients[:, 0] * (mlp.outlet.pull_back(gap, one) @ W_out.T)
    along = mlp.outlet.pull_back(weights[..., None] * directions, one[None]) @ W_out.T
    return (coefficients[:, 1:] * along).sum(1)
