"""What the study says of its heads: its part of `results.json`, and the tables that a reader sees."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.report import with_ci95
from icl_circuits.stats import Interval
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.towers.paper import tokens_table
from icl_circuits.studies.towers.run import TowerFindings
from icl_circuits.towers import Measures, TowerReads
from icl_circuits.viz import Table

GROUPS = {"in_context_heads": "in context heads", "random_heads": "random heads"}


def summary(findings: TowerFindings, rows: Sequence[Measures], means: Mapping[str, Measures]) -> dict[str, Any]:
    """The study's part of `results.json`; `ci95` over prompts.

    Args:
        findings: what the study found.
        rows: what each selected head does (`head_measures`).
        means: what the heads of each group do on average (`HeadGroup.means`).
    """
    own, random = findings.own, findings.random
    towers = {
        name: {"n_heads": len(group.heads)} | with_ci95(means[name])
        for name, group in (("in_context_heads", own), ("random_heads", random))
    }
    flipping = None if own.reversed is None else int(own.reversed.flips.sum())
    return {"heads": [with_ci95(row) for row in rows], "towers": towers | {"flipping_pairs": flipping}}
