"""Figures of arXiv 2402.02872 on the biases (tables 7 and 8), and their captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.viz import majority_figure, recency_figure

if TYPE_CHECKING:
    import matplotlib.figure


def _majority_caption(values: Values) -> str:
    coefficient = values["chosen"][0]
    mitigated = f"without the mitigation and with it, at the chosen coefficient {coefficient:g}" if coefficient else (
        "without a mitigation, since none was chosen"
    )  # fmt: skip
    return (
        "Majority-label bias (table 7). Above: top-1 accuracy on the test prompts by the demonstrations kept of "
        f"each label, prompts of each right answer apart, {mitigated}. Below: on the selection prompts, the "
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
    "majority": PaperFigure(
        ("majority", "majority_sweep", "chosen"),
        lambda v: majority_figure(v["majority"], v["majority_sweep"], v["chosen"][0]),
        _majority_caption,
    ),
    "recency": PaperFigure(("recency", "chosen"), _recency, _recency_caption),
}
