"""Seeded random numbers, and statistics over prompts."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from icl_circuits.errors import InputError


def generator(*seed: int) -> np.random.Generator:
    """A random generator for a seed and, after it, the numbers that tell its uses apart.

    Raises:
        InputError: a negative number.
    """
    if min(seed) < 0:
        raise InputError(f"seed is {min(seed)}: give 0 or more")
    return np.random.default_rng(seed)


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Float[np.ndarray, " prompt"], *, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean of `values` with the 95 % percentile interval over `draws` resamples of the prompts; NaN if empty."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    rng = generator(seed)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
