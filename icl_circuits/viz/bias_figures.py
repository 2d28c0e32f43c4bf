"""Figures of the majority-label bias, the recency bias, and what their mitigations gain and cost."""

from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.biases import MajorityBias, RecencyBias
from icl_circuits.stats import Intervals
from icl_circuits.viz.look import (
    COLOURS,
    MARKERS,
    grouped_bars,
    legend_above,
    legend_over,
    new_figure,
    style,
)

if TYPE_CHECKING:
    import matplotlib.figure


def majority_figure(bias: MajorityBias, sweep: MajorityBias, chosen: float) -> "matplotlib.figure.Figure":
    """Accuracy by demonstrations kept and gold label, before and after; fluctuation and accuracy by coefficient.

    `bias` holds the test prompts, `sweep` the prompts that the coefficient `chosen` was chosen on.
    """
    frame = bias.to_frame()
    names = [":".join(map(str, keep)) for keep in bias.keeps]
    styles = {0.0: ("-", "o"), chosen: ("--", "s")} if chosen else {0.0: ("-", "o")}
    with style():
        figure = new_figure(4.0)
        above, below = figure.subplots(2, 1)
        for i, label in enumerate(bias.labels):
            colour = COLOURS[i % len(COLOURS)]
            for strength, (ls, marker) in styles.items():
                rows = frame[(frame["gold"] == label) & (frame["coefficient"] == strength)]
                name = None if strength else f"answer {label}"
                mean, low, high = Intervals.in_frame(rows, "top1")
                above.plot(names, mean, ls=ls, marker=marker, color=colour, label=name)
                if not strength:
                    above.fill_between(names, low, high, color=colour, alpha=0.12, lw=0)
        if chosen:
            above.plot([], [], ls="--", marker="s", color="0.3", label=f"mitigated, a_c = {chosen:g}")
        above.set_ylim(0, 1)
        above.tick_params(axis="x", rotation=90 if sum(map(len, names)) > 40 else 0)
        above.set_xlabel(f"demonstrations of {':'.join(bias.labels)}\n(the first is balanced)")
        above.set_ylabel("top-1 accuracy\n(95 % intervals)")
        at = np.arange(len(sweep.strengths))
        curves = (
            ("fluctuation", sweep.fluctuation),
            ("the same, all prompts", sweep.overall_fluctuation),
            ("accuracy", sweep.accuracy),
        )
        for (name, curve), marker, colour in zip(curves, MARKERS, ("0.1", "0.55", COLOURS[2]), strict=False):
            values = [curve(strength)[0] for strength in range(len(sweep.strengths))]
            below.plot(at, values, marker=marker, color=colour, label=name)
        below.axvline(sweep.strengths.index(chosen), color="0.3", ls=":", label="chosen")
        below.set_xticks(at, [f"{strength:g}" for strength in sweep.strengths])
        below.set_xlabel("coefficient a_c, on the selection prompts")
        below.set_ylabel("share of prompts")
        below.set_ylim(0, 1)
        for axes in (above, below):
            legend_over(axes)
    return figure


def recency_figure(bias: RecencyBias, strength: int) -> "matplotlib.figure.Figure":
    """Accuracy by order, and attention by place, before the mitigation and at `strengths[strength]`."""
    from matplotlib.ticker import MaxNLocator

    frame = bias.to_frame()
    orders = list(frame["order"].unique())
    compared = ((0, "with position"), (strength, f"without position (strength {bias.strengths[strength]:g})"))
    with style():
        figure = new_figure(3.8)
        above, below = figure.subplots(2, 1)
        for i, (index, name) in enumerate(compared):
            rows = frame[frame["strength"] == bias.strengths[index]]
            grouped_bars(above, Intervals.in_frame(rows, "top1"), i, 2, name)
            places = bias.attention_by_place(index)[0]
            at, ls = np.arange(1, places.shape[1] + 1), ("-", "--")[i]
            below.plot(at, places.mean(axis=0), marker=MARKERS[i], ls=ls, color=COLOURS[i], label=name)
        above.set_xticks(range(len(orders)), orders, rotation=20 if sum(map(len, orders)) > 44 else 0)
        above.set_ylim(0, 1)
        above.set_xlabel("order, first to last: S is the query's class, o another")
        above.set_ylabel("top-1 accuracy\n(95 % intervals)")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        below.set_xlabel("place of the demonstration, first to last")
        below.set_ylabel("attention to its label,\nmean over the heads")
        below.set_ylim(bottom=0)
        legend_above(figure, above)
    return figure
