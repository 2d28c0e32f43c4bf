"""What the study computes: every checkpoint measured alike, and the last one without its semantic induction heads."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from icl_circuits.development import Development, Snapshot, development_of, measure
from icl_circuits.heads import FamilyEffects, top_heads, zero_families
from icl_circuits.residual import Head
from icl_circuits.studies.development.begun import RunBegun, step_of
from icl_circuits.studies.loading import Loaded

KINDS = (Development, FamilyEffects)
FAMILIES = ("dependency", "knowledge graph")
"""The kinds of semantic induction heads."""
RANDOM_DRAWS = 3
"""Of random heads beside each family."""


@dataclass(frozen=True)
class RunFindings:
    """What the study found."""

    runs: tuple[Development, ...]
    """One for each seed."""
    without: FamilyEffects | None
    """Prompts of demonstrations at the last checkpoint without its semantic induction heads; None: no head stands
    out."""


def compute(begun: RunBegun) -> RunFindings:
    """Measure every checkpoint of every seed; then zero semantic induction heads at the last one of the first.

    The knock-out is an extension: the paper removes no head.
    """
    runs = [development_of(_snapshots(begun, run), begun.yardsticks) for run in range(len(begun.runs))]
    kinds = np.cumsum([len(batch.relations) for batch in begun.yardsticks.relations])
    indices = np.split(runs[0].index[-1], kinds[:-1])
    families = {name: _salient(index, begun.settings.heads) for name, index in zip(FAMILIES, indices, strict=True)}
    families = {name: heads for name, heads in families.items() if heads}
    if not families:
        return RunFindings(tuple(runs), None)
    last = begun.loaded(begun.runs[0][-1])
    without = begun.step(
        "knock-out",
        lambda: zero_families(
            last.model, begun.yardsticks.prompts, families, n_random=RANDOM_DRAWS, seed=begun.settings.seed
        ),
        on=(last.identity, begun.step.digest, families),
    )
    return RunFindings(tuple(runs), without)


def _snapshots(begun: RunBegun, run: int) -> Iterator[tuple[int, Snapshot]]:
    """What each checkpoint of a run can do: a step each, so that none is measured twice."""
    for checkpoint in begun.runs[run]:
        yield (
            checkpoint.step,
            _snapshot(begun, begun.loaded(checkpoint), step_of(checkpoint)),
        )


def _snapshot(begun: RunBegun, loaded: Loaded, step: str) -> Snapshot:
    return begun.step(
        step, lambda: measure(loaded.model, begun.yardsticks), on=("checkpoint", loaded.identity, begun.step.digest)
    )


def _salient(index: Float[np.ndarray, "relation layer head"], n: int) -> tuple[Head, ...]:
    """The `n` heads of the highest index of any relation, with the argmax gate; of those with an index above zero."""
    highest = np.nan_to_num(index).max(axis=0)
    stand_out = int((highest > 0).sum())
    return top_heads(highest, min(n, stand_out)) if stand_out else ()
