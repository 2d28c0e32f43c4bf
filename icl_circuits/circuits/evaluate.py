"""Faithfulness, completeness and minimality of a circuit's heads, as curves over size.

A head outside is ablated: its z becomes its mean over all positions of reference prompts. MLPs stay. Shares and the two
curves are those of Marks et al. 2024 (arXiv 2403.19647), whose circuits are of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.interventions import Metric, ReplaceHeads, mean_z, metric_name
from icl_circuits.models import LensModel
from icl_circuits.patching import run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Head, HeadLike, all_heads, require_distinct_heads
from icl_circuits.stats import Interval, Statistic, bootstrap, bootstrap_means, generator, weighted_mean

CURVES = ("circuit", "complement", "random")
"""The first heads alone, all others alone, and as many random heads alone, mean over draws."""


@dataclass(frozen=True, repr=False)
class CircuitTest(Displayed):
    """The metric with only some heads left as they are, a value for each prompt."""

    heads: tuple[Head, ...]
    """Ranked: a circuit of size n is the first n."""
    sizes: tuple[int, ...]
    metric: str
    whole: Float[np.ndarray, " prompt"]
    """With every head."""
    empty: Float[np.ndarray, " prompt"]
    """With every head ablated."""
    values: Float[np.ndarray, "curve size prompt"]
    """Axis 0 as in `CURVES`."""

    @property
    def headline(self) -> str:
        """Its main number."""
        whole, empty = self.whole.mean(), self.empty.mean()
        return f"head={len(self.heads)}, {self.metric} with all {whole:.3g}, with none {empty:.3g}"

    def to_frame(self) -> pd.DataFrame:
        """One row a curve and size: the metric, and `share = (F(C) - F(0)) / (F(M) - F(0))`, how much it is of the
        model's, with 95 % bootstrap intervals over prompts.

        `circuit` is faithfulness; `complement` completeness: what is left without the circuit. A share is NaN where
        the interval of `F(M) - F(0)` covers 0, so that nothing is relative to it.
        """
        means = bootstrap_means(self.values.reshape(-1, len(self.whole)))
        gap = bootstrap_means((self.whole - self.empty)[None])
        known = gap.low[0] * gap.high[0] > 0
        rows = []
        for i, (curve, size) in enumerate((curve, size) for curve in CURVES for size in self.sizes):
            values = self.values.reshape(-1, len(self.whole))[i]
            share = bootstrap(self._share(values), len(self.whole)) if known else Interval(np.nan, np.nan, np.nan)
            row: dict[str, object] = {"curve": curve, "size": size}
            rows.append(row | means.of(i).columns(self.metric) | share.columns("share"))
        return pd.DataFrame(rows)

    def _share(self, values: Float[np.ndarray, " prompt"]) -> Statistic:
        def share(counts: Float[np.ndarray, "draw prompt"]) -> Float[np.ndarray, " draw"]:
            found, whole, empty = (weighted_mean(part, counts) for part in (values, self.whole, self.empty))
            gap = whole - empty
            return np.divide(found - empty, gap, out=np.full_like(gap, np.nan), where=gap != 0)

        return share


@torch.no_grad()
def evaluate_circuit(
    model: LensModel,
    batch: TokenBatch,
    reference: TokenBatch,
    heads: Sequence[HeadLike],
    *,
    sizes: Sequence[int] | None = None,
    n_random: int = 3,
    metric: Metric = "logit_diff",
    seed: int = 0,
    budget: int | None = None,
) -> CircuitTest:
    """Run the first heads alone, and the model without them.

    Args:
        model: the model.
        batch: prompts to test on.
        reference: other prompts, over which ablated heads take their mean.
        heads: ranked, best first.
        sizes: how many of them make a circuit; default powers of 2 and all of them.
        n_random: draws of random heads, at least 1.
        metric: a name, or a function with one value for each prompt.
        seed: of the draws.
        budget: bytes for a bundle of variants; default a quarter of what is free.

    Raises:
        InputError: a head twice or one that does not exist, no draws, a size outside 1..len(heads), or what `run_each`
            raises.
    """
    heads = require_distinct_heads(model, heads)
    powers = [1 << i for i in range(len(heads).bit_length()) if 1 << i < len(heads)]
    chosen = sorted({*powers, len(heads)} if sizes is None else set(sizes))
    if not chosen or not 1 <= chosen[0] <= chosen[-1] <= len(heads):
        raise InputError(f"sizes {chosen} do not fit: give sizes between 1 and {len(heads)}, the number of heads")
    if n_random < 1:
        raise InputError(f"{n_random} draws of random heads make no control: ask for at least 1")
    every = all_heads(model)
    mean = mean_z(model, reference, every)
    orders = [[every[i] for i in generator(seed, draw).permutation(len(every))] for draw in range(n_random)]
    kept = [
        *(heads[:size] for size in chosen),
        *(_others(every, heads[:size]) for size in chosen),
        *(order[:size] for order in orders for size in chosen),
        (),
    ]
    run = run_each(model, batch, [_only(part, mean) for part in kept], metric, budget=budget, description="heads alone")
    values, n = run.values.numpy(), len(chosen)
    random = values[2 * n : -1].reshape(n_random, n, -1).mean(axis=0)
    curves = np.stack([values[:n], values[n : 2 * n], random])
    return CircuitTest(heads, tuple(chosen), metric_name(metric), run.base.numpy(), values[-1], curves)


@torch.no_grad()
def minimality(
    model: LensModel,
    batch: TokenBatch,
    reference: TokenBatch,
    heads: Sequence[HeadLike],
    *,
    metric: Metric = "logit_diff",
    budget: int | None = None,
) -> pd.DataFrame:
    """What the circuit loses without each of its heads.

    Args:
        model: the model.
        batch: prompts to test on.
        reference: other prompts, over which ablated heads take their mean.
        heads: the circuit; all others are ablated.
        metric: a name, or a function with one value for each prompt.
        budget: bytes for a bundle of variants; default a quarter of what is free.

    Returns:
        One row a head: its layer and head, `loss`, in the metric's unit, and its 95 % bootstrap interval over prompts.

    Raises:
        InputError: a head twice or one that does not exist, or what `run_each` raises.
    """
    heads = require_distinct_heads(model, heads)
    mean = mean_z(model, reference, all_heads(model))
    variants = [_only(heads, mean), *(_only(_others(heads, [head]), mean) for head in heads)]
    whole, *without = run_each(
        model, batch, variants, metric, budget=budget, description="heads left out"
    ).values.numpy()
    frame = pd.DataFrame(heads, columns=["layer", "head"])
    return frame.assign(**bootstrap_means(whole - np.stack(without)).columns("loss"))


def _others(heads: Sequence[Head], out: Sequence[Head]) -> tuple[Head, ...]:
    return tuple(head for head in heads if head not in set(out))


def _only(kept: Sequence[Head], mean: dict[Head, Float[torch.Tensor, " d_head"]]) -> tuple[ReplaceHeads, ...]:
    """The intervention that ablates all but `kept`."""
    out = {head: value for head, value in mean.items() if head not in set(kept)}
    return (ReplaceHeads(out),) if out else ()
