"""Where heads attend: whole patterns of some, what all see from the last position, and between chosen places."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models import Hook, HookPair, LensModel, at_least_float32, hook_name, require_identities
from icl_circuits.patching import run_hooked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Head, HeadLike, require_some_heads


class _Patterns:
    """Reads the attention of some heads alone while the model runs, onto the CPU."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = heads
        self.found: dict[Head, Float[Tensor, "batch pos src_pos"]] = {}

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [(hook_name("pattern", head.layer), self._reader(head)) for head in self.heads]

    def _reader(self, head: Head) -> Hook:
        def read(pattern: Float[Tensor, "batch head pos src_pos"], hook: object) -> None:
            self.found[head] = at_least_float32(pattern[:, head.head].detach()).to("cpu", copy=True)

        return read


@torch.no_grad()
def attention_patterns(
    model: LensModel, batch: TokenBatch, heads: Sequence[HeadLike]
) -> Float[np.ndarray, "prompt selected pos src_pos"]:
    """The attention probabilities of `heads` between all positions, from one forward pass of the whole batch.

    Padding behind a prompt attends to nothing: its rows are 0.

    Raises:
        InputError: a head that does not exist.
    """
    heads = require_some_heads(model, heads)
    patterns = _Patterns(heads)
    run_hooked(model, batch, patterns)
    is_text = batch.is_text.cpu()[:, None, :, None]
    return torch.stack([patterns.found[head] for head in heads], 1).where(is_text, 0.0).numpy()


@torch.no_grad()
def attention_from_last(model: LensModel, batch: TokenBatch) -> Float[np.ndarray, "prompt layer src_pos any_head"]:
    """The attention probabilities of every head of the model from the answer position."""
    layers = range(model.cfg.n_layers)
    capture = Capture([("pattern", layer) for layer in layers], batch.last)
    run_hooked(model, batch, capture)
    return torch.stack([capture.at("pattern", layer).transpose(1, 2) for layer in layers], 1).cpu().numpy()


@torch.no_grad()
def attention_between(
    model: LensModel,
    batch: TokenBatch,
    positions: Int[Tensor, "batch chosen"],
    src_positions: Int[Tensor, "batch chosen src"],
) -> Float[np.ndarray, "prompt src layer any_head"]:
    """How much every head attends from some positions to some others of each, a share, mean over the former.

    Raises:
        Unfit: a model whose z is not attention times values, so that its attention says nothing.
    """
    require_identities(model, batch.tokens, batch.last, "values")
    found = []
    for start, stop in batch.parts():
        capture = Capture([("pattern", layer) for layer in range(model.cfg.n_layers)], positions[start:stop])
        run_hooked(model, batch.select(range(start, stop)), capture)
        to = src_positions[start:stop]
        index = to[:, :, None].expand(-1, -1, model.cfg.n_heads, -1)
        rows = [capture.at("pattern", layer).gather(3, index).mean(1) for layer in range(model.cfg.n_layers)]
        found.append(torch.stack(rows, 1).permute(0, 3, 1, 2))
    return torch.cat(found).cpu().numpy()
