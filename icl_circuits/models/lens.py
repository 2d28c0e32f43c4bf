"""What the package needs of a TransformerLens model, and which of its two classes a model is of.

`HookedTransformer` (TransformerLens 3.x) and `TransformerBridge` (3.x and 4.x) share the attributes of `LensModel`.
Where they differ, the modules of this room ask here. Everything else in the package asks them and never imports a model
class.
"""

from typing import Any, Literal, Protocol, cast, runtime_checkable

import psutil
import torch

Backend = Literal["hooked", "bridge"]
Processing = Literal["none", "default"]


@runtime_checkable
class TextModel(Protocol):
    """What prompts need of a model: its tokenizer, and how many tokens it knows and reads (`cfg`)."""

    @property
    def cfg(self) -> Any: ...  # noqa: D102

    @property
    def tokenizer(self) -> Any: ...  # noqa: D102


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


def hooked_transformer_class() -> Any | None:
    """`HookedTransformer` where the installed TransformerLens still has it (3.x), else None (4.x)."""
    try:
        from transformer_lens import HookedTransformer
    except ImportError:
        return None
    return HookedTransformer


def backend_of(model: LensModel) -> Backend:
    """Which of the two classes `model` is."""
    hooked = hooked_transformer_class()
    return "hooked" if hooked is not None and isinstance(model, hooked) else "bridge"


def source_config(model: LensModel) -> Any:
    """The Hugging Face configuration behind a Bridge; None behind a `HookedTransformer`, which has none."""
    config: Any = getattr(getattr(model, "original_model", None), "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def device_of(model: TextModel) -> torch.device:
    """The device that takes the tokens; the CPU where no weights are loaded."""
    unembed = getattr(model, "unembed", None)
    return torch.device("cpu") if unembed is None else cast(torch.device, unembed.W_U.device)


def free_bytes(device: torch.device) -> int:
    """How much memory is free on a device."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return int(free)
