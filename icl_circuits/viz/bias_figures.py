"""Figures of the majority-label bias, the recency bias, and what their mitigations gain and cost."""

from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.biases import MajorityBias, RecencyBias
from icl_circuits.viz.style import COLOURS, ERROR_BARS, HATCHES, MARKERS, legend_above, new_figure, style

if TYPE_CHECKING:
    import matplotlib.figure


def majority_figure(bias: MajorityBias, sweep: MajorityBias, chosen: float) -> "matplotlib.figure.Figure":
    """Accuracy by demonstrations kept and gold label, before and after; fluctuation and accuracy by coefficient.

    `bias` holds the test prompts, `sweep` the prompts that the coefficient was chosen on.
    """
    frame = bias.to_frame()
    names = [":".join(map(str, keep)) for keep in bias.keeps]
    with style():
        figure = new_figure(4.0)
        above, below = figure.subplots(2, 1)
        for i, label in enumerate(bias.labels):
            for strength, (ls, marker) in (
                {0.0: ("-", "o"), chosen: ("--", "s")}.items() if chosen else [(0.0, ("-", "o"))]
            ):
                rows = frame[(frame["gold"] == label) & (frame["coefficient"] == strength)]
                text = f"a_c = {strength:g}, answer {label}"
                colour = COLOURS[i % len(COLOURS)]
                above.plot(names, rows["top1"], ls=ls, marker=marker, color=colour, label=text)
                if not strength:
                    above.fill_between(names, rows["top1_low"], rows["top1_high"], color=colour, alpha=0.12, lw=0)
        above.set_ylim(0, 1)
        above.set_xlabel(f"demonstrations of {':'.join(bias.labels)} (the first is balanced)")
        above.set_ylabel("top-1 accuracy\n(shaded: 95 % intervals)")
        at = np.arange(len(sweep.strengths))
        curves = {
            "fluctuation": sweep.fluctuation,
            "the same, all prompts": sweep.overall_fluctuation,
            "accuracy": sweep.accuracy,
        }
        for i, (name, curve) in enumerate(curves.items()):
            values = [curve(strength)[0] for strength in range(len(sweep.strengths))]
            below.plot(at, values, marker=MARKERS[i], color=COLOURS[i], label=name)
        if chosen in sweep.strengths:
            below.axvline(sweep.strengths.index(chosen), color="0.3", ls=":", label="chosen")
        below.set_xticks(at, [f"{strength:g}" for strength in sweep.strengths])
        below.set_xlabel("coefficient a_c, on the selection prompts")
        below.set_ylabel("share of prompts")
        below.set_ylim(0, 1)
        for axes in (above, below):
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
    return figure


def recency_figure(bias: RecencyBias, strength: int) -> "matplotlib.figure.Figure":
    """Accuracy by order, and attention by place, before the mitigation and at `strengths[strength]`."""
    frame = bias.to_frame()
    with style():
        figure = new_figure(3.8)
        above, below = figure.subplots(2, 1)
        without = f"without position (strength {bias.strengths[strength]:g})"
        compared = ((0, "with position"), (strength, without))
        for i, (index, name) in enumerate(compared):
            rows = frame[frame["strength"] == bias.strengths[index]]
            mean = rows["top1"].to_numpy()
            errors = np.stack([mean - rows["top1_low"], rows["top1_high"] - mean])
            above.bar(
                np.arange(len(rows)) + (i - 0.5) * 0.4, mean, width=0.38, yerr=errors,
                color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", linewidth=0.2, label=name, error_kw=ERROR_BARS,
            )  # fmt: skip
            places = bias.attention_by_place(index)[0]
            below.plot(
                np.arange(1, places.shape[1] + 1), places.mean(axis=0), marker=MARKERS[i], ls=("-", "--")[i],
                color=COLOURS[i], label=name,
            )  # fmt: skip
        orders = frame["order"].unique()
        above.set_xticks(range(len(orders)), list(orders))
        above.set_ylim(0, 1)
        above.set_xlabel("order, first to last: S is the query's class, o another")
        above.set_ylabel("top-1 accuracy\n(95 % intervals)")
        below.set_xlabel("place of the demonstration, first to last")
        below.set_ylabel("attention to its label,\nmean over the heads")
        below.set_ylim(bottom=0)
        legend_above(figure, above, 2)
    return figure
