"""Activations of a base run and the gradients of a metric with respect to them, from a few backward passes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions import Metric, of_base_run
from icl_circuits.models import Hook, HookPair, LensModel, Place, at_least_float32, hook_name
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import answer_logits, embedding


@dataclass(frozen=True)
class _Traced:
    """Start the graph at the embedding, moved by `shift`, and keep activations in it."""

    places: Sequence[Place]
    shift: Float[Tensor, "batch pos d_model"] | None
    found: dict[Place, Tensor] = field(default_factory=dict)

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""

        def start(x: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
            x = x.detach() if self.shift is None else x.detach() + self.shift
            return x.clone().requires_grad_()

        def keep(place: Place) -> Hook:
            def run(activation: Tensor, hook: object) -> Tensor:
                self.found[place] = activation.view_as(activation)  # the Bridge goes on with what hooks return alone
                return self.found[place]

            return run

        return [(hook_name("resid_pre", 0), start), *((hook_name(*place), keep(place)) for place in self.places)]


@dataclass(frozen=True)
class Gradients:
    """The base run's metric and activations, and the metric's gradient with respect to them, by place."""

    base: Float[Tensor, " batch"]
    activations: dict[Place, Tensor]
    of: dict[Place, Tensor]
    logit_scale: float


def gradients(
    model: LensModel, batch: TokenBatch, places: Sequence[Place], metric: Metric, source: TokenBatch | None, steps: int
) -> Gradients:
    """One backward pass for each step: gradients at the base run, or their mean on the way to `source`'s embeddings."""
    shift = None if source is None else embedding(model, source.tokens) - embedding(model, batch.tokens)
    found: Gradients | None = None
    for step in range(steps):
        traced = _Traced(places, None if shift is None else shift * (step / steps))
        logits = answer_logits(model, batch, traced, grad=True)
        with torch.enable_grad():
            value = of_base_run(metric, logits, batch)
        if value.ndim != 1 or not value.requires_grad:
            raise InputError("attribution needs a metric with a gradient and one value for each prompt")
        tensors = [traced.found[place] for place in places]
        with torch.enable_grad():
            parts = torch.autograd.grad(value.sum(), tensors, allow_unused=True) if tensors else ()
        now = {
            place: torch.zeros_like(tensor) if part is None else at_least_float32(part) / steps
            for place, tensor, part in zip(places, tensors, parts, strict=True)
        }
        if found is None:
            activations = {place: tensor.detach() for place, tensor in traced.found.items()}
            found = Gradients(value.detach(), activations, now, float(logits.detach().abs().max()))
        else:
            for place, part in now.items():
                found.of[place] += part
    assert found is not None
    return found
