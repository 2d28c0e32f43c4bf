"""What files of results may hold and what is drawn of them: everything that the studies in a list say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_circuits.heads import InContextHeads
from icl_circuits.report import PaperFigure, Results, read_results, together, write_results
from icl_circuits.studies.every import STUDIES
from icl_circuits.studies.study import Study


def kinds_of(studies: Sequence[Study] = STUDIES) -> tuple[type, ...]:
    """The classes of the result objects that files of these studies hold.

    Raises:
        InputError: two classes of one name, which a file could not tell apart.
    """
    every = dict.fromkeys((InContextHeads, *(kind for study in studies for kind in study.body().kinds)))
    return tuple(together(({kind.__name__: kind} for kind in every), "class of results").values())


def figures_of(studies: Sequence[Study] = STUDIES) -> dict[str, PaperFigure]:
    """The figures of these studies, by name.

    Raises:
        InputError: two studies have a figure of one name.
    """
    return together((study.body().figures for study in studies), "figure")


def load_results(path: str | Path, studies: Sequence[Study] = STUDIES) -> Results:
    """Read back what `icl-circuits` or `save_results` wrote: result objects by name, one value per prompt in them.

    Args:
        path: the folder of a report or of any study, or a `.safetensors` file of results.
        studies: those whose result objects may be in it.

    Raises:
        InputError: nothing there, or no results of this version.
    """
    return read_results(path, kinds_of(studies))


def save_results(values: Mapping[str, Any], path: str | Path, studies: Sequence[Study] = STUDIES) -> None:
    """Keep result objects and arrays, for `load_results` and `icl-circuits figures`: `save_results({"circuit": c}, f)`.

    Args:
        values: by name, as `Results.values` has them.
        path: a `.safetensors` file to write, whole or not at all; other results there are replaced.
        studies: those whose result objects may be in it.

    Raises:
        TypeError: a value that is neither an array nor a result object of `studies`.
        InputError: `path` holds something else than results, or cannot be written.
    """
    write_results(Results({"described": ""}, values), Path(path), kinds_of(studies))
