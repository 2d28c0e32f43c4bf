"""A transformer block as equations: what a model's modules compute, in a form that runs on any rows and positions.

`HookedTransformer` and `TransformerBridge` can only run whole prompts. The exact sweep engine runs single positions of
many variants against cached keys and values, so it needs the block's parts: norms, projections, rotary angles, mask,
MLP. The engine checks them against the model's own activations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.models.norms import Norm
from icl_circuits.models.precision import at_least_float32


class NotAlgebraError(Exception):
    """A model's block does something that `Block` has no equation for. The message says what."""


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first `cos.shape[1]` dimensions of a head.

    `adjacent` says whether dimension 2i turns with 2i+1 (GPT-J) or i with i + half (Llama, GPT-NeoX).
    """

    cos: Float[Tensor, "ctx rotary"]
    sin: Float[Tensor, "ctx rotary"]
    adjacent: bool

    @property
    def inverse(self) -> Any:
        """The transpose of this one, which turns back."""
        return replace(self, sin=-self.sin)

    def still(self, x: Float[Tensor, "*rows head d_head"]) -> Float[Tensor, "*rows head d_head"]:
        """`x` turned by no angle, as queries and keys of one position compare: YaRN lengthens them all the same."""
        length = float((self.cos[0, 0].double() ** 2 + self.sin[0, 0].double() ** 2).sqrt())
        if abs(length - 1) < 1e-4:
            return x
        width = self.cos.shape[1]
        return torch.cat([x[..., :width] * length, x[..., width:]], -1)

    def __call__(
        self, x: Float[Tensor, "*rows pos head d_head"], positions: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "*rows pos head d_head"]:
        """`x` turned by the angles of its positions; the last axis of rows is the batch."""
        dtype, x, width = x.dtype, at_least_float32(x), self.cos.shape[1]
        cos, sin = (table[positions][:, :, None].to(x) for table in (self.cos, self.sin))
        if self.adjacent:
            turned = x[..., :width]
            swapped = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1).flatten(-2)
            parts = [torch.addcmul(turned * cos, swapped, sin)]
        else:
            half = width // 2
            a, b = x[..., :half], x[..., half:width]
            parts = [
                torch.addcmul(a * cos[..., :half], b, sin[..., :half], value=-1),
                torch.addcmul(b * cos[..., half:], a, sin[..., half:]),
            ]
        return torch.cat(parts if width == x.shape[-1] else [*parts, x[..., width:]], -1).to(dtype)


@dataclass(frozen=True)
class Block:
    """The equations of one transformer block.

    With `x` the state that enters: `q, k, v = ln1(x) W + b`; `z = softmax(mask(softcap(q k / scale))) v`;
    `attn_out = attn_outlet(z W_O + b_O)`; `mlp_out = mlp_outlet(mlp(ln2(x + attn_out)))`, or of `mlp(ln2(x))` where
    parallel.
    """

    layer: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    scale: float
    """What `q k` is divided by."""
    softcap: float | None
    window: int | None
    """How many positions a sliding window shows, a position's own included; None: all."""
    softmax_dtype: torch.dtype | None
    """What the softmax is computed in; None: the scores' own dtype, but never less than float32."""
    parallel: bool
    rotary: Rotary | None
    ln1: Norm
    ln2: Norm | None
    attn_outlet: Norm | None
    mlp_outlet: Norm | None
    mlp: Callable[[Tensor], Tensor] | None
    norm_q: Callable[[Tensor], Tensor] | None
    norm_k: Callable[[Tensor], Tensor] | None
    attn: Any

    @property
    def dtype(self) -> torch.dtype:
        """What its weights are held in."""
        return cast(torch.dtype, self.attn.W_Q.dtype)

    def project(self, name: str, normed: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows head d_head"]:
        """`normed @ W_Q + b_Q`, or of K or V (`name` is `q`, `k` or `v`): what `hook_q` and so on carry."""
        W, b = projection(self.attn, name)
        flat = W.permute(1, 0, 2).reshape(W.shape[1], -1)
        out = F.linear(normed.to(W.dtype), flat.T, None if b is None else b.reshape(-1))
        return out.unflatten(-1, (W.shape[0], self.d_head))

    def turned(
        self, name: str, x: Float[Tensor, "*rows pos head d_head"], positions: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "*rows pos head d_head"]:
        """Queries or keys as attention compares them: normed where the model does so, then turned by position."""
        norm = self.norm_q if name == "q" else self.norm_k
        if norm is not None:
            x = norm(x)
        return x if self.rotary is None else self.rotary(x, positions)

    def scores(
        self, q: Float[Tensor, "*rows pos d_head"], k: Float[Tensor, "*rows src_pos d_head"]
    ) -> Float[Tensor, "*rows pos src_pos"]:
        """Attention scores of one head's queries and keys before mask and softmax: `softcap(q k / scale)`."""
        scores = q @ k.transpose(-1, -2) / self.scale
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)

    def visible(
        self, queries: Int[Tensor, "batch pos"], keys: Int[Tensor, "batch src_pos"]
    ) -> Bool[Tensor, "batch pos src_pos"]:
        """Which positions attention shows to which: none that come later, none behind the window."""
        distance = queries[:, :, None] - keys[:, None, :]
        return distance >= 0 if self.window is None else (distance >= 0) & (distance < self.window)

    def output(self, z: Float[Tensor, "*rows head d_head"]) -> Float[Tensor, "*rows d_model"]:
        """`z W_O + b_O`."""
        W_O, b_O = self.attn.W_O, getattr(self.attn, "b_O", None)
        return F.linear(z.to(W_O.dtype).flatten(-2), W_O.reshape(-1, W_O.shape[-1]).T, b_O)


def projection(attn: Any, name: str) -> tuple[Float[Tensor, "head d_model d_head"], Tensor | None]:
    """`W_Q` and `b_Q`, or of K or V, with key-value heads as the model's hooks show them."""
    grouped = f"_W_{name.upper()}"  # HookedTransformer's W_K repeats key-value heads, its _W_K does not
    ungrouped = getattr(getattr(attn, "cfg", None), "ungroup_grouped_query_attention", False)
    kept = "_" if hasattr(attn, grouped) and not ungrouped else ""
    return getattr(attn, f"{kept}W_{name.upper()}"), getattr(attn, f"{kept}b_{name.upper()}", None)
