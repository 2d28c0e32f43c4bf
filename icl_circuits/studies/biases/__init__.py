"""The study of the majority-label and recency biases."""

from icl_circuits.studies.study import Study, body_of

BIASES = Study(
    name="biases",
    help="Majority-label and recency bias, before and after their mitigations.",
    out="icl-biases",
    in_report=True,
    body=body_of(__name__),
    example="--model icl-small --heads 4 --labels A,B --out my-biases",
    steps=(
        "majority-label bias",
        "recency bias",
    ),
)
