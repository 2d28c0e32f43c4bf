"""What a model answers: accuracy by both rules, log-probability and logit difference, a value for each prompt."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.interventions import Intervention, answer_logits
from icl_circuits.models import LensModel, at_least_float32
from icl_circuits.prompts import PromptBatch


@dataclass(frozen=True)
class Answers:
    """How well each prompt was answered by both readings of accuracy.

    The leading axes are the prompts, or draws and prompts for random controls.
    """

    top1: Bool[np.ndarray, "*prompts"]
    """The right label is more probable than every other token of the vocabulary (a tie is wrong)."""
    between_labels: Bool[np.ndarray, "*prompts"]
    """The right label is more probable than every other label (a tie is wrong)."""
    log_prob: Float[np.ndarray, "*prompts"]
    """Log-probability of the right label, nats."""
    logit_diff: Float[np.ndarray, "*prompts"]
    """Logit of the right label less that of the best other label."""


def join_answers(parts: list[Answers], join: Callable[[list[np.ndarray]], np.ndarray]) -> Answers:
    """Join answers along the prompts (`np.concatenate`) or along a new leading axis (`np.stack`)."""
    return Answers(**{name: join([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def score_answers(
    logits: Float[Tensor, "batch d_vocab"], label_tokens: Int[Tensor, " label"], gold: Int[Tensor, " batch"]
) -> Answers:
    """Score answer-position logits against the gold label of each prompt."""
    logits = at_least_float32(logits)
    label_logits = logits[:, label_tokens]
    right = label_logits.gather(1, gold[:, None])[:, 0]
    best_other = label_logits.scatter(1, gold[:, None], float("-inf")).amax(1)
    best_other_token = logits.scatter(1, label_tokens[gold][:, None], float("-inf")).amax(1)
    return Answers(
        top1=(right > best_other_token).cpu().numpy(),
        between_labels=(right > best_other).cpu().numpy(),
        log_prob=(right - logits.logsumexp(1)).cpu().numpy(),
        logit_diff=(right - best_other).cpu().numpy(),
    )


@torch.no_grad()
def answer(model: LensModel, batch: PromptBatch, *interventions: Intervention) -> Answers:
    """The model's answers to `batch`, under interventions that hold for any prompt (no positions of their own)."""
    parts = [
        score_answers(answer_logits(model, chunk, *interventions), chunk.label_tokens, chunk.gold)
        for chunk in batch.chunks()
    ]
    return join_answers(parts, np.concatenate)
