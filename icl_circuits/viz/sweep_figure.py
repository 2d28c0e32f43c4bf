"""The figure of a patching sweep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.interventions import Sweep
from icl_circuits.viz.style import new_figure, style

if TYPE_CHECKING:
    import matplotlib.figure


def sweep_map(found: Sweep, places: Sequence[str] = (), *, what: str = "head") -> "matplotlib.figure.Figure":
    """Mean effects of a sweep as a heat map: layers upward, heads or positions to the right, zero at the middle colour.

    Args:
        found: of `sweep` or `attribute`; layers that it left out are not shown.
        places: names of the columns of `found.grid()`; default their numbers.
        what: what the columns are.
    """
    grid = found.grid()
    layers = np.flatnonzero(np.isfinite(grid).any(axis=1))
    values = grid[layers]
    limit = float(np.nanmax(np.abs(values))) or 1.0
    with style():
        figure = new_figure(max(1.8, 0.9 + 0.09 * len(layers)), many=values.shape[1] // 2)
        axes = figure.subplots()
        image = axes.imshow(
            values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", origin="lower"
        )
        axes.set_xticks(range(values.shape[1]), places or [str(i) for i in range(values.shape[1])], rotation=90)
        step = -(-len(layers) // 12)
        axes.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        axes.set_xlabel(what)
        axes.set_ylabel("layer")
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label(f"effect on {found.metric.replace('_', ' ')}")
    return figure
