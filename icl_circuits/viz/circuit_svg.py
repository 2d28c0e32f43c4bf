"""The circuit as one SVG drawing: a prompt's texts and labels along the bottom, layers upward, the logits on top.

Edges are drawn once; the page changes their widths, the static drawing has those of one prompt. Every string is
escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from icl_circuits.prompts import Prompt
from icl_circuits.residual import Edge, Embedding, Head, Label, Last, Logits, Mlp, Node, Query, Text
from icl_circuits.viz.circuit_layout import HALF, LEFT, Layout, layout
from icl_circuits.viz.look import COLOURS, arrows

if TYPE_CHECKING:
    from icl_circuits.circuits import Circuit

LABEL_WIDTH = 44.0
TEXT_LINES, LINE_HEIGHT, CHAR_WIDTH, LONGEST = 5, 13, 6.2, 14
"""Of texts: lines at most, the height of one in pixels, the width of a character, and the longest word kept whole."""
WIDEST, THINNEST = 7.0, 0.8
SHORT = 12
"""Labels of more characters stand as numbers, and in full under the drawing."""
NEUTRAL = "#767676"
INK = "#1a1a1a"


@dataclass(frozen=True)
class PromptRow:
    """One prompt as it stands along the bottom."""

    texts: tuple[str, ...]
    """Of each demonstration, then of the query."""
    labels: tuple[int, ...]
    """The class of each demonstration's label."""

    @classmethod
    def of(cls, prompt: Prompt) -> "PromptRow":
        """The row of a prompt."""
        return cls((*(demo.text for demo in prompt.demos), prompt.query), tuple(demo.label for demo in prompt.demos))


def edge_class(edge: Edge, demo_labels: Sequence[int], head_labels: Mapping[str, int]) -> int:
    """The class (label) whose colour an edge has; -1: none."""
    if isinstance(edge.sender, Text | Label):
        return demo_labels[edge.sender.demo]
    if isinstance(edge.receiver, Logits):
        return head_labels.get(str(edge.sender), -1)
    return -1


def edge_kind(edge: Edge) -> str:
    """How an edge is cut: edges of one kind share a baseline, and the scale of their widths."""
    if isinstance(edge.sender, Text | Query):
        return "text"
    if isinstance(edge.receiver, Logits):
        return "logits"
    return {"k": "key", "v": "value"}.get(edge.input or "", "query" if isinstance(edge.sender, Last) else "component")


def sizes(edges: Sequence[Edge], values: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " edge"]:
    """`|value|` as a share of the largest of its kind; 0 for NaN."""
    found, kinds = np.nan_to_num(np.abs(values)).astype(np.float64), np.array([edge_kind(edge) for edge in edges])
    for kind in set(kinds.tolist()):
        found[kinds == kind] /= max(float(found[kinds == kind].max()), 1e-12)
    return found


def strongest(edges: Sequence[Edge], values: Float[np.ndarray, " edge"], shown: int) -> Bool[np.ndarray, " edge"]:
    """Which edges are the `shown` largest of their kinds."""
    size = sizes(edges, values)
    order = np.argsort(-size, kind="stable")[:shown]
    return (size > 0) & np.isin(np.arange(len(size)), order)


