"""Where a circuit's nodes stand, and how its edges run between them: around nodes, never through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.residual import Edge, Embedding, Head, Label, Last, Logits, Mlp, Node, Query, Text

if TYPE_CHECKING:
    from icl_circuits.circuits import Circuit

LEFT, RIGHT, TOP = 48.0, 10.0, 22.0
NARROWEST = 1000.0
"""The least width of a drawing."""
HALF = 11.0
"""Half the height of a node."""
ROWS_HIGH, LOWEST, HIGHEST = 400.0, 28.0, 46.0
"""The height that all rows share, and the least and the most that one takes."""
GAP, CLEAR = 16.0, 6.0
"""Between nodes of one row, and between a node and an edge that passes it."""
INPUTS = {"k": -14.0, "v": 0.0, "q": 14.0}
"""Where an edge into a head ends, from the head's middle."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """Nodes side by side: heads and MLPs of one layer, or the embedding."""

    y: float
    boxes: tuple[tuple[float, float], ...]
    """The left and the right end of each."""

    def is_free(self, x: float) -> bool:
        """Whether an edge may pass at `x`."""
        return not any(low - CLEAR < x < high + CLEAR for low, high in self.boxes)

    def nearest_free(self, x: float) -> float:
        """The place nearest to `x` where an edge may pass."""
        ends = [end for low, high in self.boxes for end in (low - CLEAR, high + CLEAR)]
        return min((end for end in [x, *ends] if self.is_free(end)), key=lambda end: abs(end - x), default=x)


@dataclass(frozen=True)
class Layout:
    """Where everything stands, in pixels."""

    width: float
    bottom: float
    """The top of the row of labels."""
    unit: float
    """The width of a demonstration: its text, then its label."""
    label_width: float
    place: Mapping[Node, Point]
    """The middle of each node."""
    layers: Mapping[float, int]
    """The layer of each row that has one, by the row's height."""
    rows: tuple[Row, ...]
    """From the bottom up."""

    def column(self, demo: int) -> float:
        """Where a demonstration's text begins; the query's comes after the last one."""
        return LEFT + self.unit * demo

    @property
    def text_width(self) -> float:
        """The width of a text."""
        return self.unit - self.label_width - 4

    def points(self, edge: Edge) -> list[Point]:
        """What an edge between nodes runs through, from its sender up: upright where it passes, aside in between."""
        (x0, y0), (x1, y1) = self.place[edge.sender], self.place[edge.receiver]
        start, end = (x0, y0 - HALF), (x1 + INPUTS.get(edge.input or "", 0.0), y1 + HALF)
        between = [row for row in self.rows if end[1] < row.y < start[1]]
        passed: dict[int, float] = {}
        while True:
            points = [start, end]
            for i in sorted(passed):
                points[-1:-1] = [(passed[i], between[i].y + HALF + 1), (passed[i], between[i].y - HALF - 1)]
            hit = next((i for i, row in enumerate(between) if i not in passed and _hits(points, row)), None)
            if hit is None:
                return points
            passed[hit] = between[hit].nearest_free(x_at(points, between[hit].y))


def x_at(points: Sequence[Point], y: float) -> float:
    """Where a line through `points`, upright at each of them, is at the height `y`."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 <= y <= y0:
            t = (y0 - y) / (y0 - y1) if y0 > y1 else 0.0
            return x0 + (x1 - x0) * (3 - 2 * t) * t * t
    return points[0][0] if y > points[0][1] else points[-1][0]


def _hits(points: Sequence[Point], row: Row) -> bool:
    heights = np.linspace(row.y - HALF, row.y + HALF, 9)
    return any(not row.is_free(x_at(points, float(y))) for y in heights)


def layout(
    circuit: "Circuit", n_demos: int, widths: Mapping[Node, float], label_width: float, text_width: float
) -> Layout:
    """Places for a circuit's nodes: layers in rows from the bottom up, demonstrations in columns.

    Args:
        circuit: what is drawn.
        n_demos: how many demonstrations its prompts have.
        widths: of each head, MLP and embedding.
        label_width: of the boxes of labels.
        text_width: of the texts beside them, at least.
    """
    unit = max(label_width + text_width + 4, (NARROWEST - LEFT - RIGHT) / (n_demos + 1))
    width = LEFT + (n_demos + 1) * unit + RIGHT
    stand = [node for node in circuit.nodes if isinstance(node, Head | Mlp | Embedding)]
    rows = _in_rows(stand, widths, width - LEFT - RIGHT)
    high = min(HIGHEST, max(LOWEST, ROWS_HIGH / max(1, len(rows))))
    top = TOP + HALF + high
    bottom = top + high * len(rows) + 8.0
    place: dict[Node, Point] = {}
    for i, row in enumerate(rows):
        y = top + high * (len(rows) - 1 - i)
        step = (width - LEFT - RIGHT) / len(row)
        shift = (0.5, 0.3, 0.7, 0.4, 0.6)[i % 5] if len(row) < 4 else 0.5
        place |= {node: (LEFT + step * (j + shift), y) for j, node in enumerate(row)}
    answer = LEFT + unit * (n_demos + 1) - 4 - label_width / 2
    if Embedding() in place:  # of the answer position
        place[Embedding()] = min(answer, width - RIGHT - widths[Embedding()] / 2), place[Embedding()][1]
    standing = [
        Row(
            place[row[0]][1],
            tuple((place[node][0] - widths[node] / 2, place[node][0] + widths[node] / 2) for node in row),
        )
        for row in rows
    ]
    layers = {place[row[0]][1]: row[0].layer for row in rows if isinstance(row[0], Head | Mlp)}
    for node in circuit.nodes:
        column = node.demo if isinstance(node, Text | Label) else n_demos
        at_label = LEFT + unit * (column + 1) - 4 - label_width / 2
        if isinstance(node, Text | Query):
            place[node] = at_label - unit / 2, bottom + HALF
        elif isinstance(node, Label | Last):
            place[node] = at_label, bottom + HALF
        elif isinstance(node, Logits):
            place[node] = LEFT + (width - LEFT) / 2, TOP
    return Layout(width, bottom, unit, label_width, place, layers, tuple(standing))


def _in_rows(
    nodes: Sequence[Head | Mlp | Embedding], widths: Mapping[Node, float], width: float
) -> list[list[Head | Mlp | Embedding]]:
    """The nodes of each layer, in as many rows as they need; the embedding first."""
    rows: list[list[Head | Mlp | Embedding]] = []
    for node in nodes:
        here = rows[-1] if rows else []
        alike = here and getattr(here[0], "layer", -1) == getattr(node, "layer", -1)
        if alike and sum(widths[other] + GAP for other in [*here, node]) <= width:
            here.append(node)
        else:
            rows.append([node])
    return rows
