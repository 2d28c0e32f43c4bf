"""What a model answers: accuracy by both rules, log-probability and logit difference, a value for each prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icl_circuits.interventions import Intervention, MetricName, from_logits
from icl_circuits.models import LensModel
from icl_circuits.patching import Variant, run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import answer_logits


@dataclass(frozen=True)
class Answers:
    """How well each prompt was answered by both readings of accuracy.

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

    def __getitem__(self, index: int | slice) -> "Answers":
        """The answers of one or some entries of the first axis."""
        return Answers(**{name: values[index] for name, values in vars(self).items()})


def score_answers(logits: Float[Tensor, "batch d_vocab"], batch: TokenBatch) -> Float[Tensor, "batch 4"]:
    """Score answer-position logits by every rule, in the order of the fields of `Answers`: a metric of the engine."""
    return torch.stack([from_logits(cast(MetricName, field.name), logits, batch) for field in fields(Answers)], -1)


def as_answers(scores: Float[Tensor, "*prompts 4"]) -> Answers:
    """What `score_answers` gave, by name."""
    return Answers(
        **{
            field.name: (column > 0 if field.name in ("top1", "between_labels") else column).cpu().numpy()
            for field, column in zip(fields(Answers), scores.unbind(-1), strict=True)
        }
    )


def answer_each(
    model: LensModel, batch: TokenBatch, variants: Sequence[Variant], description: str
) -> tuple[Answers, Answers]:
    """The model's answers with nothing changed `[prompt]`, and under each variant `[variant prompt]`."""
    found = run_each(model, batch, variants, score_answers, description=description)
    return as_answers(found.base), as_answers(found.values)


@torch.no_grad()
def answer(model: LensModel, batch: TokenBatch, *interventions: Intervention) -> Answers:
    """The model's answers to `batch`, under interventions that hold for any prompt (no positions of their own)."""
    chunks = batch.chunks()
    return as_answers(torch.cat([score_answers(answer_logits(model, c, *interventions), c) for c in chunks]))
