"""Interventions on attention scores, before the softmax: scaled, replaced, or cut along edges."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions.positions import Positions, SrcPositions, position_mask
from icl_circuits.models import Hook, HookPair, LensModel, hook_name, require_layer, require_live_scores, unmasked
from icl_circuits.residual import Head, HeadLike, head_of, require_heads


@dataclass(frozen=True)
class ScaleScores:
    """Multiply the attention scores (before the softmax) of `heads` by `factor`.

    `factor` 0 makes a row attend evenly to what it may see. Masked entries stay masked.
    """

    heads: tuple[HeadLike, ...]
    factor: float
    positions: Positions | None = None
    """Query positions (rows). Default: all."""
    src_positions: SrcPositions | None = None
    """Key positions (columns). Default: all."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return score_hooks(
            model, self.heads, lambda head, scores: scores * self.factor, self.positions, self.src_positions
        )


HeadScores = Float[Tensor, "batch pos src_pos"]
"""What a head's attention scores are set to."""


@dataclass(frozen=True)
class ReplaceScores:
    """Set the attention scores (before the softmax) of each head to values of its own, `[batch pos src_pos]`.

    Masked entries (the future, what a sliding window hides) stay masked.
    """

    values: Mapping[Head, HeadScores] | Mapping[HeadLike, HeadScores]
    positions: Positions | None = None
    """Query positions (rows). Default: all."""
    src_positions: SrcPositions | None = None
    """Key positions (columns). Default: all."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        values = {head_of(head): value for head, value in self.values.items()}

        def value_of(head: Head, scores: Tensor) -> Tensor:
            value = values[head]
            if value.shape != scores.shape:
                raise InputError(
                    f"scores of {head}: the value has shape {list(value.shape)}, the model's {list(scores.shape)}"
                )
            return value.to(scores)

        return score_hooks(model, tuple(values), value_of, self.positions, self.src_positions)


@dataclass(frozen=True)
class KnockOut:
    """Attention knock-out: no head of `layers` attends along `edges`; what is left of each row is normalised again.

    `edges[b, t, s]` cuts what position `t` of prompt `b` reads from position `s` (Geva et al., arXiv 2304.14767).
    """

    layers: tuple[int, ...]
    edges: Bool[Tensor, "batch pos src_pos"]

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this.

        Raises:
            InputError: a layer that does not exist, or a row that is left with nothing to attend to.
            Unfit: scores that nothing reads.
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

        return [(hook_name("attn_scores", layer), self._cut) for layer in self.layers]

    def of_prompts(self, start: int, stop: int) -> "KnockOut":
        """The same for the prompts `start` to `stop` of the batch alone."""
        return replace(self, edges=self.edges[start:stop])

    def require_fit(self, tokens: Sequence[int]) -> None:
        """Raise `InputError` unless the edges fit prompts of shape `tokens` (batch and positions)."""
        scores = [*tokens, tokens[1]]
        if list(self.edges.shape) != scores:
            raise InputError(f"the knock-out's edges have shape {list(self.edges.shape)}, the model's scores {scores}")

    def _cut(
        self, scores: Float[Tensor, "batch head pos src_pos"], hook: object
    ) -> Float[Tensor, "batch head pos src_pos"]:
        self.require_fit(scores[:, 0].shape[:2])
        return scores.masked_fill(self.edges[:, None].to(scores.device), float("-inf"))


def score_hooks(
    model: LensModel,
    heads: Sequence[HeadLike],
    changed: Callable[[Head, Float[Tensor, "batch pos src_pos"]], Float[Tensor, "batch pos src_pos"]],
    positions: Positions | None,
    src_positions: SrcPositions | None,
) -> list[HookPair]:
    """One hook on `hook_attn_scores` for each layer of `heads`, writing `changed(head, scores)` where asked.

    Raises:
        InputError: a head that does not exist.
        Unfit: scores that nothing reads.
    """
    found = require_heads(model, heads)
    require_live_scores(model)

    def layer_hook(layer: int) -> Hook:
        name = hook_name("attn_scores", layer)

        def change_scores(
            scores: Float[Tensor, "batch head pos src_pos"], hook: object
        ) -> Float[Tensor, "batch head pos src_pos"]:
            batch, _, n_pos, n_src = scores.shape
            rows = position_mask(batch, n_pos, positions, scores.device, name)
            columns = position_mask(batch, n_src, src_positions, scores.device, name)
            chosen = rows[:, :, None] & columns[:, None, :]
            scores = scores.clone()
            for head in found:
                if head.layer == layer:
                    old = scores[:, head.head]
                    scores[:, head.head] = torch.where(chosen & unmasked(old), changed(head, old), old)
            return scores

        return change_scores

    return [(hook_name("attn_scores", layer), layer_hook(layer)) for layer in sorted({head.layer for head in found})]
