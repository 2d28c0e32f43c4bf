"""What can be run. `STUDIES` is the only list of it: commands, figures, files and pages follow from that.

The other names are imported on first use, so that listing the studies stays quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from icl_circuits.studies.biases import BIASES
from icl_circuits.studies.circuit import CIRCUIT
from icl_circuits.studies.in_context import IN_CONTEXT
from icl_circuits.studies.study import Body, Study
from icl_circuits.studies.towers import TOWERS

if TYPE_CHECKING:
    from icl_circuits.studies.begun import Begun, JobPrompts, begin, sample_job
    from icl_circuits.studies.files import figures_of, kinds_of, load_results
    from icl_circuits.studies.running import Outcome, load_data, load_spec, run_job, run_studies

STUDIES: tuple[Study, ...] = (IN_CONTEXT, TOWERS, BIASES, CIRCUIT)
"""Every study, in the order of the commands and of the report."""

_HOMES = {
    "begun": ("Begun", "JobPrompts", "begin", "sample_job"),
    "files": ("figures_of", "kinds_of", "load_results"),
    "running": ("Outcome", "load_data", "load_spec", "run_job", "run_studies"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BIASES",
    "CIRCUIT",
    "IN_CONTEXT",
    "STUDIES",
    "TOWERS",
    "Begun",
    "Body",
    "JobPrompts",
    "Outcome",
    "Study",
    "begin",
    "figures_of",
    "kinds_of",
    "load_data",
    "load_results",
    "load_spec",
    "run_job",
    "run_studies",
    "sample_job",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'icl_circuits.studies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"icl_circuits.studies.{_HOME_OF[name]}"), name)
