"""Attribution patching: a first-order guess at every cell of a sweep, or every edge, from a few backward passes.

The effect of a patch is guessed as gradient x difference, summed over the patched values (Nanda 2023; Syed et al. 2023,
arXiv 2310.10348). With several steps, gradients are averaged on the way from the base prompts' embeddings to those of
the second run (integrated gradients, Hanna et al. 2024, arXiv 2403.17806). It is cheap and can be wrong, sign included:
`agreement` says how wrong, against the exact sweep of the same prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as dc_replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions.context import answer_logits, embedding
from icl_circuits.interventions.hooks import HEAD_SITES, Hook, Patch, Positions, Site, hook_name
from icl_circuits.interventions.metrics import SMOOTH, Metric, from_logits, metric_name, require_metric
from icl_circuits.interventions.paths import Paths
from icl_circuits.interventions.replacement import PositionsName, Replacement, Resample, Run, Zero, source_of
from icl_circuits.interventions.routes import (
    Arrival,
    EdgeKind,
    HeadInput,
    NormKind,
    Passage,
    Sender,
    make_routes,
)
from icl_circuits.interventions.sweep import Sweep, grid
from icl_circuits.models import Head, LensModel
from icl_circuits.progress import progress
from icl_circuits.prompts import PromptBatch

PROMPT_TOKENS = 2048
"""A backward pass keeps every activation: prompts go through in parts of at most this many tokens."""


@dataclass(frozen=True)
class _Traced:
    """Start the graph at the embedding, moved by `shift`, and keep activations in it."""

    names: Sequence[str]
    shift: Float[Tensor, "batch pos d_model"] | None
    found: dict[str, Tensor] = field(default_factory=dict)

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""

        def start(x: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
            x = x.detach() if self.shift is None else x.detach() + self.shift
            return x.clone().requires_grad_()

        def keep(name: str) -> Hook:
            def run(activation: Tensor, hook: object) -> Tensor:
                self.found[name] = activation.view_as(activation)  # the Bridge goes on with what hooks return alone
                return self.found[name]

            return run

        return [("blocks.0.hook_resid_pre", start), *((name, keep(name)) for name in self.names)]


@dataclass(frozen=True)
class Gradients:
    """The base run's metric and activations, and the metric's gradient with respect to them, by hook name."""

    base: Float[Tensor, " batch"]
    activations: dict[str, Tensor]
    of: dict[str, Tensor]
    logit_scale: float


def gradients(
    model: LensModel, batch: PromptBatch, names: Sequence[str], metric: Metric, source: PromptBatch | None, steps: int
) -> Gradients:
    """One backward pass for each step: gradients at the base run, or their mean on the way to `source`'s embeddings."""
    shift = None if source is None else embedding(model, source.tokens) - embedding(model, batch.tokens)
    found: Gradients | None = None
    for step in range(steps):
        traced = _Traced(names, None if shift is None else shift * (step / steps))
        logits = answer_logits(model, batch, traced, grad=True)
        with torch.enable_grad():
            value = from_logits(metric, logits, batch)
        if value.ndim != 1 or not value.requires_grad:
            raise InputError("attribution needs a metric with a gradient and one value for each prompt")
        tensors = [traced.found[name] for name in names]
        with torch.enable_grad():
            parts = torch.autograd.grad(value.sum(), tensors, allow_unused=True) if tensors else ()
        now = {
            name: torch.zeros_like(tensor) if part is None else part / steps
            for name, tensor, part in zip(names, tensors, parts, strict=True)
        }
        if found is None:
            activations = {name: tensor.detach() for name, tensor in traced.found.items()}
            found = Gradients(value.detach(), activations, now, float(logits.detach().abs().max()))
        else:
            for name, part in now.items():
                found.of[name] += part
    assert found is not None
    return found


