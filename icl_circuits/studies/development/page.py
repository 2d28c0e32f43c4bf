"""The study's part of a folder: its values, its tables and its sections."""

from pathlib import Path

import numpy as np
import pandas as pd

from icl_circuits.development import emergence
from icl_circuits.report import Part
from icl_circuits.stats import Interval
from icl_circuits.studies.development import sentences
from icl_circuits.studies.development.begun import RunBegun
from icl_circuits.studies.development.run import RunFindings
from icl_circuits.studies.development.tables import (
    all_tables,
    checkpoints,
    checkpoints_table,
    emergence_table,
    knock_out_table,
    summary,
)
from icl_circuits.viz import Section


def present(begun: RunBegun, findings: RunFindings) -> Part:
    """What is written of the findings."""
    tables = all_tables(findings)
    seeds = {f"development_seed_{i}": run for i, run in enumerate(findings.runs[1:], start=2)}
    shown = [
        ("Levels of in-context learning", checkpoints_table(findings.runs[0])),
        ("What emerges when", emergence_table(findings)),
    ]
    knocked_out = {}
    if findings.without is not None:
        knocked_out["knock_out"] = findings.without
        shown.append(("Without semantic induction heads (an extension)", knock_out_table(findings.without)))
    return Part(
        headline=_headline(findings),
        summary=summary(findings),
        values={"development": findings.runs[0], **seeds, **knocked_out},
        tables=tables,
        sections=lambda figures: _sections(findings, tables, figures),
        shown=shown,
    )


def _headline(findings: RunFindings) -> str:
    frame = checkpoints(findings.runs[0])
    first, last = (Interval.in_row(frame.iloc[place], "top1") for place in (0, -1))
    found = emergence(findings.runs)
    order = [row["curve"] for _, row in found.iterrows() if np.isfinite(row["step"])]
    said = f"First to rise: {order[0]}. Last: {order[-1]}." if order else "Nothing rises."
    return f"Labels in context: {first:.2f} at the first checkpoint, {last:.2f} at the last. {said}"


def _sections(findings: RunFindings, tables: dict[str, pd.DataFrame], figures: Path) -> tuple[Section, ...]:
    run, of_every_run = findings.runs[0], tables["checkpoints"]
    return (
        Section(
            "Levels of in-context learning",
            "Labels in context: the right label is the likeliest token behind demonstrations. Between labels: it is "
            "the likelier of the two; chance is 0.5. Loss reduction: loss of tokens 50-100 less that of tokens 0-50. "
            "Format: the next token is a number, or true or false. Pattern: it is the right label. In brackets: 95 % "
            "intervals.",
            checkpoints_table(run),
            figures / "levels.svg",
            answer=sentences.levels(of_every_run[of_every_run["run"] == 1]),
        ),
        Section(
            "Format compliance by task",
            "By number of shots.",
            figure=figures / "format_compliance.svg",
            answer=sentences.by_task(run, "format"),
        ),
        Section(
            "Pattern discovery by task",
            "By number of shots.",
            figure=figures / "pattern_discovery.svg",
            answer=sentences.by_task(run, "accuracy"),
        ),
        Section(
            "What emerges when",
            "A curve has emerged when it is half way from its first value to its highest. Curves of heads are of the "
            "head that is best in the end. In brackets: 95 % intervals over seeds, where there are several.",
            emergence_table(findings),
            figures / "emergence.svg",
            answer=sentences.emerges(tables["emergence"]),
        ),
        Section(
            "What rises together",
            "Curves that rise have high rank correlations, whatever they measure. The test therefore asks whether "
            "their rises from checkpoint to checkpoint are correlated.",
            figure=figures / "co_timing.svg",
            answer=sentences.together(tables["co_timing"]),
        ),
        Section(
            "Semantic induction heads",
            "The relation index of every head, with the paper's relaxed gate: attention to the relation's head is the "
            "highest.",
            figure=figures / "relation_indices.svg",
            answer=sentences.relation_heads(run),
        ),
        Section(
            "Other scores of heads",
            "Of every head.",
            figure=figures / "head_scores.svg",
            answer=sentences.other_heads(run),
        ),
        Section(
            "Without semantic induction heads",
            "An extension: the paper removes no head. The heads of the highest index are zeroed in the trained model, "
            "and as many random heads of the same layers beside them.",
            None if findings.without is None else knock_out_table(findings.without),
            answer=sentences.without(findings.without),
        ),
    )
