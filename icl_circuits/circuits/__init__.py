"""A circuit as a value: found edge by edge, tested alone and left out, kept in files."""

from icl_circuits.circuits.circuit import Circuit, Edge, Node
from icl_circuits.circuits.evaluate import CircuitTest, evaluate_circuit
from icl_circuits.circuits.find import find_circuit

__all__ = ["Circuit", "CircuitTest", "Edge", "Node", "evaluate_circuit", "find_circuit"]
