"""What each family of heads is needed for: it is zeroed whole, without what it shares, and random heads for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, require_whole
from icl_circuits.heads.answers import require_first
from icl_circuits.heads.groups import random_heads
from icl_circuits.interventions import ZeroHeads
from icl_circuits.models import LensModel
from icl_circuits.patching import run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Head, HeadLike, all_heads, require_distinct_heads
from icl_circuits.stats import bootstrap_mean, mean_of

FamilyKind = Literal["base", "whole", "exclusive", "random_whole", "random_exclusive"]
"""`whole`: the family. `exclusive`: its heads that are in no other. `random_...`: as many random heads as those."""


@dataclass(frozen=True, repr=False)
class FamilyGroup(Displayed):
    """One group of zeroed heads, drawn once or several times, and the answers without them."""

    family: str | None
    """None: nothing is zeroed."""
    kind: FamilyKind
    draws: tuple[tuple[Head, ...], ...]
    """The heads of each draw; one draw but for random heads."""
    top1: Bool[np.ndarray, "draw prompt"]
    """The right answer is more probable than every other token."""
    log_prob: Float[np.ndarray, "draw prompt"]
    """Log-probability of the right answer, nats."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.kind} {self.family or ''}: top1 {self.top1.mean():.2f}, log_prob {self.log_prob.mean():.3g}"

    def to_frame(self) -> pd.DataFrame:
        """One row a draw and prompt."""
        draw, prompt = np.indices(self.top1.shape)
        where = {"draw": draw.ravel(), "prompt": prompt.ravel()}
        return pd.DataFrame({**where, "top1": self.top1.ravel(), "log_prob": self.log_prob.ravel()})


@dataclass(frozen=True, repr=False)
class FamilyEffects(Displayed):
    """Answers to the same prompts with nothing zeroed, and under each group of zeroed heads."""

    base: FamilyGroup
    groups: tuple[FamilyGroup, ...]
    """Of each family the four kinds, in the order of the families."""

    def of(self, family: str, kind: FamilyKind) -> FamilyGroup:
        """The group of a family and kind. Raises `KeyError` where there is none."""
        return {(group.family, group.kind): group for group in self.groups}[family, kind]

    @property
    def families(self) -> tuple[str, ...]:
        """The families, in their order."""
        return tuple(dict.fromkeys(group.family for group in self.groups if group.family is not None))

    @property
    def headline(self) -> str:
        """Its main number."""
        drops = np.array([self.base.log_prob.mean() - group.log_prob.mean() for group in self.groups])
        best = highest("log_prob_drop", drops, lambda i: f"{self.groups[i].kind} {self.groups[i].family}")
        return f"top1 {self.base.top1.mean():.2f}, {best}"

    def to_frame(self) -> pd.DataFrame:
        """One row a group: accuracy, log-probability and what is lost of it, with 95 % bootstrap intervals.

        Random heads are averaged over their draws within each prompt first.
        """
        rows = []
        for group in (self.base, *self.groups):
            row: dict[str, object] = {"family": group.family, "kind": group.kind, "n_heads": len(group.draws[0])}
            log_prob = group.log_prob.mean(axis=0)
            row |= mean_of(group.top1[0] if len(group.top1) == 1 else group.top1.mean(axis=0)).columns("top1")
            row |= bootstrap_mean(log_prob).columns("log_prob")
            row |= bootstrap_mean(self.base.log_prob[0] - log_prob).columns("log_prob_drop")
            rows.append(row)
        names = pd.Series([row["family"] for row in rows], dtype=object)  # an object column keeps None
        return pd.DataFrame(rows).assign(family=names)


def zero_families(
    model: LensModel,
    batch: TokenBatch,
    families: Mapping[str, Sequence[HeadLike]],
    *,
    n_random: int = 20,
    seed: int = 0,
) -> FamilyEffects:
    """Answer `batch` with each family of heads zeroed at every position, in the exact sweep engine.

    A family is zeroed whole, and without the heads that another family has too: what is lost then is its own. For both,
    as many random heads of the same layers, or the nearest, are zeroed. They are of no family. Yin and Steinhardt 2025
    (arXiv 2502.14010, section 4) compare families so, but put means in the place of heads.

    Args:
        model: the model.
        batch: the prompts.
        families: the heads of each family, by its name.
        n_random: draws of random heads, at least 1.
        seed: of the draws.

    Raises:
        InputError: no families, no draws, or fewer heads in no family than a family has. A family without heads, with a
            head twice, or with one that does not exist.
        Unfit: a model without per-head z, or labels that are scored whole.
    """
    if not families:
        raise InputError("there are no families of heads: give one or more")
    require_whole(n_random, 1, f"{n_random} draws of random heads make no control: ask for at least 1")
    require_first(batch, "zeroing families")
    found = {name: require_distinct_heads(model, heads) for name, heads in families.items()}
    in_any = {head for heads in found.values() for head in heads}
    free = tuple(head for head in all_heads(model) if head not in in_any)
    wanted: list[tuple[str, FamilyKind, list[tuple[Head, ...]]]] = []
    for i, (name, heads) in enumerate(found.items()):
        others = {head for other, theirs in found.items() if other != name for head in theirs}
        exclusive = tuple(head for head in heads if head not in others)
        draws = [random_heads((*heads, *free), heads, seed=(seed, i, draw)) for draw in range(n_random)]
        kept = [head not in others for head in heads]  # of a draw, what stands for the exclusive heads
        fewer = [tuple(head for head, keep in zip(draw, kept, strict=True) if keep) for draw in draws]
        wanted += [(name, "whole", [heads]), (name, "exclusive", [exclusive])]
        wanted += [(name, "random_whole", draws), (name, "random_exclusive", fewer)]
    variants = [(ZeroHeads(heads),) if heads else () for _, _, draws in wanted for heads in draws]
    run = run_each(model, batch, variants, ("top1", "log_prob"), description="zeroing families of heads")
    groups, start = [], 0
    for name, kind, draws in wanted:
        groups.append(_group(name, kind, draws, run.values[start : start + len(draws)]))
        start += len(draws)
    return FamilyEffects(_group(None, "base", [()], run.base[None]), tuple(groups))


def _group(
    name: str | None, kind: FamilyKind, draws: Sequence[tuple[Head, ...]], values: Float[Tensor, "draw prompt 2"]
) -> FamilyGroup:
    top1, log_prob = values.unbind(-1)
    return FamilyGroup(name, kind, tuple(draws), (top1 > 0).numpy(), log_prob.numpy())
