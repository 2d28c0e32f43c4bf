"""Run a model on a batch, hooks on it, as far as is needed: to the logits of the answers, or to the first layer."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.costs import count_forwards
from icl_circuits.errors import InputError
from icl_circuits.models import (
    Hook,
    HookPair,
    LensModel,
    attached,
    hook_name,
    require_alike,
    require_causal,
    require_one_device,
)
from icl_circuits.prompts import TokenBatch


@runtime_checkable
class Hooked(Protocol):
    """What reads or changes a model's computation, as the hooks that carry it out.

    With an attribute `after_others` that is true, its hooks run after those of all others on the same hook points.
    """

    def hooks(self, model: LensModel) -> list[HookPair]:
        """Hook names and hook functions for `model`. Raises `InputError` where the model has no such place."""
        ...


def hooks_of(model: LensModel, parts: Sequence[Hooked]) -> list[HookPair]:
    """The hooks of all `parts`, in the order in which they apply."""
    ordered = sorted(parts, key=lambda part: bool(getattr(part, "after_others", False)))
    return [pair for part in ordered for pair in part.hooks(model)]


@dataclass(frozen=True)
class _AnswerOnly:
    """Keep the normed final state at the answer position only, so that no other position is unembedded."""

    last: Int[Tensor, " batch"]

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""

        def keep(normed: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch 1 d_model"]:
            return normed[torch.arange(normed.shape[0], device=normed.device), self.last][:, None]

        return [(hook_name("final_normed", 0), keep)]


def answer_logits(
    model: LensModel, batch: TokenBatch, *parts: Hooked, grad: bool = False
) -> Float[Tensor, "batch d_vocab"]:
    """The logits at each prompt's answer position, under interventions if any, and while captures read.

    One forward pass; the other positions are never unembedded. With `grad`, the graph is kept for a backward pass.

    Raises:
        InputError: NaN logits, naming the first prompt that has them, and whatever `intervene` raises.
            Prompts whose lengths the model turns by different angles.
        Unfit: a model that sees what comes later, or that lies on several devices.
    """
    require_one_device(model)
    require_causal(model)
    require_alike(model, batch.last + 1, batch.tokens.shape[1])
    with torch.set_grad_enabled(grad), attached(model, hooks_of(model, [*parts, _AnswerOnly(batch.last)])):
        logits: Tensor = model(batch.tokens)[:, 0]
    count_forwards(len(batch))
    bad = torch.isnan(logits).any(-1)
    if bad.any():
        raise InputError(
            f"{model.cfg.model_name!r} gives NaN logits for prompt {int(bad.nonzero()[0])}: its weights are corrupt or "
            "its dtype is too narrow; load it with dtype=torch.float32"
        )
    return logits


class _StoppedError(Exception):
    """Ends a forward pass that has gone far enough."""


@torch.no_grad()
def embedding(model: LensModel, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
    """The residual state that enters the first layer: the forward pass, stopped there."""
    found: list[Tensor] = []

    def stop(x: Tensor, hook: object) -> None:
        found.append(x.detach())
        raise _StoppedError

    stopping: Hook = stop
    with suppress(_StoppedError), attached(model, [(hook_name("resid_pre", 0), stopping)]):
        model(tokens)
    return found[0]
