"""Build a TransformerLens model of either class from a Hugging Face model in memory."""

import contextlib
import io
import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models.failing import told
from icl_circuits.models.fidelity import max_positions
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
    hf_model: Any,
    tokenizer: Any,
    *,
    n_ctx: int | None,
    processing: Processing,
    dtype: torch.dtype,
    device: torch.device,
) -> LensModel:
    """Convert a Hugging Face model in memory into a `HookedTransformer`, without a look at any registry or the Hub.

    `n_ctx` is how many tokens it reads at most; None: as many as the model, or as TransformerLens caps it at.
    """
    hooked = hooked_transformer_class()
    if hooked is None:
        raise InputError(
            "backend 'hooked' needs HookedTransformer, which TransformerLens 4 removed: use backend='bridge' or "
            "install 'transformer_lens<4'"
        )
    from transformer_lens import loading_from_pretrained as loading

    process, kind = processing == "default", type(hf_model).__name__
    with told(f"HookedTransformer has no conversion for {kind} of this shape", ": use backend='bridge'"), _quiet():
        cfg, state_dict = _converted(loading, hf_model, n_ctx, fold_ln=process, device=device, dtype=dtype)
        cfg.tokenizer_name = None  # else the constructor looks for it on the Hub
        model = hooked(cfg, None)
        loaded: dict[str, Tensor] = {}
        with mock.patch.object(model, "load_state_dict", lambda part, **_: loaded.update(part)):
            model.load_and_process_state_dict(
                state_dict,
                fold_ln=process,
                center_writing_weights=process,
                center_unembed=process,
                fold_value_biases=process,
            )
        model.load_state_dict(loaded, strict=False)  # TransformerLens goes through all modules for each tensor
    with _quiet():
        try:
            model.set_tokenizer(tokenizer, default_padding_side="right")
        except (OSError, KeyError, ValueError):  # it reads the tokenizer again by name, and a GGUF file has none
            model.tokenizer = tokenizer
        if type(model.tokenizer) is not type(tokenizer):  # by name, transformers found another
            model.tokenizer = tokenizer
        model.to(device)
    return cast(LensModel, model)


def _converted(loading: Any, hf_model: Any, n_ctx: int | None, **options: Any) -> tuple[Any, dict[str, Tensor]]:
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
        cfg.n_ctx = tokens_read(n_ctx, cfg.n_ctx, max_positions(hf_model.config.get_text_config()))
        state_dict = loading.get_pretrained_state_dict(name, cfg, hf_model, dtype=options["dtype"])
        if "pos_embed.W_pos" in state_dict:
            state_dict["pos_embed.W_pos"] = state_dict["pos_embed.W_pos"][: cfg.n_ctx]
        return cfg, state_dict


def tokens_read(wanted: int | None, cap: int, of_model: int | None) -> int:
    """How many tokens the model reads: as asked for, else as many as it can and TransformerLens's cap allows.

    Raises:
        InputError: more tokens than the model can read, or none.
    """
    if wanted is None:
        return min(cap, of_model or cap)
    if not 1 <= wanted <= (of_model or wanted):
        raise InputError(f"n_ctx is {wanted}, but the model reads 1 to {of_model} tokens")
    return wanted


def to_bridge(
    hf_model: Any, tokenizer: Any, *, processing: Processing, dtype: torch.dtype, device: torch.device
) -> LensModel:
    """Wrap a Hugging Face model in memory into a `TransformerBridge` with the field's hook names."""
    from transformer_lens.model_bridge import TransformerBridge

    name = hf_model.config.name_or_path or type(hf_model).__name__
    with told(f"TransformerBridge cannot load {type(hf_model).__name__}"), _quiet(), _nothing_fetched():
        model = TransformerBridge.boot_transformers(
            name, hf_model=hf_model, tokenizer=tokenizer, dtype=dtype, device=device
        )
        model.enable_compatibility_mode(disable_warnings=True, no_processing=processing == "none")
    if not hasattr(model, "blocks"):
        raise InputError(f"TransformerBridge of {type(hf_model).__name__} is no stack of blocks with attention heads")
    return cast(LensModel, model)


@contextlib.contextmanager
def _nothing_fetched() -> Iterator[None]:
    """Keep TransformerLens from loading an image processor, for which it installs torchvision with pip where absent."""
    import transformers

    with (
        mock.patch.object(transformers.AutoProcessor, "from_pretrained", return_value=None),
        mock.patch.object(subprocess, "Popen", _refused),
    ):
        yield


def _refused(*args: Any, **kwargs: Any) -> None:
    raise PermissionError("loading a model runs no other program")


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Hide the bars that transformers draws while it takes weights from memory; those of downloads stay."""
    from transformers.utils import logging

    with mock.patch.object(logging, "_tqdm_active", False):
        yield


@contextlib.contextmanager
def _quiet() -> Any:
    """Hide what TransformerLens prints while it builds a model, and its notice that HookedTransformer will go."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
