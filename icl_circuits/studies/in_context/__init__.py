"""The study of which heads carry in-context learning, and what is lost when they are zeroed."""

from typing import Any

from icl_circuits.studies.study import Body, Study


def _body() -> Body[Any]:
    from icl_circuits.studies.in_context.figures import FIGURES
    from icl_circuits.studies.in_context.page import present
    from icl_circuits.studies.in_context.run import KINDS, compute

    return Body(compute, present, KINDS, FIGURES)


IN_CONTEXT = Study(
    name="in_context",
    help="Which heads carry in-context learning: what zeroing them costs, beside random heads, and what they read.",
    out="icl-in-context",
    in_report=True,
    body=_body,
)
