"""The study's tables, its part of `results.json`, and what a terminal shows."""

from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.development import Development, alike, co_timing, curves, emergence
from icl_circuits.heads import FamilyEffects
from icl_circuits.stats import Interval, bootstrap_mean, wilson
from icl_circuits.studies.development.run import RunFindings
from icl_circuits.viz import Table


def all_tables(findings: RunFindings) -> dict[str, pd.DataFrame]:
    """All tables, by file name."""
    tables = {
        "checkpoints": pd.concat([checkpoints(run).assign(run=i + 1) for i, run in enumerate(findings.runs)]),
        "curves": pd.concat([_curves(run).assign(run=i + 1) for i, run in enumerate(findings.runs)]),
        "levels": pd.concat([_levels(run).assign(run=i + 1) for i, run in enumerate(findings.runs)]),
        "emergence": emergence(findings.runs),
        "co_timing": co_timing(alike(findings.runs)),
    }
    return tables if findings.without is None else tables | {"knock_out": findings.without.to_frame()}


def checkpoints(run: Development) -> pd.DataFrame:
    """One row a checkpoint: labels in context, the levels at the most shots, and loss reduction, with intervals."""
    rows = []
    for i, step in enumerate(run.steps.tolist()):
        row: dict[str, object] = {"step": step}
        row |= wilson(run.top1[i]).columns("top1")
        row |= wilson(run.between_labels[i]).columns("between_labels")
        row |= wilson(run.format[i, :, -1].ravel()).columns("format")
        row |= wilson(run.accuracy[i, :, -1].ravel()).columns("accuracy")
        for name in ("loss_reduction", "late_loss_reduction"):
            values = getattr(run, name)[i]
            row |= bootstrap_mean(values[np.isfinite(values)]).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def summary(findings: RunFindings) -> dict[str, Any]:
    """The study's part of `results.json`."""
    return {
        "emergence": emergence(findings.runs).to_dict("records"),
        "checkpoints": checkpoints(findings.runs[0]).to_dict("records"),
        "knock_out": [] if findings.without is None else findings.without.to_frame().to_dict("records"),
    }


def checkpoints_table(run: Development) -> Table:
    """The levels at each checkpoint, as text."""
    cells = [
        (str(int(row["step"])), *(f"{Interval.in_row(row, name):.2f}" for name in
         ("top1", "between_labels", "loss_reduction", "format", "accuracy")))
        for _, row in checkpoints(run).iterrows()
    ]  # fmt: skip
    return Table(
        ("step", "labels in context", "between labels", "loss reduction (nats)", "format", "pattern"), tuple(cells)
    )


def emergence_table(findings: RunFindings) -> Table:
    """When everything emerges, as text."""
    cells = []
    for _, row in emergence(findings.runs).iterrows():
        step = f"{row['step']:.0f}" if np.isfinite(row["step"]) else "never"
        if np.isfinite(row["step_low"]):
            step += f" [{row['step_low']:.0f}, {row['step_high']:.0f}]"
        cells.append((row["curve"], step, f"{row['rise']:.2f}", f"{row['n_seeds']} of {len(findings.runs)}"))
    return Table(("curve", "step of half rise", "rise", "seeds"), tuple(cells))


def knock_out_table(without: FamilyEffects) -> Table:
    """Prompts of demonstrations without semantic induction heads, as text."""
    said = {"base": "", "whole": "all", "exclusive": "those in no other"}
    cells = [
        (row["family"] or "nothing", said.get(row["kind"], "as many random heads"), str(row["n_heads"]),
         f"{Interval.in_row(row, 'top1'):.2f}", f"{Interval.in_row(row, 'log_prob_drop'):.2f}")
        for _, row in without.to_frame().iterrows()
    ]  # fmt: skip
    return Table(("heads", "zeroed", "number", "top-1 accuracy", "log-probability lost (nats)"), tuple(cells))


def _curves(run: Development) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame({"curve": curve.name, "head": str(curve.head or ""), "step": run.steps, "value": curve.values})
            for curve in curves(run)
        ],
        ignore_index=True,
    )


def _levels(run: Development) -> pd.DataFrame:
    rows = []
    for (i, step), (j, task), (k, shots) in (
        (a, b, c) for a in enumerate(run.steps.tolist()) for b in enumerate(run.tasks) for c in enumerate(run.shots)
    ):
        row: dict[str, object] = {"step": step, "task": task, "shots": shots}
        row |= wilson(run.format[i, j, k]).columns("format")
        rows.append(row | wilson(run.accuracy[i, j, k]).columns("accuracy"))
    return pd.DataFrame(rows)
