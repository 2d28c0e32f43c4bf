"""Choose a mitigation's strength on some prompts, and say on others what it gains and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.stats import Counts, Interval, Statistic, bootstrap

TIED = 1e-12
"""Fluctuations this close are the same, and 0 if this close to 0."""


@runtime_checkable
class AnyBias(Protocol):
    """What `MajorityBias` and `RecencyBias` share."""

    @property
    def strengths(self) -> tuple[float, ...]:
        """The mitigation's strengths that were run."""
        ...

    def fluctuation(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """How much accuracy moves with what should not matter, at `strengths[strength]`, for each draw."""
        ...

    def accuracy(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """Plain accuracy on the same prompts."""
        ...


def choose(bias: AnyBias) -> int:
    """The index of the strength with the least fluctuation plus accuracy lost against the first strength, 0.

    Raises:
        InputError: the first strength is not 0.
    """
    require_plain_first(bias)
    lost = [np.maximum(bias.accuracy(0) - bias.accuracy(i), 0) for i in range(len(bias.strengths))]
    costs = np.array([float((bias.fluctuation(i) + lost[i])[0]) for i in range(len(bias.strengths))])
    return int(np.argmax(costs <= costs.min() + TIED))


def require_plain_first(bias: AnyBias) -> None:
    """Raise `InputError` unless the first strength is 0: what a mitigation is compared with."""
    if bias.strengths[0] != 0:
        raise InputError(f"the first strength is {bias.strengths[0]:g}: run 0, no mitigation, first")


@dataclass(frozen=True, repr=False)
class Mitigation(Displayed):
    """What a mitigation gains and costs, each with a 95 % bootstrap interval over prompts.

    A fluctuation is never negative, so noise alone makes it positive: compare it with the one after, not with 0.
    """

    strength: float
    before: Interval
    """Fluctuation without the mitigation."""
    after: Interval
    """Fluctuation with it."""
    reduction: Interval
    """`1 - after / before`: the share of the fluctuation that is gone, negative where it grew."""
    accuracy_before: Interval
    accuracy_after: Interval
    cost: Interval
    """Accuracy lost; negative where some is gained."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"strength {self.strength:g}, reduction {self.reduction:.2f}, accuracy lost {self.cost:.2f}"

    def to_frame(self) -> pd.DataFrame:
        """One row: every number with the ends of its interval."""
        columns: dict[str, float] = {"strength": self.strength}
        for name in ("before", "after", "reduction", "accuracy_before", "accuracy_after", "cost"):
            columns |= getattr(self, name).columns(name)
        return pd.DataFrame([columns])


def mitigation(
    base: AnyBias,
    mitigated: AnyBias,
    strength: int,
    n_prompts: int,
    statistic: Callable[[Any, int, Counts], Float[np.ndarray, " draw"]] | None = None,
) -> Mitigation:
    """Compare `mitigated` at `strengths[strength]` with `base` at its first strength, 0, on the same prompts.

    Args:
        base: without the mitigation.
        mitigated: with it; may be `base` itself, or the same with other heads.
        strength: index into `mitigated.strengths`.
        n_prompts: how many prompts both were run on.
        statistic: of a bias, a strength and counts of the prompts; default its `fluctuation`.

    Raises:
        InputError: the first strength of `base` is not 0.
    """
    require_plain_first(base)
    of = statistic or (lambda bias, i, counts: bias.fluctuation(i, counts))

    def over_prompts(value: Statistic) -> Interval:
        return bootstrap(value, n_prompts)

    def reduction(counts: Float[np.ndarray, "draw prompt"]) -> Float[np.ndarray, " draw"]:
        before, after = of(base, 0, counts), of(mitigated, strength, counts)
        return 1 - np.divide(after, before, out=np.full_like(before, np.nan), where=before > TIED)

    return Mitigation(
        mitigated.strengths[strength],
        over_prompts(lambda counts: of(base, 0, counts)),
        over_prompts(lambda counts: of(mitigated, strength, counts)),
        over_prompts(reduction),
        over_prompts(lambda counts: base.accuracy(0, counts)),
        over_prompts(lambda counts: mitigated.accuracy(strength, counts)),
        over_prompts(lambda counts: base.accuracy(0, counts) - mitigated.accuracy(strength, counts)),
    )
