"""How the biases are measured, and each measure before and after a mitigation, beside random heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from icl_circuits.biases.choice import Mitigation, mitigation
from icl_circuits.biases.majority import MajorityBias
from icl_circuits.biases.recency import RecencyBias

BiasName = Literal["majority", "recency"]
How = Literal["chosen", "paper", "random"]
"""At the strength chosen on other prompts, the paper's, or the chosen one with random heads."""
PAPER: dict[BiasName, float] = {"majority": 0.03, "recency": 1.0}
"""The strengths of arXiv 2402.02872: the coefficient `a_c`, and no position at all."""


@dataclass(frozen=True)
class Measure:
    """One measure of a bias."""

    name: str
    statistic: Callable[..., Float[np.ndarray, " draw"]] | None = None
    """Of a bias, a strength and counts of the prompts; None: its `fluctuation`."""
    of_answers: bool = True
    """Whether it is taken of answers, which other heads change too, or of the attention of the heads themselves."""


MEASURES: dict[BiasName, tuple[Measure, ...]] = {
    "majority": (
        Measure("accuracy fluctuation, answers apart"),
        Measure("accuracy fluctuation, all prompts", MajorityBias.overall_fluctuation),
    ),
    "recency": (
        Measure("std of accuracy over orders"),
        Measure("std of attention over places", RecencyBias.attention_fluctuation, of_answers=False),
        Measure("the same over mean attention", RecencyBias.relative_attention_fluctuation, of_answers=False),
    ),
}
"""The first of each bias is its headline."""


@dataclass(frozen=True)
class Measured:
    """One bias by one measure under one mitigation."""

    bias: BiasName
    measure: str
    how: How
    found: Mitigation


def measured(
    name: BiasName,
    base: MajorityBias | RecencyBias,
    controls: Sequence[MajorityBias | RecencyBias],
    chosen: float,
) -> list[Measured]:
    """Every measure of a bias under its mitigations.

    Args:
        name: which bias.
        base: at strength 0, the paper's and the chosen one.
        controls: the same with random heads, at the chosen strength, or at the paper's where 0 was chosen.
        chosen: the strength chosen on other prompts.
    """
    n_prompts, paper = base.answers.top1.shape[-1], PAPER[name]
    own: list[tuple[How, Any, float]] = [("chosen", base, chosen), ("paper", base, paper)]
    random: list[tuple[How, Any, float]] = [("random", control, chosen or paper) for control in controls]
    rows = []
    for measure in MEASURES[name]:
        for how, bias, strength in (*own, *(random if measure.of_answers else ())):
            place = bias.strengths.index(strength)
            found = mitigation(base, bias, place, n_prompts, measure.statistic)
            rows.append(Measured(name, measure.name, how, found))
    return rows
