"""Training of the small model: texts as they are drawn, one pass, on the CPU, the same every time on one machine."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from icl_circuits.progress import tracked
from icl_circuits.small.language import Language
from icl_circuits.small.model import Shape, SmallModel
from icl_circuits.small.texts import Form, demonstrations, repeats, sentences, tasks

STEPS = 2000
BATCH = 42
"""Texts a step."""
LENGTH = 96
"""Tokens of each."""
SENTENCES, REPEATS, TASKS = 10, 4, 2
"""How many texts of a batch are sentences, repeated words, and word pairs of facts; the rest are demonstrations."""
FORMS: tuple[tuple[Form, int], ...] = (("line", 4), ("bare", 2), ("running", 3), ("bare", 2))
"""How prompts are written, from step to step, and the tokens of a demonstration."""
N_CLASSES, N_CLASSES_EARLY = (2, 4, 8, 8), (8, 8, 4, 8)
"""Of prompts, from step to step: with many, guessing one of the labels is far from enough."""
OWN, OWN_LATE = 0.5, 0.1
"""The share of prompts whose labels are words of their classes, before and after."""
PLAIN, PLAIN_LATE = 1.0, 0.6
"""The share of other prompts whose labels are labels, before and after; in the rest they are words of any class."""
RATE, WARM_UP, LEAST = 3e-3, 30, 0.05
"""The learning rate, the steps in which it rises, and what of it is left at the end."""
FEW, GROWS = 0.4, (0.35, 0.5)
"""The share of each class's words at first, and when it grows to all, in shares of the training."""
DECAY = 0.1
"""Of weights (AdamW)."""
UNKNOWN_WEIGHT, TEXT_WEIGHT = 0.05, 0.3
"""Loss of what cannot be known in a prompt, and of other texts, where that of a label that can be is 1."""


class Batch(NamedTuple):
    """Texts of one step."""

    tokens: Int[Tensor, "text pos"]
    weights: Float[Tensor, "text pos"]
    """What the loss of each token counts for."""


@dataclass(frozen=True)
class Progress:
    """How training goes: the mean losses of the last steps, in nats."""

    step: int
    labels: float
    """Of labels that can be known and are no words of a class."""
    word_labels: float
    """Of labels that are words, of their own class or another."""
    texts: float
    """Of sentences, lists and facts."""


def batch(language: Language, rng: np.random.Generator, step: int, *, share: float = 1.0, late: float = 1.0) -> Batch:
    """The texts of one step: prompts of a share of each class's words, `late` from 0 to 1."""
    form, per = FORMS[step % len(FORMS)]
    others = SENTENCES + REPEATS + TASKS
    prompts = demonstrations(
        language,
        rng,
        language.choices["as in training"].fewer(share),
        (BATCH - others, LENGTH // per),
        n_classes=(N_CLASSES if share == 1 else N_CLASSES_EARLY)[step // 4 % 4],
        own=OWN + late * (OWN_LATE - OWN),
        plain=PLAIN + late * (PLAIN_LATE - PLAIN),
        form=form,
    )
    texts = [
        tasks(language, rng, TASKS, LENGTH),
        sentences(language, rng, SENTENCES, LENGTH),
        repeats(language, rng, REPEATS, LENGTH),
    ]
    weights = np.full((BATCH, LENGTH), TEXT_WEIGHT, np.float32)
    weights[: BATCH - others] = np.where(prompts.labels, 1.0, UNKNOWN_WEIGHT)
    return Batch(torch.from_numpy(np.concatenate([prompts.tokens, *texts])), torch.from_numpy(weights))


def train(
    language: Language,
    *,
    steps: int,
    seed: int = 0,
    shape: Shape = Shape(),  # noqa: B008
    at: Sequence[int] = (),
    seen: Callable[[int, SmallModel, Progress | None], None] = lambda *_: None,
) -> SmallModel:
    """Train a small model from scratch: AdamW, in bfloat16 where the processor has it.

    Args:
        language: what it learns.
        steps: how many batches.
        seed: of the weights and of the texts.
        shape: how large it is.
        at: steps after which `seen` is told; 0 is before the first.
        seen: called with the step, the model as it is then, and how training went since the last call.
    """
    rng = np.random.default_rng([seed, 1])
    model = SmallModel(len(language.vocabulary), shape, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=DECAY)
    if 0 in at:
        seen(0, model, None)
    losses: list[list[float]] = []
    for step in tracked(range(steps), "training the small model"):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        tokens, weights = batch(language, rng, step, share=width(step, steps), late=lateness(step, steps))
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        loss = loss.view(len(tokens), -1)
        weights = weights[:, 1:]
        optimizer.zero_grad(set_to_none=True)
        ((loss * weights).sum() / weights.sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(_parts(language, tokens[:, 1:], weights, loss.detach()))
        if step + 1 in at:
            seen(step + 1, model, Progress(step + 1, *np.nanmean(losses, axis=0).tolist()))
            losses = []
    return model


def width(step: int, steps: int) -> float:
    """The share of each class's words that prompts are made of: few to begin with, then more and more."""
    grown = min(1.0, max(0.0, (step / steps - GROWS[0]) / (GROWS[1] - GROWS[0])))
    return FEW + grown * (1 - FEW)


def lateness(step: int, steps: int) -> float:
    """0 in the first half of training, then rising to 1."""
    return max(0.0, 2 * step / steps - 1)


def rate(step: int, steps: int) -> float:
    """The learning rate of a step: it rises, stays for half of the steps, and falls along a cosine."""
    falling = (1 + math.cos(math.pi * lateness(step, steps))) / 2
    return RATE * min(1, (step + 1) / WARM_UP) * (LEAST + (1 - LEAST) * falling)


def fast_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _parts(
    language: Language,
    answers: Int[Tensor, "text pos"],
    weights: Float[Tensor, "text pos"],
    loss: Float[Tensor, "text pos"],
) -> list[float]:
    """The mean losses of `Progress`."""
    known, of_class = weights == 1, torch.from_numpy(language.class_of >= 0)[answers]
    n = len(loss) - REPEATS
    return [float(loss[part].mean()) if part.any() else math.nan for part in (known & ~of_class, known & of_class)] + [
        float(loss[n - SENTENCES : n].mean())
    ]
