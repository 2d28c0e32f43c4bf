"""The one module that knows which TransformerLens class and version it talks to.

`HookedTransformer` (TransformerLens 3.x) and `TransformerBridge` (3.x and 4.x) differ in attribute names, in how they
store key-value heads and biases, and in which hook points act on the computation. Everything else in the package asks
here and never imports a model class.
"""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, Unfit

Backend = Literal["hooked", "bridge"]
Processing = Literal["none", "default"]


@runtime_checkable
class LensModel(Protocol):
    """What the package needs of a model: the part that `HookedTransformer` and `TransformerBridge` share."""

    cfg: Any
    tokenizer: Any
    blocks: Any
    embed: Any
    unembed: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        ...

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        ...


class Head(NamedTuple):
    """One attention head, printed as the field writes it: `L10H7`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


# --- building a model from a Hugging Face one -------------------------------------------------------------------------


def hooked_transformer_class() -> Any | None:
    """`HookedTransformer` where the installed TransformerLens still has it (3.x), else None (4.x)."""
    try:
        from transformer_lens import HookedTransformer
    except ImportError:
        return None
    return HookedTransformer


def default_device() -> torch.device:
    """The device TransformerLens itself would choose."""
    from transformer_lens.utilities import get_device

    return torch.device(get_device())


def official_name(name: str) -> str:
    """The Hub name behind a TransformerLens alias (`gpt2-small` -> `gpt2`); other names come back unchanged."""
    from transformer_lens.supported_models import MODEL_ALIASES

    for official, aliases in MODEL_ALIASES.items():
        if name in aliases:
            return str(official)
    return name


def wants_own_weights(name: str) -> bool:
    """Whether TransformerLens has weights of its own for `name` (`solu-1l`, `NeelNanda/...`), not Hugging Face's."""
    return official_name(name).startswith(("NeelNanda/", "ArthurConmy/", "Baidicoot/"))


def from_own_weights(name: str, *, processing: Processing, dtype: torch.dtype, device: torch.device) -> LensModel:
    """Load one of TransformerLens's own toy models, which exist for `HookedTransformer` only."""
    hooked = hooked_transformer_class()
    if hooked is None:
        raise InputError(f"model {name!r} exists for HookedTransformer only: install 'transformer_lens<4' to load it")
    load = hooked.from_pretrained if processing == "default" else hooked.from_pretrained_no_processing
    try:
        with _quiet():
            return cast(LensModel, load(official_name(name), dtype=dtype, device=str(device)))
    except OSError as error:  # what the Hub client raises without a network
        raise InputError(f"cannot load model {name!r} ({type(error).__name__}): it needs a network") from error


def to_hooked(
    hf_model: Any, tokenizer: Any, *, processing: Processing, dtype: torch.dtype, device: torch.device
) -> LensModel:
    """Convert a Hugging Face model in memory into a `HookedTransformer`, without a look at any registry or the Hub."""
    hooked = hooked_transformer_class()
    if hooked is None:
        raise InputError(
            "backend 'hooked' needs HookedTransformer, which TransformerLens 4 removed: use backend='bridge' or "
            "install 'transformer_lens<4'"
        )
    from transformer_lens import loading_from_pretrained as loading

    architecture = type(hf_model).__name__
    try:
        cfg, state_dict = _converted(loading, hf_model, fold_ln=processing == "default", device=device, dtype=dtype)
    except InputError:
        raise
    except (NotImplementedError, AttributeError, KeyError, ValueError) as error:
        raise InputError(
            f"HookedTransformer has no conversion for {architecture} ({str(error)[:100]}): use backend='bridge'"
        ) from error
    cfg.tokenizer_name = None  # else the constructor looks for it on the Hub
    process = processing == "default"
    with _quiet():
        model = hooked(cfg, None)
        model.load_and_process_state_dict(
            state_dict,
            fold_ln=process,
            center_writing_weights=process,
            center_unembed=process,
            fold_value_biases=process,
        )
        try:
            model.set_tokenizer(tokenizer, default_padding_side="right")
        except (OSError, KeyError, ValueError):  # it reads the tokenizer again by name, and a GGUF file has none
            model.tokenizer = tokenizer
        model.to(device)
    return cast(LensModel, model)


