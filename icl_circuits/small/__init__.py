"""The small model that comes with the package: its language, its training, and whether it learns in context."""

from icl_circuits.small.check import (
    KINDS as KINDS,
    right as right,
)
from icl_circuits.small.language import (
    Choice as Choice,
    Language as Language,
)
from icl_circuits.small.making import (
    train_small as train_small,
)
from icl_circuits.small.model import (
    Shape as Shape,
    SmallModel as SmallModel,
    write_checkpoint as write_checkpoint,
)
from icl_circuits.small.texts import (
    demonstrations as demonstrations,
    facts as facts,
    questions as questions,
    repeats as repeats,
    sentences as sentences,
    tasks as tasks,
)
from icl_circuits.small.training import (
    STEPS as STEPS,
    train as train,
)
