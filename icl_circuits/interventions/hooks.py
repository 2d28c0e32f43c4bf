"""Interventions as small values: each says what it changes, and gives typed hook functions that change it.

A hook function takes the activation at a hook point and returns the changed one, never in place. Its jaxtyping shapes
are checked by beartype in the tests; wrong heads, positions or shapes raise `InputError` naming the hook at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, require_one_of
from icl_circuits.models import (
    Head,
    LensModel,
    is_parallel,
    n_kv_heads,
    require_heads,
    require_layer,
    require_live_scores,
    unmasked,
)

Positions = Int[Tensor, "batch chosen"]
"""For each prompt, the positions that an intervention touches (`batch.last[:, None]`, `batch.label_positions`)."""

SrcPositions = Int[Tensor, "batch chosen_src"]
"""The same for the positions that attention reads."""

Hook = Callable[..., Tensor | None]
"""`hook(activation, hook=hook_point)`, the signature TransformerLens calls."""

LayerSite = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
"""Where a whole layer's state or output can be patched: `[batch pos d_model]`."""

HeadSite = Literal["q", "k", "v", "pattern", "z"]
"""Where one head can be patched: `[batch pos head d_head]`, and `[batch head pos src_pos]` for `pattern`."""

Site = LayerSite | HeadSite

HEAD_SITES: tuple[HeadSite, ...] = get_args(HeadSite)
LAYER_SITES: tuple[LayerSite, ...] = get_args(LayerSite)


def hook_name(site: Site, layer: int) -> str:
    """The hook point that carries `site` of `layer`."""
    return f"blocks.{layer}.attn.hook_{site}" if site in HEAD_SITES else f"blocks.{layer}.hook_{site}"


@runtime_checkable
class Intervention(Protocol):
    """A change to a model's computation, as the hooks that carry it out."""

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """Hook names and hook functions for `model`. Raises `InputError` where the model has no such place."""
        ...


