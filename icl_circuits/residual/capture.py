"""Read activations while a model runs, by site, layer and head."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import no_type_check

import torch
from jaxtyping import Int
from torch import Tensor

from icl_circuits.models import (
    ATTENTION_SITES,
    Hook,
    HookPair,
    LensModel,
    Place,
    ReadSite,
    at_least_float32,
    free_bytes,
    hook_name,
    kv_head,
)
from icl_circuits.residual.components import Head


@dataclass(frozen=True)
class Capture:
    """Read the activations of some places, (site, layer), while the model runs; changes nothing.

    With `positions`, keep some positions of each prompt only: one, `[batch]`, which makes `[batch pos ...]` into
    `[batch ...]`, or several, `[batch chosen]`, which makes it `[batch chosen ...]`. Of attention, `[batch head pos
    src_pos]`, these are query positions, which come first too: `[batch chosen head src_pos]`.
    """

    places: Sequence[Place]
    positions: Int[Tensor, "batch *chosen"] | None = None
    found: dict[Place, Tensor] = field(default_factory=dict)
    budget: int | None = None
    """Bytes of the model's device that it may hold; what is read beyond is moved to the CPU, and back when it is asked
    for. Default: a quarter of what is free there, and on a CPU no limit."""
    moved: dict[Place, torch.device] = field(default_factory=dict)
    """Where what was moved came from."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [(hook_name(*place), self._reader(place)) for place in dict.fromkeys(self.places)]

    def _reader(self, place: Place) -> Hook:
        @no_type_check  # made for every hook of every run: checking it in tests costs more than the run
        def read(activation: Tensor, hook: object) -> None:
            if self.positions is None:
                self._keep(place, activation.detach())
                return
            batch = torch.arange(activation.shape[0], device=activation.device)
            rows = batch.view(-1, *[1] * (self.positions.ndim - 1))
            if place[0] in ATTENTION_SITES:
                self._keep(place, activation.detach()[rows, :, self.positions])
            else:
                self._keep(place, activation.detach()[rows, self.positions])

        return read

    def _keep(self, place: Place, value: Tensor) -> None:
        """Keep what was read, on the CPU where the budget is spent."""
        self.moved.pop(place, None)
        if self.budget is not None or value.device.type != "cpu":
            held = sum(other.nbytes for at, other in self.found.items() if at != place and at not in self.moved)
            room = (free_bytes(value.device) + held) // 4 if self.budget is None else self.budget
            if held + value.nbytes > room:
                self.moved[place] = value.device
                value = value.to("cpu", copy=True)
        self.found[place] = value

    def raw(self, site: ReadSite, layer: int) -> Tensor:
        """What was read there, in the model's dtype."""
        return self.found[site, layer].to(self.moved.get((site, layer), self.found[site, layer].device))

    def at(self, site: ReadSite, layer: int) -> Tensor:
        """What was read there, in float32 or wider."""
        return at_least_float32(self.raw(site, layer))

    def of(self, model: LensModel, site: ReadSite, head: Head) -> Tensor:
        """One head's part of what was read, in float32 or wider; of `k` and `v`, that of its key-value head."""
        place = kv_head(model, head.head) if site in ("k", "v") else head.head
        one_position = self.positions is not None and self.positions.ndim == 1
        axis = 1 if one_position or (self.positions is None and site in ATTENTION_SITES) else 2
        found = self.found[site, head.layer].select(axis, place)
        return at_least_float32(found.to(self.moved.get((site, head.layer), found.device)))


def final_state(model: LensModel) -> Place:
    """Where the final residual state is, before the last norm."""
    return "resid_post", model.cfg.n_layers - 1
