"""The circuit as one SVG drawing: a prompt's texts and labels along the bottom, layers upward, the logits on top.

Edges are drawn once; the page changes their widths, the static drawing has those of one prompt. Every string is
escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from icl_circuits.residual import Edge, Embedding, Head, Label, Last, Logits, Mlp, Node, Query, Text
from icl_circuits.viz.look import COLOURS

if TYPE_CHECKING:
    from icl_circuits.circuits import Circuit

LEFT, LABEL_WIDTH = 64, 44
NARROWEST, UNIT = 1080, 116
"""The least width of a drawing, and of a demonstration in it."""
ROW, TOP = 34.0, 56.0
TEXT_LINES, LINE_HEIGHT, CHAR_WIDTH = 4, 13, 6.2
WIDEST, THINNEST = 7.0, 0.6
NEUTRAL = "#767676"
INK = "#1a1a1a"


@dataclass(frozen=True)
class PromptRow:
    """One prompt as it stands along the bottom."""

    texts: tuple[str, ...]
    """Of each demonstration, then of the query."""
    labels: tuple[int, ...]
    """The class of each demonstration's label."""


@dataclass(frozen=True)
class Layout:
    """Where everything stands, in pixels."""

    width: float
    height: float
    place: Mapping[Node, tuple[float, float]]
    """The middle of each node."""
    layers: Mapping[int, float]
    """The height of each layer that has a node."""
    bottom: float
    """The top of the row of labels."""
    unit: float
    """The width of a demonstration: its text, then its label."""

    def column(self, demo: int) -> float:
        """Where a demonstration's text begins; the query's comes after the last one."""
        return LEFT + self.unit * demo

    @property
    def text_width(self) -> float:
        """The width of a text."""
        return self.unit - LABEL_WIDTH - 4


def layout(circuit: "Circuit", n_demos: int) -> Layout:
    """Places for the circuit's nodes: layers that have nodes in rows of equal height, columns a demonstration each."""
    writers = [node for node in circuit.nodes if isinstance(node, Head | Mlp)]
    layers = sorted({node.layer for node in writers})
    unit = max(UNIT, (NARROWEST - LEFT - 8) / (n_demos + 1))
    width = LEFT + (n_demos + 1) * unit + 8.0
    bottom = TOP + ROW * (len(layers) + 1) + 40.0
    height_of = {layer: TOP + ROW * (len(layers) - row) for row, layer in enumerate(layers)}
    place: dict[Node, tuple[float, float]] = {}
    for row, layer in enumerate(layers):
        here = [writer for writer in writers if writer.layer == layer]
        step = (width - LEFT - 40) / len(here)
        for i, writer in enumerate(here):
            shift = (0.5, 0.25, 0.75, 0.4, 0.6)[row % 5] if len(here) < 4 else 0.5
            place[writer] = LEFT + 20 + step * (i + shift), height_of[layer]
    for node in circuit.nodes:
        column = node.demo if isinstance(node, Text | Label) else n_demos
        at_label = LEFT + unit * (column + 1) - 4 - LABEL_WIDTH / 2
        if isinstance(node, Text | Query):
            place[node] = at_label - unit / 2, bottom + 11
        elif isinstance(node, Label | Last):
            place[node] = at_label, bottom + 11
        elif isinstance(node, Embedding):
            place[node] = at_label, bottom - 46
        elif isinstance(node, Logits):
            place[node] = LEFT + (width - LEFT) / 2, 24.0
    return Layout(width, bottom + 30 + LINE_HEIGHT * TEXT_LINES, place, height_of, bottom, unit)


def edge_class(edge: Edge, demo_labels: Sequence[int], head_labels: Mapping[str, int]) -> int:
    """The class (label) whose colour an edge has; -1: none."""
    if isinstance(edge.sender, Text | Label):
        return demo_labels[edge.sender.demo]
    if isinstance(edge.receiver, Logits):
        return head_labels.get(str(edge.sender), -1)
    return -1


def widths(values: Float[np.ndarray, " edge"], shown: int) -> Float[np.ndarray, " edge"]:
    """Line widths in pixels: in proportion to `|value|`, 0 for all but the `shown` strongest and for NaN."""
    size = np.nan_to_num(np.abs(values))
    order = np.argsort(-size, kind="stable")
    largest = max(float(size.max(initial=0.0)), 1e-12)
    found = np.where(size > 0, THINNEST + (WIDEST - THINNEST) * size / largest, 0.0)
    found[order[shown:]] = 0.0
    return found


