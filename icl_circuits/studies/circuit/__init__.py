"""The study of the circuit through the in-context heads."""

from icl_circuits.jobs import CircuitJob
from icl_circuits.studies.study import Beginning, Study, body_of

CIRCUIT = Study(
    name="circuit",
    help="The circuit through the in-context heads: an interactive page, a drawing, every edge, and heads alone.",
    out="icl-circuit",
    in_report=True,
    body=body_of(__name__),
    example="--model icl-small --heads 4 --out my-circuit",
    steps=("right answers first", "circuit", "label-reversed circuit", "prompts to see it on", "heads alone"),
    alone=Beginning(CircuitJob, f"{__name__}.begun"),
)
