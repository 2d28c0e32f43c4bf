"""The study's part of a folder: its values, its tables, and its sections of the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_circuits.biases import BiasName, Measured
from icl_circuits.report import Part
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.biases.run import BiasFindings
from icl_circuits.studies.biases.tables import measured_table, paper_tables, short_table, summary
from icl_circuits.studies.verdicts import verdict
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


NAMES: dict[BiasName, str] = {"majority": "Majority-label bias", "recency": "Recency bias"}


def _headline(rows: Sequence[Measured]) -> str:
    return " ".join(_sentence(rows, bias) for bias in NAMES if any(row.bias == bias for row in rows))


def _sentence(rows: Sequence[Measured], bias: BiasName) -> str:
    """A bias by its first measure, and what the chosen mitigation does to it."""
    row = next(row for row in rows if row.bias == bias and row.how == "chosen")
    found = row.found
    if not found.strength:
        said = "No mitigation did better on the selection prompts"
    else:
        effect = verdict(
            found.reduction, above="it falls", below="it grows", neither="no change that can be told from none"
        )
        said = f"With the mitigation it is {found.after:.3f}: {effect}"
    return f"{NAMES[bias]} ({row.measure}): {found.before:.3f}. {said}."


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
            answer=_sentence(majority, "majority"),
        )
    ]
    if findings.recency is None:
        sections.append(Section("Recency bias", findings.refused, answer="Not measured on this model."))
    else:
        sections.append(
            Section(
                "Recency bias",
                "The same demonstrations in several orders. The mitigation takes position out of the heads' "
                f"attention scores. {explained}",
                measured_table(recency),
                figures / "recency.svg",
                answer=_sentence(recency, "recency"),
            )
        )
    return tuple(sections)
