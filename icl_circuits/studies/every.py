"""Every study of the package. Nothing that a study needs is imported."""

from icl_circuits.studies.biases import BIASES
from icl_circuits.studies.circuit import CIRCUIT
from icl_circuits.studies.development import DEVELOPMENT
from icl_circuits.studies.in_context import IN_CONTEXT
from icl_circuits.studies.relations import RELATIONS
from icl_circuits.studies.study import Study
from icl_circuits.studies.subvalues import SUBVALUES
from icl_circuits.studies.towers import TOWERS

STUDIES: tuple[Study, ...] = (IN_CONTEXT, TOWERS, BIASES, CIRCUIT, SUBVALUES, RELATIONS, DEVELOPMENT)
"""Every study, in the order of the commands and of the report."""
