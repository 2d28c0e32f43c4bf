"""Format compliance and pattern discovery: two levels of in-context learning, for every task and number of shots."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, require_one_of, require_whole
from icl_circuits.interventions import from_logits
from icl_circuits.levels.built_in import level_tasks
from icl_circuits.levels.encoding import NEW_LINE, format_tokens, label_tokens, level_batch, vocabulary
from icl_circuits.levels.sampling import level_prompts
from icl_circuits.levels.task import LevelTask
from icl_circuits.models import LOGITS_AT_ONCE, LensModel, at_least_float32
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import answer_logits
from icl_circuits.stats import bootstrap_means, wilson

Level = Literal["format", "format_unaided", "accuracy"]
"""`format` and `format_unaided`: format compliance. `accuracy`: pattern discovery."""
SHOTS = (0, 1, 2, 3, 4, 5, 10, 20)
"""The paper's numbers of demonstrations; its appendix E has 0 to 100 in tens."""


@dataclass(frozen=True, repr=False)
class Levels(Displayed):
    """What the greedy next token is, prompt by prompt. Prompts of one number ask the same query at every shots."""

    tasks: tuple[str, ...]
    shots: tuple[int, ...]
    chance: Float[np.ndarray, " task"]
    """Accuracy of always giving the same label: 1 in the number of labels."""
    format: Bool[np.ndarray, "task shots prompt"]
    """A token that keeps to the format is more probable than every other (a tie is wrong)."""
    format_unaided: Bool[np.ndarray, "task shots prompt"]
    """So it is, and the model itself gives what all labels begin with, if anything: a space that is a token of its own.
    The prompt has that behind its `:`, which makes the format easy to keep."""
    accuracy: Bool[np.ndarray, "task shots prompt"]
    """The right label, or the token of it that tells, is more probable than every other token of the vocabulary (a tie
    is wrong)."""
    prob: Float[np.ndarray, "task shots prompt"]
    """Probability of the right label among the whole vocabulary."""

    @property
    def headline(self) -> str:
        """Its main number."""
        share = self.accuracy.mean(axis=2)
        return highest("accuracy", share, lambda task, shots: f"{self.tasks[task]}, {self.shots[shots]} shots")

    def to_frame(self) -> pd.DataFrame:
        """One row a task and number of shots: the shares, the mean probability, and chance.

        Columns: task, shots, n_prompts, format, format_unaided, accuracy, prob (each with `_low` and `_high`) and
        chance. Intervals are of 95 %: Wilson's for shares, bootstrap over prompts for the probability.
        """
        n_tasks, n_shots, n_prompts = self.prob.shape
        rows = []
        for task, shots in np.ndindex(n_tasks, n_shots):
            row: dict[str, object] = {"task": self.tasks[task], "shots": self.shots[shots], "n_prompts": n_prompts}
            for level in get_args(Level):
                row |= wilson(self._reached(level)[task, shots]).columns(level)
            rows.append(row)
        prob = bootstrap_means(self.prob.reshape(-1, n_prompts))
        return pd.DataFrame(rows).assign(**prob.columns("prob"), chance=self.chance.repeat(n_shots))

    def fewest_shots(self, level: Level = "format", *, share: float = 0.8) -> dict[str, int | None]:
        """By task, the fewest shots at which at least `share` of prompts reach a level; None where none do.

        The paper asks for 80 % format compliance within 20 shots (arXiv 2402.13055, appendix C). More shots may have a
        smaller share again.

        Raises:
            InputError: an unknown level, or a share that is not above 0 and at most 1.
        """
        require_one_of(level, get_args(Level), "level")
        if not 0 < share <= 1:
            raise InputError(f"share is {share}: give a share of the prompts, above 0 and at most 1")
        shares = self._reached(level).mean(axis=2)
        return {
            task: min((shots for shots, found in zip(self.shots, row, strict=True) if found >= share), default=None)
            for task, row in zip(self.tasks, shares.tolist(), strict=True)
        }

    def _reached(self, level: Level) -> Bool[np.ndarray, "task shots prompt"]:
        found: Bool[np.ndarray, "task shots prompt"] = getattr(self, level)
        return found


