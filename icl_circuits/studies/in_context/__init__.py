"""The study of which heads carry in-context learning, and what is lost when they are zeroed."""

from icl_circuits.studies.study import Study, body_of

IN_CONTEXT = Study(
    name="in_context",
    help="Which heads carry in-context learning: what zeroing them costs, beside random heads, and what they read.",
    out="icl-in-context",
    in_report=True,
    body=body_of(__name__),
    example="--model icl-small --heads 4 --out my-heads",
    steps=(
        "zeroing groups",
        "positions and attention",
    ),
)
