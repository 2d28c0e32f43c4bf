"""What can be run. `STUDIES` is the only list of it: commands, figures, files and pages follow from that.

The other names stand in `__init__.pyi`, and are imported on first use, so that listing the studies stays quick.
"""

import lazy_loader

from icl_circuits.studies.biases import BIASES
from icl_circuits.studies.circuit import CIRCUIT
from icl_circuits.studies.in_context import IN_CONTEXT
from icl_circuits.studies.study import Study
from icl_circuits.studies.towers import TOWERS

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

STUDIES: tuple[Study, ...] = (IN_CONTEXT, TOWERS, BIASES, CIRCUIT)
"""Every study, in the order of the commands and of the report."""
