"""Build a TransformerLens model of either class from a Hugging Face model in memory."""

import contextlib
import io
import json
import shutil
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models.lens import LensModel, Processing, hooked_transformer_class
from icl_circuits.stopping import undone_if_stopped


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
    with (
        tempfile.TemporaryDirectory(prefix="icl-") as folder,
        undone_if_stopped(partial(shutil.rmtree, folder, ignore_errors=True)),
    ):
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
