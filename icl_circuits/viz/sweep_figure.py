"""The figure of a patching sweep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.errors import InputError
from icl_circuits.patching import Sweep
from icl_circuits.viz.look import heat_map, new_figure, style

if TYPE_CHECKING:
    import matplotlib.figure


def sweep_map(
    found: Sweep, rows: str | None = None, *, names: Sequence[str] | None = None
) -> "matplotlib.figure.Figure":
    """Mean effects of a sweep as a heat map: layers to the right, heads or positions down, zero at the middle colour.

    Args:
        found: of `sweep` or `attribute`; layers that it left out are not shown.
        rows: what the columns of `found.grid()` are (`demonstration`, say). Default: `head` or `position`.
        names: a name for each of them (the tokens of a prompt, say). Default: numbers.

    Raises:
        InputError: more or fewer names than rows.
    """
    cell = found.cells[0]
    varied = [name for name, value in (("head", cell.head), ("position", cell.position)) if value is not None]
    grid = found.grid()
    if names is not None and len(names) != grid.shape[1]:
        raise InputError(f"{len(names)} names for {grid.shape[1]} rows: give one for each")
    layers = np.flatnonzero(np.isfinite(grid).any(axis=1))
    with style():
        figure = new_figure(min(max(1.6, 0.8 + 0.12 * grid.shape[1]), 7.0), wide=len(layers) > 40)
        title = f"Effect on {found.metric.replace('_', ' ')}"
        axes = figure.subplots()
        heat_map(figure, axes, grid[layers], layers, rows or " and ".join(varied) or "positions", title)
        if names is not None:
            axes.set_yticks(range(len(names)), names)
    return figure