def _converted(loading: Any, hf_model: Any, **options: Any) -> tuple[Any, dict[str, Tensor]]:
    """TransformerLens's config and state dict for `hf_model`: from its own config, else from its name on the Hub."""
    config = hf_model.config.to_dict() | {"architectures": [type(hf_model).__name__]}
    config.pop("quantization_config", None)  # a GGUF file's tensors are dequantised by now
    if "n_positions" in config:
        config.setdefault("n_ctx", config["n_positions"])  # transformers 5 no longer writes GPT-2's n_ctx
    with tempfile.TemporaryDirectory(prefix="icl-") as folder:
        # TransformerLens reads a config from a folder only, and takes an architecture's name in the path for the truth.
        if any(word in folder.lower() for word in ("llama", "gemma")):
            raise InputError(f"the temporary folder {folder!r} names an architecture: set TMPDIR to one that does not")
        (Path(folder) / "config.json").write_text(json.dumps(config, default=str))
        name = folder
        try:
            cfg = loading.get_pretrained_model_config(folder, **options)
        except NotImplementedError:  # some architectures (Gemma) it knows by their Hub names alone
            name = hf_model.config.name_or_path
            cfg = loading.get_pretrained_model_config(name, hf_cfg=config, **options)
        return cfg, loading.get_pretrained_state_dict(name, cfg, hf_model, dtype=options["dtype"])


def to_bridge(
    hf_model: Any, tokenizer: Any, *, processing: Processing, dtype: torch.dtype, device: torch.device
) -> LensModel:
    """Wrap a Hugging Face model in memory into a `TransformerBridge` with the field's hook names."""
    from transformer_lens.model_bridge import TransformerBridge

    name = hf_model.config.name_or_path or type(hf_model).__name__
    try:
        with _quiet():
            model = TransformerBridge.boot_transformers(
                name, hf_model=hf_model, tokenizer=tokenizer, dtype=dtype, device=device
            )
            model.enable_compatibility_mode(disable_warnings=True, no_processing=processing == "none")
    except (NotImplementedError, ValueError) as error:
        raise InputError(f"TransformerBridge cannot load {type(hf_model).__name__}: {error}") from error
    return cast(LensModel, model)


