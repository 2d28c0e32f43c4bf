"""Value importance of every neuron: log-probability increase, exactly or within bounds (arXiv 2312.12141).

A neuron with output vector v (the papers' subvalue, weighted) scores, in nats, under the final norm's frozen scale,

    Imp(v) = log p(w | h + v) - log p(w | h)

with h what enters the layer, for attention neurons, and for FFN neurons that and the attention's output.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import Unfit, require_one_of
from icl_circuits.models import LensModel, readout
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.subvalues.exact import Added, all_gaps, projected, rows_at_once
from icl_circuits.subvalues.ranges import neuron_ranges
from icl_circuits.subvalues.writers import AnswerRun, Kind, Writers, n_neurons, require_kinds

SCORES_AT_ONCE = 1 << 24
"""How many neurons' scores are held at once, over prompts: 64 MB in float32."""


@dataclass(frozen=True, repr=False)
class NeuronScores(Displayed):
    """Log-probability increase of every neuron, nats, and how far it is known."""

    kind: Kind
    exact: bool
    """Whether scores are exact (to 1e-7 nats, besides the rounding of float32), or upper bounds."""
    score: Float[np.ndarray, "prompt layer neuron *source"]
    """`neuron` counts FFN neurons; of attention, all dimensions of the first head, then of the next, with one more axis
    of source positions (NaN after a prompt's answer position)."""
    lower: Float[np.ndarray, "prompt layer neuron *source"]
    """No score is lower. The score itself where that is exact."""
    base: Float[np.ndarray, "prompt layer"]
    """Log-probability of the target before the neurons of a layer are added, nats."""

    @property
    def headline(self) -> str:
        """Its main number."""
        best = highest("score", self.score, lambda prompt, layer, neuron, *_: f"L{layer}N{neuron}, prompt {prompt}")
        return f"{self.kind}, {'exact' if self.exact else 'first order'}, {best}"

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt, layer and neuron, and a source position up to the answer position: `score` and `lower`."""
        shown = np.nonzero(~np.isnan(self.score))
        frame = pd.DataFrame(dict(zip(("prompt", "layer", "neuron", "src_pos"), shown, strict=False)))
        return frame.assign(score=self.score[shown], lower=self.lower[shown])


@torch.no_grad()
def score_neurons(
    model: LensModel, batch: TokenBatch, kind: Kind = "ffn", *, exact: Literal["all", "bounds"] = "all"
) -> NeuronScores:
    """Log-probability increase of every FFN neuron, or of every attention neuron at every source position.

    Args:
        model: any model whose neurons can be read one by one. Its weights should be unprocessed: folded norms move a
            bias into the unembedding, and scores with it.
        batch: prompts; w is each prompt's target token.
        kind: `ffn` or `attention` neurons.
        exact: `all`: exact scores, for one projection of each neuron and a few products a prompt. `bounds`: the
            first-order score, which is an upper bound, and a lower bound (Hoeffding's).

    Raises:
        InputError: an unknown kind, or no prompts.
        Unfit: no such neurons, or an identity fails that the scores rest on. The identities are: neurons add up to
            `mlp_out`, heads to `attn_out`, layers to the final state, norm and unembedding make the logits. Bounds of a
            model that caps its logits, which have none.
    """
    require_one_of(exact, ("all", "bounds"), "exact")
    require_scorable(model, batch, kind)
    if exact == "bounds" and readout(model).softcap is not None:
        raise Unfit(f"{model.cfg.model_name!r} caps its logits, so scores have no bounds: ask for exact='all'")
    ranges = neuron_ranges(model, kind) if exact == "bounds" else None
    scores, lowers, bases = [], [], []
    for run in runs_of(model, batch, kind):
        for layer in tracked(range(model.cfg.n_layers), f"scores of {kind} neurons"):
            one = OneLayer.of(run, kind, layer)
            if ranges is None:
                scores.append(one.exact())
            else:
                scores.append(one.first)
                lowers.append(one.first - (one.t * ranges[layer][:, None]) ** 2 / 8)
            bases.append(one.added.base[:, None])
    score = _joined(batch, kind, scores, model.cfg.n_layers)
    lower = _joined(batch, kind, lowers, model.cfg.n_layers) if lowers else score
    base = [torch.cat(bases[i : i + model.cfg.n_layers], 1) for i in range(0, len(bases), model.cfg.n_layers)]
    return NeuronScores(kind, exact == "all", score, lower, torch.cat(base).cpu().numpy())


@dataclass(frozen=True)
class OneLayer:
    """The neurons of one layer on some prompts, and their first-order scores."""

    writers: Writers
    added: Added
    """The states that they are added to."""
    t: Float[Tensor, "batch neuron source"]
    """Coefficients over the final norm's scale."""
    first: Float[Tensor, "batch neuron source"]

    @classmethod
    def of(cls, run: AnswerRun, kind: Kind, layer: int) -> "OneLayer":
        """Read off a run."""
        writers = run.writers(kind, layer)
        added = run.added_to(writers)
        t = writers.coefficients / run.scale[..., None]
        return cls(writers, added, t, t * writers.along(added.slopes())[..., None])

    def exact(self) -> Float[Tensor, "batch neuron source"]:
        """The scores of all its neurons: by the series, and one by one where that is not enough."""
        added, t, first = self.added, self.t, self.first
        out, probs, scores = added.out, added.log_probs.exp(), first.clone()
        step, n_neurons = rows_at_once(out), first.shape[1]
        for start in range(0, n_neurons, step):
            part = slice(start, min(start + step, n_neurons))
            u = projected(out, self.writers.written(part))
            if out.softcap is None:
                gap, far = all_gaps(u, t[:, part], probs)
                scores[:, part] -= gap
            else:
                far = torch.ones_like(t[:, part], dtype=torch.bool)
            left = far.nonzero()
            for rows in left.split(step) if len(left) else ():
                prompt, place, source = rows.T
                neuron = place + start
                found = added.of(prompt).exact(u[place], t[prompt, neuron, source], first[prompt, neuron, source])
                scores[prompt, neuron, source] = found
        return scores


def require_scorable(model: LensModel, batch: TokenBatch, kind: Kind) -> None:
    """Raise `InputError` for no prompts or an unknown kind, `Unfit` for a model without such neurons."""
    require_one_of(kind, get_args(Kind), "kind")
    require_kinds(model, batch, kind)


def runs_of(model: LensModel, batch: TokenBatch, kind: Kind) -> Iterator[AnswerRun]:
    """The prompts run in parts, as many at once as scores of their neurons may be held."""
    n_pos = batch.tokens.shape[1]
    each = n_neurons(model, kind) * (1 if kind == "ffn" else n_pos)
    prompts = max(1, SCORES_AT_ONCE // (model.cfg.n_layers * each))
    for chunk in batch.chunks(min(4096, prompts * n_pos)):
        yield AnswerRun(model, chunk, kind)


def _joined(
    batch: TokenBatch, kind: Kind, layers: list[Float[Tensor, "_ neuron _"]], n_layers: int
) -> Float[np.ndarray, "prompt layer neuron *source"]:
    """Layer after layer of part after part, as one array over all prompts."""
    n_pos, parts = batch.tokens.shape[1], []
    for start in range(0, len(layers), n_layers):
        part = torch.stack(layers[start : start + n_layers], 1)
        parts.append(part[..., 0] if kind == "ffn" else torch.nn.functional.pad(part, (0, n_pos - part.shape[-1])))
    found = torch.cat(parts)
    if kind == "attention":
        found = found.masked_fill(~batch.is_text[:, None, None], torch.nan)
    return found.cpu().numpy()
