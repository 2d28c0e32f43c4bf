"""What is written: a folder of results that appears whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.errors import InputError, Unfit
from icl_circuits.report.figures import write_figures
from icl_circuits.report.plan import Start
from icl_circuits.report.results import FILE, Results, load_results, save_results
from icl_circuits.viz import Section, Table, render_page


@dataclass(frozen=True)
class Part:
    """One study, as it is written."""

    headline: str
    """What it found, in a few sentences."""
    summary: Mapping[str, Any]
    """Its part of `results.json`."""
    values: Mapping[str, Any]
    """Result objects and arrays for `results.safetensors`, by name; None: not measured. Figures are drawn from them."""
    tables: Mapping[str, pd.DataFrame]
    """The paper's tables, by file name."""
    sections: Callable[[Path], Sequence[Section]]
    """Sections of the page, given the folder of the figures."""
    shown: Sequence[tuple[str, Table]] = field(default=())
    """What a terminal prints, with titles."""


def run_studies(start: Start, studies: Sequence[Callable[[Start], Part]]) -> tuple[list[Part], list[str]]:
    """Run the studies; one that the model or the prompts are not fit for is left out, and why is said.

    Raises:
        Unfit: the first study cannot be done.
        InputError: a mistake in what was asked for.
    """
    parts, left_out = [studies[0](start)], []
    for study in studies[1:]:
        try:
            parts.append(study(start))
        except Unfit as error:
            left_out.append(str(error))
    return parts, left_out


def is_report(folder: Path) -> bool:
    """Whether `folder` was written by `write`."""
    return (folder / "results.json").is_file()


@contextmanager
def new_folder(out: Path, *, force: bool, ours: Callable[[Path], bool] = is_report) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and is removed when it does not.

    Raises:
        InputError: `out` exists and `force` is not set, `out` is neither empty nor `ours` (by default: a report), or
            its parent cannot be written.
    """
    out = out.resolve()
    if out.exists():
        if not out.is_dir():
            raise InputError(f"--out {str(out)!r} is a file: name a folder")
        if any(out.iterdir()) and not ours(out):
            raise InputError(f"--out {str(out)!r} exists and was not written by this command: name another folder")
        if not force:
            raise InputError(f"--out {str(out)!r} exists already: give --force to replace it, or name another folder")
    with _workplace(out) as work:
        new, old = work / "new", work / "old"
        new.mkdir()
        try:
            yield new
            if out.exists():
                out.rename(old)
            new.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)


@contextmanager
def new_files(out: Path, others: Sequence[str], *, force: bool) -> Iterator[tuple[Path, ...]]:
    """Temporary files that become `out` and its namesakes with `others` as suffixes when the block ends well.

    Raises:
        InputError: one of the files exists and `force` is not set, or the folder cannot be written.
    """
    out = out.resolve()
    finals = (out, *(out.with_suffix(other) for other in others))
    exists = next((final for final in finals if final.exists()), None)
    if exists is not None and (exists.is_dir() or not force):
        raise InputError(f"--out: {str(exists)!r} exists already: give --force to replace it, or name another file")
    with _workplace(out) as work:
        yield tuple(work / final.name for final in finals)
        for final in finals:
            (work / final.name).replace(final)


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, removed at the end; so are folders made for it, where `out` did not come about.

    Raises:
        InputError: the folder beside cannot be written.
    """
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write to {str(out.parent)!r}: {error.strerror}") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not out.exists():
            for folder in made:
                folder.rmdir()


def write(start: Start, parts: Sequence[Part], folder: Path, *, title: str) -> None:
    """Write `results.json`, `results.safetensors`, `figures/`, `tables/` and `report.html` into `folder`."""
    results = dict(start.summary)
    for part in parts:
        for key, value in part.summary.items():
            old = results.get(key)
            results[key] = [a | b for a, b in zip(old, value, strict=True)] if isinstance(old, list) else value
    text = json.dumps(_finite(results), indent=2, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    values = {name: value for part in parts for name, value in part.values.items() if value is not None}
    save_results(Results(start.about, {"selected": start.scores.selected} | values), folder / FILE)
    figures, tables = folder / "figures", folder / "tables"
    figures.mkdir()
    tables.mkdir()
    write_figures(load_results(folder), figures)
    for part in parts:
        for name, frame in part.tables.items():
            frame.to_csv(tables / f"{name}.csv", index=False)
            latex = frame.to_latex(index=False, escape=True, float_format="%.3f", na_rep="--")
            (tables / f"{name}.tex").write_text(latex, encoding="utf-8")
    where = Section(
        "Provenance",
        "What produced these numbers.",
        Table(("what", "value"), tuple((key, json.dumps(value)) for key, value in start.provenance.items())),
    )
    summary = " ".join([*(part.headline for part in parts), start.described])
    sections = [section for part in parts for section in part.sections(figures)]
    (folder / "report.html").write_text(render_page(title, summary, [*sections, where]), encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON's version of results: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
