"""Read a block's equations from either class of model."""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from icl_circuits.models.block import Block, NotAlgebraError, Rotary, projection
from icl_circuits.models.facts import has_mlp, is_parallel
from icl_circuits.models.lens import LensModel, backend_of, source_config
from icl_circuits.models.norms import block_norms

TANH_GELUS = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")

ROUNDS_SOFTMAX = "PositionEmbeddingsAttentionBridge"
"""An attention class that computes the softmax in float32 in any dtype, float64 included."""


WITHOUT_EQUATIONS = {
    "use_attention_sinks": "attention sinks",
    "use_logn_attn": "log-n attention",
    "use_dynamic_ntk_rope": "rotary angles that depend on the length of the prompt",
    "clip_qkv": "queries, keys and values that are clipped",
}
"""Fields of a configuration, and what of attention they add that `Block` has no equation for."""


def read_block(model: LensModel, layer: int, n_pos: int) -> Block:
    """The equations of block `layer` for up to `n_pos` positions, whichever class the model is of.

    Raises:
        NotAlgebraError: the block has a part that has no equation here.
    """
    try:
        return _read_block(model, layer, n_pos)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, NotImplementedError) as error:
        # multi-head latent attention has no W_K, for one; Gemma 4's layers have heads of different sizes
        raise NotAlgebraError(f"layer {layer} lacks a part that the engine needs ({error})") from error


def _read_block(model: LensModel, layer: int, n_pos: int) -> Block:
    block, cfg = model.blocks[layer], model.cfg
    hooked = backend_of(model) == "hooked"
    attn = getattr(block, "attn", None)
    if attn is None:
        raise NotAlgebraError(f"layer {layer} has no attention")
    source = None if hooked else attn.original_component
    kind = str(cfg.positional_embedding_type) if hooked else "standard"
    if kind not in ("standard", "rotary"):
        raise NotAlgebraError(f"its position embedding is {kind!r}")
    for name, what in WITHOUT_EQUATIONS.items():
        if getattr(cfg if hooked else source_config(model), name, None):
            raise NotAlgebraError(f"it has {what}")
    W_K, _ = projection(attn, "k")
    if W_K.dtype == torch.float64 and type(source).__name__ == "GPTJAttention":
        raise NotAlgebraError("its attention rounds queries and keys to float32, so it is not exact in float64")
    with_mlp, norms = has_mlp(model), block_norms(model, layer)
    return Block(
        layer=layer,
        n_heads=cfg.n_heads,
        n_kv_heads=W_K.shape[0],
        d_head=cfg.d_head,
        scale=_scale(attn, source, cfg.d_head),
        softcap=_positive(cfg.attn_scores_soft_cap if hooked else getattr(source, "attn_logit_softcapping", None)),
        window=_window(layer, attn, source, cfg),
        softmax_dtype=torch.float32 if type(attn).__name__ == ROUNDS_SOFTMAX else None,
        parallel=is_parallel(model),
        rotary=_rotary(model, layer, attn, source, n_pos),
        ln1=norms.ln1,
        ln2=norms.before_mlp if with_mlp else None,
        attn_outlet=norms.attn_outlet,
        mlp_outlet=norms.mlp_outlet,
        mlp=_mlp(block.mlp, cfg.act_fn if hooked else "", W_K.dtype) if with_mlp else None,
        norm_q=_qk_norm(attn, "q_norm"),
        norm_k=_qk_norm(attn, "k_norm"),
        attn=attn,
    )


def _scale(attn: Any, source: Any, d_head: int) -> float:
    if source is None:
        return float(attn.attn_scale)
    scaling = getattr(source, "scaling", None)
    if scaling is not None:
        return 1.0 / float(scaling)
    if type(source).__name__.startswith("GPTNeoSelf"):
        return 1.0
    return float(getattr(source, "scale_attn", d_head**0.5))


def _window(layer: int, attn: Any, source: Any, cfg: Any) -> int | None:
    if source is None:
        return int(cfg.window_size) if getattr(attn, "attn_type", "global") == "local" else None
    if getattr(source, "attention_type", "") == "local":  # GPT-Neo
        return int(source.config.window_size)
    if not getattr(source, "is_sliding", True):  # EXAONE 4
        return None
    own = getattr(source, "sliding_window", None)
    if own is None and not hasattr(source, "sliding_window"):
        config = getattr(source, "config", None)
        own = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or []
        if not getattr(config, "use_sliding_window", True) or kinds[layer : layer + 1] == ["full_attention"]:
            own = None  # Qwen2 names a window that it does not use, or uses in some layers alone
    return int(own) if own else None


