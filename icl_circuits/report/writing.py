"""What a run writes into its folder: numbers, result objects, figures, tables and a page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.report.figures import PaperFigure, write_figures
from icl_circuits.report.part import Part, RunRecord
from icl_circuits.report.results import FILE, Results, read_results, write_results
from icl_circuits.viz import Section, Table, render_page


def write_report(
    record: RunRecord,
    parts: Sequence[Part],
    folder: Path,
    *,
    kinds: Iterable[type],
    figures: Mapping[str, PaperFigure],
) -> None:
    """Write `results.json`, `results.safetensors`, `figures/`, `tables/`, `report.html` and the parts' own files.

    Args:
        record: what was run.
        parts: what the studies found.
        folder: an empty folder.
        kinds: the classes of the result objects.
        figures: what is drawn of them, where they hold the values for it.
    """
    _write_numbers(record, parts, folder / "results.json")
    drawings, tables = folder / "figures", folder / "tables"
    drawings.mkdir()
    tables.mkdir()
    kinds = tuple(kinds)
    values = {name: value for part in parts for name, value in part.values.items() if value is not None}
    write_results(Results(record.about, {**record.values, **values}), folder / FILE, kinds)
    write_figures(read_results(folder, kinds), drawings, figures)
    for part in parts:
        for name, frame in part.tables.items():
            _write_table(frame, tables / name)
        for name, write in part.files.items():
            write(folder / name)
    (folder / "report.html").write_text(_page(record, parts, drawings), encoding="utf-8")


def _write_numbers(record: RunRecord, parts: Sequence[Part], path: Path) -> None:
    results = dict(record.summary)
    for part in parts:
        for key, value in part.summary.items():
            old = results.get(key)
            results[key] = [a | b for a, b in zip(old, value, strict=True)] if isinstance(old, list) else value
    text = json.dumps(_finite(results), indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_table(frame: pd.DataFrame, stem: Path) -> None:
    """As `stem.csv` and `stem.tex`."""
    frame.to_csv(stem.with_name(f"{stem.name}.csv"), index=False)
    latex = frame.to_latex(index=False, escape=True, float_format="%.3f", na_rep="--")
    stem.with_name(f"{stem.name}.tex").write_text(latex, encoding="utf-8")


def _page(record: RunRecord, parts: Sequence[Part], drawings: Path) -> str:
    where = Section(
        "Provenance",
        "What produced these numbers.",
        Table(("what", "value"), tuple((key, json.dumps(value)) for key, value in record.provenance.items())),
    )
    summary = " ".join([*(part.headline for part in parts), record.described])
    sections = [section for part in parts for section in part.sections(drawings)]
    return render_page(record.title, summary, [*sections, where])


def _finite(value: Any) -> Any:
    """JSON's version of results: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
