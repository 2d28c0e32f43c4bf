"""Three levels of in-context learning: loss reduction, format compliance, pattern discovery."""

from icl_circuits.levels.built_in import (
    CATEGORIES as CATEGORIES,
    level_tasks as level_tasks,
)
from icl_circuits.levels.encoding import (
    level_batch as level_batch,
)
from icl_circuits.levels.loss import (
    LossReduction as LossReduction,
    loss_reduction as loss_reduction,
)
from icl_circuits.levels.measuring import (
    Level as Level,
    Levels as Levels,
    icl_levels as icl_levels,
)
from icl_circuits.levels.sampling import (
    level_prompts as level_prompts,
)
from icl_circuits.levels.task import (
    AnswerFormat as AnswerFormat,
    LevelTask as LevelTask,
    row_task as row_task,
)
