"""A circuit as a value: found edge by edge, tested alone and left out, exported."""

from icl_circuits.circuits.circuit import (
    Circuit as Circuit,
)
from icl_circuits.circuits.circuit import (
    reading_order as reading_order,
)
from icl_circuits.circuits.evaluate import (
    CURVES as CURVES,
)
from icl_circuits.circuits.evaluate import (
    CircuitTest as CircuitTest,
)
from icl_circuits.circuits.evaluate import (
    evaluate_circuit as evaluate_circuit,
)
from icl_circuits.circuits.evaluate import (
    minimality as minimality,
)
from icl_circuits.circuits.export import (
    to_json as to_json,
)
from icl_circuits.circuits.export import (
    to_mib as to_mib,
)
from icl_circuits.circuits.find import (
    find_circuit as find_circuit,
)
from icl_circuits.circuits.find import (
    score_edges as score_edges,
)
