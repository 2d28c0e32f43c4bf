"""Path patching (Wang et al. 2022, arXiv 2211.00593): every edge from a sender to a receiver, exactly, in one call.

A sender's output changes; the change reaches one input of one receiver, and nothing else; the model runs on from that
receiver. In three passes of hooks, that is three forward passes an edge. Here a sender's change reaches a receiver
through one norm and one matrix (`routes`), and the third passes are patches in the sweep engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError
from icl_circuits.interventions import (
    Metric,
    Patch,
    Positions,
    PositionsName,
    Replacement,
    Zero,
    from_logits,
    metric_name,
    of_base_run,
    require_metric,
)
from icl_circuits.models import LensModel, ReadSite, at_least_float32
from icl_circuits.patching.bundles import into_bundles, metric_of, run_bundle
from icl_circuits.patching.routes import Arrival, EdgeKind, NormKind, Passage, make_routes
from icl_circuits.patching.windows import Window
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch, label_positions_of
from icl_circuits.residual import Edge, HeadInput, HeadLike, Sender
from icl_circuits.stats import bootstrap_means


@dataclass(frozen=True, repr=False)
class Paths(Displayed):
    """What each edge carries, a value for each prompt."""

    edges: tuple[Edge, ...]
    setting: tuple[str, EdgeKind, NormKind]
    """The metric, the kind of edge and of norm."""
    base: Float[np.ndarray, " prompt"]
    """The metric with nothing patched."""
    values: Float[np.ndarray, "edge prompt"]
    """The metric with the edge patched."""
    score: Float[np.ndarray, "edge prompt demo"]
    """Change of the receiver's attention score from the answer position to each label position, before the softmax
    (mean over the group's heads for a key-value head); NaN for the logits. Prompts without demonstrations have none."""
    output: Float[np.ndarray, "edge prompt"]
    """Norm of the change of the receiver's output `z W_O` at the answer position; NaN for the logits."""
    logit_scale: float

    @property
    def effect(self) -> Float[np.ndarray, "edge prompt"]:
        """What each patched edge changes: `values - base`."""
        return self.values - self.base

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.setting[0]}, {highest('effect', self.effect.mean(axis=1), self.edges.__getitem__)}"

    def to_frame(self) -> pd.DataFrame:
        """One row an edge: its ends, mean effect with its 95 % interval, mean change of score and output."""
        interval = bootstrap_means(self.effect)
        return pd.DataFrame(
            {
                "sender": [str(edge.sender) for edge in self.edges],
                "receiver": [str(edge.receiver) for edge in self.edges],
                "input": [edge.input for edge in self.edges],
                **interval.columns("effect"),
                "score": self.score.mean(axis=(1, 2)) if self.score.size else np.nan,
                "output": self.output.mean(axis=1),
            }
        )


@torch.no_grad()
def path_patch(
    model: LensModel,
    batch: TokenBatch,
    *,
    senders: Sequence[Sender | HeadLike] | None = None,
    receivers: Sequence[HeadLike] | None = None,
    inputs: Sequence[HeadInput] = ("q",),
    logits: bool = False,
    positions: PositionsName | Positions = "last",
    replacement: Replacement | None = None,
    kind: EdgeKind = "direct",
    norm: NormKind = "exact",
    metric: Metric = "logit_diff",
    budget: int | None = None,
) -> Paths:
    """Patch every edge from `senders` to `inputs` of `receivers`, and to the logits if asked for.

    Args:
        model: the model.
        batch: the prompts of the base run.
        senders: heads, MLPs or the embedding; default all heads.
        receivers: heads (key-value heads where an input is `k` or `v`); default all, none to patch the logits alone.
        inputs: which inputs of the receivers.
        logits: also the edges to the logits, at the answer position.
        positions: where the sender's output changes and the receiver reads it: `last`, `labels`, `all` or
            `[batch chosen]`. A path through the residual stream stays at its position.
        replacement: what the senders' outputs become: `Zero()` (default), `Mean`, `Interchange` or `Resample`.
        kind: `direct` or `through_mlps`.
        norm: `exact` or `frozen`.
        metric: a name, or a function of answer-position logits and their prompts with one value for each prompt. The
            prompts may be a part of the batch.
        budget: bytes for a bundle of edges, and for the senders' changes; default a quarter of what is free.

    Returns:
        For every edge the metric `[edge prompt]` and the change of the receiver's score `[edge prompt demo]`. Also the
        norm of the change of its output `[edge prompt]`.

    Raises:
        InputError: a sender or receiver that does not exist, and what the replacement and the metric raise.
        Unfit: a model that the engine has no equations for.
    """
    require_metric(metric)
    routes = make_routes(
        model,
        batch,
        senders=senders,
        receivers=receivers,
        inputs=inputs,
        logits=logits,
        positions=positions,
        replacement=Zero() if replacement is None else replacement,
        kind=kind,
        norm=norm,
    )
    bases, parts, scale = [], [], 0.0
    for start, stop in tracked(list(routes.parts(budget)), "path patching"):
        passage = Passage(routes, start, stop)
        unchanged = of_base_run(metric, passage.base.logits, passage.base.batch).cpu()
        if unchanged.ndim != 1:
            raise InputError(f"a path needs one value for each prompt, the metric gave {list(unchanged.shape[1:])}")
        found = [
            _at_logits(passage, arrival, metric)
            if arrival.input is None
            else _patched(passage, arrival, arrival.input, metric, budget)
            for arrival in passage.arrivals()
        ]
        bases.append(unchanged.numpy())
        parts.append(tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True)))
        scale = max(scale, float(passage.base.logits.abs().max()))
    values, score, output = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    setting = metric_name(metric), kind, norm
    return Paths(routes.edges, setting, np.concatenate(bases), values, score, output, scale)


