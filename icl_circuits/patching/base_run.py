"""The run that a sweep starts from, made by the engine's equations, which are checked against the model's own run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from icl_circuits.costs import count_forwards, uncounted
from icl_circuits.errors import in_one_line
from icl_circuits.models import (
    ATTENTION_SITES,
    Block,
    LensModel,
    NotAlgebraError,
    ReadSite,
    at_least_float32,
    computation_of,
    hook_points,
    read_block,
    readout,
    require_alike,
    require_one_device,
)
from icl_circuits.patching.check import require_equations
from icl_circuits.patching.kept import keep_run, kept_run
from icl_circuits.patching.shown import LayerHooks, through
from icl_circuits.patching.step import BaseRun, advance
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import embedding

SeeLayer = Callable[[int, ReadSite, Tensor], None]
"""Is shown each activation `[batch pos ...]` of the base run with its layer and site; in the last layer, q and what
comes after attention are of the answer position alone."""


@torch.no_grad()
def run_base(
    model: LensModel, batch: TokenBatch, see: SeeLayer | None = None, hooks: Mapping[int, LayerHooks] | None = None
) -> BaseRun:
    """Run `batch` unpatched by the equations, keeping what a sweep needs.

    `see` is shown every activation, and so are the `hooks` of some layers, which change nothing. A run that is kept
    (`keeping_runs`) and that nothing else is to see is not made again.

    The first time, and whenever a prompt is longer than before or the model was changed, the equations are checked on
    the longest prompt (`require_equations`).

    Raises:
        NotAlgebraError: a hook is on the model, a block has no equations, or they do not give the model's activations.
        Unfit: its layers lie on several devices.
    """
    require_one_device(model)
    hooked = next((name for name, point in hook_points(model).items() if point.fwd_hooks), None)
    if hooked is not None:
        raise NotAlgebraError(f"a hook is on {hooked!r}, which the engine would miss (model.reset_hooks() removes it)")
    require_alike(model, batch.last + 1, batch.tokens.shape[1])
    kept = None if see or hooks else kept_run(model, batch)
    if kept is not None:
        return kept
    base = _run(model, _checked(model, batch), see, hooks or {})
    keep_run(model, base)
    return base


def _checked(model: LensModel, batch: TokenBatch) -> BaseRun:
    """The run before its first step, with equations that were checked.

    Whatever keeps them from being read or tried is a reason not to use them.
    """
    try:
        blocks = tuple(read_block(model, layer, batch.tokens.shape[1]) for layer in range(model.cfg.n_layers))
        out = readout(model)
        base = BaseRun(batch, blocks, out, logits=out.W_U.new_zeros(len(batch), 0))
        longest, state = int(batch.last.max()) + 1, computation_of(model)
        checked, then = getattr(model, "icl_checked", (0, None))
        if longest > checked or state != then:
            with uncounted():
                require_equations(model, replace(base, batch=batch.select([int(batch.last.argmax())])))
            cast(Any, model).icl_checked = longest, state
    except (NotAlgebraError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise NotAlgebraError(f"the engine's equations cannot be tried on it ({in_one_line(error)})") from error
    return base


def _run(model: LensModel, base: BaseRun, see: SeeLayer | None, hooks: Mapping[int, LayerHooks]) -> BaseRun:
    """The run itself: `advance` with one variant that changes nothing, over all positions."""
    batch = base.batch
    count_forwards(len(batch))
    x = at_least_float32(embedding(model, batch.tokens))[None]
    everywhere = base.everywhere
    for layer, block in enumerate(base.blocks):

        def keep(site: ReadSite, activation: Tensor, layer: int = layer, block: Block = block) -> None:
            if layer in hooks:
                through(hooks[layer])(site, activation)
            if site in ATTENTION_SITES:
                return
            activation = activation[0]
            if site == "resid_pre":
                base.resid_pre.append(activation)
            elif site == "k":
                base.keys.append(block.turned("k", activation, everywhere.positions).transpose(1, 2).contiguous())
            elif site == "v":
                base.values.append(activation.transpose(1, 2).contiguous())
            if see is not None:
                see(layer, site, activation)

        out = base.at_answer if layer == len(base.blocks) - 1 and layer not in hooks else everywhere
        x = advance(base, layer, x, everywhere, out, see=keep, in_parts=layer not in hooks)
    at_answer = x[0, :, 0] if out is not everywhere else x[0, torch.arange(len(batch), device=x.device), batch.last]
    logits = base.readout.logits(at_answer)
    if torch.isnan(logits).any():
        prompt = int(torch.isnan(logits).any(-1).nonzero()[0])
        raise NotAlgebraError(f"the engine's equations give NaN logits for prompt {prompt}")
    return replace(base, logits=logits)
