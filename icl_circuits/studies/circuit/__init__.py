"""The study of the circuit through the in-context heads."""

from icl_circuits.studies.study import Study, body_of

CIRCUIT = Study(
    name="circuit",
    help="The circuit through the in-context heads: an interactive page, a drawing, every edge, and heads alone.",
    out="icl-circuit",
    in_report=False,
    body=body_of(__name__),
    example="--model icl-small --heads 4 --out my-circuit",
    steps=(
        "circuit",
        "label-reversed circuit",
        "heads alone",
        "prompts to see it on",
    ),
)
