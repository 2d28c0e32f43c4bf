"""The run that a sweep starts from, made by the engine's equations, which are checked against the model's own run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from icl_circuits.models import (
    Block,
    LensModel,
    NotAlgebraError,
    Place,
    Site,
    at_least_float32,
    engine_tolerance,
    hook_name,
    hook_points,
    mlp_sites,
    read_block,
    readout,
)
from icl_circuits.patching.step import BaseRun, Window, advance
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, answer_logits, embedding, final_state

SeeLayer = Callable[[int, Site, Tensor], None]
"""Is shown each activation `[batch pos ...]` of the base run with its layer and site; in the last layer, q and what
comes after attention are of the answer position alone."""


@torch.no_grad()
def run_base(model: LensModel, batch: TokenBatch, see: SeeLayer | None = None) -> BaseRun:
    """Run `batch` unpatched by the equations, keeping what a sweep needs; `see` is shown every activation.

    The first time, and whenever a prompt is longer than before or the model was changed, the equations are checked: the
    activations of the longest prompt, at every position of every layer (in the last, what follows attention at the
    answer alone), are compared with what the model's own hooks carry.

    Raises:
        NotAlgebraError: a hook is on the model, a block has no equations, or they do not give the model's activations.
    """
    hooked = next((name for name, point in hook_points(model).items() if point.fwd_hooks), None)
    if hooked is not None:
        raise NotAlgebraError(f"a hook is on {hooked!r}, which the engine would miss (model.reset_hooks() removes it)")
    blocks = tuple(read_block(model, layer, batch.tokens.shape[1]) for layer in range(model.cfg.n_layers))
    longest, state = int(batch.last.max()) + 1, _state(model)
    checked, then = getattr(model, "icl_checked", (0, None))
    if longest > checked or state != then:
        _check(model, blocks, batch.select([int(batch.last.argmax())]))
        cast(Any, model).icl_checked = longest, state
    return _run(model, blocks, batch, see)


def _state(model: LensModel) -> tuple[object, ...]:
    """What may change how a model computes, but for its weights, which the equations share."""
    modules = cast(Any, model).modules()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
    return cast(Any, model).training, model.unembed.W_U.dtype, sum(hooks), repr(vars(model.cfg))


def _run(model: LensModel, blocks: tuple[Block, ...], batch: TokenBatch, see: SeeLayer | None = None) -> BaseRun:
    """The run itself: `advance` with one variant that changes nothing, over all positions."""
    x = embedding(model, batch.tokens)[None]
    everywhere = Window(torch.zeros_like(batch.last), batch.tokens.shape[1])
    base = BaseRun(batch, blocks, readout(model), logits=x.new_zeros(len(batch), 0))
    for layer, block in enumerate(blocks):

        def keep(site: Site, activation: Tensor, layer: int = layer, block: Block = block) -> None:
            activation = activation[0]
            if site == "resid_pre":
                base.resid_pre.append(activation)
            elif site == "k":
                base.keys.append(block.turned("k", activation, everywhere.positions).transpose(1, 2).contiguous())
            elif site == "v":
                base.values.append(activation.transpose(1, 2).contiguous())
            if see is not None:
                see(layer, site, activation)

        out = base.at_answer if layer == len(blocks) - 1 else everywhere
        x = advance(base, layer, x, everywhere, out, see=keep)
    logits = base.readout.logits(x[0, :, 0])
    if torch.isnan(logits).any():
        prompt = int(torch.isnan(logits).any(-1).nonzero()[0])
        raise NotAlgebraError(f"the engine's equations give NaN logits for prompt {prompt}")
    return replace(base, logits=logits)


def _check(model: LensModel, blocks: tuple[Block, ...], batch: TokenBatch) -> None:
    """Raise `NotAlgebraError` unless the equations make every activation that the model makes of `batch`."""
    sites: list[Site] = ["q", "k", "v", "z", "resid_pre", "attn_out", *mlp_sites(model)]
    places: list[Place] = [(site, layer) for layer in range(len(blocks)) for site in sites]
    places.append(final_state(model))
    points = hook_points(model)
    missing = next((name for name in (hook_name(*place) for place in places) if name not in points), None)
    if missing is not None:
        raise NotAlgebraError(f"it has no {missing!r} to check the engine's equations against")
    capture = Capture(places)
    logits = answer_logits(model, batch, capture)

    def compare(layer: int, site: Site, activation: Tensor) -> None:
        if (site, layer) in capture.found:
            expected = capture.found[site, layer]
            if activation.shape[1] < expected.shape[1]:  # the last layer goes on with the answer position alone
                expected = expected[torch.arange(len(batch)), batch.last][:, None]
            _require_equal(activation, expected, hook_name(site, layer))

    _require_equal(_run(model, blocks, batch, compare).logits, logits, "logits")


def _require_equal(found: Tensor, expected: Tensor, name: str) -> None:
    if found.shape != expected.shape:
        raise NotAlgebraError(f"its {name} has shape {list(expected.shape)}, not {list(found.shape)}")
    error = (at_least_float32(found) - at_least_float32(expected)).abs().max()
    if not error <= engine_tolerance(expected.dtype) * expected.abs().max():
        raise NotAlgebraError(f"the engine's equations miss its {name} by {float(error):.2g}")