def _patched(
    passage: Passage, arrival: Arrival, name: HeadInput, metric: Metric, budget: int | None
) -> tuple[np.ndarray, ...]:
    """The third pass of every edge into one input of a layer: metric, change of score, change of output."""
    base, layer, heads = passage.base, arrival.layer, arrival.heads
    block, batch = base.blocks[layer], base.batch
    variants = [
        (Patch(name, layer, new[:, :, head], passage.at, head=head),) for new in arrival.new.unbind(0) for head in heads
    ]
    group = 1 if name == "q" else block.n_heads // block.n_kv_heads
    output = torch.zeros(len(variants), len(batch))

    def see(at_layer: int, site: ReadSite, activation: Tensor, rows: Sequence[int], out: Window) -> None:
        if (at_layer, site) != (layer, "z"):
            return
        place = batch.last - out.start
        z, old = activation[:, torch.arange(len(batch), device=place.device), place], passage.at_answer["z", layer]
        moved = at_least_float32(z) - at_least_float32(old)
        receiving = torch.tensor([heads[row % len(heads)] for row in rows])
        for head in heads:
            chosen = (receiving == head).nonzero()[:, 0]
            written = slice(head * group, (head + 1) * group)
            W_O = at_least_float32(block.attn.W_O[written].flatten(0, 1))
            change = moved[chosen.to(z.device)][:, :, written].flatten(2) @ W_O
            output[torch.tensor(rows)[chosen]] = change.norm(dim=-1).float().cpu()

    values = from_logits(metric, base.logits, batch).cpu()
    values = values.expand(len(variants), *values.shape).clone()
    for bundle in into_bundles(passage.routes.model, batch, variants, budget):
        for rows, found in run_bundle(base, variants, bundle, metric, see):
            values[list(rows)] = found
    score = _score_change(passage, arrival)[:, :, list(heads)].transpose(1, 2).flatten(0, 1)
    return values.numpy(), score.float().cpu().numpy(), output.numpy()


def _score_change(passage: Passage, arrival: Arrival) -> Float[Tensor, "sender batch head demo"]:
    """How the attention scores from the answer position to the label positions change (heads: of the input's kind)."""
    base = passage.base
    block, labels = base.blocks[arrival.layer], label_positions_of(base.batch)
    last = base.batch.last[:, None]
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    keys = base.keys[arrival.layer][rows, :, labels][None]
    q = block.turned("q", passage.at_answer["q", arrival.layer][:, None], last)[None, :, 0]

    def scores(q: Tensor, keys: Tensor) -> Tensor:
        grouped, keys = at_least_float32(q).unflatten(2, (block.n_kv_heads, -1)), at_least_float32(keys)
        n = max(len(grouped), len(keys))
        both = grouped.expand(n, *grouped.shape[1:]), keys.expand(n, *keys.shape[1:])
        found = torch.einsum("sbkgd,sbjkd->sbkgj", *both) / block.scale
        return found if block.softcap is None else block.softcap * torch.tanh(found / block.softcap)

    def arrived(wanted: Tensor, old: Tensor) -> Tensor:
        """The new input where the wanted positions are among the chosen, the old one elsewhere, turned."""
        match = wanted[:, :, None] == passage.at[:, None, :]
        new = block.turned(str(arrival.input), arrival.new[:, rows, match.int().argmax(-1)], wanted)
        return torch.where(match.any(-1)[:, :, None, None], new, old)

    before = scores(q, keys)
    if arrival.input == "q":
        change = scores(arrived(last, q[:, :, None])[:, :, 0], keys) - before
        return change.flatten(2, 3)
    if arrival.input == "k":
        return (scores(q, arrived(labels, keys)) - before).mean(3)
    return before.new_zeros(len(arrival.new), *before.shape[1:3], before.shape[-1])


def _at_logits(passage: Passage, arrival: Arrival, metric: Metric) -> tuple[np.ndarray, ...]:
    """The metric of every edge into the logits."""
    base = passage.base
    values = metric_of(base, arrival.new, metric).numpy()
    missing = np.full((len(values), *label_positions_of(base.batch).shape), np.nan, np.float32)
    return values, missing, np.full(values.shape, np.nan, np.float32)
