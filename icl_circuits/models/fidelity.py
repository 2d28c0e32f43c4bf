"""Whether a loaded model computes what Hugging Face computes from the same weights."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models.failing import told
from icl_circuits.models.hooks import attached
from icl_circuits.models.lens import LensModel, device_of, free_bytes
from icl_circuits.models.sites import hook_name

COMPARED = 64
"""Positions compared from the start of the text, besides those beyond every attention window."""
BEYOND = 16
"""Positions compared beyond the widest attention window."""
WINDOWS = ("sliding_window", "window_size", "attention_window_size", "local_attention", "attention_chunk_size")
"""What the configurations of transformers call how far attention sees."""

HALF = (torch.float16, torch.bfloat16)
TOLERANCE = 1e-3
"""How far log-probabilities may differ beside the largest."""
WIDENED_TOLERANCE = 5e-3
"""The same for weights in half precision that compute in float32: rotary angles were rounded before."""
HALF_TOLERANCE = 5e-2
"""The same where they are too many to be widened."""


@contextmanager
def widened(module: torch.nn.Module, config: Any) -> Iterator[bool]:
    """Compute in float32 inside the block with the same weights, if these are in half precision and memory allows.

    Gives whether they were widened. Afterwards the module has its own tensors back.
    """
    narrow = [t for t in chain(module.parameters(), module.buffers()) if t.dtype in HALF]
    needed = sum(4 * t.numel() for t in narrow)
    if not narrow or needed > 0.8 * free_bytes(narrow[0].device):
        yield False
        return
    own, dtype = [t.data for t in narrow], getattr(config, "dtype", None)
    for tensor in narrow:
        tensor.data = tensor.data.float()
    config.dtype = torch.float32
    try:
        yield True
    finally:
        config.dtype = dtype
        for tensor, data in zip(narrow, own, strict=True):
            tensor.data = data


@dataclass(frozen=True)
class Reference:
    """What Hugging Face computes of random tokens."""

    tokens: Int[Tensor, "1 pos"]
    kept: Int[Tensor, " kept"]
    """The positions that are compared."""
    log_probs: Float[Tensor, "kept d_vocab"]
    in_float32: bool
    """Whether weights in half precision were widened for it."""


@torch.no_grad()
def reference(hf_model: Any, n_ctx: int | None, name: str) -> Reference:
    """Hugging Face's log-probabilities over 64 positions, and beyond every attention window that fits into `n_ctx`.

    Raises:
        InputError: the model cannot run.
    """
    config = hf_model.config.get_text_config()
    n_pos = COMPARED
    for window in _windows(config):
        if n_ctx is None or window < n_ctx:
            n_pos = max(n_pos, window + BEYOND)
    n_pos = n_pos if n_ctx is None else min(n_pos, n_ctx)
    tokens = torch.randint(0, config.vocab_size, (1, n_pos), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(n_pos)
    kept = positions[(positions < COMPARED) | (positions >= n_pos - BEYOND)]
    head = hf_model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: (args[0][:, kept], *args[1:]))
    problem = f"{type(hf_model).__name__} cannot run with the configuration of {name!r}"
    try:
        with told(problem, ": correct its config.json"), widened(hf_model, hf_model.config) as in_float32:
            logits = hf_model(tokens).logits[0]
    finally:
        handle.remove()
    return Reference(tokens, kept, logits.float().log_softmax(-1), in_float32)


def max_positions(config: Any) -> int | None:
    """How many positions a Hugging Face configuration allows for; None: it does not say."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    return next((int(n) for n in (getattr(config, name, None) for name in names) if isinstance(n, int) and n > 0), None)


def _windows(config: Any) -> list[int]:
    if getattr(config, "use_sliding_window", True) is False:
        return []
    values = (getattr(config, name, None) for name in WINDOWS)
    return [value for value in values if isinstance(value, int) and value > 0]


@torch.no_grad()
def require_same(model: LensModel, expected: Reference, name: str) -> None:
    """Raise `InputError` where the model does not compute what Hugging Face does."""
    if not torch.isfinite(expected.log_probs).all():
        raise InputError(f"model {name!r} gives NaN or infinite logits: its weights are corrupt or dtype is too narrow")
    with (
        told(f"{type(model).__name__} of {name!r} cannot run", ": try the other backend"),
        widened(cast(torch.nn.Module, model), model.cfg) if expected.in_float32 else nullcontext(),
    ):
        found = _log_probs(model, expected.tokens, expected.kept)[:, : expected.log_probs.shape[-1]]
    tolerance = HALF_TOLERANCE if model.unembed.W_U.dtype in HALF else TOLERANCE
    if expected.in_float32:
        tolerance = WIDENED_TOLERANCE
    limit = tolerance * expected.log_probs.abs().max().item()
    difference = (found - expected.log_probs).abs().max().item()
    if not difference <= limit:
        raise InputError(
            f"{type(model).__name__} computes something else than Hugging Face from the weights of {name!r} "
            f"(log-probabilities differ by {difference:.2g} nats over {expected.tokens.shape[1]} positions): its "
            "config asks for what the conversion lacks; try the other backend"
        )


def _log_probs(model: LensModel, tokens: Int[Tensor, "1 pos"], kept: Int[Tensor, " kept"]) -> Tensor:
    """The model's log-probabilities at some positions; the others are never unembedded."""

    def keep(normed: Tensor, hook: object) -> Tensor:
        return normed[:, kept.to(normed.device)]

    with attached(model, [(hook_name("final_normed", 0), keep)]):
        logits: Tensor = model(tokens.to(device_of(model)))[0]
    return logits.float().log_softmax(-1).cpu()
