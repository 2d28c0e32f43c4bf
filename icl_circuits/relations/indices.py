"""Relation indices as results: of every head, beside what other tokens than the tail would have."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, require_whole
from icl_circuits.heads import top_heads
from icl_circuits.residual import Head
from icl_circuits.stats import ALPHA, mean_of_finite

EDGES = np.linspace(0, 10, 101)
"""Of the histogram of ratios; what is above the last is counted in it."""


@dataclass(frozen=True, repr=False)
class RelationIndex(Displayed):
    """The relation index of every head, beside what other tokens than the tail would have; shares from 0 to 1."""

    relations: tuple[str, ...]
    tau: float
    index: Float[np.ndarray, "relation layer head"]
    """The mean over all triplets and positions that pass; NaN where none does."""
    n_passing: Int[np.ndarray, "relation layer head"]
    """How many pairs of a triplet and a position pass."""
    behind: Float[np.ndarray, "relation layer head"]
    """The index without the positions at which the later word of the triplet itself stands. At a tail, a head that
    copies the current token has an index without knowing any relation."""
    tenth: Float[np.ndarray, "relation layer head"]
    """The same of the text's 10th token in the tail's place, the paper's baseline."""
    random: Float[np.ndarray, "relation layer head"]
    """The same of the other tokens that the text has up to head and tail in the tail's place, the mean over them."""
    p: Float[np.ndarray, "relation layer head"]
    """The share of draws with as high an index, the draw at hand counted in; NaN where nothing passes."""
    p_fdr: Float[np.ndarray, "relation layer head"]
    """The same, corrected for having looked at all heads and relations (Benjamini and Hochberg)."""
    relation_of: Int[np.ndarray, " triplet"]
    text_of: Int[np.ndarray, " triplet"]
    """The text of each triplet: triplets of one text are no independent cases."""
    by_triplet: Float[np.ndarray, "triplet layer head"]
    """Each triplet's own mean over the positions that pass; NaN where none does."""
    taus: tuple[float, ...]
    """Other thresholds. The last is the ratio that 5 % exceed in this model, wherever a relation's head is attended to
    most."""
    by_tau: Float[np.ndarray, "tau relation layer head"]
    """The index at those."""
    ratios: Int[np.ndarray, " bin"]
    """How many ratios there are in each bin of `EDGES`, wherever the relation's head is attended to most."""

    def mean_of_triplets(self) -> Float[np.ndarray, "relation layer head"]:
        """The index if every triplet counts alike, however many positions pass."""
        rows = [self.by_triplet[self.relation_of == r] for r in range(len(self.relations))]
        return np.stack([mean_of_finite(values) for values in rows])

    def best_of_triplets(self) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
        """The triplets of which some head has a mean above zero, and the place of the best head among all heads."""
        flat = np.nan_to_num(self.by_triplet.reshape(len(self.by_triplet), -1))
        rows = np.flatnonzero(flat.max(axis=1, initial=0) > 0)
        return rows, flat[rows].argmax(axis=1)

    def best_heads(self) -> Int[np.ndarray, "relation layer head"]:
        """Of how many triplets each head has the highest mean, above zero: the paper's figures 10, 20 and 21."""
        _, n_layers, n_heads = self.by_triplet.shape
        counts = np.zeros((len(self.relations), n_layers * n_heads), dtype=np.int64)
        rows, best = self.best_of_triplets()
        np.add.at(counts, (self.relation_of[rows], best), 1)
        return counts.reshape(-1, n_layers, n_heads)

    def top(self, relation: str, n: int = 10, *, at_least: int = 10, at_most: float = ALPHA) -> tuple[Head, ...]:
        """The heads of the highest index of one relation, best first, of those that `salient` counts.

        Raises:
            InputError: a relation that there is not, or an `n` below 1.
        """
        require_whole(n, 1, f"n is {n}: give how many heads to name, 1 or more")
        if relation not in self.relations:
            raise InputError(f"relation {relation!r} is unknown: use one of {', '.join(self.relations)}")
        r = self.relations.index(relation)
        counted = (self.n_passing[r] >= at_least) & (self.p_fdr[r] <= at_most)
        return _best(np.where(counted, self.index[r], np.nan), n)

    def salient(self, n: int, *, at_least: int = 10, at_most: float = ALPHA) -> tuple[Head, ...]:
        """The heads of the highest index in any relation, best first: semantic induction heads.

        Args:
            n: how many at most.
            at_least: how many pairs of a triplet and a position must pass, so that a mean is one.
            at_most: the highest `p_fdr`.

        Raises:
            InputError: an `n` below 1.
        """
        require_whole(n, 1, f"n is {n}: give how many heads to name, 1 or more")
        counted = (self.n_passing >= at_least) & (self.p_fdr <= at_most)
        best = np.where(counted, self.index, 0.0).max(axis=0)
        return _best(np.where(best > 0, best, np.nan), n)

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("index", self.index, lambda r, *head: f"{Head(*head)}, {self.relations[r]}")

    def to_frame(self) -> pd.DataFrame:
        """One row a relation and head at which something passes, the highest index of a relation first."""
        names = ("index", "n_passing", "behind", "tenth", "random", "p", "p_fdr")
        relation, layer, head = np.nonzero(self.n_passing)
        where = {"relation": [self.relations[r] for r in relation], "layer": layer, "head": head}
        frame = pd.DataFrame(where | {name: getattr(self, name)[relation, layer, head] for name in names})
        frame["order"] = relation
        frame = frame.sort_values(["order", "index"], ascending=[True, False], ignore_index=True)
        return frame.drop(columns="order")

    def by_tau_frame(self, n: int = 10) -> pd.DataFrame:
        """One row a relation and threshold: how many of the `n` best heads at `tau` are among the `n` best at it.

        All heads at which something passes are counted, however little. `expected` is how many would be among them if
        the heads stood in a random order.

        Raises:
            InputError: an `n` below 1.
        """
        require_whole(n, 1, f"n is {n}: give how many heads to compare, 1 or more")
        rows = []
        for r, relation in enumerate(self.relations):
            best, n_passing = set(_best(self.index[r], n)), int(np.isfinite(self.index[r]).sum())
            for tau, values in zip(self.taus, self.by_tau, strict=True):
                here, n_here = _best(values[r], n), int(np.isfinite(values[r]).sum())
                row: dict[str, object] = {"relation": relation, "tau": tau, "shared": len(best & set(here))}
                row |= {"of": len(best), "expected": len(best) * len(here) / max(n_passing, n_here, 1)}
                rows.append(row | {"highest": float(np.nanmax(values[r])) if n_here else np.nan})
        return pd.DataFrame(rows)


def _best(index: Float[np.ndarray, "layer head"], n: int) -> tuple[Head, ...]:
    """The `n` heads of the highest index, of those that have one, best first."""
    return top_heads(index, min(n, int(np.isfinite(index).sum()))) if np.isfinite(index).any() else ()
