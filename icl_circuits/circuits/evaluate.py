"""Faithfulness, completeness and minimality of a circuit's heads, as curves over size (Wang et al., arXiv 2211.00593).

A head outside is ablated: its z becomes its mean over reference prompts, at every position. MLPs stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from icl_circuits.errors import InputError
from icl_circuits.interventions import Metric, ReplaceHeads, mean_z, metric_name, run_each
from icl_circuits.models import Head, LensModel, all_heads, require_some_heads
from icl_circuits.prompts import PromptBatch
from icl_circuits.stats import Statistic, bootstrap, bootstrap_means, generator

CURVES = ("circuit", "complement", "random")
"""The first heads alone, all others alone, and as many random heads alone."""


@dataclass(frozen=True)
class CircuitTest:
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
    without: Float[np.ndarray, "selected prompt"]
    """The whole circuit, less each head in turn."""

    @property
    def necessity(self) -> Float[np.ndarray, "selected prompt"]:
        """What each head adds to the circuit: the circuit's metric less that without the head (minimality)."""
        return self.values[0, -1] - self.without

    def to_frame(self) -> pd.DataFrame:
        """One row a curve and size: the metric and the share of the model's, `(F(C) - F(0)) / (F(M) - F(0))`, with
        95 % bootstrap intervals over prompts.

        `circuit` is faithfulness; `complement` completeness: what is left without the circuit.
        """
        rows = []
        for curve, values in zip(CURVES, self.values, strict=True):
            for size, of_prompts in zip(self.sizes, values, strict=True):
                mean = bootstrap(_mean(of_prompts), len(self.whole))
                share = bootstrap(self._share(of_prompts), len(self.whole))
                row: dict[str, object] = {"curve": curve, "size": size, self.metric: mean.mean}
                row |= {f"{self.metric}_low": mean.low, f"{self.metric}_high": mean.high}
                rows.append(row | {"share": share.mean, "share_low": share.low, "share_high": share.high})
        return pd.DataFrame(rows)

    def minimality(self) -> pd.DataFrame:
        """One row a head: what the circuit loses without it, with its 95 % bootstrap interval over prompts."""
        interval = bootstrap_means(self.necessity)
        return pd.DataFrame(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.head for head in self.heads],
                "loss": interval.mean,
                "loss_low": interval.low,
                "loss_high": interval.high,
            }
        )

    def _share(self, values: Float[np.ndarray, " prompt"]) -> Statistic:
        def share(weights: Float[np.ndarray, "draw prompt"]) -> Float[np.ndarray, " draw"]:
            whole, empty = weights @ self.whole, weights @ self.empty
            gap = whole - empty
            return np.divide(weights @ values - empty, gap, out=np.full_like(gap, np.nan), where=gap != 0)

        return share


def _mean(values: Float[np.ndarray, " prompt"]) -> Statistic:
    return lambda weights: weights @ values


@torch.no_grad()
def evaluate_circuit(
    model: LensModel,
    batch: PromptBatch,
    reference: PromptBatch,
    heads: Sequence[Head],
    *,
    sizes: Sequence[int] | None = None,
    metric: Metric = "logit_diff",
    seed: int = 0,
    budget: int | None = None,
) -> CircuitTest:
    """Run the circuit alone, its complement alone, and the circuit less each head.

    Args:
        model: the model.
        batch: prompts to test on.
        reference: other prompts, over which ablated heads take their mean.
        heads: ranked, best first.
        sizes: how many of them make a circuit; default powers of 2 up to all of them.
        metric: a name, or a function with one value for each prompt.
        seed: of the random heads.
        budget: bytes for a chunk of variants; default a quarter of what is free.

    Raises:
        InputError: a head twice or one that does not exist, a size outside 1..len(heads), or what `run_each` raises.
    """
    heads = require_some_heads(model, heads)
    if len(set(heads)) < len(heads):
        raise InputError("a head is named twice: rank each once")
    chosen = sorted({*(sizes if sizes is not None else _powers(len(heads))), len(heads)})
    if not 1 <= chosen[0] <= chosen[-1] <= len(heads):
        raise InputError(f"sizes {chosen} do not fit: give sizes between 1 and {len(heads)}, the number of heads")
    every = all_heads(model)
    mean = mean_z(model, reference, every)
    shuffled = [every[i] for i in generator(seed).permutation(len(every))]

    def only(kept: Sequence[Head]) -> tuple[ReplaceHeads, ...]:
        out = {head: value for head, value in mean.items() if head not in set(kept)}
        return (ReplaceHeads(out),) if out else ()

    def less(left_out: Sequence[Head]) -> tuple[ReplaceHeads, ...]:
        return (ReplaceHeads({head: mean[head] for head in left_out}),)

    variants = [
        *(only(heads[:size]) for size in chosen),
        *(less(heads[:size]) for size in chosen),
        *(only(shuffled[:size]) for size in chosen),
        *(only([other for other in heads if other != head]) for head in heads),
        less(every),
    ]
    run = run_each(model, batch, variants, metric, budget=budget, description="circuits alone and left out")
    values, n = run.values.numpy(), len(chosen)
    curves = values[: 3 * n].reshape(3, n, -1)
    return CircuitTest(
        heads, tuple(chosen), metric_name(metric), run.base.numpy(), values[-1], curves, values[3 * n : -1]
    )


def _powers(n_heads: int) -> list[int]:
    return [1 << i for i in range(n_heads.bit_length()) if 1 << i <= n_heads]
