"""Where heads attend: whole patterns of some heads, and what every head sees from the last position."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from icl_circuits.interventions import Capture, answer_logits
from icl_circuits.models import Head, LensModel, at_least_float32, require_some_heads
from icl_circuits.prompts import PromptBatch


@torch.no_grad()
def attention_patterns(
    model: LensModel, batch: PromptBatch, heads: Sequence[Head]
) -> Float[np.ndarray, "prompt selected pos src_pos"]:
    """The attention probabilities of `heads` between all positions, from one forward pass of the whole batch.

    Raises:
        InputError: a head that does not exist.
    """
    heads = require_some_heads(model, heads)
    names = [f"blocks.{head.layer}.attn.hook_pattern" for head in heads]
    capture = Capture(tuple(dict.fromkeys(names)))
    answer_logits(model, batch, capture)
    patterns = [at_least_float32(capture.found[name][:, head.head]) for name, head in zip(names, heads, strict=True)]
    return torch.stack(patterns, 1).cpu().numpy()


@torch.no_grad()
def attention_from_last(model: LensModel, batch: PromptBatch) -> Float[np.ndarray, "prompt layer src_pos any_head"]:
    """The attention probabilities of every head of the model from the answer position."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    capture = Capture(tuple(names), batch.last)
    answer_logits(model, batch, capture)
    by_layer = [at_least_float32(capture.found[name]).transpose(1, 2) for name in names]
    return torch.stack(by_layer, 1).cpu().numpy()
