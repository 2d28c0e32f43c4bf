"""QK two towers: W_Q at the last position and W_K at the label positions measure similarity (arXiv 2402.02872).

The query tower is `q_T`, the key tower `k_p` at a demonstration's label position, and their similarity the attention
score `q_T . k_p / scale`. If attention is metric learning, demonstrations of the query's class score above the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.interventions import position_places, positionless
from icl_circuits.models import (
    LensModel,
    Place,
    at_least_float32,
    attention_weights,
    factored,
    kv_head,
    require_identities,
)
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.residual import Capture, Head, answer_logits, require_some_heads
from icl_circuits.stats import Interval, bootstrap_mean, generator
from icl_circuits.towers.ov import effective_rank


@dataclass(frozen=True)
class TwoTowers:
    """Both towers of some heads and what attention makes of them, a value for each prompt."""

    heads: tuple[Head, ...]
    labels: tuple[str, ...]
    query: Float[np.ndarray, "prompt selected d_head"]
    """The query tower at the answer position, without position."""
    key: Float[np.ndarray, "prompt selected demo d_head"]
    """The key tower at each label position, without position."""
    score: Float[np.ndarray, "prompt selected demo"]
    """The attention score, logits of the softmax over positions: the similarity that the head uses."""
    content_score: Float[np.ndarray, "prompt selected demo"]
    """The same without position: unturned by rotary, or without the part of W_pos."""
    attention: Float[np.ndarray, "prompt selected demo"]
    """Attention probability from the answer position to each label position."""
    demo_labels: Int[np.ndarray, "prompt demo"]
    gold: Int[np.ndarray, " prompt"]

    @property
    def same_class(self) -> Bool[np.ndarray, "prompt demo"]:
        """Whether a demonstration is of the query's class."""
        return self.demo_labels == self.gold[:, None]


@torch.no_grad()
def two_towers(model: LensModel, batch: PromptBatch, heads: Sequence[Head]) -> TwoTowers:
    """The query tower at the answer position and the key tower at each label position, and their similarity.

    Raises:
        InputError: a head that does not exist; zero-shot prompts.
        Unfit: a model without rotary or learned positions; attention that is not the softmax of the scores of its
            queries and keys; queries and keys that are not the normed state times W_Q and W_K.
    """
    heads = require_some_heads(model, heads)
    require_demonstrations(batch, "to compare with")
    require_identities(model, batch.tokens, batch.last, "scores", "projections")
    parts = [_two_towers(model, chunk, heads) for chunk in tracked(list(batch.chunks()), "two towers")]
    query, key, score, content, attention = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    demo_labels, gold = batch.demo_labels.cpu().numpy(), batch.gold.cpu().numpy()
    return TwoTowers(heads, batch.labels, query, key, score, content, attention, demo_labels, gold)


def _two_towers(model: LensModel, batch: PromptBatch, heads: tuple[Head, ...]) -> tuple[Tensor, ...]:
    n_pos, last = batch.tokens.shape[1], batch.last[:, None]
    layers = {head.layer: position_places(model, head.layer, n_pos) for head in heads}
    extra: list[Place] = [place for _, places in layers.values() for place in places]
    captures = {
        "q": Capture([*(("q", n) for n in layers), *(("pattern", n) for n in layers), *extra], last),
        "k": Capture([*(("k", n) for n in layers), *extra], batch.label_positions),
    }
    answer_logits(model, batch, *captures.values())
    towers: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    for layer, (block, _) in layers.items():
        for name, positions in (("q", last), ("k", batch.label_positions)):
            found: dict[Any, Tensor] = captures[name].found
            x = found[name, layer]
            content = positionless(block, name, x, found.get(("pos_embed", 0)), found.get(("resid_pre", layer)))
            towers[name, layer] = block.turned(name, x, positions), content
    columns: list[tuple[Tensor, ...]] = []
    for head in heads:
        block = layers[head.layer][0]
        (q, q_content), (k, k_content) = (
            tuple(at_least_float32(tower[:, :, place]) for tower in towers[name, head.layer])
            for name, place in (("q", head.head), ("k", kv_head(model, head.head)))
        )
        score, content_score = block.scores(q, k)[:, 0], block.scores(q_content, k_content)[:, 0]
        attention = captures["q"].of(model, "pattern", head)[:, 0].gather(1, batch.label_positions)
        columns.append((q_content[:, 0], k_content, score, content_score, attention))
    return tuple(torch.stack(column, 1) for column in zip(*columns, strict=True))


