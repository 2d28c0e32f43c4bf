"""Every name of the room, in the module it comes from."""

from .begun import (
    Begun as Begun,
    JobPrompts as JobPrompts,
    begin as begin,
    check as check,
    load_data as load_data,
    outline_spec as outline_spec,
    sample_job as sample_job,
)
from .every import STUDIES as STUDIES
from .files import (
    figures_of as figures_of,
    kinds_of as kinds_of,
    load_results as load_results,
    save_results as save_results,
)
from .loading import (
    Loaded as Loaded,
    load_spec as load_spec,
)
from .running import (
    Outcome as Outcome,
    begin_job as begin_job,
    resolved as resolved,
    run_job as run_job,
    run_studies as run_studies,
    steps_of as steps_of,
)
from .steps import Steps as Steps
from .study import (
    IN_CONTEXT_PROMPTS as IN_CONTEXT_PROMPTS,
    Beginning as Beginning,
    Body as Body,
    Study as Study,
    beginning_of as beginning_of,
)