def _rotary(model: LensModel, layer: int, attn: Any, source: Any, n_pos: int) -> Rotary | None:
    if source is None:
        if model.cfg.positional_embedding_type != "rotary":
            return None
        if n_pos > len(attn.rotary_cos):  # made for 2048 positions, longer ones as they come
            attn._extend_rotary_embeddings(n_pos)
        return Rotary(attn.rotary_cos, attn.rotary_sin, bool(model.cfg.rotary_adjacent_pairs))
    if hasattr(source, "embed_positions"):  # GPT-J
        sin, cos = source.embed_positions.chunk(2, dim=-1)
        return Rotary(cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1), adjacent=True)
    module = getattr(getattr(model, "rotary_emb", None), "original_component", None)
    if module is None or not _turns(source):
        return None
    like = cast(Tensor, model.unembed.W_U)
    asked: list[Any] = [like.new_zeros(1), torch.arange(n_pos, device=like.device)[None]]
    if "layer_type" in inspect.signature(module.forward).parameters:  # angles that depend on the layer's type (Gemma 3)
        asked.append(source_config(model).layer_types[layer])
    try:
        cos, sin = module(*asked)
    except (TypeError, ValueError) as error:
        raise NotAlgebraError(f"its rotary angles cannot be asked for ({error})") from error
    if not _turns_neighbours(source):
        return Rotary(cos[0], sin[0], adjacent=False)
    cos, sin = (angles[0, :, : angles.shape[-1] // 2].repeat_interleave(2, -1) for angles in (cos, sin))
    return Rotary(cos, sin, adjacent=True)


def _turns(source: Any) -> bool:
    """Whether this layer's attention turns queries and keys: every fourth of SmolLM3 and of EXAONE 4 does not."""
    if hasattr(source, "use_rope"):
        return bool(source.use_rope)
    return not (type(source).__name__ == "Exaone4Attention" and source.sliding_window and not source.is_sliding)


def _turns_neighbours(source: Any) -> bool:
    """Whether dimension 2i turns with 2i+1 (GLM, ERNIE), as the model's own function on four numbers tells."""
    rotate_half = getattr(sys.modules[type(source).__module__], "rotate_half", None)
    return rotate_half is not None and rotate_half(torch.arange(4.0)).tolist() == [-1.0, 0.0, -3.0, 2.0]


def _mlp(module: Any, act_fn: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The MLP as a function of normed states, which takes no gradient: the module itself, but for HookedTransformer's.

    TransformerLens copies a gated MLP's matrices at every call, and writes the tanh-GELU out in eight passes over
    memory; torch has it as one kernel.
    """
    if getattr(module, "name", "") is None:  # OPT's matrices lie in the layer itself
        raise NotAlgebraError("its MLP is no module of its own")
    kind, tanh_gelu = type(module).__name__, partial(F.gelu, approximate="tanh")
    if kind == "GatedMLP" and not act_fn.endswith("_ln"):
        return _gated(module, tanh_gelu if act_fn in TANH_GELUS else module.act_fn, dtype)
    if kind != "MLP" or act_fn not in TANH_GELUS:
        return lambda normed: cast(Tensor, module(normed.to(dtype)))

    def mlp(normed: Tensor) -> Tensor:
        post = tanh_gelu(F.linear(normed.to(dtype), module.W_in.T, module.b_in))
        return F.linear(post, module.W_out.T, module.b_out)

    return mlp


def _gated(module: Any, act: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A gated MLP without a copy of its matrices, and without adding a bias that is zero."""
    bias = module.b_in if module.b_in.any() else None

    def mlp(normed: Tensor) -> Tensor:
        normed = normed.to(dtype)
        post = F.linear(normed, module.W_in.T).mul_(act(F.linear(normed, module.W_gate.T)))
        return F.linear(post if bias is None else post.add_(bias), module.W_out.T, module.b_out)

    return mlp


def _qk_norm(attn: Any, name: str) -> Callable[[Tensor], Tensor] | None:
    """The norm of queries or keys, [*rows head d_head]: of each head, or of all heads together (OLMo 2)."""
    module = getattr(attn, name, None)
    if module is None:
        return None
    weight = next((w for w in (getattr(module, "w", None), getattr(module, "weight", None)) if w is not None), None)

    def normed(x: Tensor) -> Tensor:
        together = weight is not None and weight.numel() > x.shape[-1]
        rows = x.flatten(-2) if together else x
        return cast(Tensor, module(rows.reshape(-1, rows.shape[-1]))).reshape(x.shape)

    return normed


def _positive(cap: Any) -> float | None:
    return float(cap) if cap and float(cap) > 0 else None
