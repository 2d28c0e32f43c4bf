"""Why log-probability: it grows evenly on the way from the first state to the last, probability does not.

Also why subvalues can be read: logits before the softmax add (arXiv 2312.12141, section 3).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import require_whole
from icl_circuits.models import LensModel, Place, readout, require_identities
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, answer_logits, final_state
from icl_circuits.residual.increase import target_log_probs
from icl_circuits.stats import bootstrap_means
from icl_circuits.subvalues.writers import require_prompts


@dataclass(frozen=True)
class Interpolation:
    """Log-probability of the target on the straight way from the first residual state to the last."""

    log_prob: Float[np.ndarray, "prompt segment"]
    """Nats, at `h^0 + S (h^L - h^0) / segments`, S = 0 .. segments, under the final norm's frozen scale."""

    def to_frame(self) -> pd.DataFrame:
        """One row a segment: mean log-probability and probability with 95 % bootstrap intervals over prompts."""
        values = self.log_prob.T.astype(float)
        columns = bootstrap_means(values).columns("log_prob") | bootstrap_means(np.exp(values)).columns("prob")
        return pd.DataFrame({"segment": np.arange(len(values)), **columns})


@torch.no_grad()
def interpolation(model: LensModel, batch: TokenBatch, *, segments: int = 60) -> Interpolation:
    """Log-probability of each prompt's target on the way through the residual stream at the answer position.

    Raises:
        InputError: no prompts, or fewer than one segment.
        Unfit: norm and unembedding do not make the logits.
    """
    require_whole(segments, 1, f"segments is {segments}: give a whole number, 1 or more")
    require_prompts(batch)
    require_identities(model, batch.tokens, batch.last, "readout")
    out, found = readout(model), []
    start: Place = ("resid_pre", 0)
    for chunk in batch.chunks():
        ends = Capture([start, final_state(model)], chunk.last)
        answer_logits(model, chunk, ends)
        first, last = ends.at(*start), ends.at(*final_state(model))
        share = torch.linspace(0, 1, segments + 1, device=first.device, dtype=first.dtype)[:, None]
        states = first[:, None] + share * (last - first)[:, None]
        found.append(target_log_probs(out, states, out.norm.scale(last), chunk.target))
    return Interpolation(torch.cat(found).cpu().numpy())


def added_before_softmax(
    bs: Float[Tensor, " token"], added: Float[Tensor, "vector token"]
) -> Float[Tensor, "vector token"]:
    """Probabilities when each vector is added to the values before the softmax: the paper's table 1.

    What a vector adds to all tokens alike changes nothing; what it adds to one more than to the others raises that
    one; and with its sign turned it lowers what it raised.
    """
    return (bs + added).softmax(-1)
