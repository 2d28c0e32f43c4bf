"""Figures of which heads carry in-context learning: their scores, what zeroing them costs, what they read."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Int

from icl_circuits.heads import GroupEffects, HeadEffects, InContextHeads, LogProbIncrease, PositionIncrease
from icl_circuits.stats import Intervals, bootstrap_means
from icl_circuits.viz.look import (
    ATTENTION_COLOUR,
    MLP_COLOUR,
    bars,
    grouped_bars,
    head_ticks,
    heat_map,
    legend_above,
    many,
    new_figure,
    style,
)

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd


def head_map(increase: LogProbIncrease, effects: HeadEffects, selected: InContextHeads) -> "matplotlib.figure.Figure":
    """Heat maps over layers and heads of both scores; selected heads are framed, heads not zeroed are hatched."""
    from matplotlib.patches import Rectangle

    static = increase.head_means()
    causal = np.full(static.shape, np.nan)
    for head, drop in zip(effects.heads, effects.log_prob_drop.mean(axis=1), strict=True):
        causal[head.layer, head.head] = drop
    n_layers, n_heads = static.shape
    maps = ((static, "Log-probability increase (nats)"), (causal, "Log-probability lost when zeroed (nats)"))
    with style():
        figure = new_figure(min(max(2.6, 1.0 + 0.2 * n_heads), 7.0), wide=n_layers > 40)
        for axes, (values, title) in zip(figure.subplots(2, 1), maps, strict=True):
            heat_map(figure, axes, values, range(n_layers), "head", title)
            for chosen in selected.heads:
                corner = (chosen.layer - 0.5, chosen.head - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", lw=0.8, clip_on=False))
        figure.axes[0].set_xlabel("")
    return figure


def layer_bars(increase: LogProbIncrease) -> "matplotlib.figure.Figure":
    """Log-probability increase of attention and MLP layers, interleaved, with 95 % bootstrap intervals over prompts."""
    n_layers = increase.attn.shape[1]
    kinds = (
        (0.0, increase.attn, ATTENTION_COLOUR, "", "attention"),
        (0.5, increase.mlp, MLP_COLOUR, "//////", "MLP"),
    )
    with style():
        figure = new_figure(1.9, wide=n_layers > 40)
        axes = figure.subplots()
        for offset, values, colour, hatch, name in kinds:
            interval = bootstrap_means(values.T.astype(float))
            at = np.arange(n_layers) + offset
            bars(axes, at, interval, size=0.48, label=name, colour=colour, hatch=hatch)
        axes.axhline(0, color="0.3", lw=0.5)
        axes.set_xticks(range(0, n_layers, -(-n_layers // 10)))
        axes.set_xlim(-0.5, n_layers - 0.1)
        axes.set_xlabel("layer (MLPs at half steps)")
        axes.set_ylabel("log-probability increase\n(nats, 95 % intervals)")
        legend_above(figure, axes)
    return figure


def accuracy_bars(effects: GroupEffects) -> "matplotlib.figure.Figure":
    """Accuracy by both rules for each group of zeroed heads, with 95 % bootstrap intervals over prompts."""
    frame = effects.to_frame()
    frame = frame[frame["gold"].isna()]
    rules = [("top-1", frame, "top1"), ("between labels", frame, "between_labels")]
    return _group_bars(rules, "accuracy (95 % intervals)", chance=1 / len(effects.labels))


def answer_bars(effects: GroupEffects) -> "matplotlib.figure.Figure":
    """Top-1 accuracy on the prompts of each right answer for each group of zeroed heads, with 95 % intervals: zeroing
    the heads of one label should cost that label alone.
    """
    frame = effects.to_frame()
    answers = [(f"answer {label}", frame[frame["gold"] == label], "top1") for label in effects.labels]
    return _group_bars(answers, "top-1 accuracy (95 % intervals)")


def _group_bars(
    kinds: "list[tuple[str, pd.DataFrame, str]]", xlabel: str, chance: float | None = None
) -> "matplotlib.figure.Figure":
    """Horizontal bars for each group of zeroed heads, one of each kind: its name, its rows and their column."""
    groups = kinds[0][1]
    zeroed = groups["zeroed"].where(groups["kind"] != "random", "random heads")  # each below the group it is for
    names = [f"{name} ({n})" if n else name for name, n in zip(zeroed, groups["n_heads"], strict=True)]
    with style():
        figure = new_figure(0.75 + 0.17 * len(names) * len(kinds))
        axes = figure.subplots()
        for i, (name, rows, column) in enumerate(kinds):
            grouped_bars(axes, Intervals.in_frame(rows, column), i, len(kinds), name, horizontal=True)
        if chance is not None:
            axes.axvline(chance, color="0.3", lw=0.7, ls="--", label="chance between labels")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("heads zeroed (how many)")
        legend_above(figure, axes)
    return figure


def position_bars(
    positions: PositionIncrease,
    label_positions: Int[np.ndarray, "prompt demo"],
    is_gold: Bool[np.ndarray, "prompt demo"],
) -> "matplotlib.figure.Figure":
    """What each head reads at label positions and adds from there, by whether they hold the right answer.

    Sums over positions, means over prompts, 95 % bootstrap intervals.
    """
    panels: dict[Literal["attention", "increase"], str]
    panels = {"attention": "attention,\nsum", "increase": "log-probability\nincrease (nats), sum"}
    with style():
        figure = new_figure(2.9, wide=many(positions.heads))
        for axes, (quantity, ylabel) in zip(figure.subplots(2, 1, sharex=True), panels.items(), strict=True):
            for i, (chosen, name) in enumerate(((is_gold, "the right answer"), (~is_gold, "other labels"))):
                sums = positions.summed(quantity, label_positions, chosen)
                grouped_bars(axes, bootstrap_means(sums.T.astype(float)), i, 2, name)
            axes.axhline(0, color="0.3", lw=0.5)
            axes.set_ylabel(ylabel)
        head_ticks(axes, [str(head) for head in positions.heads])
        legend_above(figure, axes)
    return figure
