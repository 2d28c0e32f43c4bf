"""The paper's score beside seven others: the FFN neurons that each takes for the most important (arXiv 2312.12141)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models import LensModel, at_least_float32, mlp_weights, readout
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.subvalues.exact import projected, rows_at_once
from icl_circuits.subvalues.scores import runs_of
from icl_circuits.subvalues.top import By, top_neurons
from icl_circuits.subvalues.writers import Addresses

METHODS = {
    "log-probability increase": "log p(w | h + v) - log p(w | h), the paper's score",
    "log-probability": "log p(w | v): direct logit attribution, after the softmax",
    "probability increase": "p(w | h + v) - p(w | h)",
    "norm": "the length of the neuron's output direction, without its coefficient m",
    "coefficient": "|m|",
    "1 / rank": "over the rank of w where the output direction is projected",
    "coefficient x norm": "|m| times the length of the output direction",
    "coefficient / rank": "|m| over that rank",
}
"""The methods of the paper's table 2, and what each ranks neurons by. v is a neuron's output, h what it is added to, w
the answer."""
SEARCHED: dict[str, By] = {
    "log-probability increase": "log_prob_increase",
    "log-probability": "log_prob",
    "probability increase": "prob_increase",
}


@torch.no_grad()
def best_by_each_method(model: LensModel, batch: TokenBatch, *, k: int = 10) -> dict[str, Addresses]:
    """The `k` FFN neurons of each prompt that each of `METHODS` ranks first, for `zero_neurons`.

    The rank of the answer takes one projection of every neuron, and one look at it for each different answer.

    Raises:
        InputError: no prompts, or a `k` that is no whole number of neurons.
        Unfit: as for `score_neurons`.
    """
    found: dict[str, Addresses] = {}
    for name, by in SEARCHED.items():
        top = top_neurons(model, batch, "ffn", k=k, by=by)
        found[name] = top.addresses
    layers = range(model.cfg.n_layers)
    norms = torch.stack([_directions(model, n).norm(dim=1) for n in layers])
    answers, which = batch.target.unique(return_inverse=True)
    inverse_ranks = 1 / torch.stack([_ranks(model, n, answers) for n in tracked(layers, "ranks of the answers")], 1)
    parts: dict[str, list[Tensor]] = {name: [] for name in METHODS if name not in SEARCHED}
    start = 0
    for run in runs_of(model, batch, "ffn"):
        chunk = run.batch
        m = torch.stack([run.writers("ffn", n).coefficients[..., 0] for n in layers], 1).abs()
        of_prompt = inverse_ranks[which[start : start + len(chunk)]]
        ranked = (norms.expand_as(m), m, of_prompt, m * norms, m * of_prompt)
        for name, score in zip(parts, ranked, strict=True):
            parts[name].append(score.flatten(1).topk(k).indices)
        start += len(chunk)
    for name, chunks in parts.items():
        flat = torch.cat(chunks).cpu().numpy()
        layer, neuron = np.unravel_index(flat, norms.shape)
        found[name] = (layer, np.full_like(layer, -1), neuron)
    return {name: found[name] for name in METHODS}


def _directions(model: LensModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """What a coefficient of 1 adds to the residual stream, a row a neuron."""
    weights = mlp_weights(model, layer)
    W_out = at_least_float32(weights.W_out)
    return weights.outlet.linear(W_out, W_out.new_ones(1, 1))


def _ranks(model: LensModel, layer: int, answers: Int[Tensor, " answer"]) -> Float[Tensor, "answer neuron"]:
    """The rank of each answer in the projection of each output direction of a layer; 1 for the highest."""
    out, found = readout(model), []
    for part in _directions(model, layer).split(rows_at_once(out)):
        u = projected(out, part)
        for row in u.cpu().numpy():  # numpy counts many times as fast as torch does on a CPU
            found.append([1 + np.count_nonzero(row > row[answer]) for answer in answers.tolist()])
    return torch.tensor(found, device=answers.device, dtype=out.W_U.dtype).T
