"""Why log-probability: it grows evenly on the way from the first state to the last, probability does not.

Also why subvalues can be read: logits before the softmax add (arXiv 2312.12141, section 3).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, require_whole
from icl_circuits.heads import target_log_probs
from icl_circuits.models import LensModel, Place, readout, require_identities, require_layer
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, answer_logits, final_state
from icl_circuits.stats import bootstrap_means
from icl_circuits.subvalues.scores import OneLayer, require_scorable, runs_of
from icl_circuits.subvalues.writers import Kind, n_neurons, require_prompts


@dataclass(frozen=True, repr=False)
class Interpolation(Displayed):
    """Log-probability of the target on the straight way from the first residual state to the last."""

    log_prob: Float[np.ndarray, "prompt segment"]
    """Nats, at `h^0 + S (h^L - h^0) / segments`, S = 0 .. segments, under the final norm's frozen scale."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"log_prob from {self.log_prob[:, 0].mean():.3g} to {self.log_prob[:, -1].mean():.3g}"

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


@dataclass(frozen=True, repr=False)
class AddedTogether(Displayed):
    """The first neurons of one layer, each scored alone and all together, nats; `n` counts them from 1."""

    kind: Kind
    layer: int
    alone: Float[np.ndarray, "prompt n"]
    """The sum of the scores of the first n."""
    together: Float[np.ndarray, "prompt n"]
    """The score of the sum of the first n."""

    @property
    def headline(self) -> str:
        """Its main number."""
        alone, together = (values[:, -1].mean() for values in (self.alone, self.together))
        return f"{self.kind}, layer {self.layer}, alone {alone:.3g}, together {together:.3g}"

    def to_frame(self) -> pd.DataFrame:
        """One row an n: both means with 95 % bootstrap intervals over prompts."""
        columns: dict[str, object] = {"n": np.arange(1, self.alone.shape[1] + 1)}
        for name in ("alone", "together"):
            columns |= bootstrap_means(getattr(self, name).T.astype(float)).columns(name)
        return pd.DataFrame(columns)


@torch.no_grad()
def added_together(
    model: LensModel, batch: TokenBatch, kind: Kind = "ffn", *, layer: int, k: int = 100
) -> AddedTogether:
    """How far scores add up: the sum of the first scores of a layer beside the score of the neurons' sum.

    The first are those of the highest log-probability increase in each prompt; an attention neuron is one source
    position of it.

    Raises:
        InputError: no prompts, a layer that does not exist, or a `k` that is no number of its neurons.
        Unfit: as for `score_neurons`.
    """
    require_scorable(model, batch, kind)
    require_layer(model, layer)
    require_whole(k, 1, f"k is {k}: give how many neurons to add, 1 or more")
    every = n_neurons(model, kind) * (1 if kind == "ffn" else int(batch.last.min()) + 1)
    if k > every:
        raise InputError(f"a prompt has {every} {kind} neurons in layer {layer}, not {k}: ask for fewer")
    alone, together = [], []
    for run in runs_of(model, batch, kind):
        one = OneLayer.of(run, kind, layer)
        coefficients = one.writers.coefficients
        scores = one.exact()
        if kind == "attention":
            scores = scores.masked_fill(~run.batch.is_text[:, None], -torch.inf)
        best, places = scores.flatten(1).topk(k)
        alone.append(best.cumsum(1))
        neuron, _ = torch.unravel_index(places, coefficients.shape[1:])
        for prompt in range(len(best)):
            some = slice(prompt, prompt + 1)
            vectors = coefficients[prompt].flatten()[places[prompt], None] * one.writers.written(neuron[prompt])
            states = one.writers.base[some] + vectors.cumsum(0)
            log_probs = target_log_probs(run.out, states[None], run.scale[some], run.batch.target[some])
            together.append(log_probs - one.added.base[some, None])
    return AddedTogether(kind, layer, torch.cat(alone).cpu().numpy(), torch.cat(together).cpu().numpy())


def added_before_softmax(
    bs: Float[Tensor, " token"], added: Float[Tensor, "vector token"]
) -> Float[Tensor, "vector token"]:
    """Probabilities when each vector is added to the values before the softmax: the paper's table 1.

    What a vector adds to all tokens alike changes nothing. What it adds to one more than to the others raises that one.
    With its sign turned it lowers what it raised.
    """
    return (bs + added).softmax(-1)
