"""The figures of arXiv 2402.02872 and their captions, drawn from a file of results and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    caption: str | Callable[[Values], str]
    """Sentences; those on the model and the data follow."""


def _positions(values: Values) -> "matplotlib.figure.Figure":
    is_gold = values["evaluation.demo_labels"] == values["evaluation.gold"][:, None]
    return position_bars(values["positions"], values["evaluation.label_positions"], is_gold)


def _flow_caption(values: Values) -> str:
    probes = (
        "accuracy of linear probes for the class of a text, between the prompt's own classes, trained on the "
        f"selection prompts. {INTERVALS}"
    )
    if "flow" not in values:
        return f"Where features flow: {probes}"
    return (
        "Where features flow. Above: the logit difference between the right label and the best other one when a "
        f"route is cut in every head from a layer on, on {len(values['flow'].base.top1)} test prompts. Below: "
        f"{probes}"
    )


def _reversal_caption(values: Values) -> str:
    flips = values["reversal"].flips
    return (
        "Labels reversed (table 6): relative change of attention and of the raw logit minus at the positions "
        f"that hold each label, over the {flips.sum()} of {len(flips)} test prompts that are answered right both "
        "ways, so that their answer flips. Bars are missing where the value before cannot be told from 0, and "
        f"cut at 150 %. {INTERVALS}"
    )


def _majority_caption(values: Values) -> str:
    coefficient = values["chosen"][0]
    mended = f"without the mitigation and with it, at the chosen coefficient {coefficient:g}" if coefficient else (
        "without a mitigation, since none was chosen"
    )  # fmt: skip
    return (
        "Majority-label bias (table 7). Above: top-1 accuracy on the test prompts by the demonstrations kept of "
        f"each label, prompts of each right answer apart, {mended}. Below: on the selection prompts, the "
        "fluctuation of the accuracy with the demonstrations kept, and its mean, by the coefficient a_c with "
        f"which the mitigation adds the heads' values at minority labels. {INTERVALS}"
    )


def _recency(values: Values) -> "matplotlib.figure.Figure":
    recency = values["recency"]
    return recency_figure(recency, recency.strengths.index(values["chosen"][1] or 1.0))


def _recency_caption(values: Values) -> str:
    why = "the strength chosen on the selection prompts" if values["chosen"][1] else (
        "full strength; on the selection prompts none did better"
    )  # fmt: skip
    return (
        f"Recency bias (table 8), with position in the in-context heads' attention and without it, at {why}. "
        "Above: top-1 accuracy by the order of the demonstrations. Below: attention to the label at each place, "
        f"where an order gives it demonstrations of both kinds. {INTERVALS}"
    )


FIGURES: Mapping[str, PaperFigure] = {
    "schematic": PaperFigure(
        ("features",),
        lambda v: schematic(),
        "The hypothesis: in-context heads as two towers. In shallow layers the features of each demonstration's "
        "text flow to its label position, and those of the query to the last position. In deep layers the "
        "attention of in-context heads measures how similar the last position (Q) is to each label position (K), "
        "and their values (V) carry the label. The prompt and its numbers are the example of the paper's Figure "
        "1; other figures of these results are measured.",
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
        "Log-probability increase of attention and MLP layers at the last position, means over the selection prompts. "
        + INTERVALS,
    ),
    "accuracy": PaperFigure(
        ("groups",),
        lambda v: accuracy_bars(v["groups"]),
        "Accuracy on the test prompts with groups of heads zeroed at every position (table 2): over the whole "
        "vocabulary (top-1), and between the label words alone. Random heads are of the same layers, a mean of "
        f"several draws. {INTERVALS}",
    ),
    "accuracy_by_answer": PaperFigure(
        ("groups",),
        lambda v: answer_bars(v["groups"]),
        "Top-1 accuracy with groups of heads zeroed, on the test prompts of each right answer apart (table 3): "
        f"heads of one label should cost that label alone. {INTERVALS}",
    ),
    "positions": PaperFigure(
        ("positions", "evaluation.label_positions", "evaluation.demo_labels", "evaluation.gold"),
        _positions,
        "What each in-context head reads at the label positions that hold the right answer and at those of other "
        "labels. Above: attention from the last position. Below: log-probability increase of what is moved from "
        f"there. Sums over positions, means over the test prompts. {INTERVALS}",
    ),
    "label_features": PaperFigure(
        ("features",),
        lambda v: label_feature_bars(v["features"]),
        "In-context heads at the positions that hold each label (tables 4 and 5): attention from the last "
        "position, and the logit minus (first label less second) of the value-output vectors, weighted by "
        f"attention and raw. Means over positions and test prompts. {INTERVALS}",
    ),
    "class_auc": PaperFigure(
        ("auc", "auc_random"),
        lambda v: auc_dots(v["auc"], v["auc_random"]),
        "Metric learning: how often a head's attention score ranks a demonstration of the query's class above "
        "one of another class, within prompts (0.5 is chance), with its position terms and without. Grey: where "
        f"95 % of the means lie when classes are shuffled. {INTERVALS}",
    ),
    "flow": PaperFigure(("probe",), lambda v: flow_curves(v.get("flow"), v["probe"]), _flow_caption),
    "reversal": PaperFigure(("reversal",), lambda v: reversal_bars(v["reversal"]), _reversal_caption),
    "majority": PaperFigure(
        ("majority", "majority_sweep", "chosen"),
        lambda v: majority_figure(v["majority"], v["majority_sweep"], v["chosen"][0]),
        _majority_caption,
    ),
    "recency": PaperFigure(("recency", "chosen"), _recency, _recency_caption),
    "circuit_curves": PaperFigure(
        ("circuit_test", "selected"),
        lambda v: circuit_curves(v["circuit_test"], len(v["selected"].heads)),
        lambda v: (
            "Circuits of growing size. Faithfulness: the first heads alone, all others at their mean; beside it, "
            "as many random heads alone. Completeness: the model without the first heads. MLPs stay as they are. "
            f"The in-context heads come first. {len(v['circuit_test'].whole)} test prompts. {INTERVALS}"
        ),
    ),
}


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
        caption = FIGURES[name].caption
        said = caption if isinstance(caption, str) else caption(values)
        (folder / f"{name}.txt").write_text(f"{said} {about['described']}\n", encoding="utf-8")
    return names


def are_figures(folder: Path) -> bool:
    """Whether `folder` holds nothing but what `write_figures` writes."""
    return all(file.stem in FIGURES and file.suffix in (".pdf", ".png", ".svg", ".txt") for file in folder.iterdir())