def icl_levels(
    model: LensModel,
    tasks: Sequence[LevelTask] | None = None,
    *,
    shots: Sequence[int] = SHOTS,
    n_prompts: int = 50,
    separator: str = NEW_LINE,
    seed: int = 0,
) -> Levels:
    """Measure format compliance and pattern discovery (Ren et al. 2024, arXiv 2402.13055, section 5 and appendix E).

    One token is predicted behind the final `:` of each prompt. Format compliance: it is any number, or, for tasks of
    format `label`, a label. Pattern discovery: it is the right label, over the whole vocabulary. Where all labels begin
    with one token, such as a space alone, the prompt has that too, and the token behind it is predicted.

    All prompts are sampled and tokenised before the model runs.

    Args:
        model: any TransformerLens model with a tokenizer.
        tasks: default the paper's eight, `level_tasks()`.
        shots: numbers of demonstrations, each once.
        n_prompts: prompts of each task; the paper does not say how many it has.
        separator: between examples.
        seed: of every random choice.

    Raises:
        InputError: no tasks or shots, one of them twice, and what `level_prompts` and `level_batch` raise.
        Unfit: a model that sees what comes later.
    """
    tasks = level_tasks() if tasks is None else tasks
    names = tuple(task.name for task in tasks)
    if not names or len(set(names)) < len(names):
        raise InputError(f"tasks are {list(names)}: give one or more, each once")
    for number in shots:
        require_whole(number, 0, f"shots has {number}: give whole numbers, 0 or more")
    if not len(shots) or len(set(shots)) < len(shots):
        raise InputError(f"shots are {list(shots)}: give one number or more, each once")
    batches = {
        (i, j): level_batch(model, level_prompts(task, n_prompts, shots=number, seed=seed), separator=separator)
        for i, task in enumerate(tasks)
        for j, number in enumerate(shots)
    }
    readings = vocabulary(model)
    keeps = [format_tokens(model, task, readings, separator=separator) for task in tasks]
    shared = [label_tokens(model, task.labels, separator=separator).shared for task in tasks]
    found = np.zeros((4, len(tasks), len(shots), n_prompts))
    for (i, j), batch in tracked(list(batches.items()), "levels of in-context learning"):
        keeps_format, right, prob = _scores(model, batch, keeps[i]).cpu().numpy().T
        found[:, i, j] = keeps_format, _opened(model, batch, shared[i]).cpu().numpy(), right, prob
    keeps_format, opened, right = found[:3] > 0
    chance = np.array([task.chance for task in tasks])
    return Levels(names, tuple(map(int, shots)), chance, keeps_format, keeps_format & opened, right, found[3])


@torch.no_grad()
def _scores(model: LensModel, batch: TokenBatch, keeps: Bool[Tensor, " d_vocab"]) -> Float[Tensor, "batch 3"]:
    """Of each prompt: is the format kept, is the answer right, and its probability."""
    parts = []
    for chunk in _chunks(model, batch):
        logits = at_least_float32(answer_logits(model, chunk))
        inside = logits.masked_fill(~keeps, float("-inf")).amax(1)
        outside = logits.masked_fill(keeps, float("-inf")).amax(1)
        top1, prob = from_logits("top1", logits, chunk), from_logits("prob", logits, chunk)
        parts.append(torch.stack([(inside > outside).to(prob), top1, prob], 1))
    return torch.cat(parts)


@torch.no_grad()
def _opened(model: LensModel, batch: TokenBatch, shared: Sequence[int]) -> Float[Tensor, " batch"]:
    """1 where the model itself gives the tokens that all labels begin with, which the prompts end with; else 0."""
    opened = torch.ones(len(batch), device=batch.tokens.device)
    for place, token in enumerate(shared):
        before = replace(batch, last=batch.last - len(shared) + place, target=torch.full_like(batch.target, token))
        top1 = [from_logits("top1", answer_logits(model, chunk), chunk) for chunk in _chunks(model, before)]
        opened = opened * torch.cat(top1)
    return opened


def _chunks(model: LensModel, batch: TokenBatch) -> Iterator[TokenBatch]:
    """The batch in parts, so that neither activations nor logits are many at once."""
    rows = max(1, LOGITS_AT_ONCE // model.cfg.d_vocab)
    return batch.chunks(min(4096, rows * batch.tokens.shape[1]))