@torch.no_grad()
def attribute(
    model: LensModel,
    batch: PromptBatch,
    site: Site = "z",
    *,
    positions: PositionsName | Positions = "last",
    each: bool = False,
    replacement: Replacement | None = None,
    metric: Metric = "logit_diff",
    layers: Sequence[int] | None = None,
    steps: int = 1,
) -> Sweep:
    """What `sweep` with the same arguments would find, guessed by attribution patching.

    Args:
        model: the model.
        batch: the prompts of the base run.
        site: as for `sweep`.
        positions: as for `sweep`.
        each: as for `sweep`.
        replacement: as for `sweep`.
        metric: a smooth one: `logit_diff`, `log_prob`, `prob`, or a differentiable function.
        layers: as for `sweep`.
        steps: of integrated gradients; 1 takes the gradient at the base run. More need a second run of prompts of
            equal lengths to walk to: `Run(...)` or `Resample(...)`.

    Raises:
        InputError: a metric without a gradient, steps without a second run, and what `sweep` raises.
    """
    replacement = Zero() if replacement is None else replacement
    _require_smooth(metric)
    source = _walk_to(batch, replacement, steps)
    cells, patches = grid(model, batch, site, positions, each, replacement, layers)
    for patch in patches:
        patch.patches(model)  # raises what is wrong with it
    names = dict.fromkeys(name for p in patches for name in (_gradient_name(p), hook_name(site, p.layer)))
    bases, effects, scale = [], [], 0.0
    for start, stop in progress(list(batch.parts(PROMPT_TOKENS)), f"attributing to {site}"):
        rows = range(start, stop)
        found = gradients(model, batch.select(rows), list(names), metric, source and source.select(rows), steps)
        bases.append(found.base)
        effects.append(torch.stack([_first_order(patch.of_prompts(start, stop), found) for patch in patches]))
        scale = max(scale, found.logit_scale)
    base = torch.cat(bases)
    values = base + torch.cat(effects, 1)
    return Sweep(site, metric_name(metric), cells, base.cpu().numpy(), values.cpu().numpy(), scale)


@torch.no_grad()
def attribute_paths(
    model: LensModel,
    batch: PromptBatch,
    *,
    senders: Sequence[Sender] | None = None,
    receivers: Sequence[Head] | None = None,
    inputs: Sequence[HeadInput] = ("q",),
    logits: bool = False,
    positions: PositionsName | Positions = "last",
    replacement: Replacement | None = None,
    kind: EdgeKind = "direct",
    norm: NormKind = "exact",
    metric: Metric = "logit_diff",
    steps: int = 1,
) -> Paths:
    """What `path_patch` with the same arguments would find, guessed: edge attribution patching.

    The change of the receiver's input is exact, as in `path_patch` (with `norm="frozen"` it is linear in the sender's
    change, as in arXiv 2310.10348); what the model makes of it is guessed by the gradient. Changes of score and output
    are left NaN: `path_patch` has them.

    Args:
        model: the model.
        batch: the prompts of the base run.
        senders: as for `path_patch`.
        receivers: as for `path_patch`.
        inputs: as for `path_patch`.
        logits: as for `path_patch`.
        positions: as for `path_patch`.
        replacement: as for `path_patch`.
        kind: as for `path_patch`.
        norm: as for `path_patch`.
        metric: as for `attribute`.
        steps: as for `attribute`.

    Raises:
        InputError: what `attribute` and `path_patch` raise.
    """
    replacement = Zero() if replacement is None else replacement
    _require_smooth(metric)
    source = _walk_to(batch, replacement, steps)
    routes = make_routes(
        model,
        batch,
        senders=senders,
        receivers=receivers,
        inputs=inputs,
        logits=logits,
        positions=positions,
        replacement=replacement,
        kind=kind,
        norm=norm,
    )
    names = [hook_name(name, layer) for layer, wanted in routes.wanted.items() for name in wanted]
    bases, effects, scale = [], [], 0.0
    for start, stop in progress(list(routes.parts(None)), "attributing to paths"):
        rows = range(start, stop)
        passage = Passage(routes, start, stop)
        found = gradients(model, passage.base.batch, names, metric, source and source.select(rows), steps)
        parts = [_carried(passage, arrival, found, metric) for arrival in passage.arrivals()]
        bases.append(found.base)
        effects.append(torch.cat(parts))
        scale = max(scale, found.logit_scale)
    base, effect = torch.cat(bases), torch.cat(effects, 1)
    score = np.full((*effect.shape, batch.label_positions.shape[1]), np.nan, np.float32)
    output = np.full(effect.shape, np.nan, np.float32)
    return Paths(
        routes.edges,
        (metric_name(metric), kind, norm),
        base.cpu().numpy(),
        (base + effect).cpu().numpy(),
        score,
        output,
        scale,
    )


