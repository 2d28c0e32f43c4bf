"""How far answers in half precision are from those in float32, in words for a report."""

from dataclasses import dataclass

import numpy as np

from icl_circuits.heads.answers import Answers, answer
from icl_circuits.models import LensModel
from icl_circuits.prompts import TokenBatch


@dataclass(frozen=True)
class Rounding:
    """The answers of one model in half precision and in float32, to the same prompts."""

    dtype: str
    """The half precision."""
    half: Answers
    """Axes: prompt."""
    exact: Answers
    """In float32."""

    def __str__(self) -> str:
        apart = np.abs(self.half.log_prob - self.exact.log_prob)
        otherwise = int((self.half.top1 != self.exact.top1).sum())
        return (
            f"Weights and matrix products are {self.dtype}. Softmaxes, log-probabilities and statistics are float32. "
            f"Top-1 accuracy on the {len(apart)} prompts to test on is {self.half.top1.mean():.2f}. With float32 "
            f"throughout it is {self.exact.top1.mean():.2f}. {otherwise} prompts are right in one of "
            f"the two alone. Log-probabilities of the right answer differ by {np.median(apart):.2g} nats at the "
            f"median, by {apart.max():.2g} at most."
        )


def rounding(half: LensModel, exact: LensModel, batch: TokenBatch) -> Rounding:
    """Answer `batch` by a model in half precision and by the same one in float32."""
    dtype = str(half.unembed.W_U.dtype).removeprefix("torch.")
    return Rounding(dtype, answer(half, batch), answer(exact, batch))
