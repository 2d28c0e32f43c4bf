"""One look for every figure: colour-blind safe, legible at a column's width, the same bytes every time."""

import io
import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

COLUMN, PAGE = 3.3, 6.8
"""Widths of figures in inches: a column of a paper, and both."""
FONT = 7.0
"""Points."""
ATTENTION_COLOUR = "darksalmon"
MLP_COLOUR = "lightseagreen"
"""The authors' colours for layer bars (code of arXiv 2312.12141)."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
"""From the Okabe-Ito palette, told apart by lightness, hatch or marker too."""
MARKERS = ("o", "s", "^", "D", "v")


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib settings for the figures drawn inside the block, whatever the user's own; no display is needed."""
    import matplotlib.style

    settings: Any = {
        "font.size": FONT,
        "text.parse_math": False,
        "axes.titlesize": 7.5,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "hatch.linewidth": 0.5,
        "lines.linewidth": 1.1,
        "lines.markersize": 2.5,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.columnspacing": 1.2,
        "figure.constrained_layout.use": True,
        "figure.dpi": 200,
        "savefig.dpi": 300,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "icl_circuits",
    }
    with matplotlib.style.context(settings, after_reset=True):
        yield


def new_figure(height: float, *, wide: bool = False) -> "matplotlib.figure.Figure":
    """An empty figure, `height` inches high and a column or a page wide."""
    from matplotlib.figure import Figure

    return Figure(figsize=(PAGE if wide else COLUMN, height))


def many(names: Sized) -> bool:
    """Whether so many things, heads for instance, stand side by side that a column is too narrow for them."""
    return len(names) > 16


def legend_above(figure: "matplotlib.figure.Figure", axes: "matplotlib.axes.Axes") -> None:
    """The legend of `axes` over the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=_columns(figure, labels))


def legend_over(axes: "matplotlib.axes.Axes", title: str = "") -> None:
    """The legend of `axes` right above it, from the left edge of the figure."""
    handles, labels = axes.get_legend_handles_labels()
    ncols = _columns(axes.figure, labels, room=0.95)
    place: Any = {"loc": "lower left", "bbox_to_anchor": (-0.22, 1.0), "alignment": "left", "borderaxespad": 0.2}
    axes.legend(handles, labels, ncols=ncols, title=title or None, **place)


def _columns(figure: Any, labels: list[str], room: float = 1.0) -> int:
    """In how many columns the entries of a legend take that share of the figure's width at most."""
    widths = [FONT * (3.7 + 0.53 * len(label)) for label in labels]

    def takes(n: int) -> float:
        return sum(max(part) for part in np.array_split(widths, n))  # column by column, as matplotlib fills them

    fitting = (n for n in range(len(labels), 1, -1) if takes(n) <= room * 72 * figure.get_figwidth())
    return next(fitting, 1)


def curve(axes: "matplotlib.axes.Axes", x: Any, interval: Any, place: int, label: str) -> None:
    """Means as a line, in the colour and with the marker of `place`, and their intervals as a band."""
    mean, low, high = (np.asarray(values, dtype=np.float64) for values in interval)
    colour = COLOURS[place % len(COLOURS)]
    axes.plot(x, mean, color=colour, marker=MARKERS[place % len(MARKERS)], label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.1, lw=0)


def bars(
    axes: "matplotlib.axes.Axes",
    at: Any,
    interval: Any,
    *,
    size: float,
    label: str,
    colour: str,
    hatch: str,
    horizontal: bool = False,
) -> None:
    """Bars at `at`, `size` thick, as high as means, with whiskers to both ends of the intervals.

    `interval` is means, low ends and high ends, each one a bar.
    """
    mean, low, high = (np.asarray(values, dtype=np.float64) for values in interval)
    ends = np.maximum(np.stack([mean - low, high - mean]), 0)
    look: Any = {
        "color": colour, "hatch": hatch, "label": label, "edgecolor": "white", "linewidth": 0.2,
        "error_kw": {"lw": 0.7, "ecolor": "0.2", "capsize": 1.2 if size > 0.1 else 0, "capthick": 0.7},
    }  # fmt: skip
    if horizontal:
        axes.barh(at, mean, height=size, xerr=ends, **look)
    else:
        axes.bar(at, mean, width=size, yerr=ends, **look)


def grouped_bars(
    axes: "matplotlib.axes.Axes", interval: Any, place: int, n: int, label: str, *, horizontal: bool = False
) -> None:
    """The bars that stand at `place` in groups of `n` side by side."""
    at = np.arange(len(interval[0])) + (place - (n - 1) / 2) * 0.8 / n
    colour, hatch = COLOURS[place % len(COLOURS)], ("", "////", "\\\\\\\\", "xxxx")[place % 4]
    bars(axes, at, interval, size=0.76 / n, label=label, colour=colour, hatch=hatch, horizontal=horizontal)


def arrows(text: str) -> str:
    """`text` with arrows as signs."""
    return text.replace("->", "\u2192")


def head_ticks(axes: "matplotlib.axes.Axes", names: list[str]) -> None:
    """Heads along the x axis."""
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_xlabel("head")


def hatched_ground(axes: "matplotlib.axes.Axes", n_columns: int, n_rows: int) -> None:
    """Hatch the ground of a heat map, so that what is NaN shows."""
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((-0.5, -0.5), n_columns, n_rows, facecolor="white", edgecolor="0.8", hatch="////", lw=0, zorder=-1)
    )


def heat_map(
    figure: "matplotlib.figure.Figure",
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "layer row"],
    layers: Any,
    rows: str,
    title: str,
) -> None:
    """`values [layer row]`, layers to the right, zero at the middle of the colours, what is NaN hatched."""
    n_layers, n_rows = values.shape
    limit = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
    hatched_ground(axes, n_layers, n_rows)
    image = axes.imshow(values.T, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for n, names, ticks in ((n_layers, layers, axes.set_xticks), (n_rows, range(n_rows), axes.set_yticks)):
        step = -(-n // 10)
        ticks(range(0, n, step), [str(name) for name in names[::step]])
    axes.set_title(title, loc="left")
    axes.set_xlabel("layer")
    axes.set_ylabel(rows)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)


def save(figure: "matplotlib.figure.Figure", stem: str | Path) -> None:
    """Write `figure` as `stem.pdf`, `stem.png` and `stem.svg`, without dates, so that equal figures are equal files."""
    stem = Path(stem)
    with _laid_out(figure):
        figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def svg(figure: "matplotlib.figure.Figure") -> bytes:
    """`figure` as an SVG file."""
    found = io.BytesIO()
    with _laid_out(figure):
        figure.savefig(found, format="svg", metadata={"Date": None})
    return found.getvalue()


@contextmanager
def _laid_out(figure: "matplotlib.figure.Figure") -> Iterator[None]:
    """Lay `figure` out, once for every format that is written in the block."""
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        for _ in range(2):  # the second time, labels have the room that the first found them to need
            figure.draw_without_rendering()
        figure.set_layout_engine("none")
        yield
