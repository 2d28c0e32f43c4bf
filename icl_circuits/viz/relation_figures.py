"""Figures of relation indices and of head families (arXiv 2402.13055)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from icl_circuits.heads import FamilyEffects, FamilyKind, Overlap
from icl_circuits.stats import ALPHA, bootstrap_means
from icl_circuits.viz.look import grouped_bars, hatched_ground, legend_above, new_figure, style

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

COLUMNS = 4
"""Panels side by side."""


def head_panels(
    panels: Mapping[str, Float[np.ndarray, "layer head"]], label: str, *, columns: int = COLUMNS, shared: bool = False
) -> "matplotlib.figure.Figure":
    """A heat map a panel: heads to the right, layers upward; what is NaN is hatched.

    Args:
        panels: values by title.
        label: what they are, with units.
        columns: panels side by side.
        shared: one scale for all panels; else one each.
    """
    n_rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(0.3 + 1.75 * n_rows, wide=True)
        grid = figure.subplots(n_rows, columns, squeeze=False)
        finite = [values[np.isfinite(values)] for values in panels.values()]
        most = max((float(values.max(initial=0)) for values in finite), default=0.0)
        for axes, (title, values) in zip(grid.flat, panels.items(), strict=False):
            _head_panel(figure, axes, title, values, label, most if shared else None)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
    return figure


def _head_panel(
    figure: "matplotlib.figure.Figure",
    axes: "matplotlib.axes.Axes",
    title: str,
    values: Float[np.ndarray, "layer head"],
    label: str,
    most: float | None,
) -> None:
    n_layers, n_heads = values.shape
    top = most or float(np.nanmax(values, initial=0)) or 1.0
    hatched_ground(axes, n_heads, n_layers)
    image = axes.imshow(
        values, cmap="coolwarm", vmin=0, vmax=top, aspect="auto", interpolation="nearest", origin="lower"
    )
    axes.set_title(title, loc="left")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_xticks(range(0, n_heads, -(-n_heads // 8)))
    axes.set_yticks(range(0, n_layers, -(-n_layers // 8)))
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label(label)


def ratio_histogram(
    ratios: Int[np.ndarray, " bin"], edges: Float[np.ndarray, " edge"], tau: float, percentile: float
) -> "matplotlib.figure.Figure":
    """How many times attention to a relation's head exceeds the next, wherever it is the most."""
    with style():
        figure = new_figure(1.7)
        axes = figure.subplots()
        share = ratios / max(int(ratios.sum()), 1)
        axes.bar(edges[:-1], share, width=np.diff(edges), align="edge", color="#0072B2", lw=0)
        axes.axvline(tau, color="0.1", lw=0.9, label=f"tau = {tau:g}")
        if percentile <= edges[-1]:
            axes.axvline(percentile, color="0.1", lw=0.9, ls="--", label=f"95th percentile: {percentile:.1f}")
        axes.set_xlabel(f"attention to the head over the next (last bin: {edges[-1]:g} or more)")
        axes.set_ylabel("share")
        legend_above(figure, axes)
    return figure


def overlap_map(found: Overlap) -> "matplotlib.figure.Figure":
    """How many heads each two families share, and how many two random families would."""
    names = list(dict.fromkeys(name for pair in found.pairs for name in pair))
    n = len(names)
    both, text = np.full((n, n), np.nan), [["" for _ in names] for _ in names]
    sizes = dict(zip(found.pairs, found.sizes.tolist(), strict=True))
    for pair, (one, other) in sizes.items():
        for name, size in zip(pair, (one, other), strict=True):
            text[names.index(name)][names.index(name)] = str(size)
    for (one, other), shared, expected, p in zip(found.pairs, found.shared, found.expected, found.p_holm, strict=True):
        i, j = sorted((names.index(one), names.index(other)), reverse=True)
        both[i, j] = shared
        stars = "*" if p < ALPHA else ""
        text[i][j] = f"{shared}{stars}\n({expected:.1f})"
    with style():
        figure = new_figure(0.9 + 0.36 * n)
        axes = figure.subplots()
        image = axes.imshow(both, cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
        most = float(np.nanmax(both, initial=1.0))
        for i in range(n):
            for j in range(i + 1):
                light = np.isfinite(both[i, j]) and both[i, j] < 0.6 * most
                axes.text(j, i, text[i][j], ha="center", va="center", color="white" if light else "black")
        axes.set_xticks(range(n), names, rotation=40, ha="right")
        axes.set_yticks(range(n), names)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
        bar.outline.set_visible(False)
        bar.set_label("heads in both")
    return figure


def family_bars(effects: Mapping[str, FamilyEffects]) -> "matplotlib.figure.Figure":
    """What is lost of log p(answer) without each family, without its heads in no other, and without random heads."""
    kinds: dict[FamilyKind, str] = {
        "whole": "the family", "random_whole": "as many random heads", "exclusive": "its heads in no other",
        "random_exclusive": "as many random heads as those",
    }  # fmt: skip
    with style():
        figure = new_figure(2.6, wide=True)
        for axes, (title, found) in zip(
            figure.subplots(1, len(effects), squeeze=False)[0], effects.items(), strict=True
        ):
            names = found.families
            for place, (kind, label) in enumerate(kinds.items()):
                groups = [found.of(name, kind) for name in names]
                lost = np.stack([found.base.log_prob[0] - group.log_prob.mean(axis=0) for group in groups])
                lost[[not group.draws[0] for group in groups]] = np.nan  # no heads, so no bar
                grouped_bars(axes, bootstrap_means(lost.astype(float)), place, len(kinds), label)
            axes.axhline(0, color="0.3", lw=0.5)
            axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
            axes.set_title(title, loc="left")
            axes.set_ylabel("lost log-probability\n(nats, 95 % intervals)")
        legend_above(figure, figure.axes[0])
    return figure
