"""Whether attention is metric learning: do demonstrations of the query's class score above the others?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from icl_circuits.display import Displayed, highest
from icl_circuits.residual import Head
from icl_circuits.stats import Interval, bootstrap_mean, generator, mean_of_finite
from icl_circuits.towers.qk import TwoTowers

PROMPTS_AT_ONCE = 256
"""How many prompts' pairs of demonstrations are compared at once."""


def class_auc(
    scores: Float[np.ndarray, "prompt selected demo"], same_class: Bool[np.ndarray, "prompt demo"]
) -> Float[np.ndarray, "prompt selected"]:
    """How often a same-class demonstration scores above an other-class one, over all such pairs of a prompt; ties half.

    NaN for a prompt without such a pair.
    """
    found = np.full(scores.shape[:2], np.nan)
    for start in range(0, len(scores), PROMPTS_AT_ONCE):
        part = slice(start, start + PROMPTS_AT_ONCE)
        pairs = same_class[part, :, None] & ~same_class[part, None, :]
        one, other = scores[part, ..., :, None], scores[part, ..., None, :]
        ahead = (one > other) + 0.5 * (one == other)
        count = pairs.sum(axis=(1, 2))[:, None].astype(float)
        total = (ahead * pairs[:, None]).sum(axis=(2, 3))
        np.divide(total, count, out=found[part], where=count > 0)
    return found


@dataclass(frozen=True, repr=False)
class MetricLearning(Displayed):
    """Whether each head's score ranks same-class demonstrations above others: AUC within prompts, 0.5 is chance."""

    heads: tuple[Head, ...]
    auc: Float[np.ndarray, "prompt selected"]
    auc_content: Float[np.ndarray, "prompt selected"]
    """Of the scores without position."""
    auc_shuffled: Float[np.ndarray, "draw selected"]
    """Of the scores, with the classes of each prompt's demonstrations shuffled: what chance looks like here. A mean
    over prompts, so that draws do not take as much memory each as the prompts."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("auc", mean_of_finite(self.auc), self.heads.__getitem__)

    @property
    def p_corrected(self) -> Float[np.ndarray, " selected"]:
        """p-values that a head ranks by class no better than by chance, corrected for looking at all of `heads`.

        How often the best head of a shuffle does at least as well (Westfall and Young's max statistic), each head
        measured in standard deviations of its own shuffles. NaN for a head without any.
        """
        centre, spread = self.auc_shuffled.mean(axis=0), self.auc_shuffled.std(axis=0)
        spread = np.where(spread > 0, spread, np.nan)
        found = (np.nanmean(self.auc, axis=0) - centre) / spread
        best = np.nanmax((self.auc_shuffled - centre) / spread, axis=1, initial=-np.inf)
        at_least = (best[:, None] >= found).sum(axis=0)
        return np.where(np.isfinite(found), (1 + at_least) / (1 + len(best)), np.nan)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: AUCs with 95 % bootstrap intervals over prompts, where 95 % of the shuffles lie, and the
        corrected p-value.
        """
        p_corrected, rows = self.p_corrected, []
        for place, head in enumerate(self.heads):
            row: dict[str, object] = {"layer": head.layer, "head": head.head}
            for name, values in (("auc", self.auc), ("auc_content", self.auc_content)):
                row |= bootstrap_mean(values[:, place][np.isfinite(values[:, place])]).columns(name)
            shuffled = self.auc_shuffled[:, place]
            chance = Interval(shuffled.mean(), *np.quantile(shuffled, [0.025, 0.975]))
            rows.append(row | chance.columns("auc_shuffled") | {"p_corrected": p_corrected[place]})
        return pd.DataFrame(rows)


def metric_learning(towers: TwoTowers, *, draws: int = 400, seed: int = 0) -> MetricLearning:
    """Test the claim: does the score rank same-class demonstrations above other-class ones?

    Args:
        towers: of prompts in shuffled order; in the paper's fixed order class match and recency are confounded.
        draws: shuffles of the demonstrations' classes, for the control.
        seed: of the shuffles.
    """
    rng = generator(seed)
    aucs = (class_auc(towers.score, rng.permuted(towers.same_class, axis=1)) for _ in range(draws))
    shuffled = [np.nanmean(auc, axis=0) for auc in aucs]
    return MetricLearning(
        towers.heads,
        class_auc(towers.score, towers.same_class),
        class_auc(towers.content_score, towers.same_class),
        np.stack(shuffled),
    )
