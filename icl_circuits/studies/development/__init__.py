"""The study of a training run: which abilities and heads form when, and what forms together."""

from icl_circuits.jobs import DevelopmentJob
from icl_circuits.studies.study import Beginning, Study, body_of

TRAINING_RUN = Beginning(DevelopmentJob, f"{__name__}.begun")
"""Checkpoints of one model, perhaps from several seeds, and what they are measured on: the study takes a `RunBegun`."""

DEVELOPMENT = Study(
    name="development",
    help="How in-context learning and its heads form in training, checkpoint by checkpoint.",
    out="icl-development",
    in_report=False,
    body=body_of(__name__),
    example="--model icl-small --checkpoints 0,500,2000 --out my-development",
    steps=("knock-out",),
    begins=TRAINING_RUN,
)
