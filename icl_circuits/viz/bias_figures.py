"""Figures of the majority-label bias, the recency bias, and what their mitigations gain and cost."""

from collections.abc import Sequence
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
    order = _by_share(bias.keeps)
    names = [":".join(map(str, bias.keeps[place])) for place in order]
    strengths = (0.0, chosen) if chosen else (0.0,)
    n_marks = len(bias.labels) * len(strengths)
    with style():
        figure = new_figure(4.0)
        above, below = figure.subplots(2, 1)
        for i, label in enumerate(bias.labels):
            for j, strength in enumerate(strengths):
                rows = frame[(frame["gold"] == label) & (frame["coefficient"] == strength)]
                mean, low, high = (values[order] for values in Intervals.in_frame(rows, "top1"))
                middles = np.arange(len(names)) + (i * len(strengths) + j - (n_marks - 1) / 2) * 0.6 / n_marks
                above.errorbar(
                    middles, mean, yerr=np.stack([mean - low, high - mean]).clip(0), fmt="s" if strength else "o",
                    lw=0.7, color=COLOURS[i % len(COLOURS)], mfc="white" if strength else None, ms=3, capsize=1,
                    label=f"answer {label}" + (", mitigated" if strength else ""),
                )  # fmt: skip
        above.set_xticks(range(len(names)), names, rotation=90 if sum(map(len, names)) > 40 else 0)
        for place in range(1, len(names)):
            above.axvline(place - 0.5, color="0.9", lw=0.6, zorder=0)
        above.set_ylim(0, 1.03)
        above.set_xlabel(f"demonstrations of {':'.join(bias.labels)}")
        above.set_ylabel("top-1 accuracy\n(95 % intervals)")
        at = np.arange(len(sweep.strengths))
        curves = (
            ("fluctuation", sweep.fluctuation),
            ("of all prompts", sweep.overall_fluctuation),
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


def _by_share(keeps: Sequence[tuple[int, ...]]) -> list[int]:
    """The order of imbalances by the first label's share, then by the next one's: of two labels, balance is between."""
    return sorted(range(len(keeps)), key=lambda place: [kept / sum(keeps[place]) for kept in keeps[place]])


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
