"""The exact sweep engine: many variants of a run for little more than the price of the run.

A patch in layer l at positions from p on changes nothing below l nor before p. So, from one cached base run, each
variant restarts at its lowest patched layer, at its first patched position, against the base run's keys and values;
all variants run together as rows of one batch, each joining it at its layer; in the last layer, and in the unembedding,
only the answer position is computed, and only the columns of targets and foils where the metric needs no others.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.interventions import (
    Intervention,
    KnockOut,
    Metric,
    Patch,
    ReplaceHeads,
    ZeroHeads,
    from_logits,
    of_base_run,
    require_metric,
)
from icl_circuits.models import TOKENS_AT_ONCE, LensModel, ModelShape, NotAlgebraError, engine_tolerance
from icl_circuits.patching.base_run import run_base
from icl_circuits.patching.bundles import Bundle, Changes, budget_on, into_bundles, run_bundle
from icl_circuits.patching.step import BaseRun
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import answer_logits
from icl_circuits.stats import generator

Variant = Sequence[Intervention]
"""Interventions that apply together: what one row of a sweep does to the model."""

PATCHES = (Patch, ZeroHeads, ReplaceHeads)
"""What the engine can carry out as patches; knock-outs of attention it carries out, too."""
PROMPT_TOKENS = TOKENS_AT_ONCE
"""Prompts are run in parts of at most this many tokens, and no more than the budget holds the base run of."""


@dataclass(frozen=True, repr=False)
class Variants(Displayed):
    """A metric under each of several variants, a value (or several) for each prompt."""

    base: Float[Tensor, "prompt *value"]
    """With nothing changed."""
    values: Float[Tensor, "variant prompt *value"]
    logit_scale: float
    """The largest absolute logit at the answer positions, with nothing changed: what exactness is relative to."""
    fallback: str | None = None
    """Why the engine could not be used, so that each variant took a forward pass of its own; None: it was used."""
    max_error: float | None = None
    """The largest difference from `run_with_hooks` in the logits of the variants that were checked; None: none were."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return self.fallback or "by the engine"

    def to_frame(self) -> pd.DataFrame:
        """One row a variant: the mean of its values and of what it changes, over prompts."""
        values, base = (array.detach().cpu().numpy().astype(float) for array in (self.values, self.base))
        changed = (values - base).reshape(len(values), -1)
        means = values.reshape(len(values), -1).mean(axis=1)
        return pd.DataFrame({"variant": np.arange(len(values)), "value": means, "effect": changed.mean(axis=1)})


@torch.no_grad()
def run_each(
    model: LensModel,
    batch: TokenBatch,
    variants: Sequence[Variant],
    metric: Metric = "logit_diff",
    *,
    budget: int | None = None,
    verify: int = 0,
    seed: int = 0,
    description: str = "variants",
) -> Variants:
    """Measure `metric` under each variant, exactly as `with intervene(model, *variant)` would, only faster.

    Variants made of `Patch`, `ZeroHeads`, `ReplaceHeads` and `KnockOut` run in the engine. Each variant takes a forward
    pass of its own where one holds anything else, or the model has hooks on it. So it does where the engine's equations
    do not give the model's own activations. A warning says why.

    Args:
        model: the model.
        batch: the prompts. Positions and values in the variants count its rows.
        variants: what to change, each a sequence of interventions that apply together; an empty one changes nothing.
        metric: a name, a tuple of names, or a function of the answer-position logits `[prompt d_vocab]` and their
            prompts. These may be a part of the batch: `rows` says which part.
        budget: bytes that a bundle of variants may take; default a quarter of what is free. On a GPU that runs out of
            memory all the same, bundles are halved until they fit.
        verify: how many variants, drawn at random, to check against the plain computation.
        seed: of that draw.
        description: of the progress bar.

    Returns:
        The metric with nothing changed `[prompt]` and under each variant `[variant prompt]`, on the CPU.

    Raises:
        InputError: a head, layer, position, shape or value that does not fit, or NaN logits. A checked variant that
            differs from the plain computation by more than 1e-4 of the logit scale. The bound is 1e-9 in float64, and
            16 times the dtype's `eps` in half precision.
        Unfit: the model lacks a site that a variant patches.
    """
    require_metric(metric)
    if not len(batch):
        raise InputError("there are no prompts to run: the batch is empty")
    if not 0 <= verify <= len(variants):
        raise InputError(f"verify is {verify}: give how many of the {len(variants)} variants to check")
    patches, why_not = _as_patches(model, batch, variants)
    if why_not is None:
        try:
            found = _run_each_in_engine(model, batch, patches, metric, budget, description)
        except NotAlgebraError as error:
            why_not = str(error)
    if why_not is not None:
        name, n_variants = model.cfg.model_name, len(variants)
        warnings.warn(f"{name!r} takes a forward pass for each of {n_variants} variants: {why_not}", stacklevel=2)
        return _run_each_plainly(model, batch, variants, metric, why_not, description)
    if not verify:
        return found
    return replace(found, max_error=_checked(model, batch, patches, found.logit_scale, verify, seed))


