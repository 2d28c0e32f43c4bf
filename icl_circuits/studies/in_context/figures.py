"""Figures of arXiv 2402.02872 on which heads carry in-context learning (tables 2 and 3), and their captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.viz import accuracy_bars, answer_bars, head_map, layer_bars, position_bars

if TYPE_CHECKING:
    import matplotlib.figure


def _positions(values: Values) -> "matplotlib.figure.Figure":
    is_gold = values["evaluation.demo_labels"] == values["evaluation.gold"][:, None]
    return position_bars(values["positions"], values["evaluation.label_positions"], is_gold)


FIGURES: Mapping[str, PaperFigure] = {
    "head_map": PaperFigure(
        ("increase", "effects", "selected"),
        lambda v: head_map(v["increase"], v["effects"], v["selected"]),
        "Both scores of every head, means over the selection prompts. Above: how much the head's output adds to "
        "the log-probability of the right label. Below: how much of it is lost when the head alone is zeroed at "
        "the last position. Framed: the selected in-context heads.",
    ),
    "layer_bars": PaperFigure(
        ("increase", "selected"),
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
}
