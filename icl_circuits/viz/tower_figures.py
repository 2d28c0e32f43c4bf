"""Figures of what each head does: OV label features, QK two towers, flow, reversal, and the hypothesis itself."""

from typing import TYPE_CHECKING, Any

import numpy as np

from icl_circuits.stats import Intervals
from icl_circuits.towers import Flow, LabelFeatures, MetricLearning, Probe, Reversal
from icl_circuits.viz.look import (
    COLOURS,
    arrows,
    curve,
    grouped_bars,
    head_ticks,
    legend_above,
    legend_over,
    many,
    new_figure,
    style,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure


def label_feature_bars(features: LabelFeatures) -> "matplotlib.figure.Figure":
    """Attention, weighted and raw logit minus of each head at the positions of each label, with 95 % intervals.

    Per position, means over prompts; the logit minus is of the first two labels (tables 4 and 5 of the paper).
    """
    frame = features.to_frame()
    frame = frame[frame["pair"] == f"{features.labels[0]}-{features.labels[1]}"]
    minus = f"logit minus\n{features.labels[0]} \u2212 {features.labels[1]}"
    kinds = (
        ("attention", "attention"),
        ("weighted_logit_minus", f"weighted {minus}\n(logits)"),
        ("logit_minus", f"raw {minus}\n(logits)"),
    )
    with style():
        figure = new_figure(3.9, wide=many(features.heads))
        for axes, (name, ylabel) in zip(figure.subplots(3, 1, sharex=True), kinds, strict=True):
            for place, label in enumerate(features.labels):
                rows = frame[frame["positions"] == label]
                interval = Intervals.in_frame(rows, name)
                grouped_bars(axes, interval, place, len(features.labels), f"at {label} positions")
            axes.axhline(0, color="0.3", lw=0.5)
            axes.set_ylabel(ylabel)
        head_ticks(axes, [str(head) for head in features.heads])
        legend_above(figure, axes)
    return figure


def auc_dots(learned: MetricLearning, random: MetricLearning) -> "matplotlib.figure.Figure":
    """The class AUC of each head with and without position, the band of shuffled classes, and random heads."""
    frame = learned.to_frame()
    at = np.arange(len(frame))
    with style():
        figure = new_figure(2.5, wide=many(learned.heads))
        axes = figure.subplots()
        for shift, name, marker, label in (
            (-0.12, "auc", "o", "score"),
            (0.12, "auc_content", "s", "without position"),
        ):
            mean, low, high = Intervals.in_frame(frame, name)
            errors = np.stack([mean - low, high - mean])
            colour = COLOURS[0] if name == "auc" else COLOURS[1]
            axes.errorbar(at + shift, mean, yerr=errors, fmt=marker, color=colour, capsize=1.5, lw=0.8, label=label)
        _, low, high = Intervals.in_frame(frame, "auc_shuffled")
        axes.bar(at, high - low, bottom=low, width=0.7, color="0.88", zorder=0, label="shuffled classes (95 %)")
        others = float(np.nanmean(random.auc))
        axes.axhline(others, color="0.2", ls=":", lw=1, label=f"random heads, mean {others:.2f}")
        axes.axhline(0.5, color="0.5", lw=0.6)
        head_ticks(axes, [str(head) for head in learned.heads])
        axes.set_ylabel("AUC: same class above\nother class (95 % intervals)")
        legend_above(figure, axes)
    return figure


def flow_curves(flow: Flow | None, probe: Probe) -> "matplotlib.figure.Figure":
    """Logit difference with each route cut from a layer on, and what linear probes read, layer by layer."""
    from matplotlib.ticker import MaxNLocator

    probed = probe.to_frame()
    with style():
        figure = new_figure(2.2 if flow is None else 4.4)
        *upper, below = figure.subplots(1 if flow is None else 2, 1, sharex=True, squeeze=False)[:, 0]
        if flow is not None:
            _cut_curves(upper[0], flow)
        for i, name in enumerate(probe.probed):
            rows = probed[probed["probe"] == name]
            curve(below, rows["layer"], Intervals.in_frame(rows, "accuracy"), i, name)
        below.axhline(float(probed["shuffled"].mean()), color="0.2", ls=":", lw=1, label="shuffled classes")
        below.set_ylabel("probe accuracy")
        below.set_ylim(0, 1)
        below.set_xlabel("layer")
        below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        for axes in figure.axes:
            title = "Linear probes of:" if axes is below else "Attention cut from this layer on:"
            legend_over(axes, title)
    return figure


def _cut_curves(axes: "matplotlib.axes.Axes", flow: Flow) -> None:
    cut = flow.to_frame()
    for i, route in enumerate(flow.routes):
        rows = cut[cut["route"] == route]
        curve(axes, rows["from_layer"], Intervals.in_frame(rows, "logit_diff"), i, arrows(route))
    axes.axhline(float(flow.base.logit_diff.mean()), color="0.2", ls=":", lw=1, label="nothing cut")
    axes.set_ylabel("logit difference, right label\nless best other (logits)")


def reversal_bars(found: Reversal) -> "matplotlib.figure.Figure":
    """Relative change of attention and of raw logit minus when labels are reversed, at positions that hold each label.

    95 % intervals over flipping pairs; bars beyond +-150 % are cut, as where the value before is near zero.
    """
    frame = found.to_frame()
    frame = frame[frame["reading"] == "holders"]
    labels = found.original.labels
    with style():
        figure = new_figure(3.0, wide=many(found.original.heads))
        kinds = (("attention", "attention"), ("logit_minus", "raw logit minus"))
        for axes, (name, title) in zip(figure.subplots(2, 1, sharex=True), kinds, strict=True):
            for place, label in enumerate(labels):
                rows = frame[frame["positions"] == label]
                interval = [100 * values.clip(-1.5, 1.5) for values in Intervals.in_frame(rows, f"{name}_change")]
                grouped_bars(axes, interval, place, len(labels), f"at {label} positions")
            axes.axhline(0, color="0.3", lw=0.6)
            axes.set_ylim(-155, 155)
            axes.set_ylabel("relative change (%)")
            axes.set_title(title, loc="left")
        head_ticks(axes, [str(head) for head in found.original.heads])
        legend_above(figure, axes)
    return figure


def schematic() -> "matplotlib.figure.Figure":
    """The hypothesis drawn, with the example of the paper's Figure 1 and its numbers: texts flow to label positions, a
    head compares them with the query and moves the label.
    """
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    tokens = ("France", ":", "bar", "Cat", ":", "foo", "Dog", ":")
    with style():
        figure = new_figure(2.5)
        axes = figure.subplots()
        axes.set_xlim(-0.55, 7.55)
        axes.set_ylim(-1.45, 4.65)
        axes.axis("off")

        def box(middle: tuple[float, float], width: float, height: float, edge: str) -> None:
            corner = (middle[0] - width / 2, middle[1] - height / 2)
            axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.03", fc="white", ec=edge, lw=1))

        def arrow(
            a: tuple[float, float], b: tuple[float, float], colour: str, dashed: bool = False, bend: float = 0.3
        ) -> None:
            axes.add_patch(
                FancyArrowPatch(
                    a, b, arrowstyle="-|>", mutation_scale=6, color=colour, lw=1, shrinkA=0, shrinkB=0,
                    ls="--" if dashed else "-", connectionstyle=f"arc3,rad={bend}",
                )
            )  # fmt: skip

        def say(x: float, y: float, text: str, size: float = 6.5, **look: Any) -> None:
            axes.text(x, y, text, fontsize=size, va="center", **look)

        for x, token in zip(np.arange(8.0), tokens, strict=True):
            box((x, 0.0), 0.8, 0.6, {"bar": COLOURS[1], "foo": COLOURS[0]}.get(token, "0.4"))
            say(x, 0.0, token, ha="center")
        for text, label in ((0, 2), (3, 5), (6, 7)):
            arrow((text + 0.1, -0.35), (label - 0.1, -0.35), "0.4", bend=0.35)
        say(-0.5, -1.25, "shallow layers: texts flow to their label, the query to the last position")
        arrow((2.0, 0.4), (2.6, 1.75), COLOURS[1], bend=-0.1)
        arrow((5.0, 0.4), (4.4, 1.75), COLOURS[0], bend=0.1)
        arrow((7.0, 0.4), (5.85, 1.9), "0.2", dashed=True, bend=0.2)
        box((3.6, 2.3), 4.4, 1.1, "0.3")
        say(3.6, 2.6, "in-context head", ha="center", weight="bold")
        say(3.6, 2.05, "attention, say: bar 0.3, foo 0.6", ha="center")
        say(2.15, 1.2, "K, V", ha="right")
        say(4.85, 1.2, "K, V")
        say(6.75, 1.35, "Q")
        arrow((3.6, 2.85), (3.6, 3.35), COLOURS[0], bend=0.0)
        say(3.6, 3.55, "say: foo 60 %, bar 30 %", ha="center")
        say(
            -0.5,
            4.3,
            "deep layers: attention measures how similar the last position is\n"
            "to each label position; values carry the label",
        )
    return figure
