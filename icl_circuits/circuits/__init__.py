"""A circuit as a value: found edge by edge, tested alone and left out, exported."""

from icl_circuits.circuits.circuit import (
    Circuit as Circuit,
    reading_order as reading_order,
)
from icl_circuits.circuits.cut import (
    Queries as Queries,
    cut_edges as cut_edges,
)
from icl_circuits.circuits.evaluate import (
    CURVES as CURVES,
    CircuitTest as CircuitTest,
    evaluate_circuit as evaluate_circuit,
    minimality as minimality,
)
from icl_circuits.circuits.export import (
    node_of as node_of,
    plain_node as plain_node,
    to_json as to_json,
    to_mib as to_mib,
)
from icl_circuits.circuits.find import (
    find_circuit as find_circuit,
    score_edges as score_edges,
)
from icl_circuits.circuits.stand_ins import (
    mean_queries as mean_queries,
)
