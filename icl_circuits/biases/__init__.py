"""The biases that the two-tower picture explains, and the interventions that reduce them (arXiv 2402.02872)."""

from icl_circuits.biases.choice import (
    Mitigation as Mitigation,
    choose as choose,
    mitigation as mitigation,
)
from icl_circuits.biases.majority import (
    AddWeightedValues as AddWeightedValues,
    MajorityBias as MajorityBias,
    add_minority_values as add_minority_values,
    majority_bias as majority_bias,
)
from icl_circuits.biases.measures import (
    MEASURES as MEASURES,
    PAPER as PAPER,
    BiasName as BiasName,
    Measure as Measure,
    Measured as Measured,
    measured as measured,
)
from icl_circuits.biases.recency import (
    RecencyBias as RecencyBias,
    arrangements as arrangements,
    recency_bias as recency_bias,
)
