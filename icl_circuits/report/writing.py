"""What a run writes into its folder: numbers, result objects, figures, tables and a page."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.characters import latex_text, spreadsheet_cell
from icl_circuits.costs import Cost
from icl_circuits.report.figures import PaperFigure, write_figures
from icl_circuits.report.merging import merged, together
from icl_circuits.report.part import LeftOut, Part, RunRecord
from icl_circuits.report.results import FILE, Results, read_results, write_results
from icl_circuits.viz import Section, Table, render_page

NUMBERS, PAGE, FIGURES, TABLES = "results.json", "report.html", "figures", "tables"
OWN = (NUMBERS, FILE, PAGE, FIGURES, TABLES)
"""Names that no part may give to a file of its own."""


def write_report(
    record: RunRecord,
    parts: Sequence[Part],
    left_out: Sequence[LeftOut],
    folder: Path,
    *,
    kinds: Iterable[type],
    figures: Mapping[str, PaperFigure],
) -> None:
    """Write `results.json`, `results.safetensors`, `figures/`, `tables/`, `report.html` and the parts' own files.

    Args:
        record: what was run.
        parts: what the studies found.
        left_out: the studies that could not be done.
        folder: an empty folder.
        kinds: the classes of the result objects.
        figures: what is drawn of them, where they hold the values for it.

    Raises:
        InputError: two parts give different things under one name; nothing is written then.
    """
    reasons = {"left_out": {study.study: study.why for study in left_out}}
    costs = {"steps": [{"step": step} | asdict(cost) for step, cost in record.costs.items()]}
    summaries = [record.summary, reasons, costs, *(part.summary for part in parts)]
    numbers = reduce(lambda a, b: merged(a, b, NUMBERS), summaries)
    values = together([record.values, *(part.values for part in parts)], "value")
    tables = together((part.tables for part in parts), "table")
    files = together([dict.fromkeys(OWN), *(part.files for part in parts)], "file")
    drawings, kinds = folder / FIGURES, tuple(kinds)
    (folder / NUMBERS).write_text(json.dumps(finite(numbers), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    measured = {name: value for name, value in values.items() if value is not None}
    write_results(Results(record.about, measured), folder / FILE, kinds)
    drawings.mkdir()
    write_figures(read_results(folder, kinds), drawings, figures)
    (folder / TABLES).mkdir()
    for name, frame in tables.items():
        _write_table(frame, folder / TABLES / name)
    for name, write in files.items():
        if write is not None:
            write(folder / name)
    page = _page(record, parts, left_out, drawings)
    (folder / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")


def _write_table(frame: pd.DataFrame, stem: Path) -> None:
    """As `stem.csv` and `stem.tex`."""
    write_csv(frame, stem.with_name(f"{stem.name}.csv"))
    latex = _text_cells(frame, latex_text).to_latex(index=False, escape=True, float_format="%.3f", na_rep="--")
    latex = re.sub(
        r"(\\\\|\\midrule)\n(?=[\[*])", r"\1\n{}", latex
    )  # else a row's first cell is an option of what is before
    stem.with_name(f"{stem.name}.tex").write_text(latex, encoding="utf-8")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """A table as a CSV file that spreadsheets take no formula from."""
    _text_cells(frame, spreadsheet_cell).to_csv(path, index=False, errors="backslashreplace")


def _text_cells(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with its texts, column names among them, changed."""

    def changed(cell: Any) -> Any:
        return change(cell) if isinstance(cell, str) else cell

    return frame.map(changed).rename(columns=changed)


def _page(record: RunRecord, parts: Sequence[Part], left_out: Sequence[LeftOut], drawings: Path) -> str:
    names = [study.study.replace("_", " ") for study in left_out]
    missing = Section(
        "Left out",
        "Studies that this model or these prompts are not fit for.",
        Table(("study", "why"), tuple((study.study, study.why) for study in left_out)),
        answer=f"{_counted(len(names), 'study was', 'studies were')} left out: {', '.join(names)}.",
    )
    sections = [section for part in parts for section in part.sections(drawings)]
    return render_page(
        record.title,
        parts[0].headline if parts else "",
        [*sections, *([missing] if left_out else []), _costs(record.costs), _provenance(record.provenance)],
        also=[part.headline for part in parts[1:]],
        described=record.described,
        first=[section for part in parts for section in part.first(drawings)],
    )


def _costs(costs: Mapping[str, Cost]) -> Section:
    rows = [(step, f"{c.seconds:.1f}", f"{c.forwards:,}", f"{c.bytes / 1024:,.0f}") for step, c in costs.items()]
    forwards = sum(cost.forwards for cost in costs.values())
    return Section(
        "Cost",
        "What each step took when it was computed; steps of the store are not computed again. Forwards: prompts run "
        "through the model, once for each pass, also where a pass begins in a later layer. Kilobytes: what the store "
        "keeps of the step.",
        Table(("step", "seconds", "forwards", "kilobytes"), tuple(rows)),
        # No seconds: pages of equal runs differ in the table's alone.
        answer=f"{_counted(len(costs), 'step', 'steps')} ran {forwards:,} forwards.",
    )


def _provenance(provenance: Mapping[str, Any]) -> Section:
    return Section(
        "Provenance",
        "The model, the data and the versions that these numbers were computed with.",
        Table(("what", "value"), tuple((key, _plainly(value)) for key, value in provenance.items())),
        answer=f"The model is {provenance['name']}.",
    )


def _plainly(value: Any) -> str:
    """A value of the provenance as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plainly(part)}" for key, part in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def finite(value: Any) -> Any:
    """JSON's version of results: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