def draw(
    circuit: "Circuit",
    rows: Sequence[PromptRow],
    values: Float[np.ndarray, " edge"],
    labels: Sequence[str],
    head_labels: Mapping[str, int],
    *,
    shown: int,
    title: str,
    numbers: Sequence[int] = (),
) -> str:
    """The SVG element.

    Args:
        circuit: its nodes and edges are drawn.
        rows: prompts; the first is shown, the others are there for the page to show instead.
        values: what the widths say, as shares of the largest of the edge's kind, and, where negative, the dashes.
        labels: the label words.
        head_labels: which label each in-context head is of, by its name.
        shown: how many edges, the strongest of their kinds, are visible, with the nodes that they join.
        title: what a screen reader says first.
        numbers: of the edges, by which the page knows them; default their places.
    """
    marks = tuple(mark(labels, place) for place in range(len(labels)))
    stand = [node for node in circuit.nodes if isinstance(node, Head | Mlp | Embedding)]
    node_widths: dict[Node, float] = {node: 7.2 * len(_words(node, marks, head_labels)) + 14 for node in stand}
    label_width = max([LABEL_WIDTH, *(7.2 * len(word) + 12 for word in marks)])
    at = layout(circuit, len(rows[0].labels), node_widths, label_width, _text_width(rows))
    visible, size = strongest(circuit.edges, values, shown), sizes(circuit.edges, values)
    used = {
        node for edge, on in zip(circuit.edges, visible, strict=True) if on for node in (edge.sender, edge.receiver)
    }
    long = [f"{word} {printable(label)}" for word, label in zip(marks, labels, strict=True) if word != printable(label)]
    n_lines = max(len(_lines(text, at)) for row in rows for text in row.texts)
    below = at.bottom + max(2 * HALF + 10, 12 + LINE_HEIGHT * n_lines)
    height = below + 16 * len(long)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {at.width:.0f} {height:.0f}" '
        f'width="{at.width:.0f}" height="{height:.0f}" font-family="system-ui, sans-serif" font-size="12" '
        f'role="group" aria-label="{escape(title)}">',
        f'<rect class="ground" width="{at.width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        _axis(at),
        '<g class="edges" fill="none" stroke-linecap="round">',
        *(
            _edge(number, edge, at, float(size[i]), bool(visible[i]), float(values[i]),
                  edge_class(edge, rows[0].labels, head_labels))
            for i, (number, edge) in enumerate(zip(numbers or range(len(values)), circuit.edges, strict=True))
        ),
        "</g>",
        *(_prompt(row, i, at, labels, marks) for i, row in enumerate(rows)),
        *(
            _node(node, at, labels, marks, head_labels, node in used, node_widths)
            for node in circuit.nodes
            if not isinstance(node, Text | Query)
        ),
        *(
            f'<text class="words" x="{LEFT}" y="{below + 16 * i:.0f}" fill="{INK}">{escape(words)}</text>'
            for i, words in enumerate(long)
        ),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(part for part in parts if part)


def _text_width(rows: Sequence[PromptRow]) -> float:
    """Room for the longest word of the texts, within limits."""
    longest = max((len(word) for row in rows for text in row.texts for word in text.split()), default=1)
    return CHAR_WIDTH * min(max(longest, 8), LONGEST) + 10


def _lines(text: str, at: Layout) -> list[str]:
    """A text in lines as wide as its column."""
    return wrap(printable(text), int((at.text_width - 6) / CHAR_WIDTH), max_lines=TEXT_LINES, placeholder=" \u2026")


def mark(labels: Sequence[str], place: int) -> str:
    """A label where room is short: the word itself, or its number."""
    word = printable(labels[place])
    return word if len(word) <= SHORT else f"({place + 1})"


def _words(node: Node, marks: Sequence[str], head_labels: Mapping[str, int]) -> str:
    kind = head_labels.get(str(node), -1)
    return f"{node} {marks[kind]}" if kind >= 0 else str(node)


def _axis(at: Layout) -> str:
    ticks = [
        f'<g class="tick" data-layer="{layer}">'
        f'<text class="faint" x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end" fill="{NEUTRAL}">{layer}</text>'
        f'<line class="rule" x1="{LEFT - 4}" x2="{at.width - 6:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eeeeee"/></g>'
        for y, layer in at.layers.items()
    ]
    middle = at.bottom / 2
    turned = f'transform="rotate(-90 12 {middle:.0f})"'
    ticks.append(
        f'<text class="faint" x="12" y="{middle:.0f}" {turned} text-anchor="middle" fill="{NEUTRAL}">layer</text>'
    )
    return "\n".join(ticks)


