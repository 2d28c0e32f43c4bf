"""The causal score of a head: what is lost when it alone is zeroed (arXiv 2402.02872)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import require_one_of
from icl_circuits.heads.answers import EVERY_RULE, Answers, as_answers
from icl_circuits.interventions import ZeroHeads
from icl_circuits.models import LensModel, require_per_head_z
from icl_circuits.patching import run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Head, HeadLike, all_heads, heads_of
from icl_circuits.stats import ALPHA, bootstrap_means, corrected_above_zero


@dataclass(frozen=True, repr=False)
class HeadEffects(Displayed):
    """Answers with nothing changed, and with each head zeroed in turn."""

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

    @property
    def headline(self) -> str:
        """Its main number."""
        drops = self.logit_diff_drop.mean(axis=1)
        return f"head={len(self.heads)}, {highest('logit_diff_drop', drops, self.heads.__getitem__)}"

    @property
    def p_corrected(self) -> Float[np.ndarray, " head"]:
        """p-values that zeroing a head costs no log-probability, corrected for having looked at all of `heads`.

        One-sided t-tests over prompts, with Benjamini and Hochberg's false-discovery rate. NaN for a single prompt.
        """
        return corrected_above_zero(self.log_prob_drop)

    @property
    def significant(self) -> Bool[np.ndarray, " head"]:
        """Whether what a head's zeroing costs can be told from zero, at a false-discovery rate of 5 %."""
        return np.asarray(self.p_corrected < ALPHA)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: layer, head and the three drops, means over prompts.

        The log-probability drop has its 95 % bootstrap interval over prompts, its corrected p-value, and a flag.
        """
        return pd.DataFrame(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.head for head in self.heads],
                "accuracy_drop": self.accuracy_drop,
                **bootstrap_means(self.log_prob_drop.astype(float)).columns("log_prob_drop"),
                "p_corrected": self.p_corrected,
                "significant": self.significant,
                "logit_diff_drop": self.logit_diff_drop.mean(axis=1),
            }
        )


def zero_each_head(
    model: LensModel,
    batch: TokenBatch,
    heads: Sequence[HeadLike] | None = None,
    *,
    positions: Literal["last", "all"] = "last",
) -> HeadEffects:
    """Zero one head after another and answer `batch` again, in the exact sweep engine.

    Labels of several tokens are scored by the first that tells them apart, however the batch is scored.

    Args:
        model: the model.
        batch: the prompts.
        heads: which heads; default every one.
        positions: zero the head at the answer position, `last`, where in-context heads write. That costs one to a few
            forward passes for all heads together. Or zero it at `all`, as if its parameters were zero, which costs a
            fraction of a forward pass for each.

    Raises:
        InputError: a head that does not exist.
        Unfit: a model without per-head z.
    """
    require_per_head_z(model)
    require_one_of(positions, ("last", "all"), "positions")
    heads = all_heads(model) if heads is None else heads_of(heads)
    at = batch.last[:, None] if positions == "last" else None
    variants = [(ZeroHeads((head,), at),) for head in heads]
    run = run_each(model, batch, variants, EVERY_RULE, description="zeroing each head")
    return HeadEffects(heads, as_answers(run.base), as_answers(run.values))
