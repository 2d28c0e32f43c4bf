"""The causal score of a head: what is lost when it alone is zeroed (arXiv 2402.02872)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.heads.answers import Answers, answer, join_answers
from icl_circuits.interventions import ZeroHeads
from icl_circuits.models import Head, LensModel, require_heads, require_per_head_z
from icl_circuits.progress import progress
from icl_circuits.prompts import PromptBatch


@dataclass(frozen=True)
class HeadEffects:
    """Answers with nothing changed, and with each head zeroed at every position in turn."""

    heads: tuple[Head, ...]
    base: Answers
    """Axes: prompt."""
    zeroed: Answers
    """Axes: head, prompt."""

    @property
    def accuracy_drop(self) -> Float[np.ndarray, " head"]:
        """Top-1 accuracy lost, as a share of the prompts."""
        return self.base.top1.mean() - self.zeroed.top1.mean(axis=-1)

    @property
    def log_prob_drop(self) -> Float[np.ndarray, "head prompt"]:
        """Log-probability of the right label lost, nats."""
        return self.base.log_prob - self.zeroed.log_prob

    @property
    def logit_diff_drop(self) -> Float[np.ndarray, "head prompt"]:
        """Logit difference (right label less best other) lost, logits."""
        return self.base.logit_diff - self.zeroed.logit_diff

    def to_frame(self) -> pd.DataFrame:
        """One row a head: layer, head and the three drops, means over prompts."""
        return pd.DataFrame(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.head for head in self.heads],
                "accuracy_drop": self.accuracy_drop,
                "log_prob_drop": self.log_prob_drop.mean(axis=1),
                "logit_diff_drop": self.logit_diff_drop.mean(axis=1),
            }
        )


def zero_each_head(model: LensModel, batch: PromptBatch, heads: Sequence[Head]) -> HeadEffects:
    """Zero one head after another, in every position, and answer `batch` again: one forward pass a head.

    Raises:
        InputError: a head that does not exist, a model without per-head z.
    """
    heads = tuple(heads)
    require_per_head_z(model)
    require_heads(model, heads)
    base = answer(model, batch)
    zeroed = [answer(model, batch, ZeroHeads((head,))) for head in progress(heads, "zeroing one head at a time")]
    return HeadEffects(heads, base, join_answers(zeroed, np.stack))
