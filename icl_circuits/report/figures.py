"""A paper's figures and their captions, drawn from a file of results and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_circuits.characters import visible
from icl_circuits.report.results import Results
from icl_circuits.viz import save

if TYPE_CHECKING:
    import matplotlib.figure

INTERVALS = "Error bars and shaded bands show 95 % intervals over prompts."
"""A sentence for captions."""
Values = Mapping[str, Any]
"""Result objects and arrays by name, as `Results.values` has them."""


@dataclass(frozen=True)
class PaperFigure:
    """One type of figure."""

    needs: tuple[str, ...]
    """The values it is drawn from."""
    draw: Callable[[Values], "matplotlib.figure.Figure"]
    caption: str | Callable[[Values], str]
    """Sentences; those on the model and the data follow."""


def write_figures(results: Results, folder: Path, figures: Mapping[str, PaperFigure]) -> tuple[str, ...]:
    """Draw every figure that `results` have the values for, as PDF, PNG and SVG, with its caption as a text file.

    Returns:
        Their names, in the order of `figures`; none where there is nothing to draw.
    """
    values, about = results.values, results.about
    names = tuple(name for name, figure in figures.items() if all(need in values for need in figure.needs))
    for name in names:
        save(figures[name].draw(values), folder / name)
        caption = figures[name].caption
        said = f"{caption if isinstance(caption, str) else caption(values)} {about['described']}"
        (folder / f"{name}.txt").write_text(f"{visible(said)}\n", encoding="utf-8")
    return names
