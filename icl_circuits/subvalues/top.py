"""The neurons of the highest score in each prompt, exactly, for a few hundred exact scores.

Neurons are taken in the order of a bound on their scores, until the next bound is no better than the last that is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, require_one_of, require_whole
from icl_circuits.models import LensModel, readout
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.subvalues.exact import Added, projected
from icl_circuits.subvalues.ranges import neuron_ranges
from icl_circuits.subvalues.scores import require_scorable, runs_of
from icl_circuits.subvalues.writers import Addresses, AnswerRun, Kind, Writers, require_neurons

By = Literal["log_prob_increase", "log_prob", "prob_increase"]
"""Log-probability increase, nats; the log-probability under the neuron's output alone, `log p(w | v)`, nats; or the
increase of the probability itself."""
STEP = 128
"""How many neurons are scored exactly between looks at the next bound."""


@dataclass(frozen=True, repr=False)
class TopNeurons(Displayed):
    """The neurons of the highest (or lowest) score in each prompt, exactly, best first."""

    kind: Kind
    by: By
    """What `score` and `next_bound` are: nats, or a difference of probabilities."""
    lowest: bool
    score: Float[np.ndarray, "prompt rank"]
    """Exact."""
    layer: Int[np.ndarray, "prompt rank"]
    head: Int[np.ndarray, "prompt rank"]
    """-1 for FFN neurons."""
    neuron: Int[np.ndarray, "prompt rank"]
    """Of FFN neurons the number in the MLP, of attention neurons the dimension of the head."""
    src_pos: Int[np.ndarray, "prompt rank"]
    """The source position of an attention neuron; of FFN neurons the answer position."""
    coefficient: Float[np.ndarray, "prompt rank"]
    """`m`, or attention times value; over the scale of the post-norm, where there is one."""
    base: Float[np.ndarray, "prompt rank"]
    """Log-probability of the target in the state that the neuron is added to, nats."""
    evaluated: Int[np.ndarray, " prompt"]
    """How many exact scores it took to be sure of these."""
    next_bound: Float[np.ndarray, " prompt"]
    """Every other neuron's score is at most this (of the lowest: at least)."""

    def names(self, prompt: int) -> tuple[str, ...]:
        """What the field calls them: `L10N371`, and of attention neurons `L10H7D12@3`, with the source position."""
        rows = zip(self.layer[prompt], self.head[prompt], self.neuron[prompt], self.src_pos[prompt], strict=True)
        return tuple(f"L{n}N{k}" if h < 0 else f"L{n}H{h}D{k}@{p}" for n, h, k, p in rows)

    @property
    def addresses(self) -> Addresses:
        """Where they are, as `zero_neurons` takes them."""
        return self.layer, self.head, self.neuron

    def first(self, k: int) -> "TopNeurons":
        """The first `k` of each prompt.

        Raises:
            InputError: a `k` that is no whole number of neurons.
        """
        require_whole(k, 1, f"k is {k}: give how many of the neurons to keep, 1 or more")
        cut: dict[str, Any] = {name: getattr(self, name)[:, :k] for name in RANKED}
        left = k < self.score.shape[1]
        return replace(self, **cut, next_bound=self.score[:, k] if left else self.next_bound)

    def of(self, prompts: Sequence[int]) -> "TopNeurons":
        """Those of some prompts."""
        rows = list(prompts)
        cut: dict[str, Any] = {name: getattr(self, name)[rows] for name in (*RANKED, "evaluated", "next_bound")}
        return replace(self, **cut)

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.kind}, best of the first prompt {self.names(0)[0]}, {self.by} {self.score[0, 0]:.3g}"

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt and rank: layer, head, neuron, source position, coefficient and score."""
        prompt, rank = np.indices(self.score.shape)
        frame = pd.DataFrame({"prompt": prompt.ravel(), "rank": rank.ravel()})
        columns = {name: getattr(self, name).ravel() for name in RANKED if name not in ("score", "base")}
        return frame.assign(**columns, **{self.by: self.score.ravel()})


RANKED = ("score", "layer", "head", "neuron", "src_pos", "coefficient", "base")
"""The fields that have a value a rank."""


@torch.no_grad()
def top_neurons(
    model: LensModel,
    batch: TokenBatch,
    kind: Kind = "ffn",
    *,
    k: int = 300,
    by: By = "log_prob_increase",
    lowest: bool = False,
) -> TopNeurons:
    """The `k` neurons that raise log p(target) most in each prompt: value neurons (arXiv 2312.12141).

    Exact: no neuron that is left out scores more. The paper takes 100 or 300 FFN neurons and 200 attention neurons.

    Args:
        model: any model whose neurons can be read one by one. Its weights should be unprocessed: folded norms move a
            bias into the unembedding, and scores with it.
        batch: prompts; w is each prompt's target token.
        kind: `ffn` or `attention` neurons, the latter at each source position apart.
        k: how many of each prompt.
        by: the score; the others are what the paper compares it with.
        lowest: those that lower it most instead. This needs one projection of each neuron, once for a model.

    Raises:
        InputError: an unknown kind, no prompts, or a `k` that is no whole number of the model's neurons.
        Unfit: as for `score_neurons`.
    """
    require_scorable(model, batch, kind)
    require_whole(k, 1, f"k is {k}: give how many neurons to find, 1 or more")
    require_one_of(by, get_args(By), "by")
    ranges = neuron_ranges(model, kind) if lowest and readout(model).softcap is None else None
    found: list[dict[str, Any]] = []
    for run in runs_of(model, batch, kind):
        prompts = range(len(run.batch))
        searches = (_Search.of(run, kind, prompt, by, ranges, lowest) for prompt in prompts)
        found += [search.best(k) for search, _ in zip(searches, tracked(prompts, f"best {kind} neurons"), strict=True)]
    return TopNeurons(kind, by, lowest, **{name: np.stack([one[name] for one in found]) for name in found[0]})


@dataclass(frozen=True)
class _Search:
    """One prompt's neurons of all layers in a row, best bound first, and what scores them exactly."""

    run: AnswerRun
    kind: Kind
    prompt: int
    by: By
    sign: int
    """-1 to find the lowest."""
    added: Added
    """The prompt's states, a row a layer."""
    writers: list[Writers]
    """Of each layer, for this prompt alone."""
    t: Float[Tensor, "layer neuron source"]
    first: Float[Tensor, "layer neuron source"]
    bounds: Float[Tensor, " bound"]
    """No score times `sign` is more, in the order of `order`."""
    order: Int[Tensor, " bound"]

    @classmethod
    def of(
        cls,
        run: AnswerRun,
        kind: Kind,
        prompt: int,
        by: By,
        ranges: list[Float[Tensor, " neuron"]] | None,
        lowest: bool,
    ) -> "_Search":
        """Bounds on all neurons of a prompt."""
        layers = range(run.model.cfg.n_layers)
        writers = [run.writers(kind, layer, slice(prompt, prompt + 1)) for layer in layers]
        states = torch.cat([one.base for one in writers])
        if by == "log_prob":
            states = torch.zeros_like(states)  # the neuron is added to nothing
        scale, target = (x[prompt : prompt + 1] for x in (run.scale, run.batch.target))
        added = Added.to(run.out, states, scale.expand(len(states), 1), target.expand(len(states)))
        slopes = added.slopes()
        t = torch.cat([one.coefficients for one in writers]) / scale
        along = torch.cat([one.along(slopes[n : n + 1]) for n, one in enumerate(writers)])
        first = t * along[..., None]
        sign, bounds = -1 if lowest else 1, first
        if ranges is not None:
            bounds = first - (t * torch.stack(ranges)[..., None]) ** 2 / 8
        bounds = sign * _measured(by, bounds, added.base[:, None, None])
        if run.out.softcap is not None:
            bounds = torch.full_like(first, torch.inf)  # no bound: all are scored
        seen = torch.arange(first.shape[2], device=first.device) <= run.batch.last[prompt]
        if kind == "attention":
            bounds = bounds.masked_fill(~seen, -torch.inf)
        ordered, order = bounds.flatten().sort(descending=True)
        n_seen = int((ordered > -torch.inf).sum())
        return cls(run, kind, prompt, by, sign, added, writers, t, first, ordered[:n_seen], order[:n_seen])

    def best(self, k: int) -> dict[str, Any]:
        """The fields of `TopNeurons`, for this prompt."""
        if k > len(self.order):
            raise InputError(
                f"prompt {self.prompt} has {len(self.order)} {self.kind} neurons, not {k}: ask for fewer"
                if self.kind == "attention"
                else f"the model has {len(self.order)} {self.kind} neurons, not {k}: ask for fewer"
            )
        kept, scores, done = self.order[:0], self.bounds[:0], 0
        while len(scores) < k or (done < len(self.order) and scores[k - 1] < self.bounds[done]):
            picked = self.order[done : done + STEP]
            done += len(picked)
            found = torch.cat([scores, self.sign * self._exactly(picked)])
            scores, places = found.topk(min(k + 1, len(found)))
            kept = torch.cat([kept, picked])[places]
        others = torch.cat([scores[k:], self.bounds[done : done + 1]])  # scored but not kept, and not scored
        next_bound = self.sign * (float(others.max()) if len(others) else -torch.inf)
        kept, scores = kept[:k], scores[:k]
        layer, neuron, source = self._places(kept)
        is_ffn, d_head = self.kind == "ffn", self.run.model.cfg.d_head
        fields = {
            "score": self.sign * scores,
            "layer": layer,
            "head": torch.full_like(layer, -1) if is_ffn else neuron // d_head,
            "neuron": neuron if is_ffn else neuron % d_head,
            "src_pos": torch.full_like(layer, int(self.run.batch.last[self.prompt])) if is_ffn else source,
            "coefficient": self.t[layer, neuron, source] * self.added.scale[0],
            "base": self.added.base[layer],
        }
        return {name: value.cpu().numpy() for name, value in fields.items()} | {
            "evaluated": done,
            "next_bound": next_bound,
        }

    def _places(self, flat: Int[Tensor, " some"]) -> tuple[Tensor, ...]:
        """Layer, neuron and source of neurons by their place in a row."""
        return torch.unravel_index(flat, self.first.shape)

    def _exactly(self, flat: Int[Tensor, " some"]) -> Float[Tensor, " some"]:
        layer, neuron, source = self._places(flat)
        which, place = (layer * self.first.shape[1] + neuron).unique(return_inverse=True)
        of_layer, number = which // self.first.shape[1], which % self.first.shape[1]
        vectors = torch.cat([self.writers[n].written(number[of_layer == n]) for n in of_layer.unique().tolist()])
        t, first = self.t[layer, neuron, source], self.first[layer, neuron, source]
        score = self.added.of(layer).exact(projected(self.run.out, vectors)[place], t, first)
        return _measured(self.by, score, self.added.base[layer])


