"""What each tower reads: the attention score as a sum over everything written before (arXiv 2402.02872).

The state that enters a layer is the sum of the embedding and every earlier head's and MLP's output. With the norm's
scale frozen, a query is linear in it, so the score `q_T . k_p / scale` splits exactly into what each component adds on
the query's side (the keys held as they are) and, another way to split the same number, on the keys' side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import Unfit
from icl_circuits.models import (
    AttentionWeights,
    Block,
    LensModel,
    at_least_float32,
    attention_weights,
    read_block,
    require_identities,
)
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.residual import Component, Head, HeadLike, Written, components_below, layer_of, require_some_heads
from icl_circuits.stats import bootstrap_means, mean_of_finite
from icl_circuits.towers.ov import mean_where

SIDES = ("query", "key")


@dataclass(frozen=True, repr=False)
class TowerReads(Displayed):
    """The parts of each head's scores, logits: axis `side` is the query tower, then the key tower."""

    heads: tuple[Head, ...]
    components: tuple[Component, ...]
    """The embedding, heads, MLPs, and every bias on the way."""
    score: Float[np.ndarray, "prompt selected demo"]
    """What the parts of either side add up to."""
    by_component: Float[np.ndarray, "side prompt selected demo component"]
    """Zero for components in the head's layer or above."""
    by_source: Float[np.ndarray, "side prompt selected demo src_pos"]
    """What came from each source position: there by earlier heads' attention, or, at the tower's own position, by its
    embedding and MLPs. Adds up to the score less `bias`. The query tower stands at the answer position, the key tower
    at the label position."""
    same_class: Bool[np.ndarray, "prompt demo"]
    segments: Int[np.ndarray, "prompt src_pos"]
    """Which demonstration a source position belongs to (the query comes after the last; -1: none)."""

    def class_gap(self) -> Float[np.ndarray, "side prompt selected component"]:
        """What each component adds to the mean score of same-class demonstrations over that of the others, logits."""
        return _gap(self.by_component, self.same_class)

    @property
    def headline(self) -> str:
        """Its main number."""
        gaps = mean_of_finite(self.class_gap().transpose(1, 0, 2, 3))
        return highest("class_gap", gaps, lambda s, h, c: f"{self.heads[h]}, {SIDES[s]} side, {self.components[c]}")

    def to_frame(self) -> pd.DataFrame:
        """One row a head, side and component that can reach it: mean part of the class gap with a 95 % interval."""
        frames, components, gaps = [], [str(component) for component in self.components], self.class_gap()
        for (side, name), (place, head) in (
            ((s, n), (p, h)) for s, n in enumerate(SIDES) for p, h in enumerate(self.heads)
        ):
            values = gaps[side][:, place]
            found = bootstrap_means(values[np.isfinite(values).all(axis=1)].T.astype(np.float64))
            frame = pd.DataFrame({"layer": head.layer, "head": head.head, "side": name, "component": components})
            frame = frame.assign(**found.columns("class_gap"))
            frames.append(frame[[layer_of(component) < head.layer for component in self.components]])
        return pd.concat(frames, ignore_index=True)


def _gap(
    values: Float[np.ndarray, "side prompt selected demo component"], same_class: Bool[np.ndarray, "prompt demo"]
) -> Float[np.ndarray, "side prompt selected component"]:
    sides = []
    for side in values:
        rows = np.moveaxis(side, 3, 2).reshape(len(side), -1, side.shape[2])
        gap = mean_where(rows, same_class) - mean_where(rows, ~same_class)
        sides.append(gap.reshape(len(side), side.shape[1], side.shape[3]))
    return np.stack(sides)


