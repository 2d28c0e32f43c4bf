"""What one checkpoint of a model can do, and which of its heads do what, measured alike for every checkpoint."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.heads import function_vector_heads, induction_scores, zero_each_head
from icl_circuits.levels import LevelTask, icl_levels, loss_reduction
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch, TaskPrompts
from icl_circuits.relations import RelationBatch, relation_index
from icl_circuits.residual import all_heads
from icl_circuits.stats import mean_of_finite
from icl_circuits.towers import class_auc, two_towers

Shape = tuple[int, int, int, int]
"""Layers, heads, d_model and d_vocab."""
ARGMAX = 1.0
"""The gate of the relation index through training: a relation's head need only be attended to most."""


@dataclass(frozen=True)
class Yardsticks:
    """What every checkpoint is measured on; all checkpoints of a run read the same tokens."""

    relations: tuple[RelationBatch, ...]
    """Texts with relations, a batch for each kind."""
    prompts: PromptBatch
    """Of demonstrations, for in-context heads and towers."""
    tasks: TaskPrompts
    """Word pairs, for function-vector heads."""
    mean_tasks: TaskPrompts
    """Others, to take the means of heads over."""
    level_tasks: tuple[LevelTask, ...]
    shots: tuple[int, ...]
    """Of the level tasks."""
    n_prompts: int
    """Of each level task and number of shots."""
    texts: tuple[str, ...]
    """For loss reduction."""
    seed: int = 0


@dataclass(frozen=True, repr=False)
class Development(Displayed):
    """One training run, checkpoint by checkpoint."""

    steps: Int[np.ndarray, " checkpoint"]
    """Training steps, rising."""
    relations: tuple[str, ...]
    tasks: tuple[str, ...]
    """Of the levels."""
    shots: tuple[int, ...]
    """Of the levels."""
    index: Float[np.ndarray, "checkpoint relation layer head"]
    """Relation index with the argmax gate; NaN where nothing passes."""
    prefix_matching: Float[np.ndarray, "checkpoint layer head"]
    copying: Float[np.ndarray, "checkpoint layer head"]
    log_prob_drop: Float[np.ndarray, "checkpoint layer head"]
    """Log-probability of the right label lost where the head is zeroed, nats: what makes an in-context head."""
    class_auc: Float[np.ndarray, "checkpoint layer head"]
    """How often the head's attention score ranks a demonstration of the query's class above another; 0.5 is chance."""
    function_vector: Float[np.ndarray, "checkpoint layer head"]
    """Average indirect effect, a probability."""
    top1: Bool[np.ndarray, "checkpoint prompt"]
    """Whether the right label is the likeliest token behind each prompt of demonstrations."""
    between_labels: Bool[np.ndarray, "checkpoint prompt"]
    """Whether it is the likelier of the labels; half of the prompts are right by chance with two."""
    loss_reduction: Float[np.ndarray, "checkpoint text"]
    """Loss of tokens 50-100 less that of tokens 0-50, nats; NaN where a text is too short."""
    late_loss_reduction: Float[np.ndarray, "checkpoint text"]
    """Loss of tokens 450-500 less that of tokens 0-50."""
    format: Bool[np.ndarray, "checkpoint task shots item"]
    """Format compliance, unaided: the model itself gives what labels begin with, if anything."""
    accuracy: Bool[np.ndarray, "checkpoint task shots item"]
    """Pattern discovery."""

    @property
    def headline(self) -> str:
        """Its main number."""
        first, last = (self.top1[i].mean() for i in (0, -1))
        return f"steps {self.steps[0]} to {self.steps[-1]}, top1 {first:.2f} to {last:.2f}"

    def to_frame(self) -> pd.DataFrame:
        """One row a checkpoint and head: what the head is (`index`: its highest relation index; missing: none)."""
        step, layer, head = np.indices(self.copying.shape)
        where = {"step": self.steps[step.ravel()], "layer": layer.ravel(), "head": head.ravel()}
        index = np.fmax.reduce(self.index, axis=1).ravel()
        names = ("prefix_matching", "copying", "log_prob_drop", "class_auc", "function_vector")
        return pd.DataFrame({**where, "index": index, **{name: getattr(self, name).ravel() for name in names}})


