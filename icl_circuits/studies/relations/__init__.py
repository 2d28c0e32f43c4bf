"""The study of semantic induction heads, and of how the head families of the field overlap."""

from icl_circuits.jobs import RelationJob
from icl_circuits.studies.study import Beginning, Study, body_of

RELATION_TEXTS = Beginning(RelationJob, f"{__name__}.begun")
"""Texts with relations, tasks, and in-context prompts: the study takes a `RelationsBegun`."""

RELATIONS = Study(
    name="relations",
    help="Which heads attend to a relation's head and raise its tail, and how head families of the field overlap.",
    out="icl-relations",
    in_report=False,
    body=body_of(__name__),
    example="--model icl-small --heads 2 --out my-relations",
    steps=(
        "relation index",
        "probe of syntactic heads",
        "induction heads",
        "function-vector heads",
        "in-context heads",
        "zeroing families",
    ),
    begins=RELATION_TEXTS,
)
