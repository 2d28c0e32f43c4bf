"""The study of what each in-context head does."""

from icl_circuits.studies.study import Study, body_of

TOWERS = Study(
    name="towers",
    help="What each in-context head does: OV label features, QK two towers, flow, label reversal.",
    out="icl-towers",
    in_report=True,
    body=body_of(__name__),
    example="--model icl-small --heads 4 --out my-towers",
    steps=(
        "label features",
        "two towers",
        "what the towers read",
        "flow",
        "reversal",
    ),
)
