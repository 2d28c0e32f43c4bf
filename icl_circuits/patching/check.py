"""Whether the engine's equations are the model's: each step of each layer, from what the model itself feeds it.

Rounding adds up over layers, most of all in half precision. So no step is asked to give what the model's run has come
to by then: each starts from the model's own activations of the step before, and is compared with those of its own.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from icl_circuits.models import (
    ATTENTION_SITES,
    HookPair,
    LensModel,
    NotAlgebraError,
    ReadSite,
    at_least_float32,
    hook_name,
    hook_points,
    mlp_sites,
    rows_agree,
    scores_are_live,
    step_tolerance,
    unmasked,
)
from icl_circuits.patching.step import BaseRun, advance
from icl_circuits.residual import Capture, answer_logits, final_state


@torch.no_grad()
def require_equations(model: LensModel, base: BaseRun) -> None:
    """Raise `NotAlgebraError` unless the equations of `base` make every activation that the model makes of its batch.

    One forward pass, with one layer's activations at a time in memory.
    """
    sites: list[ReadSite] = ["resid_pre", "q", "k", "v", "z", "attn_out", *mlp_sites(model), "resid_post"]
    if scores_are_live(model):
        sites += ["attn_scores", "pattern"]
    points = hook_points(model)
    for layer in range(model.cfg.n_layers):
        missing = next((name for name in (hook_name(site, layer) for site in sites) if name not in points), None)
        if missing is not None:
            raise NotAlgebraError(f"it has no {missing!r} to check the engine's equations against")
    final = Capture([final_state(model)], base.batch.last)
    tolerance = step_tolerance(model.unembed.W_U.dtype)
    logits = answer_logits(model, base.batch, _Compared(base, sites, tolerance), final)
    _require_equal(base.readout.logits(final.at(*final_state(model))), logits, tolerance, "logits")


class _Compared:
    """Compares the equations of each layer with what its hook points carry, as soon as the model has left it."""

    def __init__(self, base: BaseRun, sites: Sequence[ReadSite], tolerance: float) -> None:
        self.base, self.sites, self.tolerance = base, sites, tolerance
        self.seen: dict[ReadSite, Tensor] = {}
        """The activations of the layer that the model is in."""
        self.left: list[Tensor] = []
        """The state that it has left the layer before with."""
        self.rows: dict[ReadSite, int] = {}
        """How many query positions of the layer's attention were compared."""
        self.comparing = False
        """While equations are tried, which calls the model's own norms and MLPs, hooks and all."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [self._reader(site, layer) for layer in range(model.cfg.n_layers) for site in self.sites]

    def _reader(self, site: ReadSite, layer: int) -> HookPair:
        def read(activation: Tensor, hook: object) -> None:
            if self.comparing:
                return
            self.seen[site] = activation.detach()
            if site == "resid_post":
                self.comparing = True
                self._compare(layer)
                self.comparing = False
                self.left = [self.seen["resid_post"]]
                self.seen.clear()

        return hook_name(site, layer), read

    def _compare(self, layer: int) -> None:
        """Make the layer's step, each part of it from the model's own activations."""
        everywhere = self.base.everywhere
        self.rows.clear()
        entering = at_least_float32((*self.left, self.seen["resid_pre"])[0])[None]
        follow = partial(self._follow, layer)
        advance(self.base, layer, entering, everywhere, everywhere, see=follow, in_parts=True)

    def _follow(self, layer: int, site: ReadSite, found: Tensor) -> Tensor | None:
        """Compare what an equation gives with the model's own, and go on with that."""
        if site not in self.seen:
            return None
        own, name = self.seen[site], hook_name(site, layer)
        if site not in ATTENTION_SITES:
            _require_equal(found.flatten(3), own[None].flatten(3), self.tolerance, name)
            return own[None].to(found)
        start = self.rows.get(site, 0)  # long prompts' attention comes some query positions after others
        self.rows[site] = start + found.shape[-2]
        own = own[:, :, start : self.rows[site]]
        own = own.unflatten(1, (found.shape[1], -1))[:, :, None]  # the engine keeps heads by key-value head
        if site == "pattern":
            _require_equal(found, own, self.tolerance, name)
            return own.to(found)
        shown = found > float("-inf")
        if (shown & ~unmasked(own)).any():
            raise NotAlgebraError(f"the engine's equations show positions that its {name} hides")
        found, own = (torch.where(shown, scores, 0.0) for scores in (found, own))
        _require_equal(found.flatten(-2), own.flatten(-2), self.tolerance, name)
        return own.to(found).masked_fill(~shown, float("-inf"))


def _require_equal(found: Tensor, expected: Tensor, tolerance: float, name: str) -> None:
    if found.shape != expected.shape:
        raise NotAlgebraError(f"its {name} has shape {list(expected.shape)}, not {list(found.shape)}")
    found, expected = at_least_float32(found), at_least_float32(expected)
    if not rows_agree(found, expected, tolerance):
        raise NotAlgebraError(f"the engine's equations miss its {name} by {float((found - expected).abs().max()):.2g}")
