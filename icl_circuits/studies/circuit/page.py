"""The study's part of a folder: its values and tables, the interactive page, and sections that lead to it."""

import json
from pathlib import Path

import numpy as np

from icl_circuits.circuits import to_json
from icl_circuits.report import Part
from icl_circuits.residual import Text
from icl_circuits.stats import Interval, bootstrap_means
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.circuit.run import CircuitFindings
from icl_circuits.studies.circuit.tables import edge_tables, summary
from icl_circuits.viz import CircuitView, Section, Table, arrows

PAGE, DRAWING, NUMBERS = "circuit.html", "circuit.svg", "circuit.json"
EDGES_SHOWN, FIRST_EDGES = 40, 24
"""How many edges the table shows, and the drawing on the first screen."""


SUMMARY = (
    "How the texts and labels of demonstrations become an answer through {} in-context heads. Each edge was cut or "
    "made neutral on its own, on {} test prompts and on the same prompts with their labels reversed."
)


def present(begun: Begun, findings: CircuitFindings) -> Part:
    """What is written of the findings."""
    view = circuit_view(begun, findings)
    alone = f"Heads alone and left out, best first: {view.metric}"
    return Part(
        headline=_headline(findings, view),
        summary=summary(findings),
        values={
            "circuit": findings.circuit,
            "circuit_reversed": findings.reversed,
            "circuit_test": findings.test,
        },
        tables=edge_tables(findings),
        sections=lambda figures: _sections(findings, view, figures),
        first=lambda _: (_drawn(findings, view, FIRST_EDGES),),
        shown=() if findings.test is None else ((alone, view.test_table()),),
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
        summary=f"{SUMMARY.format(len(begun.heads), len(findings.circuit.base))} {begun.described}",
        reversed=findings.reversed,
        test=findings.test,
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _headline(findings: CircuitFindings, view: CircuitView) -> str:
    """The edge that adds most."""
    circuit = findings.circuit
    interval = bootstrap_means(circuit.scores)
    best = int(np.argmax(interval.mean))
    return (
        f"Of {len(circuit.edges)} edges into and out of {len(view.heads)} in-context heads, "
        f"{arrows(str(circuit.edges[best]))} adds most: {interval.of(best):+.2f} of a {view.metric} of "
        f"{circuit.base.mean():.2f}, over {len(circuit.base)} prompts."
    )


def _drawn(findings: CircuitFindings, view: CircuitView, n_edges: int) -> Section:
    """The drawing of the first prompt, and what it shows."""
    run = findings.runs[0]
    given = "and the model gives it" if run.right else "but the model gives another"
    return Section(
        "The circuit of one prompt",
        "",
        answer=f"The circuit of one prompt, its {n_edges} strongest edges: the right answer is {run.answer}, {given}.",
        drawing=view.to_svg(n_edges=n_edges),
        link=PAGE,
    )


def _sections(findings: CircuitFindings, view: CircuitView, figures: Path) -> tuple[Section, ...]:
    edges = tuple(cells for _, cells in view.edge_rows())
    shown = edges[:EDGES_SHOWN]
    missing = "" if any(isinstance(edge.sender, Text) for edge in findings.circuit.edges) else (
        " Edges from texts are missing: attention of this model cannot be cut."
    )  # fmt: skip
    return (
        Section(
            "The circuit",
            "The interactive page: click a node or an edge for its numbers, open a head for its attention, its two "
            "towers and what its values say. Each edge was cut or made neutral on its own, also on the same prompts "
            f"with their labels reversed.{missing} {DRAWING} is the drawing, {NUMBERS} every edge on every prompt.",
            link=PAGE,
            answer=_headline(findings, view),
        ),
        *_alone(findings, view, figures),
        Section(
            "Edges",
            f"The {len(shown)} strongest of {len(edges)} edges, by their mean over prompts; all "
            "are in tables/edges.csv. Edges of different kinds are cut in different ways, so their scores share a "
            "unit, not a baseline. In brackets: 95 % bootstrap intervals over prompts.",
            Table(("edge", f"{view.metric} it adds", "labels reversed"), shown),
            answer=_above_zero(findings),
        ),
    )


def _above_zero(findings: CircuitFindings) -> str:
    interval = bootstrap_means(findings.circuit.scores)
    above, below, n = int((interval.low > 0).sum()), int((interval.high < 0).sum()), len(interval.mean)
    return f"{above} of {n} edges support the right answer and {below} work against it (intervals without 0)."


def _alone(findings: CircuitFindings, view: CircuitView, figures: Path) -> tuple[Section, ...]:
    """The test of the heads; nothing where there is none."""
    test, n_heads = findings.test, len(view.heads)
    if test is None:
        return ()
    rows = test.to_frame().set_index(["curve", "size"])
    left = Interval.in_row(rows.loc[("complement", n_heads)], test.metric)
    alone = Interval.in_row(rows.loc[("circuit", n_heads)], test.metric)
    return (
        Section(
            "Heads alone, and the model without them",
            "The first heads are the in-context heads, the others follow by what zeroing them loses. All heads outside "
            "are set to their mean, at every position. In-context heads alone can do nothing: they read what earlier "
            "heads have put into label positions. What the model loses without them says more. In brackets: 95 % "
            "bootstrap intervals over prompts.",
            view.test_table(),
            figures / "circuit_curves.svg",
            answer=f"Of a {view.metric} of {test.whole.mean():.2f}, {left:.2f} are left without the {n_heads} "
            f"in-context heads; alone, they reach {alone:.2f}.",
        ),
    )
