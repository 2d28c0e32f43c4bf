"""The study's part of a folder: its values and tables, the interactive page, and sections that lead to it."""

import json
from pathlib import Path

from icl_circuits.circuits import to_json
from icl_circuits.report import Part
from icl_circuits.residual import Text
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.circuit.run import CircuitFindings
from icl_circuits.studies.circuit.tables import edge_tables, summary
from icl_circuits.viz import CircuitView, Section, Table

PAGE, DRAWING, NUMBERS = "circuit.html", "circuit.svg", "circuit.json"
EDGES_SHOWN = 40


def present(begun: Begun, findings: CircuitFindings) -> Part:
    """What is written of the findings."""
    view = circuit_view(begun, findings)
    return Part(
        headline=_headline(begun, findings),
        summary=summary(findings),
        values={
            "circuit": findings.circuit,
            "circuit_reversed": findings.reversed,
            "circuit_test": findings.test,
        },
        tables=edge_tables(findings),
        sections=lambda figures: _sections(findings, view, figures),
        shown=((f"Heads alone and left out, best first: {findings.circuit.metric}", view.test_table()),),
        files={
            PAGE: view.save,
            DRAWING: lambda path: _write(path, view.to_svg()),
            NUMBERS: lambda path: _write(path, json.dumps(to_json(findings.circuit), indent=1) + "\n"),
        },
    )


def circuit_view(begun: Begun, findings: CircuitFindings) -> CircuitView:
    """The interactive circuit, which displays itself in a notebook."""
    labels = {head.component: head.label for head in begun.scores.selected.heads}
    return CircuitView(
        circuit=findings.circuit,
        heads=begun.heads,
        head_labels=tuple(labels[head] for head in begun.heads),
        labels=begun.settings.labels,
        runs=findings.runs,
        summary=f"{_headline(begun, findings)} {begun.described}",
        reversed=findings.reversed,
        test=findings.test,
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _headline(begun: Begun, findings: CircuitFindings) -> str:
    circuit = findings.circuit
    missing = "" if any(isinstance(edge.sender, Text) for edge in circuit.edges) else (
        " Edges from texts are missing: attention of this model cannot be cut."
    )  # fmt: skip
    return (
        f"{len(begun.heads)} in-context heads of {begun.provenance['name']}, and what reaches them: how the texts and "
        f"labels of demonstrations become an answer. Each edge was cut or made neutral on its own, on "
        f"{len(circuit.base)} test prompts and on the same prompts with their labels reversed.{missing}"
    )


def _sections(findings: CircuitFindings, view: CircuitView, figures: Path) -> tuple[Section, ...]:
    edges = tuple(cells for _, cells in view.edge_rows())
    shown = edges[:EDGES_SHOWN]
    return (
        Section(
            "The circuit",
            "The interactive page shows it on a few prompts: point at an edge or a node for its numbers, open a head "
            f"for its attention, its two towers and what its values say. {DRAWING} is the drawing, {NUMBERS} every "
            "edge on every prompt.",
            link=PAGE,
        ),
        Section(
            "Heads alone, and the model without them",
            "The first heads are the in-context heads, the others follow by what zeroing them loses. All heads outside "
            "are set to their mean, at every position. In-context heads alone can do nothing: they read what earlier "
            "heads have put into label positions. What the model loses without them says more. In brackets: 95 % "
            "bootstrap intervals over prompts.",
            view.test_table(),
            figures / "circuit_curves.svg",
        ),
        Section(
            "Edges",
            f"The {len(shown)} strongest of {len(edges)} edges, by their mean over prompts; all "
            "are in tables/edges.csv. Edges of different kinds are cut in different ways, so their scores share a "
            "unit, not a baseline.",
            Table(("edge", f"{findings.circuit.metric} it adds", "labels reversed"), shown),
        ),
    )
