"""Apply interventions to a model for the length of a `with` block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.models import LensModel, attached
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, Head, Hooked, answer_logits, hooks_of

Intervention = Hooked
"""A change to a model's computation, as the hooks that carry it out."""


@contextmanager
def intervene(model: LensModel, *interventions: Intervention) -> Iterator[LensModel]:
    """Run `model` under `interventions` inside the block.

    Hooks that others put on the model stay as they are, and afterwards, also after an exception, the model is as it
    was. Interventions apply in the order given.

    Raises:
        InputError: a head, layer or position that does not exist, a value of the wrong shape, or, at the end of the
            block, a hook that never fired.
    """
    with attached(model, hooks_of(model, interventions)):
        yield model


@torch.no_grad()
def mean_z(model: LensModel, batch: TokenBatch, heads: Sequence[Head]) -> dict[Head, Float[Tensor, " d_head"]]:
    """The mean of each head's z over all positions of all prompts: mean ablation is `ReplaceHeads(mean_z(...))`."""
    capture = Capture([("z", head.layer) for head in heads])
    answer_logits(model, batch, capture)
    return {head: capture.found["z", head.layer][:, :, head.head][batch.is_text].mean(0) for head in heads}
