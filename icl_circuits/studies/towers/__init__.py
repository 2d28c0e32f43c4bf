"""The study of what each in-context head does."""

from typing import Any

from icl_circuits.studies.study import Body, Study


def _body() -> Body[Any]:
    from icl_circuits.studies.towers.figures import FIGURES
    from icl_circuits.studies.towers.page import present
    from icl_circuits.studies.towers.run import KINDS, compute

    return Body(compute, present, KINDS, FIGURES)


TOWERS = Study(
    name="towers",
    help="What each in-context head does: OV label features, QK two towers, flow, label reversal.",
    out="icl-towers",
    in_report=True,
    body=_body,
)
