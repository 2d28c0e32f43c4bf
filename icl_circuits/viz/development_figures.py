"""Figures of training runs, checkpoint by checkpoint (arXiv 2402.13055, section 5)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from icl_circuits.stats import ALPHA, bootstrap_means
from icl_circuits.viz.look import COLOURS, curve, legend_above, new_figure, style

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

RISING, FALLING = "#0072B2", "#D55E00"
"""Curves of heads that end higher than they begin, and of those that end lower."""
COLUMNS = 4
"""Panels side by side."""
FIRST = 100
"""The step from which on axes are logarithmic."""


def shot_panels(
    steps: Int[np.ndarray, " checkpoint"],
    panels: Mapping[str, Float[np.ndarray, "checkpoint shots"]],
    shots: Sequence[int],
    label: str,
) -> "matplotlib.figure.Figure":
    """A panel each: shares over training, a line for each number of shots, lighter for fewer."""
    with style():
        figure, grid = _grid(len(panels), 1.6)
        for axes, (title, values) in zip(grid, panels.items(), strict=True):
            for place, number in enumerate(shots):
                shade = 0.25 + 0.75 * (place + 1) / len(shots)
                axes.plot(steps, values[:, place], color=COLOURS[0], alpha=shade, marker=".", label=f"{number} shots")
            axes.set_title(title.replace(" ", "\n", 1), loc="left")  # long names
            axes.set_ylim(-0.03, 1.03)
            _training(axes, steps, label)
        legend_above(figure, grid[0])
    return figure


def level_panels(
    steps: Int[np.ndarray, " checkpoint"],
    loss: Mapping[str, Float[np.ndarray, "checkpoint text"]],
    shares: Mapping[str, Bool[np.ndarray, "checkpoint _"]],
) -> "matplotlib.figure.Figure":
    """The levels of in-context learning over training: loss reduction on the left, shares of prompts on the right."""
    with style():
        figure = new_figure(2.2, wide=True)
        left, right = figure.subplots(1, 2)
        for place, (name, values) in enumerate(loss.items()):
            measured = values[:, np.isfinite(values).all(axis=0)]
            if measured.size:
                curve(left, steps, bootstrap_means(measured), place, name)
        left.axhline(0, color="0.3", lw=0.5)
        _training(left, steps, "loss late less early (nats)")
        left.legend()
        for place, (name, values) in enumerate(shares.items()):
            curve(right, steps, bootstrap_means(values.astype(float)), place, name)
        right.set_ylim(-0.03, 1.03)
        _training(right, steps, "share of prompts")
        right.legend()
    return figure


def head_curves(
    steps: Int[np.ndarray, " checkpoint"],
    panels: Mapping[str, Float[np.ndarray, "checkpoint layer head"]],
) -> "matplotlib.figure.Figure":
    """A panel each: a line for every head, blue if it ends higher than it begins, else red; the highest is named."""
    with style():
        figure, grid = _grid(len(panels), 1.6)
        for axes, (title, values) in zip(grid, panels.items(), strict=True):
            n_heads = values.shape[2]
            of_head = values.reshape(len(steps), -1).T
            for line in of_head:
                known = line[np.isfinite(line)]
                rises = len(known) and known[-1] >= known[0]
                axes.plot(steps, line, color=RISING if rises else FALLING, lw=0.7, alpha=0.6)
            last = np.nan_to_num(of_head[:, -1], nan=-np.inf)
            place = int(last.argmax())
            if np.isfinite(of_head[place, -1]):
                axes.plot(steps, of_head[place], color=RISING, lw=1.3)
                name = f"L{place // n_heads}H{place % n_heads}"
                axes.annotate(name, (steps[-1], of_head[place, -1]), ha="right", va="bottom")
            axes.set_title(title, loc="left")
            axes.margins(y=0.15)
            _training(axes, steps, "")
    return figure


def emergence_dots(frame: pd.DataFrame, steps: Int[np.ndarray, " checkpoint"]) -> "matplotlib.figure.Figure":
    """When each curve is half way up, earliest above, with intervals over seeds where there are several."""
    frame = frame[np.isfinite(frame["step"])]
    with style():
        figure = new_figure(0.7 + 0.17 * max(1, len(frame)))
        axes = figure.subplots()
        at = np.arange(len(frame))[::-1]
        step = frame["step"].to_numpy()
        low, high = (np.where(np.isfinite(frame[c]), frame[c], step) for c in ("step_low", "step_high"))
        axes.errorbar(step, at, xerr=[step - low, high - step], fmt="o", color=COLOURS[0], lw=0.8)
        axes.set_yticks(at, frame["curve"])
        axes.grid(axis="x", lw=0.3)
        _scale(axes, int(steps[-1]))
        axes.set_xlim(0, steps[-1])
        axes.set_xlabel("training step at which half is reached")
    return figure


def co_timing_map(frame: pd.DataFrame) -> "matplotlib.figure.Figure":
    """Rank correlations of curves over training; a star where rises come together more than in random order."""
    names = list(dict.fromkeys([*frame["one"], *frame["other"]]))
    values = np.full((len(names), len(names)), np.nan)
    with style():
        figure = new_figure(1.3 + 0.2 * len(names))
        axes = figure.subplots()
        for _, row in frame.iterrows():
            i, j = sorted((names.index(row["one"]), names.index(row["other"])), reverse=True)
            values[i, j] = row["spearman"]
            if row["p_fdr"] < ALPHA:
                axes.text(j, i, "*", ha="center", va="center")
        image = axes.imshow(values, cmap="PuOr", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
        bar.outline.set_visible(False)
        bar.set_label("rank correlation")
    return figure


def _grid(n: int, height: float) -> tuple["matplotlib.figure.Figure", list[Any]]:
    """A figure of `n` panels, each so high, and their axes."""
    rows = -(-n // COLUMNS)
    figure = new_figure(0.3 + height * rows, wide=True)
    every = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in every[n:]:
        axes.set_axis_off()
    return figure, every[:n]


def _training(axes: "matplotlib.axes.Axes", steps: Int[np.ndarray, " checkpoint"], label: str) -> None:
    _scale(axes, int(steps[-1]))
    axes.set_xlabel("training step")
    axes.set_ylabel(label)


def _scale(axes: "matplotlib.axes.Axes", last: int) -> None:
    """Steps by their logarithm, but for those below 100, up to the last one."""
    axes.set_xscale("symlog", linthresh=FIRST, linscale=0.5)
    ticks = [0, *(FIRST * 10**i for i in range(12) if FIRST * 10**i <= last)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
