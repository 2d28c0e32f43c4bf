"""Figures of what writes the answers to facts: layers, heads and neurons (arXiv 2312.12141, figures 2 to 10)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from icl_circuits.heads import LogProbIncrease
from icl_circuits.stats import Intervals, bootstrap_means
from icl_circuits.subvalues import Interpolation, NeuronEffects, ZeroedAlone, layer_counts
from icl_circuits.viz.look import bars, curve, legend_above, new_figure, style

if TYPE_CHECKING:
    import matplotlib.figure

SEQUENTIAL = "hot_r"
"""The authors' colours for maps of what is never negative where it matters."""


def increase_map(increase: LogProbIncrease) -> "matplotlib.figure.Figure":
    """Log-probability increase of every head, mean over prompts: layers to the right, heads up; below zero is white."""
    means = increase.head_means()
    n_layers, n_heads = means.shape
    with style():
        figure = new_figure(min(max(1.8, 0.7 + 0.1 * n_heads), 5.0), wide=n_layers > 40)
        axes = figure.subplots()
        image = axes.imshow(means.T, cmap=SEQUENTIAL, vmin=0, aspect="auto", interpolation="nearest")
        axes.set_xlabel("layer")
        axes.set_ylabel("head")
        axes.set_xticks(range(0, n_layers, -(-n_layers // 10)))
        axes.set_yticks(range(0, n_heads, -(-n_heads // 10)))
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("log-probability\nincrease (nats)")
    return figure


def neuron_layers(
    ffn: Int[np.ndarray, "prompt _"], attention: Int[np.ndarray, "prompt _"], n_layers: int
) -> "matplotlib.figure.Figure":
    """How many of each prompt's best neurons lie in each layer, with 95 % bootstrap intervals over prompts."""
    names = (f"FFN (first {ffn.shape[1]})", f"attention (first {attention.shape[1]})")
    with style():
        figure = new_figure(1.9)
        axes = figure.subplots()
        for place, (layers, name) in enumerate(zip((ffn, attention), names, strict=True)):
            curve(axes, range(n_layers), bootstrap_means(layer_counts(layers, n_layers)), place, name)
        axes.set_xlabel("layer")
        axes.set_ylabel("value neurons a prompt\n(95 % intervals)")
        legend_above(figure, axes)
    return figure


def query_shares(only: Float[np.ndarray, "layer prompt"]) -> "matplotlib.figure.Figure":
    """Of the query neurons of each layer, the shares that are value neurons too and that are not (figure 8)."""
    n_layers = len(only)
    seen = [layer for layer in range(n_layers) if np.isfinite(only[layer]).any()]
    means = [bootstrap_means(only[layer][np.isfinite(only[layer])][None]).of(0) for layer in seen]
    values = np.array([[m.mean, m.low, m.high] for m in means]).T
    depth = np.array(seen) / max(n_layers - 1, 1)
    with style():
        figure = new_figure(1.9)
        axes = figure.subplots()
        curve(axes, depth, values, 0, "query only")
        curve(axes, depth, 1 - values[[0, 2, 1]], 1, "query and value")
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("depth (0: first layer, 1: last)")
        axes.set_ylabel("share of query neurons\n(95 % intervals)")
        legend_above(figure, axes)
    return figure


def method_layers(
    layers: Int[np.ndarray, "method prompt rank"], names: Sequence[str], n_layers: int
) -> "matplotlib.figure.Figure":
    """The share of each method's best neurons in each layer (figures 2 and 9)."""
    with style():
        figure = new_figure(2.1)
        axes = figure.subplots()
        for place, (of_method, name) in enumerate(zip(layers, names, strict=True)):
            share = layer_counts(of_method, n_layers) / of_method.shape[1]
            curve(axes, range(n_layers), bootstrap_means(share), place, name)
        axes.set_xlabel("layer")
        axes.set_ylabel("share of the best neurons\n(95 % intervals)")
        legend_above(figure, axes)
    return figure


def method_bars(effects: NeuronEffects) -> "matplotlib.figure.Figure":
    """Mean reciprocal rank and probability of the answer without the best neurons of each method (table 2)."""
    frame = effects.to_frame()
    at = np.arange(len(frame))
    panels = (("reciprocal_rank", "mean reciprocal rank", "#0072B2", ""), ("prob", "probability", "#E69F00", "////"))
    with style():
        figure = new_figure(0.9 + 0.2 * len(frame), wide=True)
        for axes, (measure, label, colour, hatch) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
            interval = Intervals.in_frame(frame, measure)
            bars(axes, at, interval, size=0.7, label=label, colour=colour, hatch=hatch, horizontal=True)
            axes.set_xlabel(f"{label} (95 % intervals)")
            axes.set_yticks(at, list(frame["zeroed"]))
            axes.set_xlim(left=0)
        figure.axes[0].set_ylabel("best FFN neurons zeroed by")
        figure.axes[0].invert_yaxis()
    return figure


def interpolation_curves(way: Interpolation) -> "matplotlib.figure.Figure":
    """Log-probability and probability of the answer on the way from the first state to the last (figures 3 and 10)."""
    frame = way.to_frame()
    with style():
        figure = new_figure(1.7, wide=True)
        panels = (("log_prob", "log-probability (nats)"), ("prob", "probability"))
        for place, (axes, (name, label)) in enumerate(zip(figure.subplots(1, 2), panels, strict=True)):
            curve(axes, frame["segment"], Intervals.in_frame(frame, name), place, label)
            axes.set_xlabel(f"segment of {len(frame) - 1} on the way from first state to last")
            axes.set_ylabel(f"{label}\n(95 % intervals)")
    return figure


def layer_strips(values: Mapping[str, Float[np.ndarray, "part layer"]], label: str) -> "matplotlib.figure.Figure":
    """A row for each type of knowledge, two cells a layer (attention, FFN), each row scaled to its own maximum."""
    names = list(values)
    rows = np.stack([np.stack(list(part), axis=1).reshape(-1) for part in values.values()])
    rows = np.clip(rows, 0, None)
    most = rows.max(axis=1, keepdims=True)
    shown = rows / np.where(most > 0, most, 1)
    n_layers = rows.shape[1] // 2
    with style():
        figure = new_figure(0.75 + 0.16 * len(names), wide=True)
        axes = figure.subplots()
        image = axes.imshow(
            shown, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", interpolation="nearest",
            extent=(-0.25, n_layers - 0.25, len(names) - 0.5, -0.5),
        )  # fmt: skip
        axes.set_xticks(range(0, n_layers, -(-n_layers // 15)))
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("layer (attention, then FFN at half steps)")
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, ticks=[0, 1])
        bar.set_label(f"{label},\nshare of row's most")
        bar.outline.set_visible(False)
    return figure


def agreement_curves(alone: ZeroedAlone) -> "matplotlib.figure.Figure":
    """Rank correlation of each score with the exact loss when neurons are zeroed one by one, layer by layer."""
    frame = alone.to_frame()
    names = {"increase": "log-probability increase", "attribution": "attribution patching"}  # its first order: the same
    with style():
        figure = new_figure(2.1)
        axes = figure.subplots()
        for place, (predictor, name) in enumerate(names.items()):
            rows = frame[frame["score"] == predictor]
            curve(axes, rows["layer"], Intervals.in_frame(rows, "rank_correlation"), place, name)
        axes.axhline(0, color="0.3", lw=0.5)
        axes.set_ylim(top=1.05)
        axes.set_xlabel("layer")
        axes.set_ylabel("rank correlation with the\nexact loss (95 % intervals)")
        legend_above(figure, axes)
    return figure
