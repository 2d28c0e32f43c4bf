"""Families of heads beside each other: what they share, more than by chance or not (hypergeometric test)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, require_whole
from icl_circuits.residual import Head, HeadLike, heads_of


@dataclass(frozen=True, repr=False)
class Overlap(Displayed):
    """What each two of some families share, a value a pair."""

    pairs: tuple[tuple[str, str], ...]
    n_all: int
    """How many heads there are to choose families from."""
    sizes: Int[np.ndarray, "pair 2"]
    """How many heads each of the two has."""
    shared: Int[np.ndarray, " pair"]
    jaccard: Float[np.ndarray, " pair"]
    """Shared heads over the heads of either, a share."""
    expected: Float[np.ndarray, " pair"]
    """How many two random families of these sizes share, on average."""
    p: Float[np.ndarray, " pair"]
    """Probability that random families of these sizes share as many or more."""
    p_holm: Float[np.ndarray, " pair"]
    """The same, corrected for the number of pairs (Holm 1979)."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("jaccard", self.jaccard, lambda pair: " and ".join(self.pairs[pair]))

    def to_frame(self) -> pd.DataFrame:
        """One row a pair: both families, their sizes, what they share, and how likely that is by chance."""
        first, second = zip(*self.pairs, strict=True)
        columns = {"family": first, "other": second, "n_family": self.sizes[:, 0], "n_other": self.sizes[:, 1]}
        names = ("shared", "jaccard", "expected", "p", "p_holm")
        return pd.DataFrame(columns | {name: getattr(self, name) for name in names})


def overlap(families: Mapping[str, Sequence[HeadLike]], n_all: int) -> Overlap:
    """Compare families of heads two by two.

    Random families are drawn from all heads without regard to layers, so `p` is of the hypergeometric distribution. It
    is computed exactly.

    Args:
        families: the heads of each family, by its name; two or more families.
        n_all: how many heads there are to choose from: all of the model's, say.

    Raises:
        InputError: fewer than two families, one without heads, a head twice in one, or more heads than `n_all`.
    """
    if len(families) < 2:
        raise InputError(f"families are {list(families)}: give two or more to compare")
    found = {name: heads_of(heads) for name, heads in families.items()}
    sets = {name: set(heads) for name, heads in found.items()}
    for name, heads in found.items():
        if not heads or len(sets[name]) < len(heads):
            raise InputError(f"family {name!r} has {len(heads)} heads, {len(sets[name])} different: give each once")
    in_any = len(set().union(*sets.values()))
    require_whole(n_all, in_any, f"n_all is {n_all}, but the families have {in_any} heads: count all that could be in")
    pairs = tuple(combinations(sets, 2))
    sizes = np.array([[len(sets[name]) for name in pair] for pair in pairs])
    shared = np.array([len(sets[one] & sets[other]) for one, other in pairs])
    p = np.array([_at_least(int(k), int(a), int(b), n_all) for k, (a, b) in zip(shared, sizes, strict=True)])
    jaccard, expected = shared / (sizes.sum(axis=1) - shared), sizes.prod(axis=1) / n_all
    return Overlap(pairs, n_all, sizes, shared, jaccard, expected, p, _holm(p))


def top_heads(scores: Float[np.ndarray, "layer head"], n: int) -> tuple[Head, ...]:
    """The `n` heads with the highest scores, highest first: a family. Heads without a score (NaN) come last.

    Raises:
        InputError: no number from 1 to that of the heads.
    """
    if not 1 <= n <= scores.size:
        raise InputError(f"cannot take the top {n} heads: ask for 1 to {scores.size}")
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), axis=None, kind="stable")[:n]
    return tuple(Head(*divmod(int(place), scores.shape[1])) for place in order)


def _at_least(shared: int, one: int, other: int, n_all: int) -> float:
    """The hypergeometric probability that random sets of `one` and `other` of `n_all` share `shared` or more."""
    ways = sum(comb(one, k) * comb(n_all - one, other - k) for k in range(shared, min(one, other) + 1))
    return ways / comb(n_all, other)


def _holm(p: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
    """Holm's step-down correction: the i-th smallest of m times m - i, never below a smaller one's, 1 at most."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return corrected
