"""The figure of what a circuit's heads do alone, and the model without them."""

from typing import TYPE_CHECKING

from icl_circuits.circuits import CURVES, CircuitTest
from icl_circuits.stats import Intervals
from icl_circuits.viz.look import curve, legend_above, new_figure, style

if TYPE_CHECKING:
    import matplotlib.figure

NAMES = {
    "circuit": "these heads alone",
    "complement": "the model without them",
    "random": "random heads alone",
}


def circuit_curves(test: CircuitTest, n_selected: int) -> "matplotlib.figure.Figure":
    """The metric by the number of heads, best first, with 95 % bootstrap intervals; a line marks the first
    `n_selected`, the in-context heads.
    """
    frame = test.to_frame()
    with style():
        figure = new_figure(2.5)
        axes = figure.subplots()
        for i, name in enumerate(CURVES):
            rows = frame[frame["curve"] == name]
            curve(axes, rows["size"], Intervals.in_frame(rows, test.metric), i, NAMES[name])
        axes.axhline(float(test.whole.mean()), color="0.2", ls="--", lw=0.8, label="the whole model")
        axes.axvline(n_selected, color="0.2", ls=":", lw=0.8, label=f"the {n_selected} in-context heads")
        axes.axhline(0, color="0.6", lw=0.5)
        axes.set_xlabel(f"heads, best first (of {len(test.heads)})")
        unit = " (logits)" if test.metric == "logit_diff" else ""
        axes.set_ylabel(f"{test.metric.replace('_', ' ')}{unit},\n95 % intervals")
        legend_above(figure, axes)
    return figure
