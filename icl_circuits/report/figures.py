"""The figures of arXiv 2402.02872 and their captions, drawn from a file of results and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_circuits.biases import choose
from icl_circuits.errors import InputError
from icl_circuits.report.results import Results
from icl_circuits.viz import (
    accuracy_bars,
    answer_bars,
    auc_dots,
    circuit_curves,
    flow_curves,
    head_map,
    label_feature_bars,
    layer_bars,
    majority_figure,
    position_bars,
    recency_figure,
    reversal_bars,
    save,
    schematic,
)

if TYPE_CHECKING:
    import matplotlib.figure

INTERVALS = "Error bars and shaded bands: 95 % bootstrap intervals over prompts."
Values = Mapping[str, Any]


@dataclass(frozen=True)
class PaperFigure:
    """One type of figure."""

    needs: tuple[str, ...]
    """The values it is drawn from."""
    draw: Callable[[Values], "matplotlib.figure.Figure"]
    caption: str
    """Sentences; those on the model and the data follow."""


def _positions(values: Values) -> "matplotlib.figure.Figure":
    is_gold = values["evaluation.demo_labels"] == values["evaluation.gold"][:, None]
    return position_bars(values["positions"], values["evaluation.label_positions"], is_gold)


def _majority(values: Values) -> "matplotlib.figure.Figure":
    sweep = values["majority_sweep"]
    return majority_figure(values["majority"], sweep, sweep.strengths[choose(sweep)])


def _recency(values: Values) -> "matplotlib.figure.Figure":
    """At the strength that was chosen, or, where that is none, at full strength."""
    recency, sweep = values["recency"], values["recency_sweep"]
    return recency_figure(recency, recency.strengths.index(sweep.strengths[choose(sweep)] or 1.0))


FIGURES: Mapping[str, PaperFigure] = {
    "schematic": PaperFigure(
        ("features",),
        lambda v: schematic(v["features"].labels[:2]),
        "The hypothesis: in-context heads as two towers. In shallow layers the features of each demonstration's "
        "text flow to its label position, and those of the query to the last position. In deep layers the "
        "attention of in-context heads measures how similar the last position (Q) is to each label position (K), "
        "and their values (V) carry the label. The numbers are the example of the paper's Figure 1, not measured.",
    ),
    "head_map": PaperFigure(
        ("increase", "effects", "selected"),
        lambda v: head_map(v["increase"], v["effects"], v["selected"]),
        "Both scores of every head, means over the selection prompts. Above: how much the head's output adds to "
        "the log-probability of the right label. Below: how much of it is lost when the head alone is zeroed at "
        "the last position. Framed: the selected in-context heads.",
    ),
    "layer_bars": PaperFigure(
        ("increase",),
        lambda v: layer_bars(v["increase"]),
        "Log-probability increase of attention and MLP layers at the last position, means over the selection "
        "prompts. "
        + INTERVALS,
    ),
    "accuracy": PaperFigure(
        ("groups",),
        lambda v: accuracy_bars(v["groups"]),
        "Accuracy with groups of heads zeroed at every position (table 2): over the whole vocabulary (top-1), and "
        "between the label words alone. Random heads are of the same layers, a mean of several draws. " + INTERVALS,
    ),
    "accuracy_by_answer": PaperFigure(
        ("groups",),
        lambda v: answer_bars(v["groups"]),
        "Top-1 accuracy with groups of heads zeroed, on the prompts of each right answer apart (table 3): heads of "
        "one label should cost that label alone. " + INTERVALS,
    ),
    "positions": PaperFigure(
        ("positions", "evaluation.label_positions", "evaluation.demo_labels", "evaluation.gold"),
        _positions,
        "What each in-context head reads at the label positions that hold the right answer and at those of other "
        "labels. Above: attention from the last position. Below: log-probability increase of what is moved from "
        "there. Sums over positions, means over the test prompts. " + INTERVALS,
    ),
    "label_features": PaperFigure(
        ("features",),
        lambda v: label_feature_bars(v["features"]),
        "In-context heads at the positions that hold each label (tables 4 and 5): attention from the last "
        "position, and the logit minus (first label less second) of the value-output vectors, weighted by "
        "attention and raw. Means over positions and test prompts. " + INTERVALS,
    ),
    "class_auc": PaperFigure(
        ("auc", "auc_random"),
        lambda v: auc_dots(v["auc"], v["auc_random"]),
        "Metric learning: how often a head's attention score ranks a demonstration of the query's class above one "
        "of another class, within prompts (0.5 is chance), with its position terms and without. Grey: where 95 % "
        "of the means lie when classes are shuffled. " + INTERVALS,
    ),
    "flow": PaperFigure(
        ("probe",),
        lambda v: flow_curves(v.get("flow"), v["probe"]),
        "Where features flow. Above: the logit difference between the right label and the best other one when a "
        "route is cut in every head from a layer on. Below: accuracy of linear probes, between the prompt's own "
        "classes, for the class of a text. " + INTERVALS,
    ),
    "reversal": PaperFigure(
        ("reversal",),
        lambda v: reversal_bars(v["reversal"]),
        "Labels reversed (table 6): relative change of attention and of the raw logit minus at the positions that "
        "hold each label, over prompts whose answer flips. Bars are missing where the value before cannot be told "
        "from 0, and cut at 150 %. " + INTERVALS,
    ),
    "majority": PaperFigure(
        ("majority", "majority_sweep"),
        _majority,
        "Majority-label bias (table 7). Above: top-1 accuracy on the test prompts by the demonstrations kept of "
        "each label, prompts of each right answer apart, without and with the mitigation. Below: fluctuation of "
        "the accuracy and its mean by the mitigation's coefficient, on the selection prompts. " + INTERVALS,
    ),
    "recency": PaperFigure(
        ("recency", "recency_sweep"),
        _recency,
        "Recency bias (table 8), with and without position in the in-context heads' attention. Above: top-1 "
        "accuracy by the order of the demonstrations. Below: attention to the label at each place. " + INTERVALS,
    ),
    "circuit_curves": PaperFigure(
        ("circuit_test", "selected"),
        lambda v: circuit_curves(v["circuit_test"], len(v["selected"].heads)),
        "Circuits of growing size. Faithfulness: the first heads alone, all others at their mean. Completeness: "
        "the model without them. MLPs stay as they are. " + INTERVALS,
    ),
}  # fmt: skip


def write_figures(results: Results, folder: Path) -> tuple[str, ...]:
    """Draw every figure that `results` have the values for, as PDF, PNG and SVG, with its caption as a text file.

    Returns:
        Their names, in the order of the paper.

    Raises:
        InputError: there is nothing to draw.
    """
    values, about = results.values, results.about
    names = tuple(name for name, figure in FIGURES.items() if all(need in values for need in figure.needs))
    if not names:
        raise InputError("these results hold nothing that a figure is drawn of: give those of `icl-circuits report`")
    for name in names:
        save(FIGURES[name].draw(values), folder / name)
        caption = f"{FIGURES[name].caption} {about['described']}\n"
        (folder / f"{name}.txt").write_text(caption, encoding="utf-8")
    return names


def are_figures(folder: Path) -> bool:
    """Whether `folder` holds nothing but what `write_figures` writes."""
    return all(file.stem in FIGURES and file.suffix in (".pdf", ".png", ".svg", ".txt") for file in folder.iterdir())
