"""Several heads measured alike: what each does at its own label's positions, and what they do on average."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_circuits.residual import Head
from icl_circuits.stats import Interval, bootstrap_mean
from icl_circuits.towers.ov import LabelFeatures
from icl_circuits.towers.ov_weights import OVCircuits
from icl_circuits.towers.reversed_labels import Reversal
from icl_circuits.towers.similarity import MetricLearning

Measures = dict[str, Interval | float | None]
"""By name: means over prompts with their 95 % bootstrap intervals, or numbers without; None: not measured."""


@dataclass(frozen=True)
class HeadGroup:
    """What some heads do on the same prompts."""

    features: LabelFeatures
    learned: MetricLearning
    reversed: Reversal | None
    """None unless there are two labels."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads, in the order of every result."""
        return self.features.heads

    def means(self) -> Measures:
        """Means over the heads of class AUC, copying, label contrast (logits) and attention to labels (probability).

        The contrast is the weighted logit minus, first label less second, at positions of the first label less the
        same at those of the second.
        """
        weighted = self.features.weighted_logit_minus()
        contrast = self.features.at_label(weighted, 0) - self.features.at_label(weighted, 1)
        at_labels = self.features.at_labels(self.features.attention)
        per_prompt = {
            "qk_auc": np.nanmean(self.learned.auc, axis=1),
            "ov_copying": self.features.copying().mean(axis=1),
            "ov_contrast": contrast.mean(axis=1).astype(float),
            "attention_to_labels": np.nanmean(at_labels, axis=(1, 2)).astype(float),
        }
        return {name: bootstrap_mean(values[np.isfinite(values)]) for name, values in per_prompt.items()}


def head_measures(
    group: HeadGroup, own_labels: Sequence[str], grouped: MetricLearning, circuits: OVCircuits
) -> list[Measures]:
    """What each head of a group does, in their order.

    `ov_logit_minus` (logits) is the weighted logit minus, first label less second, at positions that hold the head's
    own label; with three and more labels, own less next. `attention_change` and `value_change` are what a label
    reversal does there, relative to before. The interval of `qk_auc_shuffled` is where 95 % of the shuffles lie;
    `qk_auc_p` is corrected for all heads of the group.

    Args:
        group: the heads.
        own_labels: the label that each head serves.
        grouped: of the same heads, on prompts in the paper's order.
        circuits: of the same heads.
    """
    labels, frame = group.features.labels, group.learned.to_frame()
    grouped_auc = np.nanmean(grouped.auc, axis=0)
    copying = group.features.copying().mean(axis=0)
    rows = []
    for place, label in enumerate(own_labels):
        own, auc = labels.index(label), frame.iloc[place]
        row: Measures = {
            "qk_auc": Interval.in_row(auc, "auc"),
            "qk_auc_shuffled": Interval.in_row(auc, "auc_shuffled"),
            "qk_auc_p": auc["p_corrected"],
            "qk_auc_without_position": auc["auc_content"],
            "qk_auc_grouped_order": grouped_auc[place],
            **_at_own_label(group.features, place, own),
            "ov_copying": copying[place],
            "copying_score": circuits.copying_score[place],
            "attention_change": None,
            "value_change": None,
        }
        if group.reversed is not None:
            row["attention_change"] = group.reversed.relative_change("attention", place, own)
            row["value_change"] = group.reversed.relative_change("logit_minus", place, own)
        rows.append(row)
    return rows


def _at_own_label(features: LabelFeatures, place: int, own: int) -> Measures:
    """One head at the positions of its own label."""
    pair = (0, 1) if len(features.labels) == 2 else (own, (own + 1) % len(features.labels))
    minus, raw, attention = (
        bootstrap_mean(features.at_label(values, own)[:, place].astype(float))
        for values in (features.weighted_logit_minus(pair), features.logit_minus(pair), features.attention)
    )
    return {"ov_logit_minus": minus, "ov_logit_minus_raw": raw.mean, "attention": attention.mean}
