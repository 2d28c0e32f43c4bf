"""Figures of which heads carry in-context learning: their scores, what zeroing them costs, what they read."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from icl_circuits.heads import GroupEffects, HeadEffects, InContextHeads, LogProbIncrease, PositionIncrease
from icl_circuits.stats import bootstrap_means
from icl_circuits.viz.style import (
    ATTENTION_COLOUR,
    BETWEEN_COLOUR,
    COLOURS,
    ERROR_BARS,
    HATCHES,
    MLP_COLOUR,
    TOP1_COLOUR,
    legend_above,
    new_figure,
    style,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import pandas as pd


def head_map(increase: LogProbIncrease, effects: HeadEffects, selected: InContextHeads) -> "matplotlib.figure.Figure":
    """Heat maps over layers and heads of both scores; selected heads are framed, heads not zeroed are hatched."""
    static = increase.head_means()
    causal = np.full(static.shape, np.nan)
    for head, drop in zip(effects.heads, effects.log_prob_drop.mean(axis=1), strict=True):
        causal[head.layer, head.head] = drop
    with style():
        figure = new_figure(max(2.6, 1.0 + 0.2 * static.shape[1]))
        above, below = figure.subplots(2, 1)
        _heat_map(above, static, selected, "Log-probability increase (nats)", figure)
        _heat_map(below, causal, selected, "Log-probability lost when zeroed (nats)", figure)
        below.set_xlabel("layer")
    return figure


def _heat_map(
    axes: "matplotlib.axes.Axes",
    values: np.ndarray,
    selected: InContextHeads,
    title: str,
    figure: "matplotlib.figure.Figure",
) -> None:
    """One `[layer head]` map, zero at the middle of the colours."""
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    limit = float(np.nanmax(np.abs(values))) or 1.0
    n_layers, n_heads = values.shape
    axes.add_patch(
        Rectangle((-0.5, -0.5), n_layers, n_heads, facecolor="white", edgecolor="0.8", hatch="////", lw=0, zorder=-1)
    )
    image = axes.imshow(values.T, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for head in selected.heads:
        axes.add_patch(
            Rectangle((head.layer - 0.5, head.head - 0.5), 1, 1, fill=False, edgecolor="black", lw=0.9, clip_on=False)
        )
    axes.set_title(title, loc="left")
    axes.set_ylabel("head")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)


def layer_bars(increase: LogProbIncrease) -> "matplotlib.figure.Figure":
    """Log-probability increase of attention and MLP layers, interleaved, with 95 % bootstrap intervals over prompts."""
    from matplotlib.ticker import MaxNLocator

    n_layers = increase.attn.shape[1]
    with style():
        figure = new_figure(1.9, many=n_layers // 3)
        axes = figure.subplots()
        for offset, values, colour, hatch, name in (
            (0.0, increase.attn, ATTENTION_COLOUR, "", "attention"),
            (0.5, increase.mlp, MLP_COLOUR, "//////", "MLP"),
        ):
            bars = bootstrap_means(values.T.astype(float))
            axes.bar(
                np.arange(n_layers) + offset,
                bars.mean,
                width=0.48,
                yerr=np.stack([bars.mean - bars.low, bars.high - bars.mean]),
                color=colour,
                edgecolor="white",
                linewidth=0.2,
                hatch=hatch,
                label=name,
                error_kw={"lw": 0.5, "ecolor": "0.25"},
            )
        axes.axhline(0, color="0.3", lw=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        axes.set_xlim(-0.5, n_layers - 0.1)
        axes.set_xlabel("layer (MLPs at half steps)")
        axes.set_ylabel("log-probability increase\n(nats, 95 % intervals)")
        legend_above(figure, axes, 2)
    return figure


def accuracy_bars(effects: GroupEffects) -> "matplotlib.figure.Figure":
    """Accuracy by both rules for each group of zeroed heads, with 95 % bootstrap intervals over prompts."""
    frame = effects.to_frame()
    frame = frame[frame["gold"].isna()]
    bars = [
        (name, frame, rule, colour)
        for name, rule, colour in (
            ("top-1", "top1", TOP1_COLOUR),
            ("between labels", "between_labels", BETWEEN_COLOUR),
        )
    ]
    return _group_bars(effects, frame, bars, "accuracy (95 % intervals)", "between_labels")


def answer_bars(effects: GroupEffects) -> "matplotlib.figure.Figure":
    """Top-1 accuracy on the prompts of each right answer for each group of zeroed heads, with 95 % intervals: zeroing
    the heads of one label should cost that label alone.
    """
    frame = effects.to_frame()
    bars = [
        (f"answer {label}", frame[frame["gold"] == label], "top1", COLOURS[i % len(COLOURS)])
        for i, label in enumerate(effects.labels)
    ]
    return _group_bars(effects, bars[0][1], bars, "top-1 accuracy (95 % intervals)")


def _group_bars(
    effects: GroupEffects,
    groups: "pd.DataFrame",
    bars: "list[tuple[str, pd.DataFrame, str, str]]",
    xlabel: str,
    chance: str = "",
) -> "matplotlib.figure.Figure":
    """A group of horizontal bars for each group of zeroed heads; `bars` are name, rows, column and colour."""
    names = [f"{name} ({n})" if n else name for name, n in zip(groups["zeroed"], groups["n_heads"], strict=True)]
    at = np.arange(len(names))
    with style():
        figure = new_figure(0.75 + 0.17 * len(names) * len(bars))
        axes = figure.subplots()
        for i, (name, rows, column, colour) in enumerate(bars):
            mean, low, high = (rows[f"{column}{end}"].to_numpy() for end in ("", "_low", "_high"))
            axes.barh(
                at + (i - (len(bars) - 1) / 2) * 0.8 / len(bars),
                mean,
                height=0.76 / len(bars),
                xerr=np.stack([mean - low, high - mean]),
                color=colour,
                edgecolor="white",
                linewidth=0.2,
                hatch=HATCHES[i % len(HATCHES)],
                label=name,
                error_kw=ERROR_BARS,
            )
        if chance:
            axes.axvline(1 / len(effects.labels), color="0.3", lw=0.7, ls="--", label="chance between labels")
        axes.set_yticks(at, names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("heads zeroed (how many)")
        legend_above(figure, axes, 3)
    return figure


def position_bars(
    positions: PositionIncrease,
    label_positions: Int[np.ndarray, "prompt demo"],
    is_gold: Bool[np.ndarray, "prompt demo"],
) -> "matplotlib.figure.Figure":
    """What each head reads at label positions and adds from there, by whether they hold the right answer.

    Sums over positions, means over prompts, 95 % bootstrap intervals.
    """
    sums = (
        ("attention,\nsum", positions.summed(positions.attention, label_positions, is_gold),
         positions.summed(positions.attention, label_positions, ~is_gold)),
        ("log-probability\nincrease (nats), sum", positions.summed(positions.increase, label_positions, is_gold),
         positions.summed(positions.increase, label_positions, ~is_gold)),
    )  # fmt: skip
    with style():
        figure = new_figure(2.9, many=len(positions.heads))
        for axes, (ylabel, *kinds) in zip(figure.subplots(2, 1, sharex=True), sums, strict=True):
            for i, (values, name) in enumerate(zip(kinds, ("the right answer", "other labels"), strict=True)):
                bars = bootstrap_means(values.T.astype(float))
                grouped_bars(axes, bars.mean, bars.low, bars.high, i, 2, name)
            axes.axhline(0, color="0.3", lw=0.5)
            axes.set_ylabel(ylabel)
        head_ticks(axes, [str(head) for head in positions.heads])
        legend_above(figure, axes, 2)
    return figure


def grouped_bars(axes: "matplotlib.axes.Axes", mean: Any, low: Any, high: Any, place: int, n: int, label: str) -> None:
    """The bars that stand at `place` in groups of `n` side by side, with intervals."""
    mean, low, high = (np.asarray(values, dtype=np.float64) for values in (mean, low, high))
    axes.bar(
        np.arange(len(mean)) + (place - (n - 1) / 2) * 0.8 / n,
        mean,
        width=0.76 / n,
        yerr=np.maximum(np.stack([mean - low, high - mean]), 0),
        color=COLOURS[place % len(COLOURS)],
        edgecolor="white",
        linewidth=0.2,
        hatch=HATCHES[place % len(HATCHES)],
        label=label,
        error_kw=ERROR_BARS,
    )


def head_ticks(axes: "matplotlib.axes.Axes", names: list[str]) -> None:
    """Heads along the x axis."""
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_xlabel("head")
