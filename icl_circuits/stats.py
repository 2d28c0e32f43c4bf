"""Seeded random numbers, and statistics over prompts."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from icl_circuits.errors import require_whole


def generator(*seed: int) -> np.random.Generator:
    """A random generator for a seed and, after it, the numbers that tell its uses apart.

    Raises:
        InputError: a negative number, or one that is not whole.
    """
    for number in seed:
        require_whole(number, 0, f"seed is {number}: give a whole number, 0 or more")
    return np.random.default_rng(seed)


class Interval(NamedTuple):
    """A mean and its 95 % interval, by bootstrap where nothing else is said.

    `f"{interval:.2f}"` reads `0.66 [0.53, 0.77]`.
    """

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def columns(self, name: str) -> dict[str, float]:
        """A table's columns `name`, `name_low` and `name_high`."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}

    @classmethod
    def in_row(cls, row: Any, name: str) -> "Interval":
        """The interval in the columns `name`, `name_low` and `name_high` of one row of a data frame."""
        return cls(row[name], row[f"{name}_low"], row[f"{name}_high"])

    @property
    def ends(self) -> list[float]:
        """Both ends, as `results.json` has them under `ci95`."""
        return [self.low, self.high]


class Intervals(NamedTuple):
    """The means of several rows and their 95 % bootstrap intervals."""

    mean: Float[np.ndarray, " row"]
    low: Float[np.ndarray, " row"]
    high: Float[np.ndarray, " row"]

    def of(self, row: int) -> Interval:
        """The interval of one row."""
        return Interval(*(float(part[row]) for part in (self.mean, self.low, self.high)))

    def columns(self, name: str) -> dict[str, Float[np.ndarray, " row"]]:
        """A table's columns `name`, `name_low` and `name_high`, a row each."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}

    @classmethod
    def in_frame(cls, frame: Any, name: str) -> "Intervals":
        """The intervals in the columns `name`, `name_low` and `name_high` of a data frame."""
        return cls(*(frame[column].to_numpy() for column in (name, f"{name}_low", f"{name}_high")))


DRAWS = 2000
"""Bootstrap resamples that an interval is taken over; always the same ones, of seed 0."""


AT_ONCE = 1 << 18
"""How many numbers of resamples, or of what is taken over them, are held at once: their memory stays the same."""


def resamples(n_prompts: int) -> Iterator[Float[np.ndarray, "draw prompt"]]:
    """Bootstrap resamples of the prompts in parts: how often each draw takes each prompt, whole numbers."""
    for counts in _parts_of((_counted_last if n_prompts > FEW else _counted_few)(n_prompts)):
        yield counts.astype(float)


def _counted(n_prompts: int) -> UInt8[np.ndarray, "draw prompt"]:
    """All resamples, narrow enough to be kept; no draw of more than 255 prompts takes one 256 times."""
    rng, counts = generator(0), np.empty((DRAWS, n_prompts), np.uint8)
    for part in _parts_of(counts):
        chosen = rng.integers(n_prompts, size=part.shape)
        part[:] = np.stack([np.bincount(row, minlength=n_prompts) for row in chosen])
    counts.setflags(write=False)  # shared by all who ask
    return counts


FEW = 1024
"""Resamples of so few prompts are kept for several numbers of prompts, of more for one."""
_counted_few, _counted_last = lru_cache(maxsize=4)(_counted), lru_cache(maxsize=1)(_counted)


def _parts_of(rows: Shaped[np.ndarray, "row prompt"], most: int | None = None) -> list[np.ndarray]:
    """The rows in parts of `AT_ONCE` numbers, or of `most` rows where these are fewer."""
    size = max(1, AT_ONCE // max(1, rows.shape[1]))
    size = size if most is None else min(size, most)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def bootstrap_means(values: Float[np.ndarray, "row prompt"]) -> Intervals:
    """`bootstrap_mean` of every row, on the same resamples of the prompts."""
    n_rows, n_prompts = values.shape
    if not n_prompts or not n_rows:
        nothing = np.full(n_rows, np.nan)
        return Intervals(nothing, nothing, nothing)
    ends = [np.quantile(_means_of_draws(part), [0.025, 0.975], axis=1) for part in _parts_of(values, 1024)]
    low, high = np.concatenate(ends, axis=1)
    mean = values.mean(axis=1)
    return Intervals(mean, np.minimum(low, mean), np.maximum(high, mean))  # sums in other orders round apart


def _means_of_draws(values: Float[np.ndarray, "row prompt"]) -> Float[np.ndarray, "row draw"]:
    n_prompts = values.shape[1]
    return np.concatenate([values @ counts.T / n_prompts for counts in resamples(n_prompts)], axis=1)


Statistic = Callable[[Float[np.ndarray, "draw prompt"]], Float[np.ndarray, " draw"]]
"""Of how often each of some draws takes each prompt: a number a draw, NaN where it has none."""


def bootstrap(statistic: Statistic, n_prompts: int) -> Interval:
    """Any statistic of counted prompts, with its 95 % percentile interval over resamples of the prompts.

    Resamples for which it is not finite are left out.
    """
    found = np.concatenate([statistic(counts) for counts in resamples(n_prompts)])
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (np.nan, np.nan)
    return Interval(float(statistic(each_once(n_prompts))[0]), float(low), float(high))


def each_once(n_prompts: int) -> Float[np.ndarray, "1 prompt"]:
    """One draw that takes every prompt once: the plain statistic."""
    return np.ones((1, n_prompts))


Counts = Float[np.ndarray, "draw prompt"] | None
"""How often each draw takes each prompt; None: one draw that takes each once."""


def weighted_mean(values: Float[np.ndarray, "*rows prompt"], counts: Counts) -> Float[np.ndarray, "*rows draw"]:
    """The mean over the prompts that each draw takes; NaN for a draw that takes none."""
    counts = each_once(values.shape[-1]) if counts is None else counts
    total = counts.sum(axis=1)
    found = values @ counts.T
    return np.divide(found, total, out=np.full(found.shape, np.nan), where=total > 0)


def relative_change(before: Float[np.ndarray, " prompt"], after: Float[np.ndarray, " prompt"]) -> Interval:
    """`(after - before) / |before|` of the means, with its 95 % bootstrap interval over prompts.

    NaN where there is no prompt, or where the interval of the mean before covers 0, so that nothing is relative to it.
    """
    base = bootstrap_mean(before)
    if not len(before) or base.low <= 0 <= base.high:
        return Interval(float("nan"), float("nan"), float("nan"))

    def change(counts: Float[np.ndarray, "draw prompt"]) -> Float[np.ndarray, " draw"]:
        means = weighted_mean(before, counts)
        return (weighted_mean(after, counts) - means) / np.where(means == 0, np.nan, np.abs(means))

    return bootstrap(change, len(before))


def bootstrap_mean(values: Float[np.ndarray, " prompt"]) -> Interval:
    """The mean of `values` with the 95 % percentile interval over resamples of the prompts; NaN if empty."""
    found = bootstrap_means(values[None])
    return Interval(float(found.mean[0]), float(found.low[0]), float(found.high[0]))


def false_discovery(p: Float[np.ndarray, "*tests"]) -> Float[np.ndarray, "*tests"]:
    """p-values corrected for having made all these tests: Benjamini and Hochberg's false-discovery rate.

    NaN is no test, and stays.
    """
    from scipy.stats import false_discovery_control  # a second of import that few need

    found, finite = np.full(p.shape, np.nan), np.isfinite(p)
    found[finite] = false_discovery_control(p[finite])
    return found


ALPHA = 0.05
"""Below this p-value, corrected for all that was looked at, something is said to be there."""


def corrected_above_zero(values: Float[np.ndarray, "row prompt"]) -> Float[np.ndarray, " row"]:
    """p-values that the mean of each row is not above 0, corrected for looking at all rows (`false_discovery`).

    Student's t-test over prompts, one-sided. NaN for fewer than 2 prompts. Prompts that all have one value, above 0,
    leave no doubt: 0.
    """
    from scipy.stats import t  # a second of import that few need

    n_rows, n_prompts = values.shape
    if n_prompts < 2:
        return np.full(n_rows, np.nan)
    values = values.astype(float)
    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(n_prompts)
    certain = np.where(mean > 0, np.inf, -np.inf)
    return false_discovery(t.sf(np.divide(mean, error, out=certain, where=error > 0), n_prompts - 1))


def mean_of_finite(values: Float[np.ndarray, "some *rest"]) -> Float[np.ndarray, "*rest"]:
    """The mean over the first axis of the values that there are; NaN where there is none."""
    counts = np.isfinite(values).sum(axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def student_interval(values: Float[np.ndarray, " seed"]) -> Interval:
    """The mean over seeds with its 95 % interval of Student's t; its ends are NaN for one seed."""
    from scipy.stats import t  # a second of import that few need

    n, mean = len(values), float(values.mean()) if len(values) else float("nan")
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Interval(mean, mean - half, mean + half)


def mean_of(values: Shaped[np.ndarray, " prompt"]) -> Interval:
    """The mean over prompts: `wilson` of hits and misses, `bootstrap_mean` of anything else."""
    return wilson(values) if values.dtype == bool else bootstrap_mean(values)


def wilson(hits: Bool[np.ndarray, " prompt"]) -> Interval:
    """The share of prompts that hit, with its 95 % Wilson interval, which no hits of 32 do not make `[0, 0]`.

    NaN if empty.
    """
    from scipy.stats import binomtest  # a second of import that few need

    if not len(hits):
        return Interval(float("nan"), float("nan"), float("nan"))
    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Interval(float(hits.mean()), float(found.low), float(found.high))
