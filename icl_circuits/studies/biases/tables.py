"""The study's tables: the paper's, the part of `results.json`, and what a reader sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.biases import MEASURES, Measured
from icl_circuits.report import with_ci95
from icl_circuits.stats import Interval
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.biases.run import BiasFindings
from icl_circuits.viz import Table


def summary(findings: BiasFindings) -> dict[str, Any]:
    """The study's part of `results.json`, by bias and measure.

    `before`, `after`, `reduction` (`1 - after / before`), accuracies and their cost, and `ci95` of each.
    """
    found: dict[str, Any] = {}
    for row in findings.measured:
        values = with_ci95(vars(row.found))
        bias = found.setdefault(row.bias, {})
        headline = row.measure == MEASURES[row.bias][0].name
        if row.how == "chosen" and headline:
            bias.update(values, measure=row.measure)
        elif row.how == "random":
            bias.setdefault("random_heads", []).append({"measure": row.measure} | values)
        else:
            bias.setdefault("also", []).append({"measure": row.measure, "how": row.how} | values)
    if findings.recency is None:
        found["recency"] = {"refused": findings.refused}
    return {"biases": found}


def paper_tables(begun: Begun, rows: Sequence[Measured]) -> dict[str, pd.DataFrame]:
    """Tables 7 and 8 of arXiv 2402.02872: each bias before and after, and the reduction."""
    where = {"model": begun.provenance["name"], "data": begun.provenance["data"]}
    tables = {}
    for name, bias in (("table_7", "majority"), ("table_8", "recency")):
        body = [where | _paper_row(row) for row in rows if row.bias == bias]
        if body:
            tables[name] = pd.DataFrame(body)
    return tables


def _paper_row(row: Measured) -> dict[str, Any]:
    found = row.found
    return {
        "measure": row.measure,
        "mitigation": row.how,
        "strength": found.strength,
        "before": found.before.mean,
        "after": found.after.mean,
        **found.reduction.columns("reduction"),
        "accuracy_before": found.accuracy_before.mean,
        "accuracy_after": found.accuracy_after.mean,
    }


def _share(interval: Interval) -> str:
    return f"{interval:+.0%}" if np.isfinite(interval.mean) else ""


def measured_table(rows: Sequence[Measured]) -> Table:
    """Every measure under every mitigation."""
    body = [
        (
            row.bias,
            row.measure,
            {"chosen": "chosen", "paper": "as in the paper", "random": "random heads"}[row.how],
            f"{row.found.strength:g}",
            f"{row.found.before:.3f}",
            f"{row.found.after:.3f}",
            _share(row.found.reduction),
            f"{row.found.accuracy_before.mean:.2f} \u2192 {row.found.accuracy_after.mean:.2f}",
        )
        for row in rows
    ]
    return Table(("bias", "measure", "mitigation", "strength", "before", "after", "reduction", "accuracy"), tuple(body))


def short_table(rows: Sequence[Measured]) -> Table:
    """The chosen mitigation of each bias, beside the mean of random heads."""
    body = []
    for row in (row for row in rows if row.how == "chosen"):
        found, alike = row.found, [r for r in rows if r.how == "random" and r.measure == row.measure]
        random = [r.found.reduction.mean for r in alike if r.found.strength == found.strength]
        cells = (f"{found.before.mean:.3f}", f"{found.after.mean:.3f}", _share(found.reduction))
        body.append((row.bias, row.measure, *cells, f"{np.mean(random):+.0%}" if random else ""))
    return Table(("bias", "measure", "before", "after", "reduction", "random heads"), tuple(body))
