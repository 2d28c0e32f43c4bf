"""One look for every figure: colour-blind safe, legible at a column's width, the same bytes every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import matplotlib.figure

ATTENTION_COLOUR = "darksalmon"
MLP_COLOUR = "lightseagreen"
"""The authors' colours for layer bars (code of arXiv 2312.12141)."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
"""From the Okabe-Ito palette, told apart by lightness, hatch or marker too."""
TOP1_COLOUR, BETWEEN_COLOUR = COLOURS[:2]


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib settings for the figures drawn inside the block; no display is needed."""
    import matplotlib

    settings: Any = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "icl_circuits",
    }
    with matplotlib.rc_context(settings):
        yield


def save(figure: "matplotlib.figure.Figure", stem: Path) -> None:
    """Write `figure` as `stem.pdf`, `stem.png` and `stem.svg`, without dates, so that equal figures are equal files."""
    with style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, the same for every format
        figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
