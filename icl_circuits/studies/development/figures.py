"""Figures of a training run (arXiv 2402.13055, section 5), and their captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from icl_circuits.development import Development, alike, co_timing, emergence
from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.viz import co_timing_map, emergence_dots, head_curves, level_panels, shot_panels

if TYPE_CHECKING:
    import matplotlib.figure


def _runs(values: Values) -> list[Development]:
    """The runs of all seeds, the first one first."""
    return [values["development"], *(values[name] for name in sorted(values) if name.startswith("development_seed"))]


def _levels(values: Values) -> "matplotlib.figure.Figure":
    run: Development = values["development"]
    shares = {
        "labels in context": run.top1,
        "between labels": run.between_labels,
        "format": run.format[:, :, -1].reshape(len(run.steps), -1),
        "pattern": run.accuracy[:, :, -1].reshape(len(run.steps), -1),
    }
    loss = {"tokens 50-100": run.loss_reduction, "tokens 450-500": run.late_loss_reduction}
    return level_panels(run.steps, loss, shares)


def _tasks(values: Values, level: str) -> "matplotlib.figure.Figure":
    run: Development = values["development"]
    shares = getattr(run, level).mean(axis=3)
    panels = {task: shares[:, i] for i, task in enumerate(run.tasks)}
    return shot_panels(run.steps, panels, run.shots, "share of prompts")


def _relations(values: Values) -> "matplotlib.figure.Figure":
    run: Development = values["development"]
    return head_curves(run.steps, {name: run.index[:, i] for i, name in enumerate(run.relations)})


def _heads(values: Values) -> "matplotlib.figure.Figure":
    run: Development = values["development"]
    panels = {
        "copying": run.copying,
        "prefix matching": run.prefix_matching,
        "lost without (nats)": run.log_prob_drop,
        "class AUC": run.class_auc,
        "function vector": run.function_vector,
    }
    return head_curves(run.steps, panels)


ALL_HEADS = "A line a head: blue if it ends higher than it begins, red if lower; the highest in the end is named."
FIGURES: Mapping[str, PaperFigure] = {
    "levels": PaperFigure(
        ("development",),
        _levels,
        "Three levels of in-context learning over training: loss reduction, format and pattern (at the most shots), "
        f"and labels in context. {INTERVALS}",
    ),
    "format_compliance": PaperFigure(
        ("development",), lambda v: _tasks(v, "format"), "Format compliance over training, by task and shots."
    ),
    "pattern_discovery": PaperFigure(
        ("development",), lambda v: _tasks(v, "accuracy"), "Pattern discovery over training, by task and shots."
    ),
    "relation_indices": PaperFigure(
        ("development",), _relations, f"Relation index (argmax gate) over training. {ALL_HEADS}"
    ),
    "head_scores": PaperFigure(
        ("development",),
        _heads,
        "Scores of heads over training: copying and prefix matching on repeated tokens, log-probability lost without "
        f"the head, class AUC of its towers, indirect effect of its function vector. {ALL_HEADS}",
    ),
    "emergence": PaperFigure(
        ("development",),
        lambda v: emergence_dots(emergence(_runs(v)), v["development"].steps),
        "When each curve is half way up for the first time. Bars: 95 % intervals over seeds, where there are several.",
    ),
    "co_timing": PaperFigure(
        ("development",),
        lambda v: co_timing_map(co_timing(alike(_runs(v)))),
        "Rank correlation of curves over checkpoints, a mean over seeds. Star: their rises from checkpoint to "
        "checkpoint are correlated, p < 0.05 against a random order, corrected for all pairs.",
    ),
}
