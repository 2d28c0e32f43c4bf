"""Activation patching of a whole grid in one call: every head or layer, at positions together or one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, require_one_of
from icl_circuits.interventions import (
    Interchange,
    Metric,
    Patch,
    Positions,
    PositionsName,
    Replacement,
    Zero,
    metric_name,
    positions_of,
    source_of,
    values_at,
)
from icl_circuits.models import HEAD_SITES, LAYER_SITES, LensModel, Site, n_kv_heads, require_layer
from icl_circuits.patching.engine import run_each
from icl_circuits.prompts import TokenBatch
from icl_circuits.stats import bootstrap_means


class Cell(NamedTuple):
    """One patched place."""

    layer: int
    head: int | None
    """None for sites without heads; a key-value head for `k` and `v`."""
    position: int | None
    """Which of the chosen positions (of `labels`, the demonstration), or None where they are patched together."""

    def __str__(self) -> str:
        place = f"layer {self.layer}" if self.head is None else f"L{self.layer}H{self.head}"
        return place if self.position is None else f"{place} position {self.position}"


@dataclass(frozen=True, repr=False)
class Sweep(Displayed):
    """A metric with nothing patched, and with each cell patched in turn, a value for each prompt."""

    site: Site
    metric: str
    cells: tuple[Cell, ...]
    base: Float[np.ndarray, " prompt"]
    values: Float[np.ndarray, "cell prompt"]
    logit_scale: float
    """The largest absolute logit at the answer positions: what exactness is relative to."""
    fallback: str | None = None
    """Why the engine could not be used; None: it was used."""
    max_error: float | None = None
    """The largest difference from `run_with_hooks` among the cells that were checked; None: none were."""

    @property
    def effect(self) -> Float[np.ndarray, "cell prompt"]:
        """What each patch changes: `values - base`."""
        return self.values - self.base

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.site}, {self.metric}, {highest('effect', self.effect.mean(axis=1), self.cells.__getitem__)}"

    def to_frame(self) -> pd.DataFrame:
        """One row a cell: layer, head, position, mean value, mean effect and its 95 % bootstrap interval."""
        interval = bootstrap_means(self.effect)
        frame = pd.DataFrame(self.cells, columns=["layer", "head", "position"])
        return frame.astype({"head": "Int64", "position": "Int64"}).assign(
            value=self.values.mean(axis=1), **interval.columns("effect")
        )

    def grid(self) -> Float[np.ndarray, "layer place"]:
        """Mean effects as a map: a row a layer, a column a head and position (NaN where a layer was left out)."""
        places = sorted({(cell.head or 0, cell.position or 0) for cell in self.cells})
        column = {place: i for i, place in enumerate(places)}
        grid = np.full((max(cell.layer for cell in self.cells) + 1, len(places)), np.nan)
        for cell, effect in zip(self.cells, self.effect.mean(axis=1), strict=True):
            grid[cell.layer, column[cell.head or 0, cell.position or 0]] = effect
        return grid


def sweep(
    model: LensModel,
    batch: TokenBatch,
    site: Site = "z",
    *,
    positions: PositionsName | Positions = "last",
    each: bool = False,
    replacement: Replacement | None = None,
    metric: Metric = "logit_diff",
    layers: Sequence[int] | None = None,
    budget: int | None = None,
    verify: int = 0,
) -> Sweep:
    """Patch `site` in every layer (and head), one after another, and measure: exact, in the sweep engine.

    Args:
        model: the model.
        batch: the prompts of the base run.
        site: `z q k v pattern` of each head, or `resid_pre resid_mid resid_post attn_out mlp_out` of each layer.
        positions: `last`, `labels`, `all`, or `[batch chosen]`.
        each: patch the chosen positions one by one instead of together.
        replacement: what to put there: `Zero()` (default), `Mean(prompts)`, `Interchange(prompts)` or `Resample(seed)`.
        metric: a name, or a function of answer-position logits and their prompts with one value for each prompt. The
            prompts may be a part of the batch.
        layers: which layers; default all.
        budget: bytes for a bundle of cells; default a quarter of what is free.
        verify: how many cells, drawn at random, to check against `run_with_hooks`.

    Returns:
        The metric of every cell, `values [cell prompt]`, and of the base run, `base [prompt]`.

    Raises:
        InputError: what `run_each` and the replacement raise; a metric with several values for a prompt.
        Unfit: the model has no such site.
    """
    cells, patches = grid(model, batch, site, positions, each, Zero() if replacement is None else replacement, layers)
    found = run_each(
        model,
        batch,
        [(patch,) for patch in patches],
        metric,
        budget=budget,
        verify=verify,
        description=f"patching {site} in {len(cells)} places",
    )
    if found.base.ndim != 1:
        raise InputError(f"a sweep needs one value for each prompt, but the metric gave {list(found.base.shape[1:])}")
    base, values = found.base.numpy(), found.values.numpy()
    return Sweep(site, metric_name(metric), cells, base, values, found.logit_scale, found.fallback, found.max_error)


def grid(
    model: LensModel,
    batch: TokenBatch,
    site: Site,
    positions: PositionsName | Positions,
    each: bool,
    replacement: Replacement,
    layers: Sequence[int] | None,
) -> tuple[tuple[Cell, ...], list[Patch]]:
    """The cells of a sweep and the patch of each.

    Raises:
        InputError: an unknown site or layer, positions that do not fit, and what the replacement raises.
    """
    require_one_of(site, (*LAYER_SITES, *HEAD_SITES), "site")
    layers = range(model.cfg.n_layers) if layers is None else layers
    if not len(layers):
        raise InputError("layers is empty: name some, or leave it out for all")
    for layer in layers:
        require_layer(model, layer)
    heads: Sequence[int | None] = [None]
    if site in HEAD_SITES:
        heads = range(n_kv_heads(model) if site in ("k", "v") else model.cfg.n_heads)
    value_at = values_at(model, batch, replacement, [(site, layer) for layer in layers], positions)
    at = positions_of(batch, positions)
    first = 0
    if isinstance(replacement, Interchange) and isinstance(positions, str) and positions == "all":
        first = _first_difference(batch, source_of(batch, replacement, positions))
    columns = [slice(i, i + 1) for i in range(at.shape[1])] if each else [slice(first, None)]
    chosen = [at[:, column] for column in columns]
    cells, patches = [], []
    for layer in layers:
        for head in heads:
            value = value_at(site, layer, head)
            for i, column in enumerate(columns):
                cells.append(Cell(layer, head, i if each else None))
                part = value if value.ndim == 1 else value[:, column]
                patches.append(Patch(site, layer, part, chosen[i], head=head))
    return tuple(cells), patches


def _first_difference(batch: TokenBatch, source: TokenBatch) -> int:
    """The first position at which some prompt differs from its partner: before it, both runs are the same."""
    width = min(batch.tokens.shape[1], source.tokens.shape[1])
    differs = (batch.tokens[:, :width] != source.tokens[:, :width]).any(0)
    return int(differs.nonzero()[0]) if differs.any() else width - 1
