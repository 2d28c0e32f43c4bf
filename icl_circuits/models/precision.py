"""What numbers are widened to, and how far two computations of one thing may differ in a dtype."""

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32, for sums over a vocabulary; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def engine_tolerance(dtype: torch.dtype) -> float:
    """How far the sweep engine may be from `run_with_hooks`, relative to the largest logit.

    In half precision that is how far hooks themselves are from float32: on SmolLM2 5 times the dtype's `eps`.
    """
    return {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 16 * torch.finfo(dtype).eps)


def step_tolerance(dtype: torch.dtype) -> float:
    """How far one step of a layer, made from the model's own activations, may be off, relative to its length.

    In half precision that is a few roundings: on SmolLM2 steps are 2 times the dtype's `eps` apart at most.
    """
    return {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 8 * torch.finfo(dtype).eps)


def rows_agree(found: Float[Tensor, "*rows width"], expected: Float[Tensor, "*rows width"], tolerance: float) -> bool:
    """Whether each row is off by no more than `tolerance` of its length; of a row much shorter than the longest, of a
    thousandth of that one's. Rounding spares lengths better than single numbers.
    """
    length, error = expected.norm(dim=-1), (found - expected).norm(dim=-1)
    return bool((error <= tolerance * length.clamp(min=1e-3 * float(length.max()))).all())
