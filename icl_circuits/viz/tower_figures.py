"""Figures of what each head does: OV label features, QK two towers, flow, reversal, and the hypothesis itself."""

from typing import TYPE_CHECKING, Any

import numpy as np

from icl_circuits.towers import Flow, LabelFeatures, MetricLearning, Probe, Reversal
from icl_circuits.viz.style import COLOURS, style

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

MARKERS = ("o", "s", "^", "D", "v")


def label_feature_bars(features: LabelFeatures) -> "matplotlib.figure.Figure":
    """Attention, weighted and raw logit minus of each head at the positions of each label, with 95 % intervals.

    Per position, means over prompts; the logit minus is of the first two labels (tables 4 and 5 of the paper).
    """
    from matplotlib.figure import Figure

    frame = features.to_frame()
    frame = frame[frame["pair"] == f"{features.labels[0]}-{features.labels[1]}"]
    minus = f"logit minus\n{features.labels[0]} - {features.labels[1]}"
    kinds = (
        ("attention", "attention"),
        ("weighted_logit_minus", f"weighted {minus}\n(logits)"),
        ("logit_minus", f"raw {minus}\n(logits)"),
    )
    with style():
        figure = Figure(figsize=(7.0, 5.6))
        for axes, (name, ylabel) in zip(figure.subplots(3, 1, sharex=True), kinds, strict=True):
            for place, label in enumerate(features.labels):
                rows = frame[frame["positions"] == label]
                _bars(axes, rows[name], rows[f"{name}_low"], rows[f"{name}_high"], place, len(features.labels), label)
            axes.axhline(0, color="0.3", lw=0.6)
            axes.set_ylabel(ylabel)
        axes.set_xticks(range(len(features.heads)), [str(head) for head in features.heads], rotation=45)
        axes.set_xlabel("head")
        figure.axes[0].legend(title="positions that hold", ncols=len(features.labels), loc="upper right")
    return figure


def _bars(
    axes: "matplotlib.axes.Axes", mean: Any, low: Any, high: Any,
    place: int, n: int, label: str,
) -> None:  # fmt: skip
    """One of `n` groups of bars side by side, with intervals."""
    mean, low, high = (np.asarray(values, dtype=np.float64) for values in (mean, low, high))
    axes.bar(
        np.arange(len(mean)) + (place - (n - 1) / 2) * 0.8 / n,
        mean,
        width=0.76 / n,
        yerr=np.maximum(np.stack([mean - low, high - mean]), 0),
        color=COLOURS[place % len(COLOURS)],
        edgecolor="white",
        hatch=("", "///", "...", "xxx")[place % 4],
        label=label,
        error_kw={"lw": 0.9, "ecolor": "0.2", "capsize": 2},
    )


def auc_dots(learned: MetricLearning, random: MetricLearning) -> "matplotlib.figure.Figure":
    """The class AUC of each head with and without position, the band of shuffled classes, and random heads."""
    from matplotlib.figure import Figure

    frame = learned.to_frame()
    at = np.arange(len(frame))
    with style():
        figure = Figure(figsize=(7.0, 3.2))
        axes = figure.subplots()
        for shift, name, marker, label in (
            (-0.12, "auc", "o", "score"),
            (0.12, "auc_content", "s", "without position"),
        ):
            mean = frame[name].to_numpy()
            errors = np.stack([mean - frame[f"{name}_low"], frame[f"{name}_high"] - mean])
            colour = COLOURS[0] if name == "auc" else COLOURS[1]
            axes.errorbar(at + shift, mean, yerr=errors, fmt=marker, color=colour, capsize=2, ms=4, lw=1, label=label)
        low, high = frame["auc_shuffled_low"], frame["auc_shuffled_high"]
        axes.bar(at, high - low, bottom=low, width=0.7, color="0.88", zorder=0, label="shuffled classes (95 %)")
        others = float(np.nanmean(random.auc))
        axes.axhline(others, color="0.2", ls=":", lw=1.2, label=f"random heads, mean {others:.2f}")
        axes.axhline(0.5, color="0.5", lw=0.6)
        axes.set_xticks(at, [str(head) for head in learned.heads], rotation=45)
        axes.set_xlabel("head")
        axes.set_ylabel("AUC: same class above\nother class (95 % intervals)")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


