"""Both scores of every head on the same prompts, and the in-context heads that they select."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.heads.answers import Answers
from icl_circuits.heads.causal import HeadEffects, zero_each_head
from icl_circuits.heads.increase import LogProbIncrease, log_prob_increase
from icl_circuits.heads.selection import InContextHeads, Rule, select_heads
from icl_circuits.models import LensModel, TextModel
from icl_circuits.prompts import PromptBatch, require_labels
from icl_circuits.residual import Head


@dataclass(frozen=True, repr=False)
class Scores(Displayed):
    """Both scores of the heads on the selection prompts, and the heads they select."""

    batch: PromptBatch
    """The selection prompts."""
    increase: LogProbIncrease
    effects: HeadEffects
    selected: InContextHeads

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"prompt={len(self.batch)}, {self.selected.headline}"

    def to_frame(self) -> pd.DataFrame:
        """One row a head: both scores, and the label of the selected ones (missing for others)."""
        at, labels = ["layer", "head"], self.selected.to_frame()
        scores = self.increase.to_frame().merge(self.effects.to_frame(), on=at, suffixes=("_increase", "_drop"))
        return scores.merge(labels.reindex(columns=[*at, "label"]), on=at, how="left")

    @property
    def ranked(self) -> tuple[Head, ...]:
        """The selected heads, then all others by the logit difference lost when each is zeroed, most first."""
        selected, effects = self.selected.of(), self.effects
        order = np.argsort(-effects.logit_diff_drop.mean(axis=1), kind="stable")
        return (*selected, *(effects.heads[i] for i in order if effects.heads[i] not in selected))


def score_heads(model: LensModel, batch: PromptBatch, *, n_heads: int = 12, rule: Rule = "sure") -> Scores:
    """Score every head statically and causally on `batch`, and select up to `n_heads` (arXiv 2402.02872).

    The rules are those of `select_heads`.

    Raises:
        InputError: more heads asked for than half of the model's, prompts that `encode` did not make, and whatever
            scoring and selecting raise.
        Unfit: no head's scores can be told from zero, and what `log_prob_increase` raises.
    """
    require_labels(batch, "to select heads for")
    require_selectable(model, n_heads)
    return select(batch, *score_every_head(model, batch), n_heads=n_heads, rule=rule)


def require_selectable(model: TextModel, n_heads: int) -> None:
    """Raise `InputError` where `score_heads` cannot select so many heads of the model."""
    in_model = model.cfg.n_layers * model.cfg.n_heads
    if n_heads > in_model // 2:
        raise InputError(
            f"cannot select {n_heads} heads: {model.cfg.model_name!r} has {in_model}, and as many others are "
            f"needed for the random control, so select at most {in_model // 2}",
            about="heads",
        )


def score_every_head(model: LensModel, batch: PromptBatch) -> tuple[LogProbIncrease, HeadEffects]:
    """Both scores of every head. Raises what `score_heads` raises."""
    return log_prob_increase(model, batch), zero_each_head(model, batch)


def select(
    batch: PromptBatch, increase: LogProbIncrease, effects: HeadEffects, *, n_heads: int, rule: Rule = "sure"
) -> Scores:
    """The heads that both scores select on the prompts they were measured on. Raises what `select_heads` raises.

    Warns where that is a single prompt, from which `sure` selects none.
    """
    if len(batch) == 1 and rule == "paper":
        warnings.warn("heads are selected on 1 prompt, mostly by chance: use more prompts", stacklevel=2)
    selected = select_heads(increase, effects, batch.gold.cpu().numpy(), batch.labels, n_heads=n_heads, rule=rule)
    return Scores(batch, increase, effects, selected)


def of_given_heads(
    batch: PromptBatch, increase: LogProbIncrease, effects: HeadEffects, heads: Sequence[Head]
) -> Scores:
    """The scores of heads that were chosen otherwise, each given to the label that loses most without it.

    Nothing is tested: they are all kept, best mean rank by the paper's rule first.
    """
    places = [effects.heads.index(head) for head in heads]
    zeroed = Answers(**{name: values[places] for name, values in vars(effects.zeroed).items()})
    few, gold = HeadEffects(tuple(heads), effects.base, zeroed), batch.gold.cpu().numpy()
    chosen = select_heads(increase, few, gold, batch.labels, n_heads=len(few.heads), rule="paper")
    return Scores(batch, increase, effects, chosen)
