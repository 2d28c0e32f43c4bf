"""What a model answers: accuracy by both rules, log-probability and logit difference, a value for each prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeGuard, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import Unfit
from icl_circuits.interventions import Intervention, MetricName, from_logits
from icl_circuits.models import LensModel
from icl_circuits.patching import Variant, run_each, run_hooked
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, TokenBatch


@dataclass(frozen=True, repr=False)
class Answers(Displayed):
    """How well each prompt was answered by both readings of accuracy.

    A label of several tokens is scored by the first that tells labels apart, or whole (`PromptBatch.label_score`).
    Scored whole, it is right by top-1 where each of its tokens is, and sums of log-probabilities stand for logits.

    The leading axes are the prompts, or draws and prompts for random controls.
    """

    top1: Bool[np.ndarray, "*prompts"]
    """The right answer is more probable than every other token of the vocabulary (a tie is wrong)."""
    between_labels: Bool[np.ndarray, "*prompts"]
    """The right answer is more probable than every other label, or than its foil (a tie is wrong)."""
    log_prob: Float[np.ndarray, "*prompts"]
    """Log-probability of the right answer, nats."""
    logit_diff: Float[np.ndarray, "*prompts"]
    """Logit of the right answer less that of the best other label, or of its foil."""

    @property
    def headline(self) -> str:
        """Its main number."""
        rules = {"top1": self.top1, "between_labels": self.between_labels}
        return ", ".join(f"{name} {right.mean() if right.size else np.nan:.2f}" for name, right in rules.items())

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt: its number behind those of the axes before (`axis_0`: draws, say), and the four values."""
        *before, prompt = np.indices(self.top1.shape)
        where = {f"axis_{i}": index.ravel() for i, index in enumerate(before)} | {"prompt": prompt.ravel()}
        return pd.DataFrame(where | {name: values.ravel() for name, values in vars(self).items()})

    def __getitem__(self, index: int | slice) -> "Answers":
        """The answers of one or some entries of the first axis."""
        return Answers(**{name: values[index] for name, values in vars(self).items()})


EVERY_RULE = cast(tuple[MetricName, ...], tuple(field.name for field in fields(Answers)))
"""The rules in the order of the fields of `Answers`: a metric of the engine, which `as_answers` names.

Of labels of several tokens it scores the first that tells them apart."""


def as_answers(scores: Float[Tensor, "*prompts 4"]) -> Answers:
    """What the metric `EVERY_RULE` gave, by name."""
    return Answers(
        **{
            field.name: (column > 0 if field.name in ("top1", "between_labels") else column).cpu().numpy()
            for field, column in zip(fields(Answers), scores.unbind(-1), strict=True)
        }
    )


def answer_each(
    model: LensModel, batch: TokenBatch, variants: Sequence[Variant], description: str
) -> tuple[Answers, Answers]:
    """The model's answers with nothing changed `[prompt]`, and under each variant `[variant prompt]`.

    In the exact engine, or, where labels of several tokens are scored whole, by plain hooks: then variants must hold
    for any prompt.
    """
    if _is_whole(batch):
        base, *found = [answer(model, batch, *variant) for variant in tracked([(), *variants], description)]
        return base, Answers(**{name: np.stack([vars(part)[name] for part in found]) for name in vars(base)})
    run = run_each(model, batch, variants, EVERY_RULE, description=description)
    return as_answers(run.base), as_answers(run.values)


@torch.no_grad()
def answer(model: LensModel, batch: TokenBatch, *interventions: Intervention) -> Answers:
    """The model's answers to `batch`, under interventions that hold for any prompt (no positions of their own)."""
    parts = []
    for chunk in batch.chunks():
        logits = run_hooked(model, chunk, *interventions)
        if _is_whole(chunk):
            parts.append(_score_whole(model, chunk, logits, interventions))
        else:
            parts.append(from_logits(EVERY_RULE, logits, chunk))
    return as_answers(torch.cat(parts))


def require_first(batch: TokenBatch, what: str) -> None:
    """Raise `Unfit` where labels of several tokens are scored whole: `what` reads their first alone."""
    if _is_whole(batch):
        raise Unfit(f"{what} cannot score labels of several tokens whole: use label_score 'first'")


def _is_whole(batch: TokenBatch) -> TypeGuard[PromptBatch]:
    return isinstance(batch, PromptBatch) and batch.scored_whole


def _score_whole(
    model: LensModel,
    batch: PromptBatch,
    logits: Float[Tensor, "batch d_vocab"],
    interventions: Sequence[Intervention],
) -> Float[Tensor, "batch 4"]:
    """Score whole labels, token behind token, in the order of the fields of `Answers`.

    Args:
        model: the model.
        batch: the prompts.
        logits: at their answer positions.
        interventions: what these were computed under.
    """
    sums, most = [], []
    for word in batch.label_words:
        log_prob, top1 = logits.new_zeros(len(batch)), logits.new_ones(len(batch))
        for place, token in enumerate(word):
            after = batch.followed_by(word[:place])
            at_place = replace(after, target=torch.full_like(batch.target, token))
            found = run_hooked(model, after, *interventions) if place else logits
            log_prob = log_prob + from_logits("log_prob", found, at_place)
            top1 = top1 * from_logits("top1", found, at_place)
        sums.append(log_prob)
        most.append(top1)
    margin = batch.margin(torch.stack(sums, 1))
    log_prob, top1 = (torch.stack(columns, 1).gather(1, batch.gold[:, None])[:, 0] for columns in (sums, most))
    return torch.stack([top1, (margin > 0).to(margin), log_prob, margin], 1)
