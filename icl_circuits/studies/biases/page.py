"""The study's part of a folder: its values, its tables, and its sections of the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_circuits.biases import Measured
from icl_circuits.report import Part
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.biases.run import BiasFindings
from icl_circuits.studies.biases.tables import measured_table, paper_tables, short_table, summary
from icl_circuits.viz import Section


def present(begun: Begun, findings: BiasFindings) -> Part:
    """What is written of the findings."""
    rows = findings.measured
    return Part(
        headline=_headline(rows),
        summary=summary(findings),
        values=_values(findings),
        tables=paper_tables(begun, rows),
        sections=lambda figures: _sections(findings, figures),
        shown=(("Biases before and after their mitigations", short_table(rows)),),
    )


def _values(findings: BiasFindings) -> dict[str, Any]:
    majority, recency = findings.majority, findings.recency
    return {
        "majority": majority.found,
        "majority_sweep": majority.sweep,
        "recency": recency and recency.found,
        "recency_sweep": recency and recency.sweep,
        "chosen": np.array([majority.chosen, recency.chosen if recency else 0.0]),
    }


def _headline(rows: Sequence[Measured]) -> str:
    parts = []
    for bias, what in (("majority", "Majority-label bias"), ("recency", "Recency bias")):
        row = next((r for r in rows if r.bias == bias and r.how == "chosen"), None)
        if row is not None:
            parts.append(f"{what} ({row.measure}): {row.found.before.mean:.3f}, mitigated {row.found.after.mean:.3f}.")
    return " ".join(parts)


def _sections(findings: BiasFindings, figures: Path) -> tuple[Section, ...]:
    majority, recency = ([row for row in findings.measured if row.bias == bias] for bias in ("majority", "recency"))
    explained = (
        "The strength was chosen on the selection prompts for the least fluctuation plus accuracy lost; everything "
        "else is measured on the test prompts. A fluctuation is never negative, so noise alone makes it positive. In "
        "brackets: 95 % bootstrap intervals over prompts."
    )
    sections = [
        Section(
            "Majority-label bias",
            "Demonstrations of one label are removed. Fluctuation: the mean change of accuracy from the balanced "
            "prompts, over all prompts, and over those of each answer apart. The mitigation adds the heads' weighted "
            f"values at minority positions to the final state. {explained}",
            measured_table(majority),
            figures / "majority.svg",
        )
    ]
    if findings.recency is None:
        sections.append(Section("Recency bias", f"Not measured: {findings.refused}"))
    else:
        sections.append(
            Section(
                "Recency bias",
                "The same demonstrations in several orders. The mitigation takes position out of the heads' "
                f"attention scores. {explained}",
                measured_table(recency),
                figures / "recency.svg",
            )
        )
    return tuple(sections)
