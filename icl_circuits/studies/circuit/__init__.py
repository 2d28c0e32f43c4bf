"""The study of the circuit through the in-context heads."""

from typing import Any

from icl_circuits.studies.study import Body, Study


def _body() -> Body[Any]:
    from icl_circuits.studies.circuit.figures import FIGURES
    from icl_circuits.studies.circuit.page import present
    from icl_circuits.studies.circuit.run import KINDS, compute

    return Body(compute, present, KINDS, FIGURES)


CIRCUIT = Study(
    name="circuit",
    help="The circuit through the in-context heads: an interactive page, a drawing, every edge, and heads alone.",
    out="icl-circuit",
    in_report=False,
    body=_body,
)
