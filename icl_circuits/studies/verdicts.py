"""Verdicts that results earn: a difference is one where its whole interval lies on one side of zero."""

from collections.abc import Sequence

import numpy as np

from icl_circuits.stats import Interval


def verdict(difference: Interval, *, above: str, below: str, neither: str) -> str:
    """The words for a difference whose interval lies above zero, below it, or about it; what is NaN lies about it."""
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
