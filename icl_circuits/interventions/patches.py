"""Patches as small values: each says what it sets, and gives typed hook functions that set it.

A hook function takes the activation at a hook point and returns the changed one, never in place. Its jaxtyping shapes
are checked by beartype in the tests; wrong heads, positions or shapes raise `InputError` naming the hook at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError, Unfit, require_one_of
from icl_circuits.interventions.positions import Positions, require_positions
from icl_circuits.models import (
    HEAD_SITES,
    LAYER_SITES,
    Hook,
    HookPair,
    LensModel,
    Site,
    hook_name,
    is_parallel,
    n_kv_heads,
    require_layer,
    require_live_scores,
)
from icl_circuits.residual import Head, HeadLike, require_heads


@dataclass(frozen=True)
class Patch:
    """Set one site of one layer to a value: activation patching of a residual state, a sublayer output, or one head.

    `value` is `[width]` (the same everywhere) or `[batch pos width]`, `pos` counting the chosen positions. `width` is
    d_model, or d_head for `q k v z`. For `pattern` it is the number of source positions, and the future stays unseen.
    `q` and `k` are taken before the rotary embedding, where `hook_q` and `hook_k` lie. `resid_mid` is patched through
    the attention output, since the hook point of that name does not carry the residual stream in `TransformerBridge`.
    """

    site: Site
    layer: int
    value: Float[Tensor, " width"] | Float[Tensor, "batch pos width"]
    positions: Positions | None = None
    """Default: every position. For `pattern` these are query positions."""
    head: int | None = None
    """Which head, for the sites `q k v pattern z`; a key-value head for `k` and `v`."""

    @property
    def after_others(self) -> bool:
        """Whether its hooks come last: a patched resid_mid holds whatever its parts were patched to."""
        return self.site == "resid_mid"

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this.

        Raises:
            InputError: a site, layer or head that does not exist. When they run: a value or positions that do not fit,
                or a value that holds NaN.
            Unfit: `resid_mid` of parallel blocks, which have none; `pattern` where nothing reads it.
        """
        require_one_of(self.site, (*LAYER_SITES, *HEAD_SITES), "site")
        require_layer(model, self.layer)
        if self.site in HEAD_SITES:
            return [(hook_name(self.site, self.layer), self._head_hook(model))]
        if self.head is not None:
            raise InputError(f"{self.site} has no heads, but head {self.head} was asked for: leave head out")
        if self.site != "resid_mid":
            return [(hook_name(self.site, self.layer), self._patch_layer)]
        if is_parallel(model):
            raise Unfit(
                f"{model.cfg.model_name!r} has no resid_mid: its blocks compute attention and MLP in parallel from "
                "resid_pre; patch resid_pre, attn_out or mlp_out"
            )
        return self._resid_mid_hooks()

    def patches(self, model: LensModel) -> tuple["Patch", ...]:
        """Itself: what the sweep engine carries out."""
        self.hooks(model)  # raises what is wrong with it
        return (self,)

    def require_fit(self, model: LensModel, tokens: Sequence[int]) -> None:
        """Raise `InputError` unless positions and value fit prompts of shape `tokens` (batch and positions), or where
        the value holds NaN.
        """
        name, (batch, n_pos) = f"the patch of {self.site} in layer {self.layer}", tokens
        width = {"pattern": n_pos} | dict.fromkeys(("q", "k", "v", "z"), model.cfg.d_head)
        n_chosen = n_pos if self.positions is None else self.positions.shape[1]
        _require_value(self.value, batch, n_chosen, width.get(self.site, model.cfg.d_model), name)
        if self.positions is not None:
            require_positions(self.positions, batch, n_pos, name)

    def of_prompts(self, start: int, stop: int) -> "Patch":
        """The same patch for the prompts `start` to `stop` of the batch alone."""
        value = self.value if self.value.ndim == 1 else self.value[start:stop]
        return replace(self, value=value, positions=None if self.positions is None else self.positions[start:stop])

    def _patch_layer(self, x: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        return _written(x, self.value, self.positions, hook_name(self.site, self.layer))

    def _head_hook(self, model: LensModel) -> Hook:
        name = hook_name(self.site, self.layer)
        if self.head is None:
            raise InputError(f"{name} carries many heads: say which with head=...")
        n_heads = n_kv_heads(model) if self.site in ("k", "v") else model.cfg.n_heads
        if not 0 <= self.head < n_heads:
            raise InputError(f"{name}: head {self.head} does not exist: there are heads 0..{n_heads - 1}")
        if self.site != "pattern":
            return self._patch_head
        require_live_scores(model)
        return self._patch_pattern

    def _patch_head(
        self, x: Float[Tensor, "batch pos head d_head"], hook: object
    ) -> Float[Tensor, "batch pos head d_head"]:
        x = x.clone()
        x[:, :, self.head] = _written(x[:, :, self.head], self.value, self.positions, hook_name(self.site, self.layer))
        return x

    def _patch_pattern(
        self, pattern: Float[Tensor, "batch head pos src_pos"], hook: object
    ) -> Float[Tensor, "batch head pos src_pos"]:
        pattern, name = pattern.clone(), hook_name(self.site, self.layer)
        old = pattern[:, self.head]
        past = torch.ones_like(old, dtype=torch.bool).tril()
        pattern[:, self.head] = torch.where(past, _written(old, self.value, self.positions, name), old)
        return pattern

    def _resid_mid_hooks(self) -> list[HookPair]:
        resid_pre: list[Tensor] = []

        def remember(x: Float[Tensor, "batch pos d_model"], hook: object) -> None:
            resid_pre[:] = [x]

        def patch(attn_out: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
            resid_mid = resid_pre[0] + attn_out
            return _written(resid_mid, self.value, self.positions, hook_name("resid_mid", self.layer)) - resid_pre[0]

        return [(hook_name("resid_pre", self.layer), remember), (hook_name("attn_out", self.layer), patch)]


@dataclass(frozen=True)
class ZeroHeads:
    """Set z of `heads` to zero, as arXiv 2402.02872 does: equal to zeroing the heads' slices of W_O."""

    heads: tuple[HeadLike, ...]
    positions: Positions | None = None
    """Default: every position."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [hook for patch in self.patches(model) for hook in patch.hooks(model)]

    def patches(self, model: LensModel) -> tuple[Patch, ...]:
        """The same as a patch of each head."""
        zero = torch.zeros(model.cfg.d_head)
        return ReplaceHeads(dict.fromkeys(self.heads, zero), self.positions).patches(model)


HeadValue = Float[Tensor, " d_head"] | Float[Tensor, "batch pos d_head"]
"""What a head's z is set to."""


@dataclass(frozen=True)
class ReplaceHeads:
    """Set z of each head to a value of its own: a mean over reference prompts, or z from another run.

    A value is `[d_head]` (the same everywhere) or `[batch pos d_head]`, `pos` counting the chosen positions.
    """

    values: Mapping[Head, HeadValue] | Mapping[HeadLike, HeadValue]
    positions: Positions | None = None
    """Default: every position."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [hook for patch in self.patches(model) for hook in patch.hooks(model)]

    def patches(self, model: LensModel) -> tuple[Patch, ...]:
        """The same as a patch of each head."""
        heads = require_heads(model, self.values)
        return tuple(
            Patch("z", head.layer, value, self.positions, head=head.head)
            for head, value in zip(heads, self.values.values(), strict=True)
        )


def _written(x: Tensor, value: Tensor, positions: Tensor | None, name: str) -> Tensor:
    """A copy of `x` `[batch pos d]` with `value` written at `positions` (all where None)."""
    batch, n_pos, width = x.shape
    n_written = n_pos if positions is None else positions.shape[1]
    _require_value(value, batch, n_written, width, name)
    if positions is None:
        return value.to(x).expand(x.shape).clone()
    require_positions(positions, batch, n_pos, name)
    x = x.clone()
    x[torch.arange(batch, device=x.device)[:, None], positions.to(x.device)] = value.to(x)
    return x


def _require_value(value: Tensor, batch: int, n_written: int, width: int, name: str) -> None:
    if value.shape not in ((width,), (batch, n_written, width)):
        raise InputError(
            f"{name}: the value has shape {list(value.shape)}, but the place to write has {[batch, n_written, width]} "
            f"(or [{width}] for the same value everywhere)"
        )
    if torch.isnan(value).any():
        raise InputError(f"{name}: the value holds NaN, which would spread to the logits: give numbers")
