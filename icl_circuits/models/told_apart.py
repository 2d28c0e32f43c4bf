"""What tells one model from another: its weights in memory, its tokenizer, and how it computes. Names do not count."""

import hashlib
import uuid
from pathlib import Path
from typing import Any, cast

import torch

from icl_circuits.errors import InputError
from icl_circuits.models.facts import hook_points
from icl_circuits.models.lens import LensModel, backend_of, device_of, source_config
from icl_circuits.models.source import resolve

NAMES = ("model_name", "tokenizer_name", "device", "n_devices", "seed")
"""What a configuration holds that changes no number."""


def weights_sha256(model: LensModel) -> str:
    """A SHA-256 of the weights in memory, remembered with the model until one of them changes."""
    known, digest = getattr(model, "icl_weights_sha256", (None, ""))
    if known != _state(model):
        found = hashlib.sha256()
        for key, value in _tensors(model).items():
            found.update(key.encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        digest = found.hexdigest()
        note_weights(model, digest)
    return str(digest)


def note_weights(model: LensModel, digest: str) -> None:
    """Note the SHA-256 of a model's weights as they are now, where it is known from elsewhere."""
    cast(Any, model).icl_weights_sha256 = _state(model), digest


def weight_versions(model: LensModel) -> tuple[tuple[int, int], ...]:
    """What changes when a weight is replaced or written to, but not when it is changed through `.data`."""
    return tuple((value.data_ptr(), value._version) for value in _tensors(model).values())


def _tensors(model: LensModel) -> dict[str, torch.Tensor]:
    state = cast(torch.nn.Module, model).state_dict()
    return {key: value for key, value in sorted(state.items()) if isinstance(value, torch.Tensor)}


def _state(model: LensModel) -> tuple[object, ...]:
    """What changes with the weights: sums, too, since `.data` changes weights and no version."""
    return weight_versions(model), [float(value.sum()) for value in _tensors(model).values()]


def tokenizer_sha256(model: LensModel) -> str:
    """A SHA-256 of the tokenizer: equal where texts become the same tokens."""
    backend_tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    vocabulary = backend_tokenizer.to_str() if backend_tokenizer else repr(sorted(model.tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{vocabulary}{model.tokenizer.special_tokens_map}".encode()).hexdigest()


def identity(model: LensModel) -> dict[str, str]:
    """What a model's numbers depend on, as texts. Two models of one identity give the same numbers.

    A model with hooks on it is like no other, since nothing tells what its hooks do.
    """
    plain = (bool, int, float, str, tuple, list, type(None), torch.dtype)
    config = {key: value for key, value in vars(model.cfg).items() if key not in NAMES and isinstance(value, plain)}
    source: dict[str, Any] = getattr(source_config(model), "to_dict", dict)()
    hooked = any(point.fwd_hooks for point in hook_points(model).values())
    return {
        "weights": weights_sha256(model),
        "config": repr(sorted(config.items())),
        "source": repr(sorted((key, value) for key, value in source.items() if "name_or_path" not in key)),
        "tokenizer": tokenizer_sha256(model),
        "bos": str(getattr(getattr(model, "icl_card", None), "prepend_bos", None)),
        "backend": backend_of(model),
        "device": str(device_of(model)),
        "hooks": uuid.uuid4().hex if hooked else "",
    }


def files_of(name: str, checkpoint: int | None) -> list[tuple[str, int, int]] | None:
    """The files that a model on this machine is read from: paths, bytes, times of the last change in nanoseconds.

    None for a model of the Hub. Raises `InputError` where there is no such model.
    """
    source = resolve(name, checkpoint)
    if not source.is_local:
        return None
    folder = Path(source.location)
    files = [folder / source.gguf_file, *folder.glob("*.json")] if source.gguf_file else [*folder.iterdir()]
    try:
        stats = [(path, path.stat()) for path in sorted(files) if path.is_file()]
    except OSError as error:
        raise InputError(f"the files of model {name!r} cannot be read ({error.strerror})") from error
    return [(str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