@dataclass(frozen=True)
class Patch:
    """Set one site of one layer to a value: activation patching of a residual state, a sublayer output, or one head.

    `value` is `[width]` (the same everywhere) or `[batch pos width]`, `pos` counting the chosen positions; `width` is
    d_model, d_head for `q k v z`, and the number of source positions for `pattern`, whose future stays unseen. `q` and
    `k` are taken before the rotary embedding, where `hook_q` and `hook_k` lie. `resid_mid` is patched through the
    attention output, since the hook point of that name does not carry the residual stream in `TransformerBridge`.
    """

    site: Site
    layer: int
    value: Float[Tensor, " width"] | Float[Tensor, "batch pos width"]
    positions: Positions | None = None
    """Default: every position. For `pattern` these are query positions."""
    head: int | None = None
    """Which head, for the sites `q k v pattern z`; a key-value head for `k` and `v`."""

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""
        require_one_of(self.site, (*LAYER_SITES, *HEAD_SITES), "site")
        require_layer(model, self.layer)
        if self.site in HEAD_SITES:
            return [(hook_name(self.site, self.layer), self._head_hook(model))]
        if self.head is not None:
            raise InputError(f"{self.site} has no heads, but head {self.head} was asked for: leave head out")
        if self.site != "resid_mid":
            return [(hook_name(self.site, self.layer), self._patch_layer)]
        if is_parallel(model):
            raise InputError(
                f"{model.cfg.model_name!r} has no resid_mid: its blocks compute attention and MLP in parallel from "
                "resid_pre; patch resid_pre, attn_out or mlp_out"
            )
        return self._resid_mid_hooks()

    def patches(self, model: LensModel) -> tuple["Patch", ...]:
        """Itself: what the sweep engine carries out."""
        self.hooks(model)  # raises what is wrong with it
        return (self,)

    def require_fit(self, model: LensModel, tokens: Sequence[int]) -> None:
        """Raise `InputError` unless positions and value fit prompts of shape `tokens`: batch and positions."""
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
        pattern[:, self.head] = _written(pattern[:, self.head], self.value, self.positions, name).tril()
        return pattern

    def _resid_mid_hooks(self) -> list[tuple[str, Hook]]:
        resid_pre: list[Tensor] = []

        def remember(x: Float[Tensor, "batch pos d_model"], hook: object) -> None:
            resid_pre[:] = [x]

        def patch(attn_out: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
            resid_mid = resid_pre[0] + attn_out
            return _written(resid_mid, self.value, self.positions, f"blocks.{self.layer}.hook_resid_mid") - resid_pre[0]

        return [(f"blocks.{self.layer}.hook_resid_pre", remember), (f"blocks.{self.layer}.hook_attn_out", patch)]


@dataclass(frozen=True)
class ZeroHeads:
    """Set z of `heads` to zero, as arXiv 2402.02872 does: equal to zeroing the heads' slices of W_O."""

    heads: tuple[Head, ...]
    positions: Positions | None = None
    """Default: every position."""

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""
        return [hook for patch in self.patches(model) for hook in patch.hooks(model)]

    def patches(self, model: LensModel) -> tuple[Patch, ...]:
        """The same as a patch of each head."""
        zero = torch.zeros(model.cfg.d_head)
        return ReplaceHeads(dict.fromkeys(self.heads, zero), self.positions).patches(model)


@dataclass(frozen=True)
class ReplaceHeads:
    """Set z of each head to a value of its own: a mean over reference prompts, or z from another run.

    A value is `[d_head]` (the same everywhere) or `[batch pos d_head]`, `pos` counting the chosen positions.
    """

    values: Mapping[Head, Float[Tensor, " d_head"] | Float[Tensor, "batch pos d_head"]]
    positions: Positions | None = None
    """Default: every position."""

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""
        return [hook for patch in self.patches(model) for hook in patch.hooks(model)]

    def patches(self, model: LensModel) -> tuple[Patch, ...]:
        """The same as a patch of each head."""
        require_heads(model, tuple(self.values))
        return tuple(
            Patch("z", head.layer, value, self.positions, head=head.head) for head, value in self.values.items()
        )


@dataclass(frozen=True)
class ScaleScores:
    """Multiply the attention scores (before the softmax) of `heads` by `factor`.

    `factor` 0 makes a row attend evenly to what it may see. Masked entries stay masked.
    """

    heads: tuple[Head, ...]
    factor: float
    positions: Positions | None = None
    """Query positions (rows). Default: all."""
    src_positions: SrcPositions | None = None
    """Key positions (columns). Default: all."""

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""
        return score_hooks(
            model, self.heads, lambda head, scores: scores * self.factor, self.positions, self.src_positions
        )


@dataclass(frozen=True)
class ReplaceScores:
    """Set the attention scores (before the softmax) of each head to values of its own, `[batch pos src_pos]`.

    Masked entries (the future, what a sliding window hides) stay masked.
    """

    values: Mapping[Head, Float[Tensor, "batch pos src_pos"]]
    positions: Positions | None = None
    """Query positions (rows). Default: all."""
    src_positions: SrcPositions | None = None
    """Key positions (columns). Default: all."""

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""

        def value_of(head: Head, scores: Tensor) -> Tensor:
            value = self.values[head]
            if value.shape != scores.shape:
                raise InputError(f"scores of {head}: the value has shape {_shape(value)}, the model's {_shape(scores)}")
            return value.to(scores)

        return score_hooks(model, tuple(self.values), value_of, self.positions, self.src_positions)


@dataclass(frozen=True)
class KnockOut:
    """Attention knock-out: no head of `layers` attends along `edges`; what is left of each row is normalised again.

    `edges[b, t, s]` cuts what position `t` of prompt `b` reads from position `s` (Geva et al., arXiv 2304.14767).
    """

    layers: tuple[int, ...]
    edges: Bool[Tensor, "batch pos src_pos"]

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this. Raises `InputError` where a row would be left with nothing to attend
        to.
        """
        for layer in self.layers:
            require_layer(model, layer)
        require_live_scores(model)
        blind = (self.edges | ~torch.ones_like(self.edges).tril()).all(-1)
        if blind.any():
            prompt, position = blind.nonzero()[0].tolist()
            raise InputError(
                f"the knock-out leaves position {position} of prompt {prompt} nothing to attend to: keep an edge, to "
                "itself for instance"
            )

        return [(f"blocks.{layer}.attn.hook_attn_scores", self._cut) for layer in self.layers]

    def _cut(
        self, scores: Float[Tensor, "batch head pos src_pos"], hook: object
    ) -> Float[Tensor, "batch head pos src_pos"]:
        if scores[:, 0].shape != self.edges.shape:
            raise InputError(
                f"the knock-out's edges have shape {_shape(self.edges)}, the model's scores {_shape(scores[:, 0])}"
            )
        return scores.masked_fill(self.edges[:, None].to(scores.device), float("-inf"))


def score_hooks(
    model: LensModel,
    heads: tuple[Head, ...],
    changed: Callable[[Head, Float[Tensor, "batch pos src_pos"]], Float[Tensor, "batch pos src_pos"]],
    positions: Positions | None,
    src_positions: SrcPositions | None,
) -> list[tuple[str, Hook]]:
    """One hook on `hook_attn_scores` for each layer of `heads`, writing `changed(head, scores)` where asked."""
    require_heads(model, heads)
    require_live_scores(model)

    def layer_hook(layer: int) -> Hook:
        name = f"blocks.{layer}.attn.hook_attn_scores"

        def change_scores(
            scores: Float[Tensor, "batch head pos src_pos"], hook: object
        ) -> Float[Tensor, "batch head pos src_pos"]:
            batch, _, n_pos, n_src = scores.shape
            rows = _mask(batch, n_pos, positions, scores.device, name)
            columns = _mask(batch, n_src, src_positions, scores.device, name)
            chosen = rows[:, :, None] & columns[:, None, :]
            scores = scores.clone()
            for head in heads:
                if head.layer == layer:
                    old = scores[:, head.head]
                    scores[:, head.head] = torch.where(chosen & unmasked(old), changed(head, old), old)
            return scores

        return change_scores

    return [
        (f"blocks.{layer}.attn.hook_attn_scores", layer_hook(layer)) for layer in sorted({head.layer for head in heads})
    ]


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
            f"{name}: the value has shape {_shape(value)}, but the place to write has {[batch, n_written, width]} "
            f"(or [{width}] for the same value everywhere)"
        )


def _mask(batch: int, n_pos: int, positions: Tensor | None, device: torch.device, name: str) -> Tensor:
    """True at `positions` of each row, `[batch pos]`; everywhere where None."""
    if positions is None:
        return torch.ones(batch, n_pos, dtype=torch.bool, device=device)
    require_positions(positions, batch, n_pos, name)
    return torch.zeros(batch, n_pos, dtype=torch.bool, device=device).scatter(1, positions.to(device), True)


def require_positions(positions: Tensor, batch: int, n_pos: int, name: str) -> None:
    """Raise `InputError` unless `positions` are `[batch chosen]` and exist."""
    if positions.ndim != 2 or positions.shape[0] != batch:
        raise InputError(f"{name}: positions have shape {_shape(positions)}, but the batch has {batch} rows")
    if positions.numel() and not (int(positions.min()) >= 0 and int(positions.max()) < n_pos):
        wrong = next(p for p in positions.flatten().tolist() if not 0 <= p < n_pos)
        raise InputError(f"{name}: position {wrong} does not exist: the prompts have positions 0..{n_pos - 1}")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
