"""What files of results may hold and what is drawn of them: everything that the studies in a list say."""

from collections.abc import Sequence
from pathlib import Path

from icl_circuits import report
from icl_circuits.heads import InContextHeads
from icl_circuits.report import PaperFigure, Results
from icl_circuits.studies import STUDIES
from icl_circuits.studies.study import Study


def kinds_of(studies: Sequence[Study] = STUDIES) -> tuple[type, ...]:
    """The classes of the result objects that files of these studies hold."""
    return tuple(dict.fromkeys((InContextHeads, *(kind for study in studies for kind in study.body().kinds))))


def figures_of(studies: Sequence[Study] = STUDIES) -> dict[str, PaperFigure]:
    """The figures of these studies, by name."""
    return {name: figure for study in studies for name, figure in study.body().figures.items()}


def load_results(path: str | Path, studies: Sequence[Study] = STUDIES) -> Results:
    """Read back what `icl-circuits` wrote: result objects by name, one value per prompt in them.

    Args:
        path: the folder of a report or of any study, or the `results.safetensors` in it.
        studies: those whose result objects may be in it.

    Raises:
        InputError: nothing there, or no results of this version.
    """
    return report.read_results(path, kinds_of(studies))