def _carried(passage: Passage, arrival: Arrival, found: Gradients, metric: Metric) -> Float[Tensor, "edge prompt"]:
    """Gradient x change of the input, for every edge of one arrival."""
    change = arrival.new - arrival.old
    if arrival.input is None:
        with torch.enable_grad():
            normed = arrival.old.detach().requires_grad_()
            value = from_logits(metric, passage.base.readout.unembed(normed), passage.base.batch)
            (gradient,) = torch.autograd.grad(value.sum(), normed)
        return (change * gradient).sum(-1)
    rows = torch.arange(len(passage.at), device=passage.at.device)[:, None]
    gradient = found.of[hook_name(arrival.input, arrival.layer)][rows, passage.at]
    by_head = torch.einsum("sbchd,bchd->shb", change, gradient)[:, list(arrival.heads)]
    return by_head.flatten(0, 1)


@dataclass(frozen=True)
class Agreement:
    """How far an approximation can be trusted: its mean effects against the exact ones, cell by cell."""

    cells: int
    rank_correlation: float
    """Spearman's."""
    sign_errors: float
    """Share of the cells with an effect (beyond rounding, 1e-6 of the logit scale) whose guess has another sign."""
    worst: str
    """The cell where it errs most."""
    worst_error: float
    """How much, in the metric's unit."""


def agreement(approximate: Sweep | Paths, exact: Sweep | Paths) -> Agreement:
    """Compare `attribute` with `sweep`, or `attribute_paths` with `path_patch`, on the same prompts.

    Raises:
        InputError: results of different places, prompts or metrics.
    """
    same_prompts = approximate.base.shape == exact.base.shape and np.allclose(
        approximate.base, exact.base, atol=1e-2 * exact.logit_scale
    )
    if _setting(approximate) != _setting(exact) or not same_prompts:
        raise InputError("the results are of other places, prompts or metrics: give both functions the same arguments")
    guess, truth = approximate.effect.mean(axis=1), exact.effect.mean(axis=1)
    some = np.abs(truth) > 1e-6 * exact.logit_scale
    error = np.abs(guess - truth)
    ranks = pd.DataFrame({"guess": guess, "truth": truth}).rank()
    return Agreement(
        cells=len(truth),
        rank_correlation=float(ranks["guess"].corr(ranks["truth"])),
        sign_errors=float((np.sign(guess) != np.sign(truth))[some].mean()) if some.any() else 0.0,
        worst=str((exact.edges if isinstance(exact, Paths) else exact.cells)[int(error.argmax())]),
        worst_error=float(error.max()),
    )


def _setting(result: Sweep | Paths) -> tuple[object, ...]:
    """What two results must share to be compared, besides their prompts."""
    if isinstance(result, Paths):
        return (result.edges, result.setting)
    return (result.cells, result.site, result.metric)


def _require_smooth(metric: Metric) -> None:
    require_metric(metric)
    if not callable(metric) and metric not in SMOOTH:
        raise InputError(f"metric {metric!r} is a count and has no gradient: use {', '.join(SMOOTH)} or a function")


def _walk_to(batch: PromptBatch, replacement: Replacement, steps: int) -> PromptBatch | None:
    """The second run that integrated gradients walk to, or None for a single step."""
    if steps < 1:
        raise InputError(f"steps is {steps}: give 1 or more")
    if steps == 1:
        return None
    if not isinstance(replacement, Run | Resample):
        raise InputError("integrated gradients walk to a second run: use Run(...) or Resample(...), or steps=1")
    source, n_pos = source_of(batch, replacement, "all"), batch.tokens.shape[1]
    padding = source.tokens[:, -1:].expand(-1, max(0, n_pos - source.tokens.shape[1]))
    return dc_replace(source, tokens=torch.cat([source.tokens, padding], 1)[:, :n_pos])


def _gradient_name(patch: Patch) -> str:
    """Where the gradient is taken: of resid_mid, where all of attn_out goes (its own hook point may be a dead end)."""
    return hook_name("attn_out" if patch.site == "resid_mid" else patch.site, patch.layer)


def _first_order(patch: Patch, found: Gradients) -> Float[Tensor, " prompt"]:
    """Gradient x difference, summed over the patched values of each prompt."""
    activation, gradient = found.activations[hook_name(patch.site, patch.layer)], found.of[_gradient_name(patch)]
    if patch.site in HEAD_SITES:
        axis = 1 if patch.site == "pattern" else 2
        activation, gradient = activation.select(axis, patch.head or 0), gradient.select(axis, patch.head or 0)
    if patch.positions is not None:
        rows = torch.arange(len(activation), device=activation.device)[:, None]
        positions = patch.positions.to(activation.device)
        activation, gradient = activation[rows, positions], gradient[rows, positions]
    return ((patch.value.to(activation) - activation) * gradient).flatten(1).sum(1)