@dataclass(frozen=True)
class Snapshot:
    """What `Development` has of one checkpoint."""

    shape: Shape
    index: Float[np.ndarray, "relation layer head"]
    prefix_matching: Float[np.ndarray, "layer head"]
    copying: Float[np.ndarray, "layer head"]
    log_prob_drop: Float[np.ndarray, "layer head"]
    class_auc: Float[np.ndarray, "layer head"]
    function_vector: Float[np.ndarray, "layer head"]
    top1: Bool[np.ndarray, " prompt"]
    between_labels: Bool[np.ndarray, " prompt"]
    loss_reduction: Float[np.ndarray, " text"]
    late_loss_reduction: Float[np.ndarray, " text"]
    format: Bool[np.ndarray, "task shots item"]
    accuracy: Bool[np.ndarray, "task shots item"]


def develop(checkpoints: Iterable[tuple[int, LensModel]], yardsticks: Yardsticks) -> Development:
    """Measure every checkpoint of a training run alike (Ren et al. 2024, arXiv 2402.13055, section 5).

    The relation index has the paper's relaxed gate: attention to a relation's head is the highest, no more. Copying and
    prefix matching, in-context heads, class AUC of both towers, function vectors and the three levels stand beside.

    Args:
        checkpoints: training steps with their models, in order; each model is measured and let go.
        yardsticks: what they are measured on.

    Raises:
        InputError: no checkpoint, steps that do not rise, or a checkpoint of another shape than the first, named.
        Unfit: a model that an analysis cannot be done on.
    """

    def measured() -> Iterator[tuple[int, Snapshot]]:
        first: Shape | None = None
        for step, model in checkpoints:
            first = first or _shape(model)
            _require_shape(step, _shape(model), first)
            yield step, measure(model, yardsticks)
            del model  # before the next one is loaded

    return development_of(measured(), yardsticks)


def development_of(snapshots: Iterable[tuple[int, Snapshot]], yardsticks: Yardsticks) -> Development:
    """A training run from what `measure` found at each of its steps, in order.

    Raises:
        InputError: no checkpoint, steps that do not rise, or a checkpoint of another shape than the first, named.
    """
    steps: list[int] = []
    found: list[Snapshot] = []
    for step, one in snapshots:
        _require_shape(step, one.shape, found[0].shape if found else one.shape)
        if steps and step <= steps[-1]:
            raise InputError(f"checkpoint {step} comes behind {steps[-1]}: give steps that rise")
        steps.append(step)
        found.append(one)
    if not found:
        raise InputError("there is no checkpoint to measure: give one or more")
    stacked: dict[str, Any] = {
        field.name: np.stack([getattr(one, field.name) for one in found])
        for field in fields(Snapshot)
        if field.name != "shape"
    }
    names = [name for batch in yardsticks.relations for name in batch.relations]
    tasks = tuple(task.name for task in yardsticks.level_tasks)
    return Development(np.array(steps), tuple(names), tasks, yardsticks.shots, **stacked)


def _shape(model: LensModel) -> Shape:
    return model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_model, model.cfg.d_vocab


def _require_shape(step: int, shape: Shape, first: Shape) -> None:
    if shape != first:
        raise InputError(
            f"checkpoint {step} has layers, heads, d_model and d_vocab {shape}, the first one {first}: "
            "give checkpoints of one training run"
        )


def measure(model: LensModel, on: Yardsticks) -> Snapshot:
    """Measure one checkpoint. Raises what the analyses raise."""
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    index = [relation_index(model, batch, tau=ARGMAX, draws=1, seed=on.seed).index for batch in on.relations]
    induction = induction_scores(model, seed=on.seed)
    effects = zero_each_head(model, on.prompts)
    towers = two_towers(model, on.prompts, all_heads(model))
    functions = function_vector_heads(model, on.tasks.clean, on.tasks.shuffled, means=on.mean_tasks.clean)
    levels = icl_levels(model, on.level_tasks, shots=on.shots, n_prompts=on.n_prompts, seed=on.seed)
    loss = loss_reduction(model, on.texts)
    return Snapshot(
        _shape(model),
        np.concatenate(index),
        induction.prefix_matching.mean(axis=0),
        mean_of_finite(induction.copying),
        effects.log_prob_drop.mean(axis=1).reshape(shape),
        mean_of_finite(class_auc(towers.score, towers.same_class)).reshape(shape),
        functions.average,
        effects.base.top1,
        effects.base.between_labels,
        loss.by_100,
        loss.by_500,
        levels.format_unaided,
        levels.accuracy,
    )