def _run_each_in_engine(
    model: LensModel,
    batch: TokenBatch,
    variants: Sequence[Changes],
    metric: Metric,
    budget: int | None,
    description: str,
) -> Variants:
    work: list[tuple[TokenBatch, Sequence[Changes], Bundle | None]] = []
    for start, stop in batch.parts(tokens_at_once(model, batch, budget)):
        prompts = batch.part(start, stop)
        cut = _of_prompts(variants, start, stop) if len(prompts) < len(batch) else variants
        work += [(prompts, cut, bundle) for bundle in (None, *into_bundles(model, prompts, cut, budget))]
    bases, values, scale = [], [], 0.0
    base: BaseRun | None = None
    for prompts, cut, bundle in tracked(work, description):
        if bundle is None:
            base = None  # goes before the next is made
            base = run_base(model, prompts)
            bases.append(of_base_run(metric, base.logits, prompts).cpu())
            values.append(bases[-1].expand(len(variants), *bases[-1].shape).clone())
            scale = max(scale, float(base.logits.abs().max()))
        elif base is not None:
            for rows, found in run_bundle(base, cut, bundle, metric):
                values[-1][list(rows)] = found
    return Variants(torch.cat(bases), torch.cat(values, 1), scale)


def tokens_at_once(model: LensModel, batch: TokenBatch, budget: int | None) -> int:
    """How many tokens' base run the budget holds."""
    n_pos = batch.tokens.shape[1]
    each = ModelShape.of(model.cfg).base_run(1, n_pos, model.unembed.W_U.element_size())
    return max(1, min(PROMPT_TOKENS, n_pos * (budget_on(batch.tokens.device, budget) // each)))


def _of_prompts(variants: Sequence[Changes], start: int, stop: int) -> list[Changes]:
    """The variants for some of the prompts. Patches that share a tensor of positions go on sharing one."""
    cut: dict[int, Tensor | None] = {}

    def of_prompts(change: Patch | KnockOut) -> Patch | KnockOut:
        if isinstance(change, KnockOut):
            return change.of_prompts(start, stop)
        shared = id(change.positions)
        if shared not in cut:
            cut[shared] = None if change.positions is None else change.positions[start:stop]
        return replace(change.of_prompts(start, stop), positions=cut[shared])

    return [tuple(of_prompts(change) for change in variant) for variant in variants]


def _run_each_plainly(
    model: LensModel, batch: TokenBatch, variants: Sequence[Variant], metric: Metric, why: str, description: str
) -> Variants:
    bases, scale = [], 0.0
    for start, stop in batch.parts(PROMPT_TOKENS):
        prompts = batch.part(start, stop)
        logits = answer_logits(model, prompts)
        bases.append(of_base_run(metric, logits, prompts).cpu())
        scale = max(scale, float(logits.abs().max()))
    base = torch.cat(bases)
    values = [plain_metric(model, batch, variant, metric) for variant in tracked(variants, description)]
    stacked = torch.stack(values) if values else base[None][:0]
    return Variants(base, stacked, scale, fallback=why)


def plain_metric(
    model: LensModel, batch: TokenBatch, variant: Variant, metric: Metric
) -> Float[Tensor, "prompt *value"]:
    """The metric under one variant by a forward pass with hooks: what the engine must reproduce."""
    patches = [patch for part in variant if isinstance(part, PATCHES) for patch in part.patches(model)]
    if any(not isinstance(part, PATCHES) for part in variant):  # positions of other interventions cannot be cut
        return from_logits(metric, answer_logits(model, batch, *variant), batch).cpu()
    values = []
    for start, stop in batch.parts(PROMPT_TOKENS):
        prompts = batch.part(start, stop)
        logits = answer_logits(model, prompts, *(patch.of_prompts(start, stop) for patch in patches))
        values.append(from_logits(metric, logits, prompts).cpu())
    return torch.cat(values)


def _checked(
    model: LensModel, batch: TokenBatch, variants: Sequence[Changes], scale: float, n: int, seed: int
) -> float:
    """The largest difference from `run_with_hooks` in the answer-position logits of `n` of the variants."""
    chosen = generator(seed).choice(len(variants), size=n, replace=False).tolist()
    ours = _run_each_in_engine(model, batch, [variants[row] for row in chosen], _logits, None, "checking").values
    limit = engine_tolerance(model.unembed.W_U.dtype) * scale
    worst = 0.0
    for row, logits in zip(chosen, ours, strict=True):
        error = float((plain_metric(model, batch, variants[row], _logits) - logits).abs().max())
        if not error <= limit:
            raise InputError(
                f"the logits of variant {row} differ from run_with_hooks by {error:.2g}, more than {limit:.2g}: this "
                "model cannot be swept exactly; run its variants one by one with intervene, and report it"
            )
        worst = max(worst, error)
    return worst


def _logits(logits: Tensor, batch: TokenBatch) -> Tensor:
    return logits


def _as_patches(model: LensModel, batch: TokenBatch, variants: Sequence[Variant]) -> tuple[list[Changes], str | None]:
    """The variants as patches and knock-outs, each place set by its last patch; or why some cannot be."""
    found = []
    for variant in variants:
        places: dict[tuple[object, ...], Patch | KnockOut] = {}
        for part in variant:
            if isinstance(part, KnockOut):
                part.hooks(model)  # raises what is wrong with it
                part.require_fit(batch.tokens.shape)
                places[KnockOut, id(part)] = part
                continue
            if not isinstance(part, PATCHES):
                return [], f"{type(part).__name__} is no patch"
            for patch in part.patches(model):
                patch.require_fit(model, batch.tokens.shape)
                place = patch.site, patch.layer, patch.head, id(patch.positions)
                places.pop(place, None)  # the last one counts, and comes last
                places[place] = patch
        found.append(tuple(places.values()))
    return found, None