@torch.no_grad()
def tower_reads(model: LensModel, batch: PromptBatch, heads: Sequence[HeadLike]) -> TowerReads:
    """Split the scores between the answer position and each label position into what earlier components add.

    Linear through the norm with its scale frozen at the actual state, so the parts add up to the score exactly.

    Raises:
        InputError: a head that does not exist.
        Unfit: zero-shot prompts. A model with norms on queries and keys, or with capped scores, for which the split
            would not be linear. An identity that the split rests on fails (`require_identities`).
    """
    heads = require_some_heads(model, heads)
    require_demonstrations(batch, "to compare with")
    n_layers = max(head.layer for head in heads)
    components = components_below(model, n_layers)
    n_prompts, n_demos = batch.label_positions.shape
    score = np.zeros((n_prompts, len(heads), n_demos), np.float32)
    by_component = np.zeros((2, n_prompts, len(heads), n_demos, len(components)), np.float32)
    by_source = np.zeros((2, n_prompts, len(heads), n_demos, batch.tokens.shape[1]), np.float32)
    start = 0
    for chunk in tracked(list(batch.chunks(2048)), "what the towers read"):
        towers = TowerInputs(model, chunk, heads)
        rows, width = slice(start, start + len(chunk)), chunk.tokens.shape[1]
        for place, head in enumerate(heads):
            found, directions, biases = towers.directions(head)
            score[rows, place] = found.cpu().numpy()
            kept = [i for i, component in enumerate(components) if layer_of(component) < head.layer]
            for side, places in enumerate((slice(0, 1), slice(1, None))):
                parts, sources = towers.written.along(directions[side], head.layer, places)
                parts[..., -1] += biases[side]
                by_component[side, rows, place][..., kept] = parts.cpu().numpy()
                by_source[side, rows, place, :, :width] = sources.cpu().numpy()
        start += len(chunk)
    same = (batch.demo_labels == batch.gold[:, None]).cpu().numpy()
    return TowerReads(heads, components, score, by_component, by_source, same, batch.segments.cpu().numpy())


class TowerInputs:
    """The towers of some heads, the answer position first and then the label positions, and what is written there."""

    def __init__(self, model: LensModel, batch: PromptBatch, heads: tuple[Head, ...]) -> None:
        self.model, self.batch = model, batch
        layers = range(max(head.layer for head in heads) + 1)
        require_identities(model, batch.tokens, batch.last, "scores", "projections")
        self.blocks = [read_block(model, layer, batch.tokens.shape[1]) for layer in layers]
        for block in self.blocks:
            self._require_linear(block)
        at = torch.cat([batch.last[:, None], batch.label_positions], 1)
        self.written = Written(model, batch, at, layers[-1])
        self.weights: dict[int, AttentionWeights] = {h.layer: attention_weights(model, h.layer) for h in heads}

    def _require_linear(self, block: Block) -> None:
        reasons = {
            "norms its queries and keys": block.norm_q is not None or block.norm_k is not None,
            "caps its attention scores": block.softcap is not None,
        }
        for reason, holds in reasons.items():
            if holds:
                raise Unfit(f"{self.model.cfg.model_name!r} {reason}, so its scores are no sum over earlier components")

    def directions(self, head: Head) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """A head's scores `[batch demo]`, and for each side the direction `[batch demo d_model]` along which a write at
        the tower's position moves them, and what the biases of norm and projection add `[batch demo]`.
        """
        block, weights = self.blocks[head.layer], self.weights[head.layer]
        resid = self.written.here["resid_pre", head.layer]
        normed, scale = block.ln1(resid), block.ln1.scale(resid)
        labels, last = self.batch.label_positions, self.batch.last[:, None].expand_as(self.batch.label_positions)
        W_Q, W_K = at_least_float32(weights.W_Q[head.head]), at_least_float32(weights.W_K[head.head])
        b_Q, b_K = at_least_float32(weights.b_Q[head.head]), at_least_float32(weights.b_K[head.head])
        q = (normed[:, :1] @ W_Q + b_Q).expand(-1, labels.shape[1], -1)
        k = normed[:, 1:] @ W_K + b_K
        q_turned, k_turned = self._turned(block, q, last), self._turned(block, k, labels)
        on_q = self._turned(block, k_turned, last, back=True) / block.scale
        on_k = self._turned(block, q_turned, labels, back=True) / block.scale
        along = (
            block.ln1.pull_back(on_q @ W_Q.T, scale[:, :1]),
            block.ln1.pull_back(on_k @ W_K.T, scale[:, 1:]),
        )
        bias = ((on_q * (block.ln1.bias @ W_Q + b_Q)).sum(-1), (on_k * (block.ln1.bias @ W_K + b_K)).sum(-1))
        return (q_turned * k_turned).sum(-1) / block.scale, along, bias

    @staticmethod
    def _turned(block: Block, x: Tensor, positions: Tensor, *, back: bool = False) -> Tensor:
        if block.rotary is None:
            return x
        rotary = block.rotary.inverse if back else block.rotary
        return rotary(x[:, :, None], positions)[:, :, 0]
