"""The norms of a model, and its readout: the last norm and the unembedding, whichever class it is of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models.lens import LensModel, backend_of
from icl_circuits.models.precision import at_least_float32

LOGITS_AT_ONCE = 1 << 24
"""How many logits are held at once, as rows of a vocabulary: 64 MB in float32."""


@dataclass(frozen=True)
class Norm:
    """LayerNorm, RMS norm, or none: `(x - mean) / scale * weight + bias`, computed in float32 or wider.

    Half precision is widened, since it overflows in the squares. `centred` says whether the mean is subtracted
    (LayerNorm) or not (RMS norm); `normalises` is False for toy models without norms.
    """

    normalises: bool
    centred: bool
    eps: float
    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    module: Callable[[Tensor], Tensor] | None = None
    """Computes the norm where its rounding is its own (Hugging Face's RMS norms round to float32 in any dtype)."""

    def scale(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch 1"]:
        """What the norm divides `x` by: its standard deviation, or root mean square for RMS norms."""
        x = at_least_float32(x)
        if not self.normalises:
            return torch.ones_like(x[..., :1])
        return (self._centre(x).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def linear(
        self, vector: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*#batch 1"]
    ) -> Float[Tensor, "*batch d_model"]:
        """The norm as a linear map, its scale frozen and its bias dropped: the part of the output due to `vector`."""
        return self._centre(vector) / scale * self.weight

    def pull_back(
        self, direction: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*#batch 1"]
    ) -> Float[Tensor, "*batch d_model"]:
        """The transpose of `linear`: what a direction behind the norm is along the vectors before it."""
        return self._centre(self.weight * direction) / scale

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The norm itself, nothing frozen."""
        if self.module is not None:
            return at_least_float32(self.module(x))
        x = at_least_float32(x)
        if not self.normalises:
            return x * self.weight + self.bias
        if self.centred:
            return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps) + self.bias

    def _centre(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        return x - x.mean(-1, keepdim=True) if self.centred else x


def norm_of(model: LensModel, module: Any) -> Norm:
    """The norm that `module` of `model` computes (None: a model that has none there), whichever class it is of."""
    like = at_least_float32(model.unembed.W_U)
    weight = _first(module, "w", "weight")
    if weight is not None and getattr(model.cfg, "rmsnorm_uses_offset", False) and backend_of(model) == "bridge":
        weight = 1.0 + weight  # Gemma stores its norm weights less one; HookedTransformer adds it when it converts
    bias = _first(module, "b", "bias")
    kind = str(model.cfg.normalization_type or "")
    return Norm(
        normalises=bool(kind),
        centred=kind.startswith("LN"),
        eps=float(model.cfg.eps),
        weight=like.new_ones(model.cfg.d_model) if weight is None else weight,
        bias=like.new_zeros(model.cfg.d_model) if bias is None else bias,
        module=module if backend_of(model) == "bridge" and kind.startswith("RMS") else None,
    )


@dataclass(frozen=True)
class Readout:
    """The final norm and the unembedding: `logits = softcap(norm(resid) @ W_U + b_U)`, in float32 or wider."""

    norm: Norm
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"]
    softcap: float | None

    def project(
        self, vector: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*#batch 1"]
    ) -> Float[Tensor, "*batch d_vocab"]:
        """`bs(v)`: a vector's projection onto the vocabulary under a frozen final scale, in logits.

        Linear in `vector`: the norm's bias and the unembedding's are dropped, as in the code of arXiv 2312.12141.
        """
        return self.norm.linear(vector, scale) @ self.W_U

    def log_probs(
        self, state: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*#batch 1"]
    ) -> Float[Tensor, "*batch d_vocab"]:
        """Log-probabilities (nats) of a whole residual state under a frozen final scale: `log_softmax(bs(state))`.

        The norm's bias is dropped as in the authors' code; a bias of the unembedding (GPT-J) is kept.
        """
        return self._cap(self.project(state, scale) + self.b_U).log_softmax(-1)

    def logits(
        self, resid: Float[Tensor, "*batch d_model"], tokens: Int[Tensor, " column"] | None = None
    ) -> Float[Tensor, "*batch column"]:
        """The model's own logits of a final residual state, nothing frozen or dropped: of `tokens`, or of all."""
        return self.unembed(self.norm(resid), tokens)

    def unembed(
        self, normed: Float[Tensor, "*batch d_model"], tokens: Int[Tensor, " column"] | None = None
    ) -> Float[Tensor, "*batch column"]:
        """The logits of a final state behind its norm."""
        W_U, b_U = (self.W_U, self.b_U) if tokens is None else (self.W_U[:, tokens], self.b_U[tokens])
        return self._cap(normed @ W_U + b_U)

    def _cap(self, logits: Tensor) -> Tensor:
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def readout(model: LensModel) -> Readout:
    """The model's final norm and unembedding, whichever class, norm and processing it has."""
    W_U, b_U = at_least_float32(model.unembed.W_U), _first(model.unembed, "b_U")
    cap = float(getattr(model.cfg, "output_logits_soft_cap", None) or 0.0)
    return Readout(
        norm=norm_of(model, getattr(model, "ln_final", None)),  # toy models may have none
        W_U=W_U,
        b_U=W_U.new_zeros(W_U.shape[1]) if b_U is None else b_U,
        softcap=cap if cap > 0 else None,
    )


def _first(module: Any, *names: str) -> Tensor | None:
    """The first of the attributes `names` that `module` has as a tensor, in float32 or wider."""
    values = (getattr(module, name, None) for name in names)
    return next((at_least_float32(value) for value in values if isinstance(value, Tensor)), None)
