"""One look for every figure: colour-blind safe, legible at a column's width, the same bytes every time."""

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

COLUMN, PAGE = 3.3, 6.8
"""Widths of figures in inches: a column of a paper, and both."""
ATTENTION_COLOUR = "darksalmon"
MLP_COLOUR = "lightseagreen"
"""The authors' colours for layer bars (code of arXiv 2312.12141)."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
"""From the Okabe-Ito palette, told apart by lightness, hatch or marker too."""
TOP1_COLOUR, BETWEEN_COLOUR = COLOURS[:2]
HATCHES = ("", "////", "....", "xxxx")
MARKERS = ("o", "s", "^", "D", "v")
ERROR_BARS: Any = {"lw": 0.7, "ecolor": "0.2", "capsize": 1.5, "capthick": 0.7}


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib settings for the figures drawn inside the block; no display is needed."""
    import matplotlib

    settings: Any = {
        "font.size": 7,
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
    with matplotlib.rc_context(settings):
        yield


def new_figure(height: float, *, many: int = 0) -> "matplotlib.figure.Figure":
    """An empty figure `height` inches high: a column wide, or a page where `many` things stand side by side."""
    from matplotlib.figure import Figure

    return Figure(figsize=(COLUMN if many <= 16 else PAGE, height))


def legend_above(figure: "matplotlib.figure.Figure", axes: "matplotlib.axes.Axes", ncols: int) -> None:
    """The legend of `axes` over the whole figure."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=ncols)


def save(figure: "matplotlib.figure.Figure", stem: Path) -> None:
    """Write `figure` as `stem.pdf`, `stem.png` and `stem.svg`, without dates, so that equal figures are equal files."""
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
        for _ in range(2):  # the second time, labels have the room that the first found them to need
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, the same for every format
        figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def svg_uri(figure: "matplotlib.figure.Figure") -> str:
    """`figure` as the source of a page's image."""
    found = io.BytesIO()
    with style():
        figure.savefig(found, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(found.getvalue()).decode("ascii")