@contextlib.contextmanager
def _quiet() -> Any:
    """Hide what TransformerLens prints while it builds a model, and its notice that HookedTransformer will go."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def backend_of(model: LensModel) -> Backend:
    """Which of the two classes `model` is."""
    hooked = hooked_transformer_class()
    return "hooked" if hooked is not None and isinstance(model, hooked) else "bridge"


# --- facts about a model ----------------------------------------------------------------------------------------------


def hook_points(model: LensModel) -> Mapping[str, Any]:
    """The model's hook points by name.

    No member of `LensModel`: `TransformerBridge` puts the dictionary together each time it is asked for, and a run-time
    check of the protocol asks for every member.
    """
    points: Mapping[str, Any] = cast(Any, model).hook_dict
    return points


def hook_point(model: LensModel, name: str) -> Any:
    """The hook point `name`. Raises `InputError` where the model has none of that name."""
    try:
        return hook_points(model)[name]
    except KeyError:
        why = ""
        if name.endswith("hook_resid_mid") and is_parallel(model):
            why = ": its blocks compute attention and MLP in parallel, so there is no state between them"
        raise Unfit(f"model {model.cfg.model_name!r} has no hook point {name!r}{why}") from None


def require_per_head_z(model: LensModel) -> None:
    """Raise `InputError` unless every layer of `model` has attention heads with a `hook_z`."""
    points = hook_points(model)
    for layer in range(model.cfg.n_layers):
        if f"blocks.{layer}.attn.hook_z" not in points:
            raise Unfit(
                f"model {model.cfg.model_name!r} has no per-head z in layer {layer} (no "
                f"'blocks.{layer}.attn.hook_z'): head analyses need a transformer with attention in every layer"
            )


def require_additive_heads(model: LensModel) -> None:
    """Raise `InputError` where a norm lies between the heads and the residual stream (Gemma 2's post-norms)."""
    if getattr(model.blocks[0], "ln1_post", None) is not None:
        raise Unfit(
            f"{model.cfg.model_name!r} norms what its heads write (a post-norm), so value-output vectors do not add "
            "up to what it computes"
        )


def require_heads(model: LensModel, heads: tuple[Head, ...]) -> None:
    """Raise `InputError` naming the first of `heads` that is no `Head` or that `model` does not have."""
    for head in heads:
        if not isinstance(head, Head):
            raise InputError(f"{head!r} is no Head: write Head(layer, head)")
        if not (0 <= head.layer < model.cfg.n_layers and 0 <= head.head < model.cfg.n_heads):
            raise InputError(
                f"head {head} does not exist: {model.cfg.model_name!r} has layers 0..{model.cfg.n_layers - 1} with "
                f"heads 0..{model.cfg.n_heads - 1}"
            )


def require_some_heads(model: LensModel, heads: Sequence[Head]) -> tuple[Head, ...]:
    """`heads` as a tuple. Raises `InputError` where there is none, or one that `model` does not have."""
    heads = tuple(heads)
    if not heads:
        raise InputError("no heads to analyse: name at least one")
    require_heads(model, heads)
    return heads


def require_layer(model: LensModel, layer: int) -> None:
    """Raise `InputError` unless `model` has the layer."""
    if not 0 <= layer < model.cfg.n_layers:
        raise InputError(
            f"layer {layer} does not exist: {model.cfg.model_name!r} has layers 0..{model.cfg.n_layers - 1}"
        )


def all_heads(model: LensModel) -> tuple[Head, ...]:
    """Every head of the model, layer by layer."""
    return tuple(Head(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads))


def is_parallel(model: LensModel) -> bool:
    """Whether blocks add attention and MLP to the same input (GPT-J, GPT-NeoX), so that no resid_mid exists."""
    return bool(model.cfg.parallel_attn_mlp)


def kv_head(model: LensModel, head: int) -> int:
    """The key-value head that query head `head` reads: itself, or its group's under grouped-query attention."""
    return head // (model.cfg.n_heads // n_kv_heads(model))


def n_kv_heads(model: LensModel) -> int:
    """How many key-value heads a layer has: as many as heads, or fewer under grouped-query attention."""
    return int(getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads)


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


def attention_weights(model: LensModel, layer: int) -> AttentionWeights:
    """The weights of layer `layer`'s attention, with the same shapes from both classes."""
    attn = model.blocks[layer].attn
    n_heads, d_head, d_model = model.cfg.n_heads, model.cfg.d_head, model.cfg.d_model
    W_O = attn.W_O

    def per_query_head(value: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        if value is None:
            return W_O.new_zeros(shape)
        if value.shape[0] == shape[0]:
            return value
        return value[[kv_head(model, head) for head in range(n_heads)]]  # the Bridge keeps key-value heads

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
    )


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


def factored(A: Float[Tensor, "rows rank"], B: Float[Tensor, "rank columns"]) -> Any:
    """The product `A @ B` as TransformerLens's `FactoredMatrix`, which has its spectrum without multiplying it out."""
    from transformer_lens import FactoredMatrix

    return FactoredMatrix(at_least_float32(A), at_least_float32(B))


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


def unmasked(scores: Float[Tensor, "*rows src_pos"]) -> Bool[Tensor, "*rows src_pos"]:
    """Where attention scores are not masked: masked ones are minus infinity, or near the least number."""
    return scores > torch.finfo(scores.dtype).min / 2


def scores_are_live(model: LensModel) -> bool:
    """Whether the model computes with the attention scores that its hooks show.

    Some `TransformerBridge` attentions (GPT-J's) compute z apart from them. `load_model` tries it; a model that came
    another way is tried when first asked.
    """
    if not hasattr(model, "icl_scores_are_live"):
        note_live_scores(model)
    return bool(cast(Any, model).icl_scores_are_live)


def require_live_scores(model: LensModel) -> None:
    """Raise `InputError` where hooks on attention scores would change nothing."""
    if not scores_are_live(model):
        raise Unfit(
            f"{type(model).__name__} of {model.cfg.model_name!r} does not compute with the attention scores that its "
            "hooks show, so an intervention on them would change nothing: load the model with backend='hooked'"
        )


def note_live_scores(model: LensModel) -> None:
    """Try on a few tokens whether z moves when layer 0 attends evenly instead, and note it on the model."""
    z_name, scores_name = "blocks.0.attn.hook_z", "blocks.0.attn.hook_attn_scores"
    if scores_name not in hook_points(model):
        cast(Any, model).icl_scores_are_live = False
        return
    tokens: Int[Tensor, "batch pos"] = torch.linspace(
        0, model.cfg.d_vocab - 1, min(8, model.cfg.n_ctx), device=device_of(model)
    ).long()[None]
    seen: list[Tensor] = []

    def record(z: Tensor, hook: object) -> None:
        seen.append(z.detach().clone())

    def attend_evenly(scores: Tensor, hook: object) -> Tensor:
        return torch.where(unmasked(scores), 0.0, scores)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # TransformerLens 4 warns where the change is lost
        model.run_with_hooks(tokens, fwd_hooks=[(z_name, record)])
        model.run_with_hooks(tokens, fwd_hooks=[(z_name, record), (scores_name, attend_evenly)])
    cast(Any, model).icl_scores_are_live = not torch.equal(seen[0], seen[1])


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32, for sums over a vocabulary; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def relative_tolerance(dtype: torch.dtype) -> float:
    """How far two computations of one thing may differ in `dtype`, relative to the largest value."""
    return 5e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-3


def device_of(model: LensModel) -> torch.device:
    """The device that takes the tokens."""
    return cast(torch.device, model.unembed.W_U.device)
