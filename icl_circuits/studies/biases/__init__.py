"""The study of the majority-label and recency biases."""

from typing import Any

from icl_circuits.studies.study import Body, Study


def _body() -> Body[Any]:
    from icl_circuits.studies.biases.figures import FIGURES
    from icl_circuits.studies.biases.page import present
    from icl_circuits.studies.biases.run import KINDS, compute

    return Body(compute, present, KINDS, FIGURES)


BIASES = Study(
    name="biases",
    help="Majority-label and recency bias, before and after their mitigations.",
    out="icl-biases",
    in_report=True,
    body=_body,
)
