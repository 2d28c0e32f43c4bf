"""Figures of a training run (arXiv 2402.13055, section 5), and their captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from icl_circuits.development import Development, alike, co_timing, emergence
from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.stats import ALPHA
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


ALL_HEADS = (
    "Each line is a head. Blue lines end higher than they begin, red lines lower. "
    "The label names the head that is highest in the end."
)
FIGURES: Mapping[str, PaperFigure] = {
    "levels": PaperFigure(
        ("development",),
        _levels,
        "Curves show three levels of in-context learning over training. Loss reduction is the loss of late tokens "
        "of a text less that of early ones, in nats. Format is the share of prompts whose next token is of the "
        "right kind. Pattern is the share whose next token is the right label. Both are at the most shots "
        "(demonstrations). Labels in context is the share of prompts with arbitrary labels that are answered right. "
        f"{INTERVALS}",
    ),
    "format_compliance": PaperFigure(
        ("development",),
        lambda v: _tasks(v, "format"),
        "Curves show format compliance over training, by task and shots (demonstrations). "
        "It is the share of prompts whose next token is of the right kind.",
    ),
    "pattern_discovery": PaperFigure(
        ("development",),
        lambda v: _tasks(v, "accuracy"),
        "Curves show pattern discovery over training, by task and shots (demonstrations). "
        "It is the share of prompts whose next token is the right label.",
    ),
    "relation_indices": PaperFigure(
        ("development",),
        _relations,
        "Lines show the relation index of every head over training. The index counts positions where the head attends "
        "to a relation's head most. There it is the share of what the head raises that is the relation's tail. "
        f"{ALL_HEADS}",
    ),
    "head_scores": PaperFigure(
        ("development",),
        _heads,
        "Lines show five scores of every head over training. Prefix matching is attention to the token that "
        "followed the current one before. Copying is how far the head raises that token. "
        "The loss is of log-probability without the head, in nats. Class AUC is how often attention ranks the query's "
        "class above another. Function vector is the indirect effect of the head's output. "
        f"{ALL_HEADS}",
    ),
    "emergence": PaperFigure(
        ("development",),
        lambda v: emergence_dots(emergence(_runs(v)), v["development"].steps),
        "Dots show when each curve is half way from its first value to its highest for the first time. "
        "Bars show 95 % intervals over seeds, where there are several.",
    ),
    "co_timing": PaperFigure(
        ("development",),
        lambda v: co_timing_map(co_timing(alike(_runs(v)))),
        "Colours show the rank correlation of each two curves over checkpoints, a mean over seeds. "
        f"A star marks pairs whose rises from checkpoint to checkpoint are correlated. It stands for p < {ALPHA} "
        "against a random order, corrected for all pairs.",
    ),
}
