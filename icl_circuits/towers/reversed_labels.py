"""Label reversal: why a prediction flips when the demonstrations' labels do (arXiv 2402.02872, table 6).

A prompt that is rightly answered `foo` is given again with foo and bar exchanged. Where the answer flips to `bar`, what
has changed in each head: its attention at the label positions, or what its value-output vectors say there?
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from icl_circuits.display import Displayed
from icl_circuits.errors import Unfit
from icl_circuits.heads import Answers, answer
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch, encode, require_labels, reverse_labels
from icl_circuits.residual import HeadLike
from icl_circuits.stats import Interval, relative_change
from icl_circuits.towers.ov import LabelFeatures, label_features, mean_where, split_change

Reading = Literal["holders", "slots"]
"""What "foo positions" means in the reversed prompt: `holders`, those that hold foo there; `slots`, those that held it
before. Between holders the text differs and the label does not; in the same slots the label differs and the text does
not. The paper does not say which it means; its small change of value-output can only be that of holders."""

QUANTITIES = ("attention", "weighted_logit_minus", "logit_minus")


@dataclass(frozen=True, repr=False)
class Reversal(Displayed):
    """Label features of prompts answered `foo` and of their reversed twins, and which pairs flip."""

    original: LabelFeatures
    """The prompt of each pair whose right label is the first one, foo."""
    reversed: LabelFeatures
    answers: tuple[Answers, Answers]
    """Of the original and the reversed prompts."""

    @property
    def flips(self) -> Bool[np.ndarray, " prompt"]:
        """Pairs whose answer goes from foo to bar, both right by top-1: the pairs that everything else is about."""
        return self.answers[0].top1 & self.answers[1].top1

    def of_heads(self, places: Sequence[int]) -> "Reversal":
        """The same of some heads alone, by their places."""
        return replace(self, original=self.original.of_heads(places), reversed=self.reversed.of_heads(places))

    def at(
        self, quantity: str, label: int, reading: Reading
    ) -> tuple[Float[np.ndarray, "prompt selected"], Float[np.ndarray, "prompt selected"]]:
        """A quantity's mean over the positions of `label` in the flipping pairs, before and after the reversal."""
        found = []
        for features in (self.original, self.reversed):
            holding = features if reading == "holders" else self.original
            at_labels = features.at_labels(_quantity(features, quantity))
            found.append(mean_where(at_labels, holding.demo_labels == label)[self.flips])
        return found[0], found[1]

    def relative_change(
        self, quantity: str, places: int | Sequence[int], label: int, reading: Reading = "holders"
    ) -> Interval:
        """`(after - before) / |before|` of the mean quantity of one head (its place in `heads`) or several together,
        with a 95 % bootstrap interval over pairs; NaN where no pair flips or the mean before cannot be told from 0.
        """
        chosen = [places] if isinstance(places, int) else list(places)
        before, after = (v[:, chosen].mean(axis=1).astype(np.float64) for v in self.at(quantity, label, reading))
        return relative_change(before, after)

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"head={len(self.original.heads)}, {self.flips.sum()} of {len(self.flips)} answers flip"

    def to_frame(self) -> pd.DataFrame:
        """One row a head, position group (label) and reading: each quantity before, after, its relative change, and
        the change of the weighted logit minus split into attention part and value part (logits).
        """
        rows = []
        labels, heads = self.original.labels, self.original.heads
        for reading in get_args(Reading):
            for label, name in enumerate(labels):
                values = {quantity: self.at(quantity, label, reading) for quantity in QUANTITIES}
                parts = self._parts(label, reading)
                for place, head in enumerate(heads):
                    row: dict[str, object] = {"layer": head.layer, "head": head.head, "positions": name}
                    row |= {"reading": reading, "pairs": int(self.flips.sum())}
                    for quantity, (before, after) in values.items():
                        change = relative_change(before[:, place].astype(float), after[:, place].astype(float))
                        means = (column[:, place].mean() if len(column) else np.nan for column in (before, after))
                        row |= dict(zip((quantity, f"{quantity}_reversed"), means, strict=True))
                        row |= change.columns(f"{quantity}_change")
                    row |= {
                        f"{part}_part": float(value[:, place].mean()) if len(value) else np.nan
                        for part, value in zip(("attention", "value"), parts, strict=True)
                    }
                    rows.append(row)
        return pd.DataFrame(rows)

    def _parts(self, label: int, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
        """The change of the weighted M at the positions of `label`, split exactly: the value that attention picks up,
        `sum alpha M / sum alpha`, stands for M.
        """
        attention, weighted, raw = (self.at(q, label, reading) for q in QUANTITIES)
        picked = [np.divide(w, a, out=m.copy(), where=a > 0) for a, w, m in zip(attention, weighted, raw, strict=True)]
        return split_change(attention, (picked[0], picked[1]))


def _quantity(features: LabelFeatures, quantity: str) -> Float[np.ndarray, "prompt selected src_pos"]:
    values = {
        "attention": lambda: features.attention,
        "weighted_logit_minus": features.weighted_logit_minus,
        "logit_minus": features.logit_minus,
    }
    return values[quantity]()


def reversal(model: LensModel, batch: PromptBatch, heads: Sequence[HeadLike]) -> Reversal:
    """Answer every prompt and its label-reversed twin, and read the label features of `heads` in both.

    Of each pair, the one whose right label is the first (foo) counts as the original.

    Raises:
        InputError: a head that does not exist, or prompts that `encode` did not make.
        Unfit: labels other than two.
    """
    require_labels(batch, "to reverse")
    if len(batch.labels) != 2:
        raise Unfit(f"labels {', '.join(batch.labels)!r}: a reversal exchanges two labels, so give two")
    pairs = [(p, reverse_labels(p)) if p.gold == 0 else (reverse_labels(p), p) for p in batch.prompts]
    batches = [
        encode(
            model,
            side,
            separator=batch.separator,
            prepend_bos=batch.n_prepended > 0,
            label_score=batch.label_score,
        )
        for side in zip(*pairs, strict=True)
    ]
    features = [label_features(model, side, heads) for side in batches]
    answers = [answer(model, side) for side in batches]
    return Reversal(features[0], features[1], (answers[0], answers[1]))
