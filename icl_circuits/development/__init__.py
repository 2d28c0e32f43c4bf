"""In-context learning as it forms: what heads and models can do, checkpoint by checkpoint (arXiv 2402.13055)."""

from icl_circuits.development.measuring import (
    Development as Development,
    Snapshot as Snapshot,
    Yardsticks as Yardsticks,
    develop as develop,
    development_of as development_of,
    measure as measure,
)
from icl_circuits.development.timing import (
    Curve as Curve,
    alike as alike,
    co_timing as co_timing,
    curves as curves,
    emergence as emergence,
    half_rise as half_rise,
)
