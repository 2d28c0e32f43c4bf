"""Attribution patching: a first-order guess at every cell of a sweep, or every edge, from a few backward passes.

The effect of a patch is guessed as gradient x difference, summed over the patched values (Nanda 2023; Syed et al. 2023,
arXiv 2310.10348). With several steps, gradients are averaged on the way from the base prompts' embeddings to those of
the second run (integrated gradients, Hanna et al. 2024, arXiv 2403.17806). It is cheap and can be wrong, sign included:
`agreement` says how wrong, against the exact sweep of the same prompts.
"""

from collections.abc import Sequence
from dataclasses import replace as dc_replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions import (
    SMOOTH,
    Interchange,
    Metric,
    Patch,
    Positions,
    PositionsName,
    Replacement,
    Resample,
    Zero,
    from_logits,
    metric_name,
    require_metric,
    source_of,
)
from icl_circuits.models import HEAD_SITES, LensModel, Place, Site, at_least_float32
from icl_circuits.patching.backward import Gradients, gradients
from icl_circuits.patching.cells import Sweep, grid
from icl_circuits.patching.paths import Paths
from icl_circuits.patching.routes import Arrival, EdgeKind, NormKind, Passage, make_routes
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch, label_positions_of
from icl_circuits.residual import HeadInput, HeadLike, Sender

PROMPT_TOKENS = 2048
"""A backward pass keeps every activation: prompts go through in parts of at most this many tokens."""


@torch.no_grad()
def attribute(
    model: LensModel,
    batch: TokenBatch,
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
            equal lengths to walk to: `Interchange(...)` or `Resample(...)`.

    Raises:
        InputError: a metric without a gradient, steps without a second run, and what the replacement raises.
        Unfit: the model has no such site.
    """
    replacement = Zero() if replacement is None else replacement
    _require_smooth(metric)
    source = _walk_to(batch, replacement, steps)
    cells, patches = grid(model, batch, site, positions, each, replacement, layers)
    for patch in patches:
        patch.patches(model)  # raises what is wrong with it
    places = dict.fromkeys(place for p in patches for place in (_gradient_place(p), (p.site, p.layer)))
    bases, effects, scale = [], [], 0.0
    for start, stop in tracked(list(batch.parts(PROMPT_TOKENS)), f"attributing to {site}"):
        rows = range(start, stop)
        found = gradients(model, batch.part(start, stop), list(places), metric, source and source.select(rows), steps)
        bases.append(found.base)
        effects.append(torch.stack([_first_order(patch.of_prompts(start, stop), found) for patch in patches]))
        scale = max(scale, found.logit_scale)
    base = torch.cat(bases)
    values = base + torch.cat(effects, 1)
    return Sweep(site, metric_name(metric), cells, base.cpu().numpy(), values.cpu().numpy(), scale)


@torch.no_grad()
def attribute_paths(
    model: LensModel,
    batch: TokenBatch,
    *,
    senders: Sequence[Sender | HeadLike] | None = None,
    receivers: Sequence[HeadLike] | None = None,
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

    The change of the receiver's input is exact, as in `path_patch`. With `norm="frozen"` it is linear in the sender's
    change, as in arXiv 2310.10348. The gradient guesses what the model makes of it. Changes of score and output are
    left NaN: `path_patch` has them.

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
        InputError: what `attribute` and `path_patch` raise; so of `Unfit`.
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
    places: list[Place] = [(name, layer) for layer, wanted in routes.wanted.items() for name in wanted]
    bases, effects, scale = [], [], 0.0
    for start, stop in tracked(list(routes.parts(None)), "attributing to paths"):
        rows = range(start, stop)
        passage = Passage(routes, start, stop)
        found = gradients(model, passage.base.batch, places, metric, source and source.select(rows), steps)
        parts = [_carried(passage, arrival, found, metric) for arrival in passage.arrivals()]
        bases.append(found.base)
        effects.append(torch.cat(parts))
        scale = max(scale, found.logit_scale)
    base, effect = torch.cat(bases), torch.cat(effects, 1)
    score = np.full((*effect.shape, label_positions_of(batch).shape[1]), np.nan, np.float32)
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
    change = at_least_float32(arrival.new) - at_least_float32(arrival.old)
    if arrival.input is None:
        with torch.enable_grad():
            normed = arrival.old.detach().requires_grad_()
            value = from_logits(metric, passage.base.readout.unembed(normed), passage.base.batch)
            (gradient,) = torch.autograd.grad(value.sum(), normed)
        return (change * gradient).sum(-1)
    rows = torch.arange(len(passage.at), device=passage.at.device)[:, None]
    gradient = at_least_float32(found.of[arrival.input, arrival.layer][rows, passage.at])
    by_head = torch.einsum("sbchd,bchd->shb", change, gradient)[:, list(arrival.heads)]
    return by_head.flatten(0, 1)


def _require_smooth(metric: Metric) -> None:
    require_metric(metric)
    if not callable(metric) and metric not in SMOOTH:
        raise InputError(f"metric {metric!r} is a count and has no gradient: use {', '.join(SMOOTH)} or a function")


def _walk_to(batch: TokenBatch, replacement: Replacement, steps: int) -> TokenBatch | None:
    """The second run that integrated gradients walk to, or None for a single step."""
    if steps < 1:
        raise InputError(f"steps is {steps}: give 1 or more")
    if steps == 1:
        return None
    if not isinstance(replacement, Interchange | Resample):
        raise InputError("integrated gradients walk to a second run: use Interchange(...) or Resample(...), or steps=1")
    source, n_pos = source_of(batch, replacement, "all"), batch.tokens.shape[1]
    padding = source.tokens[:, -1:].expand(-1, max(0, n_pos - source.tokens.shape[1]))
    return dc_replace(source, tokens=torch.cat([source.tokens, padding], 1)[:, :n_pos])


def _gradient_place(patch: Patch) -> Place:
    """Where the gradient is taken: of resid_mid, where all of attn_out goes (its own hook point may be a dead end)."""
    return "attn_out" if patch.site == "resid_mid" else patch.site, patch.layer


def _first_order(patch: Patch, found: Gradients) -> Float[Tensor, " prompt"]:
    """Gradient x difference, summed over the patched values of each prompt."""
    activation = at_least_float32(found.activations[patch.site, patch.layer])
    gradient = at_least_float32(found.of[_gradient_place(patch)])
    if patch.site in HEAD_SITES:
        axis = 1 if patch.site == "pattern" else 2
        activation, gradient = activation.select(axis, patch.head or 0), gradient.select(axis, patch.head or 0)
    if patch.positions is not None:
        rows = torch.arange(len(activation), device=activation.device)[:, None]
        positions = patch.positions.to(activation.device)
        activation, gradient = activation[rows, positions], gradient[rows, positions]
    return ((patch.value.to(activation) - activation) * gradient).flatten(1).sum(1)