def flow_curves(flow: Flow | None, probe: Probe) -> "matplotlib.figure.Figure":
    """Logit difference with each route cut from a layer on, and what linear probes read, layer by layer."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    probed = probe.to_frame()
    with style():
        figure = Figure(figsize=(7.0, 2.8 if flow is None else 5.6))
        *upper, below = figure.subplots(1 if flow is None else 2, 1, sharex=True, squeeze=False)[:, 0]
        if flow is not None:
            _cut_curves(upper[0], flow)
        for i, name in enumerate(probe.probed):
            rows = probed[probed["probe"] == name]
            _curve(below, rows["layer"], rows, "accuracy", "low", "high", i, name)
        below.axhline(float(probed["shuffled"].mean()), color="0.2", ls=":", lw=1.2, label="shuffled classes")
        below.set_ylabel("probe accuracy")
        below.set_title("Class of a text, read by linear probes between the prompt's own classes", loc="left")
        below.set_ylim(0, 1)
        below.set_xlabel("layer")
        below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
        for axes in figure.axes:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _cut_curves(axes: "matplotlib.axes.Axes", flow: Flow) -> None:
    cut = flow.to_frame()
    for i, route in enumerate(flow.routes):
        rows = cut[cut["route"] == route]
        _curve(axes, rows["from_layer"], rows, "logit_diff", "logit_diff_low", "logit_diff_high", i, route)
    axes.axhline(float(flow.base.logit_diff.mean()), color="0.2", ls=":", lw=1.2, label="nothing cut")
    axes.set_ylabel("logit difference, right label\nless best other (logits)")
    axes.set_title("Attention cut from this layer on", loc="left")


def _curve(axes: "matplotlib.axes.Axes", x: Any, rows: Any, mean: str, low: str, high: str, i: int, label: str) -> None:
    values = [np.asarray(rows[name], dtype=np.float64) for name in (mean, low, high)]
    colour = COLOURS[i % len(COLOURS)]
    axes.plot(x, values[0], color=colour, marker=MARKERS[i % len(MARKERS)], ms=3, lw=1.2, label=label)
    axes.fill_between(x, values[1], values[2], color=colour, alpha=0.1, lw=0)


def reversal_bars(found: Reversal) -> "matplotlib.figure.Figure":
    """Relative change of attention and of raw logit minus when labels are reversed, at positions that hold each label.

    95 % intervals over flipping pairs; bars beyond +-150 % are cut, as where the value before is near zero.
    """
    from matplotlib.figure import Figure

    frame = found.to_frame()
    frame = frame[frame["reading"] == "holders"]
    labels = found.original.labels
    with style():
        figure = Figure(figsize=(7.0, 4.4))
        kinds = (("attention", "attention"), ("logit_minus", "raw logit minus"))
        for axes, (name, title) in zip(figure.subplots(2, 1, sharex=True), kinds, strict=True):
            for place, label in enumerate(labels):
                rows = frame[frame["positions"] == label]
                mean, low, high = (100 * rows[f"{name}_change{end}"].clip(-1.5, 1.5) for end in ("", "_low", "_high"))
                _bars(axes, mean, low, high, place, len(labels), f"at {label} positions")
            axes.axhline(0, color="0.3", lw=0.6)
            axes.set_ylim(-155, 155)
            axes.set_ylabel("relative change (%)")
            axes.set_title(title, loc="left")
        axes.set_xticks(range(len(found.original.heads)), [str(h) for h in found.original.heads], rotation=45)
        axes.set_xlabel("head")
        figure.axes[0].legend(loc="upper right", ncols=2)
    return figure


def schematic(labels: tuple[str, str]) -> "matplotlib.figure.Figure":
    """The hypothesis drawn, with the numbers of the paper's Figure 1 as an example: texts flow to label positions, a
    head compares them with the query and moves the label.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    second, first = labels[1], labels[0]
    tokens = ("France", ":", second, "Cat", ":", first, "Dog", ":")
    with style():
        figure = Figure(figsize=(7.0, 3.4))
        axes = figure.subplots()
        axes.set_xlim(-0.7, 7.7)
        axes.set_ylim(-0.6, 4.4)
        axes.axis("off")
        for x, token in enumerate(tokens):
            colour = {2: COLOURS[1], 5: COLOURS[0]}.get(x, "0.4")
            box = FancyBboxPatch((x - 0.42, -0.3), 0.84, 0.6, boxstyle="round,pad=0.02", fc="white", ec=colour, lw=1.4)
            axes.add_patch(box)
            axes.text(x, 0, token, ha="center", va="center")

        def arrow(
            a: tuple[float, float], b: tuple[float, float], colour: str, dashed: bool = False, bend: float = 0.3
        ) -> None:
            axes.add_patch(
                FancyArrowPatch(
                    a, b, arrowstyle="-|>", mutation_scale=10, color=colour, lw=1.3,
                    ls="--" if dashed else "-", connectionstyle=f"arc3,rad={bend}",
                )
            )  # fmt: skip

        for text, label in ((0, 2), (3, 5), (6, 7)):
            arrow((text + 0.1, 0.35), (label - 0.1, 0.38), "0.4", bend=-0.45)
        axes.text(
            -0.5,
            2.2,
            "shallow layers: texts\nflow to their label,\nthe query to the\nlast position",
            fontsize=8,
            va="center",
        )
        axes.add_patch(FancyBboxPatch((2.2, 2.35), 3.6, 0.95, boxstyle="round,pad=0.05", fc="0.95", ec="0.3", lw=1.2))
        axes.text(4.0, 2.98, "in-context head", ha="center", va="center", weight="bold")
        axes.text(4.0, 2.6, f"attention, say: {second} 0.3, {first} 0.6", ha="center", va="center", fontsize=8)
        arrow((2.05, 0.4), (2.7, 2.25), COLOURS[1], bend=-0.1)
        arrow((5.0, 0.4), (4.6, 2.25), COLOURS[0], bend=0.1)
        arrow((7.0, 0.4), (5.9, 2.5), "0.2", dashed=True, bend=0.2)
        axes.text(2.15, 1.85, "K, V", fontsize=8, ha="right")
        axes.text(4.65, 1.45, "K, V", fontsize=8, ha="right")
        axes.text(6.85, 1.75, "Q", fontsize=8)
        arrow((4.6, 3.4), (5.4, 3.95), COLOURS[0], bend=-0.1)
        axes.text(5.5, 3.95, f"say: {first} 60 %, {second} 30 %", va="center", fontsize=8, ha="left")
        axes.text(
            -0.5,
            3.9,
            "deep layers: attention measures how similar the\nlast position is to each label position;\n"
            "values carry the label",
            fontsize=8,
            va="center",
        )
    return figure
