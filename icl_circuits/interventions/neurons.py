"""Zero neurons, each prompt its own: as if their output directions, or their values, were zero (arXiv 2312.12141)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models import Hook, HookPair, LensModel, hook_name, require_layer


@dataclass(frozen=True)
class ZeroNeurons:
    """Set neurons to zero at every position. Masks are by layer and have a row a prompt, True where a neuron goes."""

    ffn: Mapping[int, Bool[Tensor, "batch d_mlp"]] = field(default_factory=dict)
    """FFN neurons: their activations `hook_post`, which is to zero their rows of W_out."""
    attention: Mapping[int, Bool[Tensor, "batch head d_head"]] = field(default_factory=dict)
    """Attention neurons: dimensions of heads' z, which is to zero their rows of W_O."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this.

        Raises:
            InputError: a layer that does not exist, or, when they run, a mask of another shape than the neurons.
            Unfit: a model that does not show its neurons.
        """
        for layer in (*self.ffn, *self.attention):
            require_layer(model, layer)
        ffn = [(hook_name("mlp_post", layer), _zero_ffn(mask)) for layer, mask in self.ffn.items()]
        return ffn + [(hook_name("z", layer), _zero_dimensions(mask)) for layer, mask in self.attention.items()]


def _zero_ffn(mask: Bool[Tensor, "batch d_mlp"]) -> Hook:
    def zero(post: Float[Tensor, "batch pos d_mlp"], hook: object) -> Float[Tensor, "batch pos d_mlp"]:
        return _zeroed(post, mask)

    return zero


def _zero_dimensions(mask: Bool[Tensor, "batch head d_head"]) -> Hook:
    def zero(z: Float[Tensor, "batch pos head d_head"], hook: object) -> Float[Tensor, "batch pos head d_head"]:
        return _zeroed(z, mask)

    return zero


def _zeroed(x: Tensor, mask: Tensor) -> Tensor:
    shape = [x.shape[0], *x.shape[2:]]
    if list(mask.shape) != shape:
        raise InputError(f"ZeroNeurons: a mask has shape {list(mask.shape)}, but the neurons there have {shape}")
    return torch.where(mask.to(x.device)[:, None], torch.zeros((), dtype=x.dtype, device=x.device), x)
