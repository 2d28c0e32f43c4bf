"""Figures of arXiv 2402.02872 on the biases (tables 7 and 8), and their captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.viz import majority_figure, recency_figure

if TYPE_CHECKING:
    import matplotlib.figure


def _majority_caption(values: Values) -> str:
    coefficient = values["chosen"][0]
    mitigated = (
        f"Hollow markers show the mitigated model, at the chosen coefficient {coefficient:g}."
        if coefficient
        else "No marker shows a mitigated model, since none was chosen on the selection prompts."
    )
    return (
        "The figure shows the majority-label bias, the pull of labels with more demonstrations (table 7). "
        "Markers above show top-1 accuracy, the share of test prompts whose likeliest next token is the right label. "
        "Each stands for a number of demonstrations kept of each label, and for one right answer. "
        f"{mitigated} Curves below show accuracy on the selection prompts, and its fluctuation with the demonstrations "
        "kept. The coefficient a_c scales what the mitigation adds: the heads' values at labels in the minority. "
        f"{INTERVALS}"
    )


def _recency(values: Values) -> "matplotlib.figure.Figure":
    recency = values["recency"]
    return recency_figure(recency, recency.strengths.index(values["chosen"][1] or 1.0))


def _recency_caption(values: Values) -> str:
    why = (
        "the strength chosen on the selection prompts."
        if values["chosen"][1]
        else "full strength. No strength did better on the selection prompts."
    )
    return (
        "The figure shows the recency bias, the effect of the order of demonstrations on answers (table 8). "
        f"It compares the model with one whose in-context heads attend without position, at {why} "
        "Bars above show top-1 accuracy, the share of prompts whose likeliest next token is the right label. "
        "Curves below show the heads' attention to the label at each place. Each point weighs demonstrations of the "
        f"query's class and others alike. {INTERVALS}"
    )


FIGURES: Mapping[str, PaperFigure] = {
    "majority": PaperFigure(
        ("majority", "majority_sweep", "chosen"),
        lambda v: majority_figure(v["majority"], v["majority_sweep"], v["chosen"][0]),
        _majority_caption,
    ),
    "recency": PaperFigure(("recency", "chosen"), _recency, _recency_caption),
}