def _edge(index: int, edge: Edge, at: Layout, size: float, visible: bool, value: float, kind: int) -> str:
    if isinstance(edge.receiver, Label | Last):  # a bow over the text
        (x0, _), (x1, _) = at.place[edge.sender], at.place[edge.receiver]
        y = at.bottom - 2
        path = f"M{x0:.1f} {y:.1f}C{x0:.1f} {y - 18:.1f} {x1:.1f} {y - 18:.1f} {x1:.1f} {y:.1f}"
    else:
        points = at.points(edge)
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (x0, y0), (x1, y1) in pairwise(points):
            third = (y0 - y1) / 3
            path += f"C{x0:.1f} {y0 - third:.1f} {x1:.1f} {y1 + third:.1f} {x1:.1f} {y1:.1f}"
    colour = COLOURS[kind % len(COLOURS)] if kind >= 0 else NEUTRAL
    dash = ' stroke-dasharray="5 5"' if value < 0 else ""
    hidden = "" if visible else ' visibility="hidden"'
    css = f"c{kind % len(COLOURS)}" if kind >= 0 else "none"
    width = THINNEST + (WIDEST - THINNEST) * size
    return (
        f'<path class="edge {css}" data-edge="{index}" d="{path}" stroke="{colour}" '
        f'stroke-opacity="0.65" stroke-width="{width:.2f}"{dash}{hidden}><title>{escape(arrows(str(edge)))}</title>'
        "</path>"
    )


def _prompt(row: PromptRow, index: int, at: Layout, labels: Sequence[str], marks: Sequence[str]) -> str:
    """The texts, and the words in the label boxes."""
    parts = [f'<g class="prompt" data-row="{index}"' + (' display="none">' if index else ">")]
    for i, text in enumerate(row.texts):
        x = at.column(i) + at.text_width - 4
        parts.append(f"<g><title>{escape(printable(text))}</title>")
        for line, words in enumerate(_lines(text, at)):
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
            f'<rect class="box c{label % len(COLOURS)}" x="{x:.1f}" y="{at.bottom:.0f}" width="{at.label_width:.1f}" '
            f'height="22" rx="3" fill="#ffffff" stroke="{colour}" stroke-width="2"/>'
            f'<text class="words" x="{x + at.label_width / 2:.1f}" y="{at.bottom + 15:.0f}" text-anchor="middle" '
            f'fill="{INK}">{escape(marks[label])}<title>{escape(printable(labels[label]))}</title></text>'
        )
    return "\n".join([*parts, "</g>"])


def _node(
    node: Node,
    at: Layout,
    labels: Sequence[str],
    marks: Sequence[str],
    head_labels: Mapping[str, int],
    used: bool,
    node_widths: Mapping[Node, float],
) -> str:
    (x, y), kind = at.place[node], head_labels.get(str(node), -1)
    words = _words(node, marks, head_labels)
    name = "answer position" if isinstance(node, Last) else f"{node} {printable(labels[kind])}" if kind >= 0 else words
    width = node_widths.get(node, 7.2 * len(words) + 14)
    if isinstance(node, Label | Last):
        words, width = ":" if isinstance(node, Last) else "", at.label_width
        css, line = ("last", f' stroke="{INK}" stroke-dasharray="3 2"') if isinstance(node, Last) else ("hit", "")
        look, radius = f'class="{css}" fill="none"{line} pointer-events="all"', 3
    elif kind >= 0:
        colour = COLOURS[kind % len(COLOURS)]
        look, radius = f'class="box c{kind % len(COLOURS)}" fill="#ffffff" stroke="{colour}" stroke-width="2"', 5
    else:
        look, radius = f'class="box" fill="#ffffff" stroke="{NEUTRAL}"', 10
    hidden = "" if used or isinstance(node, Label | Last) else ' visibility="hidden"'
    return (
        f'<g class="node"{hidden} tabindex="0" role="button" data-node="{escape(str(node))}" '
        f'aria-label="{escape(name)}"><rect {look} x="{x - width / 2:.1f}" y="{y - HALF:.1f}" width="{width:.1f}" '
        f'height="{2 * HALF:.0f}" rx="{radius}"/>'
        f'<text class="words" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="{INK}">{escape(words)}</text></g>'
    )


def printable(text: str) -> str:
    """`text` with characters that XML has no place for, or that would not show, as visible signs."""
    return "".join("\u21b5" if c == "\n" else "\ufffd" if _unseen(ord(c)) else c for c in text)


def _unseen(point: int) -> bool:
    """Control characters, lone surrogates, and the two code points that are no characters."""
    return point < 32 or 0x7F <= point < 0xA0 or 0xD800 <= point < 0xE000 or point in (0xFFFE, 0xFFFF)
