"""The norms of a model, and its readout: the last norm and the unembedding, whichever class it is of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models.lens import LensModel, backend_of, source_config
from icl_circuits.models.precision import at_least_float32

LOGITS_AT_ONCE = 1 << 22
"""How many logits are held at once, as rows of a vocabulary: 16 MB in float32."""
ROWS_AT_ONCE = 2048
"""How many rows are unembedded together where they are held in parts of the vocabulary: fewer wait for W_U's memory."""
IN_CACHE = 1 << 20
"""How many logits such a part has: 4 MB in float32, which stay in a processor's caches while they are read again."""


class Standing(NamedTuple):
    """How the logit of one token stands among all, in each of several rows."""

    right: Float[Tensor, " row"]
    """The token's own logit."""
    best_other: Float[Tensor, " row"]
    """The highest logit of another token."""
    log_sum: Float[Tensor, " row"]
    """The log of the sum of all exponentials: `right - log_sum` is the token's log-probability, in nats."""


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
        scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).pow(2) / x.shape[-1] + self.eps).sqrt()
        return torch.addcmul(self.bias, x / scale, self.weight)  # F.rms_norm takes twice as many passes over memory

    def _centre(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        return x - x.mean(-1, keepdim=True) if self.centred else x


def norm_of(model: LensModel, module: Any) -> Norm:
    """The norm that `module` of `model` computes (None: a model that has none there), whichever class it is of."""
    weight, bias = _first(module, "w", "weight"), _first(module, "b", "bias")
    source = getattr(module, "original_component", None)
    less_one = getattr(model.cfg, "rmsnorm_uses_offset", False) or type(source).__name__.endswith("LayerNorm1P")
    if weight is not None and less_one and backend_of(model) == "bridge":
        weight = 1.0 + weight  # Gemma and Nemotron store norm weights less one; HookedTransformer's conversion adds it
    kind = str(model.cfg.normalization_type or "")
    plain = no_norm(model)
    return replace(
        plain,
        normalises=bool(kind),
        centred=kind.startswith("LN"),
        eps=float(getattr(source, "variance_epsilon", None) or getattr(source, "eps", None) or model.cfg.eps),
        weight=plain.weight if weight is None else weight,
        bias=plain.bias if bias is None else bias,
        module=module if backend_of(model) == "bridge" and kind.startswith("RMS") else None,
    )


def no_norm(model: LensModel) -> Norm:
    """The norm that changes nothing."""
    like = at_least_float32(model.unembed.W_U[:1, :1])
    d_model = model.cfg.d_model
    return Norm(normalises=False, centred=False, eps=0.0, weight=like.new_ones(d_model), bias=like.new_zeros(d_model))


@dataclass(frozen=True)
class BlockNorms:
    """The norms of a block: before its sublayers, and between them and the residual stream.

    `attn_out = outlet(heads)`: a post-norm (Gemma 2 and 3, OLMo 2 and 3, EXAONE 4), times a multiplier (Granite). With
    its scale frozen at its own value an outlet is linear, so heads and neurons add up exactly.
    """

    ln1: Norm
    ln2: Norm | None
    """None: the MLP reads what attention reads (GPT-J), or there is none."""
    attn_outlet: Norm | None
    """None: heads write straight to the residual stream."""
    mlp_outlet: Norm | None

    @property
    def before_mlp(self) -> Norm:
        """What the MLP reads through."""
        return self.ln2 or self.ln1


def block_norms(model: LensModel, layer: int) -> BlockNorms:
    """The norms of block `layer`, whichever class the model is of."""
    block = model.blocks[layer]
    multiplier = float(getattr(source_config(model), "residual_multiplier", 1.0))

    def outlet(name: str) -> Norm | None:
        module = getattr(block, name, None)
        if module is None and multiplier == 1.0:
            return None
        norm = no_norm(model) if module is None else norm_of(model, module)
        if multiplier == 1.0:
            return norm
        return replace(norm, weight=multiplier * norm.weight, bias=multiplier * norm.bias, module=None)

    if _norms_outputs_only(model, block):
        return BlockNorms(no_norm(model), no_norm(model), outlet("ln1"), outlet("ln2"))
    ln1, ln2 = getattr(block, "ln1", None), getattr(block, "ln2", None)
    without = no_norm(model) if hasattr(block, "ln2_post") else None  # OLMo 2 in TransformerLens 4
    return BlockNorms(
        no_norm(model) if ln1 is None else norm_of(model, ln1),
        without if ln2 is None else norm_of(model, ln2),
        outlet("ln1_post"),
        outlet("ln2_post"),
    )


def _norms_outputs_only(model: LensModel, block: Any) -> bool:
    """Whether `ln1` and `ln2` lie behind their sublayers (OLMo 2 and 3, EXAONE 4), none before them."""
    if backend_of(model) == "bridge":
        return str(getattr(getattr(block, "ln1", None), "name", "")).startswith("post_")
    return getattr(model.cfg, "original_architecture", "") in ("Olmo2ForCausalLM", "Olmo3ForCausalLM")


@dataclass(frozen=True)
class Readout:
    """The final norm and the unembedding: `logits = softcap(norm(resid) @ W_U + b_U)`, in float32 or wider.

    A multiplier of the logits (Granite) is part of `W_U` and `b_U`.
    """

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
        return self.from_projected(self.project(state, scale)).log_softmax(-1)

    def from_projected(self, projected: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch d_vocab"]:
        """The logits of a whole state, given its projection; the norm's bias is dropped."""
        return self._cap(projected + self.b_U)

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

    @torch.no_grad()
    def standing(self, normed: Float[Tensor, "row d_model"], target: Int[Tensor, " row"]) -> Standing:
        """How the logit of each row's `target` stands among all logits, which are made in parts of the vocabulary.

        `normed` are final states behind their norm, or behind `Norm.linear` with a frozen scale.
        """
        parts = zip(normed.split(ROWS_AT_ONCE), target.split(ROWS_AT_ONCE), strict=True)
        found = [self._standing(rows, tokens) for rows, tokens in parts]
        return Standing(*(torch.cat(column) for column in zip(*found, strict=True)))

    def _standing(self, normed: Float[Tensor, "row d_model"], target: Int[Tensor, " row"]) -> Standing:
        width = max(1, IN_CACHE // max(1, len(normed)))
        right, best_other, sums = normed.new_empty(len(normed)), [], []
        for W_U, b_U, start in zip(
            self.W_U.split(width, 1), self.b_U.split(width), range(0, self.W_U.shape[1], width), strict=True
        ):
            logits = self._cap(normed @ W_U + b_U)
            sums.append(logits.logsumexp(1))
            here = ((target >= start) & (target < start + logits.shape[1])).nonzero()[:, 0]
            column = target[here] - start
            right[here] = logits[here, column]
            logits[here, column] = float("-inf")
            best_other.append(logits.amax(1))
        return Standing(right, torch.stack(best_other).amax(0), torch.stack(sums).logsumexp(0))

    def _cap(self, logits: Tensor) -> Tensor:
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def readout(model: LensModel) -> Readout:
    """The model's final norm and unembedding, whichever class, norm and processing it has."""
    source = source_config(model)
    multiplier = 1.0
    if str(getattr(source, "model_type", "")).startswith("granite"):
        multiplier = 1.0 / float(source.logits_scaling)
    W_U, b_U = at_least_float32(model.unembed.W_U), _first(model.unembed, "b_U")
    b_U = W_U.new_zeros(W_U.shape[1]) if b_U is None else b_U
    cap = float(getattr(model.cfg, "output_logits_soft_cap", None) or 0.0)
    return Readout(
        norm=norm_of(model, getattr(model, "ln_final", None)),  # toy models may have none
        W_U=W_U if multiplier == 1.0 else multiplier * W_U,
        b_U=b_U if multiplier == 1.0 else multiplier * b_U,
        softcap=cap if cap > 0 else None,
    )


def _first(module: Any, *names: str) -> Tensor | None:
    """The first of the attributes `names` that `module` has as a tensor, in float32 or wider."""
    values = (getattr(module, name, None) for name in names)
    return next((at_least_float32(value) for value in values if isinstance(value, Tensor)), None)