def _measured(by: By, increase: Tensor, base: Tensor) -> Tensor:
    """The score that is asked for, of log-probability increases: it rises with them where `base` stays."""
    if by == "log_prob":
        return base + increase
    return increase if by == "log_prob_increase" else base.exp() * increase.expm1()


def require_values(model: LensModel, batch: TokenBatch, values: TopNeurons, kind: Kind | None = None) -> None:
    """Raise `InputError` for neurons that are no value neurons of these prompts: those of the highest increase.

    With `kind`, also for neurons of another kind.
    """
    if len(values.score) != len(batch):
        raise InputError(f"value neurons of {len(values.score)} prompts, but the batch has {len(batch)}: give its own")
    if kind is not None and values.kind != kind:
        raise InputError(f"these are {values.kind} neurons: give {kind} neurons")
    if values.lowest or values.by != "log_prob_increase":
        what = f"the lowest by {values.by}" if values.lowest else f"the best by {values.by}"
        raise InputError(f"these neurons are {what}: give those of the highest log_prob_increase")
    require_neurons(model, values.addresses)
    last = batch.last.cpu().numpy()[:, None]
    if (values.src_pos > last).any() or (values.kind == "ffn" and (values.src_pos != last).any()):
        raise InputError("these value neurons are of prompts of other lengths: give those of this batch")
