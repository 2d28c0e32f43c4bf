"""The biases that the two-tower picture explains, and the interventions that reduce them (arXiv 2402.02872)."""

from icl_circuits.biases.choice import Mitigation, choose, mitigation
from icl_circuits.biases.majority import AddWeightedValues, MajorityBias, add_minority_values, majority_bias
from icl_circuits.biases.measures import MEASURES, PAPER, BiasName, Measure, Measured, measured
from icl_circuits.biases.recency import RecencyBias, arrangements, recency_bias

__all__ = [
    "MEASURES",
    "PAPER",
    "AddWeightedValues",
    "BiasName",
    "MajorityBias",
    "Measure",
    "Measured",
    "Mitigation",
    "RecencyBias",
    "add_minority_values",
    "arrangements",
    "choose",
    "majority_bias",
    "measured",
    "mitigation",
    "recency_bias",
]