# --- the claim itself -------------------------------------------------------------------------------------------------


def class_auc(
    scores: Float[np.ndarray, "prompt selected demo"], same_class: Bool[np.ndarray, "prompt demo"]
) -> Float[np.ndarray, "prompt selected"]:
    """How often a same-class demonstration scores above an other-class one, over all such pairs of a prompt; ties half.

    NaN for a prompt without such a pair.
    """
    pairs = same_class[:, :, None] & ~same_class[:, None, :]
    ahead = (scores[..., :, None] > scores[..., None, :]) + 0.5 * (scores[..., :, None] == scores[..., None, :])
    count = pairs.sum(axis=(1, 2))[:, None].astype(float)
    total = (ahead * pairs[:, None]).sum(axis=(2, 3))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


@dataclass(frozen=True)
class MetricLearning:
    """Whether each head's score ranks same-class demonstrations above others: AUC within prompts, 0.5 is chance."""

    heads: tuple[Head, ...]
    auc: Float[np.ndarray, "prompt selected"]
    auc_content: Float[np.ndarray, "prompt selected"]
    """Of the scores without position."""
    auc_shuffled: Float[np.ndarray, "draw prompt selected"]
    """Of the scores, with the classes of each prompt's demonstrations shuffled: what chance looks like here."""

    def to_frame(self) -> pd.DataFrame:
        """One row a head: AUCs with 95 % bootstrap intervals over prompts, and where 95 % of the shuffles lie."""
        rows = []
        shuffled = np.nanmean(self.auc_shuffled, axis=1)
        for place, head in enumerate(self.heads):
            row: dict[str, object] = {"layer": head.layer, "head": head.head}
            for name, values in (("auc", self.auc), ("auc_content", self.auc_content)):
                row |= bootstrap_mean(values[:, place][np.isfinite(values[:, place])]).columns(name)
            chance = Interval(shuffled[:, place].mean(), *np.quantile(shuffled[:, place], [0.025, 0.975]))
            rows.append(row | chance.columns("auc_shuffled"))
        return pd.DataFrame(rows)


def metric_learning(towers: TwoTowers, *, draws: int = 100, seed: int = 0) -> MetricLearning:
    """Test the claim: does the score rank same-class demonstrations above other-class ones?

    Args:
        towers: of prompts in shuffled order; in the paper's fixed order class match and recency are confounded.
        draws: shuffles of the demonstrations' classes, for the control.
        seed: of the shuffles.
    """
    rng = generator(seed)
    shuffled = [class_auc(towers.score, rng.permuted(towers.same_class, axis=1)) for _ in range(draws)]
    return MetricLearning(
        towers.heads,
        class_auc(towers.score, towers.same_class),
        class_auc(towers.content_score, towers.same_class),
        np.stack(shuffled),
    )


# --- the spectrum of W_QK ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QKSpectrum:
    """Singular values of W_QK, whole and restricted to the features that the prompts hold, largest first."""

    heads: tuple[Head, ...]
    weights: Float[np.ndarray, "selected d_head"]
    """Of `W_Q W_K^T`."""
    features: Float[np.ndarray, "selected rank"]
    """Of the matrix of content scores between every query and every key of the prompts, keys centred: what is the same
    for all keys moves no attention."""

    def to_frame(self) -> pd.DataFrame:
        """One row a head: the effective rank of W_QK, and of W_QK between the features present."""
        return pd.DataFrame(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.head for head in self.heads],
                "effective_rank": [effective_rank(values) for values in self.weights],
                "effective_rank_of_features": [effective_rank(values) for values in self.features],
                "first_direction_share": [float(v[0] ** 2 / max((v**2).sum(), 1e-30)) for v in self.features],
            }
        )


@torch.no_grad()
def qk_spectrum(model: LensModel, towers: TwoTowers) -> QKSpectrum:
    """How many directions of W_QK the prompts use: its spectrum, and that of the scores between their features."""
    weights, features = [], []
    for place, (layer, head) in enumerate(towers.heads):
        matrices = attention_weights(model, layer)
        weights.append(factored(matrices.W_Q[head], matrices.W_K[head].T).S[: model.cfg.d_head].cpu().numpy())
        query, key = (torch.from_numpy(t[:, place].reshape(-1, model.cfg.d_head)) for t in (towers.query, towers.key))
        features.append(factored(query, (key - key.mean(0)).T).S[: min(len(query), model.cfg.d_head)].numpy())
    return QKSpectrum(towers.heads, np.stack(weights).astype(np.float64), np.stack(features).astype(np.float64))
