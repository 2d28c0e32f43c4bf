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

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [(hook_name(*place), self._reader(place)) for place in dict.fromkeys(self.places)]

    def _reader(self, place: Place) -> Hook:
        @no_type_check  # made for every hook of every run: checking it in tests costs more than the run
        def read(activation: Tensor, hook: object) -> None:
            if self.positions is None:
                self.found[place] = activation.detach()
                return
            batch = torch.arange(activation.shape[0], device=activation.device)
            rows = batch.view(-1, *[1] * (self.positions.ndim - 1))
            if place[0] in ATTENTION_SITES:
                self.found[place] = activation.detach()[rows, :, self.positions]
            else:
                self.found[place] = activation.detach()[rows, self.positions]

        return read

    def at(self, site: ReadSite, layer: int) -> Tensor:
        """What was read there, in float32 or wider."""
        return at_least_float32(self.found[site, layer])

    def of(self, model: LensModel, site: ReadSite, head: Head) -> Tensor:
        """One head's part of what was read, in float32 or wider; of `k` and `v`, that of its key-value head."""
        place = kv_head(model, head.head) if site in ("k", "v") else head.head
        one_position = self.positions is not None and self.positions.ndim == 1
        axis = 1 if one_position or (self.positions is None and site in ATTENTION_SITES) else 2
        return at_least_float32(self.found[site, head.layer].select(axis, place))


def final_state(model: LensModel) -> Place:
    """Where the final residual state is, before the last norm."""
    return "resid_post", model.cfg.n_layers - 1
