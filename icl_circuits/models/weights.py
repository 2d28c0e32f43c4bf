"""A layer's weights with the same shapes from both classes: of attention head by head, of the MLP neuron by neuron."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import Unfit
from icl_circuits.models.facts import kv_heads
from icl_circuits.models.lens import LensModel
from icl_circuits.models.norms import Norm, block_norms, no_norm
from icl_circuits.models.precision import at_least_float32


@dataclass(frozen=True)
class AttentionWeights:
    """One layer's attention weights, a matrix for each query head (key-value heads repeated over their group).

    Row convention: `q = x @ W_Q + b_Q`, `head output = z @ W_O`; absent biases are zero.
    """

    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "head d_model d_head"]
    W_V: Float[Tensor, "head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_Q: Float[Tensor, "head d_head"]
    b_K: Float[Tensor, "head d_head"]
    b_V: Float[Tensor, "head d_head"]
    b_O: Float[Tensor, " d_model"]
    outlet: Norm
    """`attn_out = outlet(sum over heads of z @ W_O, + b_O)`: a post-norm or a multiplier; most models have neither."""

    def outlet_scale(self, z: Float[Tensor, "*batch head d_head"]) -> Float[Tensor, "*batch 1"]:
        """The outlet's own scale at each position, from the z of all heads there; 1 where there is no post-norm."""
        z = at_least_float32(z)
        if not self.outlet.normalises:
            return z.new_ones(*z.shape[:-2], 1)
        W_O = at_least_float32(self.W_O)
        return self.outlet.scale(torch.einsum("...hk,hkm->...m", z, W_O) + self.b_O)

    def added(
        self, z: Float[Tensor, "*batch head d_head"]
    ) -> tuple[Float[Tensor, "*batch head d_model"], Float[Tensor, "*batch d_model"]]:
        """What each head adds to the residual stream, and what biases add: together exactly `attn_out`."""
        scale = self.outlet_scale(z)
        heads = torch.einsum("...hk,hkm->...hm", at_least_float32(z), at_least_float32(self.W_O))
        return self.outlet.linear(heads, scale[..., None]), self.bias(scale)

    def bias(self, scale: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch d_model"]:
        """What the biases of `W_O` and of the outlet add where the outlet has this scale."""
        return self.outlet.linear(self.b_O.expand(*scale.shape[:-1], -1), scale) + self.outlet.bias


def attention_weights(model: LensModel, layer: int) -> AttentionWeights:
    """The weights of layer `layer`'s attention, with the same shapes from both classes.

    Raises:
        Unfit: the layer has no such matrices (multi-head latent attention), or heads of another size than the rest.
    """
    try:
        return _attention_weights(model, layer)
    except (AttributeError, NotImplementedError, ValueError) as error:
        reason = str(error).split(". ")[0]
        raise Unfit(
            f"layer {layer} of {model.cfg.model_name!r} has no W_Q, W_K, W_V and W_O for each head: {reason}"
        ) from error


def _attention_weights(model: LensModel, layer: int) -> AttentionWeights:
    attn = model.blocks[layer].attn
    n_heads, d_head, d_model = model.cfg.n_heads, model.cfg.d_head, model.cfg.d_model
    W_O = attn.W_O

    def per_query_head(value: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        if value is None:
            return W_O.new_zeros(shape)
        if value.shape[0] == shape[0]:
            return value
        return value[kv_heads(model)]  # the Bridge keeps key-value heads

    def bias(name: str) -> Tensor | None:
        return cast("Tensor | None", getattr(attn, name, None))

    matrix, vector = (n_heads, d_model, d_head), (n_heads, d_head)
    b_O = bias("b_O")
    return AttentionWeights(
        W_Q=per_query_head(attn.W_Q, matrix),
        W_K=per_query_head(attn.W_K, matrix),
        W_V=per_query_head(attn.W_V, matrix),
        W_O=W_O,
        b_Q=per_query_head(bias("b_Q"), vector),
        b_K=per_query_head(bias("b_K"), vector),
        b_V=per_query_head(bias("b_V"), vector),
        b_O=W_O.new_zeros(d_model) if b_O is None else b_O,
        outlet=block_norms(model, layer).attn_outlet or no_norm(model),
    )


Key = Literal["gate", "up", "down_compat"]
"""What counts as the subkey of a neuron: its column of `W_gate` (of `W_in` where the MLP is plain), of `W_in`, or its
own output direction, which the authors' code takes for Llama (arXiv 2312.12141)."""


@dataclass(frozen=True)
class MlpWeights:
    """One layer's MLP weights: row k of `W_out` is neuron k's output direction, its subvalue (arXiv 2312.12141).

    `post = act(x @ W_in + b_in)`, or `act(x @ W_gate) * (x @ W_in) + b_in` where gated; `mlp_out = outlet(post @ W_out
    + b_out)`. Absent biases are zero.
    """

    W_in: Float[Tensor, "d_model d_mlp"]
    W_gate: Float[Tensor, "d_model d_mlp"] | None
    """None: a plain MLP."""
    W_out: Float[Tensor, "d_mlp d_model"]
    b_in: Float[Tensor, " d_mlp"]
    b_out: Float[Tensor, " d_model"]
    outlet: Norm
    """As that of `AttentionWeights`, for the MLP."""

    def outlet_scale(self, post: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch 1"]:
        """The outlet's own scale at each position, from all neurons' activations there; 1 without a post-norm."""
        post = at_least_float32(post)
        if not self.outlet.normalises:
            return post.new_ones(*post.shape[:-1], 1)
        return self.outlet.scale(post @ at_least_float32(self.W_out) + self.b_out)

    def added(self, post: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_model"]:
        """What the MLP adds to the residual stream: `mlp_out`."""
        written = at_least_float32(post) @ at_least_float32(self.W_out) + self.b_out
        return self.outlet.linear(written, self.outlet_scale(post)) + self.outlet.bias

    def read_by(self, key: Key) -> tuple[Float[Tensor, "d_model d_mlp"], Float[Tensor, " d_mlp"]]:
        """The neurons' subkeys, a column each, and the bias that goes with them."""
        zero = torch.zeros_like(self.b_in)
        if key == "gate":
            return (self.W_in, self.b_in) if self.W_gate is None else (self.W_gate, zero)
        return (self.W_in, zero if self.W_gate is not None else self.b_in) if key == "up" else (self.W_out.T, zero)


def mlp_weights(model: LensModel, layer: int) -> MlpWeights:
    """The weights of layer `layer`'s MLP, with the same shapes from both classes.

    Raises:
        Unfit: the layer has no MLP, or one that is no pair (or, gated, triple) of matrices: a mixture of experts, or
            gate and input in one matrix.
    """
    mlp = getattr(model.blocks[layer], "mlp", None)
    W_in, W_gate, W_out, b_in, b_out = (_tensor(mlp, name) for name in ("W_in", "W_gate", "W_out", "b_in", "b_out"))
    if W_in is None or W_out is None or W_in.ndim != 2 or W_in.shape[1] != W_out.shape[0]:
        raise Unfit(f"layer {layer} of {model.cfg.model_name!r} has no MLP whose neurons could be read one by one")
    return MlpWeights(
        W_in,
        W_gate,
        W_out,
        W_in.new_zeros(W_in.shape[1]) if b_in is None else b_in,
        W_out.new_zeros(W_out.shape[1]) if b_out is None else b_out,
        block_norms(model, layer).mlp_outlet or no_norm(model),
    )


def _tensor(module: Any, name: str) -> Tensor | None:
    value = getattr(module, name, None)
    return value if isinstance(value, Tensor) else None


def factored(A: Float[Tensor, "rows rank"], B: Float[Tensor, "rank columns"]) -> Any:
    """The product `A @ B` as TransformerLens's `FactoredMatrix`, which has its spectrum without multiplying it out."""
    from transformer_lens import FactoredMatrix

    return FactoredMatrix(at_least_float32(A), at_least_float32(B))
