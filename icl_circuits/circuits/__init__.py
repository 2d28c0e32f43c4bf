"""A circuit as a value: found edge by edge, tested alone and left out, kept in files."""

from icl_circuits.circuits.circuit import Circuit, Edge, Node
from icl_circuits.circuits.evaluate import CURVES, CircuitTest, evaluate_circuit, minimality
from icl_circuits.circuits.find import find_circuit, score_edges

__all__ = [
    "CURVES",
    "Circuit",
    "CircuitTest",
    "Edge",
    "Node",
    "evaluate_circuit",
    "find_circuit",
    "minimality",
    "score_edges",
]
