"""Where heads attend: whole patterns of some heads, and what every head sees from the last position."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from icl_circuits.models import LensModel
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Head, answer_logits, require_some_heads


@torch.no_grad()
def attention_patterns(
    model: LensModel, batch: TokenBatch, heads: Sequence[Head]
) -> Float[np.ndarray, "prompt selected pos src_pos"]:
    """The attention probabilities of `heads` between all positions, from one forward pass of the whole batch.

    Raises:
        InputError: a head that does not exist.
    """
    heads = require_some_heads(model, heads)
    capture = Capture([("pattern", head.layer) for head in heads])
    answer_logits(model, batch, capture)
    return torch.stack([capture.of(model, "pattern", head) for head in heads], 1).cpu().numpy()


@torch.no_grad()
def attention_from_last(model: LensModel, batch: TokenBatch) -> Float[np.ndarray, "prompt layer src_pos any_head"]:
    """The attention probabilities of every head of the model from the answer position."""
    layers = range(model.cfg.n_layers)
    capture = Capture([("pattern", layer) for layer in layers], batch.last)
    answer_logits(model, batch, capture)
    return torch.stack([capture.at("pattern", layer).transpose(1, 2) for layer in layers], 1).cpu().numpy()
