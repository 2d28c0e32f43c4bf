"""The figure of a patching sweep."""

from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.patching import Sweep
from icl_circuits.viz.look import heat_map, new_figure, style

if TYPE_CHECKING:
    import matplotlib.figure


def sweep_map(found: Sweep, rows: str | None = None) -> "matplotlib.figure.Figure":
    """Mean effects of a sweep as a heat map: layers to the right, heads or positions down, zero at the middle colour.

    Args:
        found: of `sweep` or `attribute`; layers that it left out are not shown.
        rows: what the columns of `found.grid()` are (`demonstration`, say). Default: `head` or `position`.
    """
    cell = found.cells[0]
    varied = [name for name, value in (("head", cell.head), ("position", cell.position)) if value is not None]
    grid = found.grid()
    layers = np.flatnonzero(np.isfinite(grid).any(axis=1))
    with style():
        figure = new_figure(min(max(1.6, 0.8 + 0.12 * grid.shape[1]), 7.0), wide=len(layers) > 40)
        title = f"Effect on {found.metric.replace('_', ' ')}"
        heat_map(figure, figure.subplots(), grid[layers], layers, rows or " and ".join(varied) or "positions", title)
    return figure
