"""Heads that carry one type of knowledge: what zeroing them costs that type, and the others (tables 10 and 11)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.heads import LogProbIncrease, random_heads
from icl_circuits.interventions import ZeroHeads
from icl_circuits.models import LensModel
from icl_circuits.patching import run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Head, all_heads
from icl_circuits.stats import generator, relative_change
from icl_circuits.subvalues.effects import TARGET_MEASURES, target_measures

SHARE = 0.01
"""The share of the model's heads that is zeroed."""
HALVES = 2


@dataclass(frozen=True, repr=False)
class HeadsByType(Displayed):
    """Each type's heads, and every prompt answered without them.

    A type's heads are chosen on half of its prompts, for the other half, so that no prompt chooses its own.
    """

    types: tuple[str, ...]
    type_of: Int[np.ndarray, " prompt"]
    heads: tuple[tuple[tuple[Head, ...], ...], ...]
    """By type, and by the half of its prompts that they are zeroed on."""
    base: Float[np.ndarray, "prompt measure"]
    """Reciprocal rank, probability and log-probability of the answer, as in `NeuronEffects`."""
    zeroed: Float[np.ndarray, "type prompt measure"]
    """Without the heads of a type; on prompts of other types, the mean over both halves' heads."""
    random: Float[np.ndarray, "type prompt measure"]
    """Without as many random heads of the same layers."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"types {', '.join(self.types)}"

    def to_frame(self) -> pd.DataFrame:
        """One row a type of heads and a type of prompts: relative changes, with 95 % bootstrap intervals.

        `heads` is `own` or `random`; changes are shares of what the measure was (-0.5: halved).
        """
        rows = []
        for i, of_heads in enumerate(self.types):
            for kind, values in (("own", self.zeroed[i]), ("random", self.random[i])):
                for j, of_prompts in enumerate(self.types):
                    mine = self.type_of == j
                    row: dict[str, object] = {"heads_of": of_heads, "heads": kind, "prompts_of": of_prompts}
                    for m, measure in enumerate(TARGET_MEASURES[:2]):
                        change = relative_change(self.base[mine, m].astype(float), values[mine, m].astype(float))
                        row |= change.columns(measure)
                    rows.append(row)
        return pd.DataFrame(rows)


def heads_by_type(
    model: LensModel,
    batch: TokenBatch,
    increase: LogProbIncrease,
    types: tuple[str, ...],
    type_of: Int[np.ndarray, " prompt"],
    *,
    share: float = SHARE,
    seed: int = 0,
) -> HeadsByType:
    """Zero the heads with the highest log-probability increase on each type of prompts, and answer all prompts.

    Args:
        model: the model.
        batch: the prompts.
        increase: their `log_prob_increase`.
        types: the names of the types.
        type_of: each prompt's type, as a place in `types`.
        share: of the model's heads that is zeroed; at least one head is.
        seed: of the halves, and of the random heads.

    Raises:
        InputError: a type with fewer than two prompts, or a share that is none.
        Unfit: a model without per-head z.
    """
    if not 0 < share <= 1:
        raise InputError(f"share is {share}: give the share of the heads to zero, above 0 and up to 1")
    type_of = np.asarray(type_of)
    rng, every = generator(seed), all_heads(model)
    n_heads = max(1, round(share * len(every)))
    half = np.zeros(len(batch), dtype=np.int64)
    for i, name in enumerate(types):
        rows = np.flatnonzero(type_of == i)
        if len(rows) < HALVES:
            raise InputError(f"type {name!r} has {len(rows)} prompts: choosing heads on half of them takes 2 or more")
        half[rng.permutation(rows)[: len(rows) // 2]] = 1
    chosen, drawn = [], []
    for i in range(len(types)):
        for side in range(HALVES):
            means = increase.heads[(type_of == i) & (half != side)].mean(axis=0).flatten()
            chosen.append(tuple(every[place] for place in np.argsort(-means, kind="stable")[:n_heads]))
            drawn.append(random_heads(every, chosen[-1], seed=(seed, i, side)))
    variants = [(ZeroHeads(heads),) for heads in (*chosen, *drawn)]
    found = run_each(model, batch, variants, target_measures, description="zeroing heads of each type")
    both = found.values.numpy().reshape(2, len(types), HALVES, len(batch), len(TARGET_MEASURES))
    own = np.arange(len(types))[:, None] == type_of
    sides = np.take_along_axis(both, half[None, None, None, :, None], axis=2)[:, :, 0]
    zeroed, random = np.where(own[None, :, :, None], sides, both.mean(axis=2))
    heads = tuple(tuple(chosen[HALVES * i : HALVES * (i + 1)]) for i in range(len(types)))
    return HeadsByType(types, type_of, heads, found.base.numpy(), zeroed, random)
