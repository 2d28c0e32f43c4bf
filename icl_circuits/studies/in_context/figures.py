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
        "Both maps show a score of every head, a mean over the selection prompts. The upper one shows how much the "
        "head's output adds to the log-probability of the right label. The lower one shows how much of it is lost when "
        "the head alone is zeroed at the last position. Frames mark the selected in-context heads.",
    ),
    "layer_bars": PaperFigure(
        ("increase", "selected"),
        lambda v: layer_bars(v["increase"]),
        "Bars show how much attention and MLP layers add to the log-probability of the right label. "
        f"They are means over the selection prompts, at the last position. {INTERVALS}",
    ),
    "accuracy": PaperFigure(
        ("groups",),
        lambda v: accuracy_bars(v["groups"]),
        "Bars show accuracy on the test prompts with groups of heads zeroed at every position (table 2). "
        "Top-1 accuracy asks whether the right label is the likeliest of all tokens. The other accuracy compares the "
        "label words alone. Random heads are of the same layers, a mean over several draws. "
        f"{INTERVALS}",
    ),
    "accuracy_by_answer": PaperFigure(
        ("groups",),
        lambda v: answer_bars(v["groups"]),
        "Bars show top-1 accuracy with groups of heads zeroed, on test prompts of each right answer (table 3). "
        "Top-1 accuracy is the share of prompts whose likeliest next token is the right label. "
        f"Heads of one label should cost that label alone. {INTERVALS}",
    ),
    "positions": PaperFigure(
        ("positions", "evaluation.label_positions", "evaluation.demo_labels", "evaluation.gold"),
        _positions,
        "Bars show what each in-context head reads at labels that hold the right answer, and at other labels. "
        "The upper ones show attention from the last position. The lower ones show how much the right label's "
        "log-probability gains from what the head moves. Both are sums over positions and means over the test prompts. "
        f"{INTERVALS}",
    ),
}
