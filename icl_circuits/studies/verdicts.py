"""Verdicts that results earn: a difference is one where its whole interval lies on one side of zero."""

from collections.abc import Sequence

import numpy as np

from icl_circuits.heads import FamilyEffects
from icl_circuits.stats import Interval, bootstrap_mean


def verdict(difference: Interval, *, above: str, below: str, neither: str) -> str:
    """The words for a difference whose interval lies above zero, below it, or about it.

    What is NaN lies about it, and so does what has no width: one prompt tells nothing.
    """
    if difference.low == difference.high:
        return neither
    return above if difference.low > 0 else below if difference.high < 0 else neither


def counted(n: int, of: int, what: str) -> str:
    """`3 of 12 heads`, `none of 12 heads`, `all 12 heads`."""
    return f"all {of} {what}" if n == of else f"{n or 'none'} of {of} {what}"


def begun_with_capital(sentence: str) -> str:
    """The sentence with its first letter large."""
    return sentence[:1].upper() + sentence[1:]


def largest(names: Sequence[str], values: Sequence[float] | np.ndarray) -> tuple[str, float]:
    """The name of the largest of some values, and the value; what is NaN is none."""
    place = int(np.nanargmax(np.asarray(values, dtype=np.float64)))
    return names[place], float(values[place])


def without_family(effects: FamilyEffects, family: str) -> str:
    """What zeroing a family of heads costs beyond random heads, on the same prompts."""
    base, own, random = (
        group.log_prob.mean(axis=0)
        for group in (effects.base, effects.of(family, "whole"), effects.of(family, "random_whole"))
    )
    lost, beyond = bootstrap_mean(base - own), bootstrap_mean(random - own)
    said = verdict(beyond, above="more than", below="less than", neither="about as much as")
    return f"Without the {family} heads {lost:.2f} nats are lost, {said} without random heads ({beyond:+.2f})."
