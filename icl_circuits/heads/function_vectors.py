"""Function-vector heads: whose mean output on a task's prompts makes the model do it where prompts do not tell it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError
from icl_circuits.interventions import Mean, from_logits
from icl_circuits.models import LensModel, require_per_head_z
from icl_circuits.patching import sweep
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Head, answer_logits
from icl_circuits.stats import bootstrap_mean, bootstrap_means


@dataclass(frozen=True, repr=False)
class FunctionVectorHeads(Displayed):
    """The indirect effect of every head on every prompt whose demonstrations do not tell the task."""

    tasks: tuple[str, ...]
    task: Int[np.ndarray, " prompt"]
    """Which of the tasks each prompt asks for."""
    clean_prob: Float[np.ndarray, " prompt"]
    """Probability of the right answer where demonstrations tell the task."""
    shuffled_prob: Float[np.ndarray, " prompt"]
    """The same where their answers are shuffled."""
    effect: Float[np.ndarray, "prompt layer head"]
    """What the task's mean z, put in the head's place at the last position, adds to `shuffled_prob`."""

    @property
    def average(self) -> Float[np.ndarray, "layer head"]:
        """The average indirect effect (AIE): the mean over tasks of the means over their prompts, a probability."""
        return (self.effect * self._weights[:, None, None]).mean(axis=0)

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("effect", self.average, Head)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: layer, head, and its average indirect effect with a 95 % bootstrap interval over prompts."""
        _, n_layers, n_heads = self.effect.shape
        weighted = (self.effect * self._weights[:, None, None]).reshape(len(self.effect), -1)
        layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
        return pd.DataFrame({"layer": layer, "head": head}).assign(**bootstrap_means(weighted.T).columns("effect"))

    def tasks_frame(self) -> pd.DataFrame:
        """One row a task: its prompts, and the right answer's mean probability, clean and shuffled, with intervals."""
        rows = []
        for i, name in enumerate(self.tasks):
            of_task = self.task == i
            row: dict[str, object] = {"task": name, "n_prompts": int(of_task.sum())}
            for column, values in (("clean_prob", self.clean_prob), ("shuffled_prob", self.shuffled_prob)):
                row |= bootstrap_mean(values[of_task]).columns(column)
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def _weights(self) -> Float[np.ndarray, " prompt"]:
        """What each prompt counts for, 1 on average, so that each task counts for the same."""
        counts = np.bincount(self.task, minlength=len(self.tasks))
        return len(self.task) / (len(self.tasks) * counts[self.task])


def function_vector_heads(
    model: LensModel,
    clean: Mapping[str, TokenBatch],
    shuffled: Mapping[str, TokenBatch],
    *,
    means: Mapping[str, TokenBatch] | None = None,
) -> FunctionVectorHeads:
    """Find the heads whose mean output carries a task (Todd et al. 2024, arXiv 2310.15213, section 2).

    For each task, the mean z of each head at the last position is taken over the clean prompts. In the shuffled prompts
    it takes the place of the head's z at the last position. The indirect effect is what that adds to the probability of
    the right answer. One sweep a task does all heads, in the exact engine.

    Args:
        model: the model.
        clean: by task, prompts whose demonstrations tell it, as `task_prompts` makes them.
        shuffled: by task, as many prompts with the same queries whose demonstrations do not tell it.
        means: by task, other clean prompts to take means over. Default: `clean`, where a prompt's own answer is part of
            its mean.

    Raises:
        InputError: no tasks, other tasks or other numbers of prompts clean than shuffled, and what `sweep` raises.
        Unfit: a model without per-head z.
    """
    require_per_head_z(model)
    if not clean or list(clean) != list(shuffled):
        raise InputError(f"clean prompts are of tasks {list(clean)}, shuffled ones of {list(shuffled)}: give the same")
    means = clean if means is None else means
    if list(means) != list(clean):
        raise InputError(f"means are of tasks {list(means)}, prompts of {list(clean)}: give the same")
    task, probs, before, effects = [], [], [], []
    for i, (name, batch) in enumerate(clean.items()):
        twins = shuffled[name]
        if len(batch) != len(twins):
            raise InputError(
                f"task {name!r} has {len(batch)} clean and {len(twins)} shuffled prompts: give each a partner"
            )
        found = sweep(model, twins, "z", replacement=Mean(means[name]), metric="prob")
        task += [i] * len(twins)
        probs.append(_answer_probs(model, batch))
        before.append(found.base)
        effects.append(found.effect.T.reshape(len(twins), model.cfg.n_layers, model.cfg.n_heads))
    return FunctionVectorHeads(
        tuple(clean), np.array(task), np.concatenate(probs), np.concatenate(before), np.concatenate(effects)
    )


@torch.no_grad()
def _answer_probs(model: LensModel, batch: TokenBatch) -> Float[np.ndarray, " prompt"]:
    parts = [from_logits("prob", answer_logits(model, chunk), chunk) for chunk in batch.chunks()]
    return torch.cat(parts).cpu().numpy()
