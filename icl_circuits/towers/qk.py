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

from icl_circuits.display import Displayed, highest
from icl_circuits.interventions import position_places, positionless
from icl_circuits.models import LensModel, Place, at_least_float32, kv_head, require_identities
from icl_circuits.patching import run_hooked
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.residual import Capture, Head, HeadLike, require_some_heads
from icl_circuits.stats import mean_of_finite


@dataclass(frozen=True, repr=False)
class TwoTowers(Displayed):
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
    def headline(self) -> str:
        """Its main number."""
        same, other = (np.where(of[:, None], self.score, np.nan) for of in (self.same_class, ~self.same_class))
        gaps = mean_of_finite(np.moveaxis(same, 1, -1).reshape(-1, len(self.heads)))
        gaps = gaps - mean_of_finite(np.moveaxis(other, 1, -1).reshape(-1, len(self.heads)))
        return highest("class gap of the score", gaps, self.heads.__getitem__)

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt, head and demonstration: both scores (logits), attention, and whether it is of the class."""
        prompt, place, demo = (index.ravel() for index in np.indices(self.score.shape))
        where = {"prompt": prompt, "layer": [self.heads[i].layer for i in place]}
        where |= {"head": [self.heads[i].head for i in place], "demo": demo}
        values = {name: getattr(self, name).ravel() for name in ("score", "content_score", "attention")}
        return pd.DataFrame({**where, **values, "same_class": self.same_class[prompt, demo]})

    @property
    def same_class(self) -> Bool[np.ndarray, "prompt demo"]:
        """Whether a demonstration is of the query's class."""
        return self.demo_labels == self.gold[:, None]


@torch.no_grad()
def two_towers(model: LensModel, batch: PromptBatch, heads: Sequence[HeadLike]) -> TwoTowers:
    """The query tower at the answer position and the key tower at each label position, and their similarity.

    Raises:
        InputError: a head that does not exist.
        Unfit: zero-shot prompts, or a model without rotary or learned positions. Attention that is not the softmax of
            the scores of its queries and keys. Queries and keys that are not the normed state times W_Q and W_K.
    """
    heads = require_some_heads(model, heads)
    require_demonstrations(batch, "to compare with")
    require_identities(model, batch.tokens, batch.last, "scores", "projections", layers=[h.layer for h in heads])
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
    run_hooked(model, batch, *captures.values())
    towers: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    for layer, (block, _) in layers.items():
        for name, positions in (("q", last), ("k", batch.label_positions)):
            found: dict[Any, Tensor] = {place: captures[name].raw(*place) for place in captures[name].places}
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