def draw(
    circuit: "Circuit",
    rows: Sequence[PromptRow],
    values: Float[np.ndarray, " edge"],
    labels: Sequence[str],
    head_labels: Mapping[str, int],
    *,
    shown: int,
    title: str,
) -> str:
    """The SVG element.

    Args:
        circuit: its nodes and edges are drawn.
        rows: prompts; the first is shown, the others are there for the page to show instead.
        values: what the widths say, and, where negative, the dashes.
        labels: the label words.
        head_labels: which label each in-context head is of, by its name.
        shown: how many edges, the strongest ones, are visible.
        title: what a screen reader says first.
    """
    at, drawn = layout(circuit, len(rows[0].labels)), widths(values, shown)
    used = {
        node for edge, width in zip(circuit.edges, drawn, strict=True) if width for node in (edge.sender, edge.receiver)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {at.width:.0f} {at.height:.0f}" '
        f'width="{at.width:.0f}" height="{at.height:.0f}" font-family="system-ui, sans-serif" font-size="12" '
        f'role="group" aria-label="{escape(title)}">',
        f'<rect class="ground" width="{at.width:.0f}" height="{at.height:.0f}" fill="#ffffff"/>',
        _axis(at),
        '<g class="edges" fill="none" stroke-linecap="round">',
        *(
            _edge(i, edge, at, float(width), float(value), edge_class(edge, rows[0].labels, head_labels))
            for i, (edge, width, value) in enumerate(zip(circuit.edges, drawn, values, strict=True))
        ),
        "</g>",
        *(_prompt(row, i, at, labels) for i, row in enumerate(rows)),
        *(
            _node(node, at, labels, head_labels, node in used)
            for node in circuit.nodes
            if not isinstance(node, Text | Query)
        ),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _axis(at: Layout) -> str:
    ticks = [
        f'<text class="faint" x="{LEFT - 26}" y="{y + 4:.1f}" text-anchor="end" fill="{NEUTRAL}">{layer}</text>'
        f'<line class="rule" x1="{LEFT - 20}" x2="{at.width - 6:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eeeeee"/>'
        for layer, y in at.layers.items()
    ]
    middle = (TOP + at.bottom) / 2
    turned = f'transform="rotate(-90 14 {middle:.0f})"'
    ticks.append(
        f'<text class="faint" x="14" y="{middle:.0f}" {turned} text-anchor="middle" fill="{NEUTRAL}">layer</text>'
    )
    return "\n".join(ticks)


def _edge(index: int, edge: Edge, at: Layout, width: float, value: float, kind: int) -> str:
    (x0, y0), (x1, y1) = at.place[edge.sender], at.place[edge.receiver]
    if isinstance(edge.receiver, Label | Last):  # a bow over the text
        y = at.bottom - 2
        path = f"M{x0:.1f} {y:.1f}C{x0:.1f} {y - 22:.1f} {x1:.1f} {y - 22:.1f} {x1:.1f} {y:.1f}"
    else:
        y0, y1 = y0 - 10, y1 + 10
        shift = {"k": -14, "v": 0, "q": 14}.get(edge.input or "", 0)
        bend = (y0 - y1) / 2
        end = f"{x1 + shift:.1f} {y1:.1f}"
        path = f"M{x0:.1f} {y0:.1f}C{x0:.1f} {y0 - bend:.1f} {x1 + shift:.1f} {y1 + bend:.1f} {end}"
    colour = COLOURS[kind % len(COLOURS)] if kind >= 0 else NEUTRAL
    dash = ' stroke-dasharray="5 5"' if value < 0 else ""
    hidden = ' visibility="hidden"' if width == 0 else ""
    css = f"c{kind % len(COLOURS)}" if kind >= 0 else "none"
    return (
        f'<path class="edge {css}" data-edge="{index}" d="{path}" stroke="{colour}" '
        f'stroke-opacity="0.65" stroke-width="{width:.2f}"{dash}{hidden}><title>{escape(str(edge))}</title></path>'
    )


def _prompt(row: PromptRow, index: int, at: Layout, labels: Sequence[str]) -> str:
    """The texts, and the words in the label boxes."""
    parts = [f'<g class="prompt" data-row="{index}"' + (' display="none">' if index else ">")]
    for i, text in enumerate(row.texts):
        x, n_chars = at.column(i) + at.text_width - 4, int((at.text_width - 4) / CHAR_WIDTH)
        parts.append(f"<g><title>{escape(printable(text))}</title>")
        for line, words in enumerate(wrap(printable(text), n_chars, max_lines=TEXT_LINES, placeholder=" \u2026")):
            y = at.bottom + 15 + LINE_HEIGHT * line
            parts.append(
                f'<text class="words" x="{x:.1f}" y="{y:.0f}" text-anchor="end" font-size="11" fill="{INK}" '
                f'unicode-bidi="isolate">{escape(words)}</text>'
            )
        parts.append("</g>")
    for i, label in enumerate(row.labels):
        x = at.column(i) + at.text_width
        colour = COLOURS[label % len(COLOURS)]
        parts.append(
            f'<rect class="box c{label % len(COLOURS)}" x="{x:.1f}" y="{at.bottom:.0f}" width="{LABEL_WIDTH}" '
            f'height="22" rx="3" fill="#ffffff" stroke="{colour}" stroke-width="2"/>'
            f'<text class="words" x="{x + LABEL_WIDTH / 2:.1f}" y="{at.bottom + 15:.0f}" text-anchor="middle" '
            f'fill="{INK}">'
            f"{escape(shortened(printable(labels[label]), 6))}<title>{escape(printable(labels[label]))}</title></text>"
        )
    return "\n".join([*parts, "</g>"])


def _node(node: Node, at: Layout, labels: Sequence[str], head_labels: Mapping[str, int], used: bool) -> str:
    x, y = at.place[node]
    kind = head_labels.get(str(node), -1)
    name = "answer position" if isinstance(node, Last) else str(node)
    words = str(node)
    if isinstance(node, Label | Last):
        words, width = ":" if isinstance(node, Last) else "", float(LABEL_WIDTH)
        css, line = ("last", f' stroke="{INK}" stroke-dasharray="3 2"') if isinstance(node, Last) else ("hit", "")
        shape = (
            f'<rect class="{css}" x="{x - width / 2:.1f}" y="{y - 11:.1f}" width="{width:.1f}" height="22" rx="3" '
            f'fill="none"{line} pointer-events="all"/>'
        )
    elif kind >= 0:
        name = f"{node} {printable(labels[kind])}"
        words = shortened(name, len(str(node)) + 7)
        width = 7.2 * len(words) + 14
        shape = (
            f'<rect class="box c{kind % len(COLOURS)}" x="{x - width / 2:.1f}" y="{y - 11:.1f}" width="{width:.1f}" '
            f'height="22" rx="5" fill="#ffffff" stroke="{COLOURS[kind % len(COLOURS)]}" stroke-width="2"/>'
        )
    else:
        width = 7.0 * len(words) + 16
        shape = (
            f'<rect class="box" x="{x - width / 2:.1f}" y="{y - 10:.1f}" width="{width:.1f}" height="20" rx="10" '
            f'fill="#ffffff" stroke="{NEUTRAL}"/>'
        )
    role, faded = "button" if kind >= 0 else "img", "" if used or kind >= 0 else ' opacity="0.35"'
    return (
        f'<g class="node"{faded} tabindex="0" role="{role}" data-node="{escape(str(node))}" '
        f'aria-label="{escape(name)}">{shape}'
        f'<text class="words" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="{INK}">{escape(words)}</text></g>'
    )


def printable(text: str) -> str:
    """`text` with characters that XML has no place for, or that would not show, as visible signs."""
    return "".join("\u21b5" if c == "\n" else "\ufffd" if _unseen(ord(c)) else c for c in text)


def _unseen(point: int) -> bool:
    """Control characters, lone surrogates, and the two code points that are no characters."""
    return point < 32 or 0x7F <= point < 0xA0 or 0xD800 <= point < 0xE000 or point in (0xFFFE, 0xFFFF)


def shortened(text: str, most: int) -> str:
    """`text` in at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"
