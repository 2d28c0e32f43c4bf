"""Build the in-context circuit: what each edge from text to logits contributes.

The edges, and what stands in for each while it is cut:

- text -> label, query -> last: attention along it is knocked out in every layer (`KnockOut`).
- label -> head, K and V: the score, or the value, that the head finds at one label position becomes the mean over the
  prompt's label positions: a label like any other. Read by the answer position alone.
- last -> head, Q: the query at the answer position becomes the mean over the prompts.
- component -> head, Q: a direct path patch (Wang et al. 2022, arXiv 2211.00593), the component's output zeroed.
- head -> logits: a direct path patch, the head's output zeroed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.circuits.circuit import Circuit
from icl_circuits.circuits.stand_ins import (
    attention_along,
    by_kind,
    like_any_label,
    mean_queries,
    receiving_head,
)
from icl_circuits.errors import InputError
from icl_circuits.interventions import KnockOut, Metric, Patch, metric_name
from icl_circuits.models import (
    LensModel,
    ReadSite,
    is_parallel,
    scores_are_live,
)
from icl_circuits.patching import path_patch, run_each, run_hooked
from icl_circuits.prompts import PromptBatch, require_demonstrations, require_labels
from icl_circuits.residual import (
    Capture,
    Edge,
    Embedding,
    Head,
    HeadLike,
    Label,
    Last,
    Logits,
    Query,
    Sender,
    Text,
    all_heads,
    all_mlps,
    require_distinct_heads,
    require_some_heads,
)

EdgeScores = dict[Edge, Float[np.ndarray, " prompt"]]


@torch.no_grad()
def find_circuit(
    model: LensModel,
    batch: PromptBatch,
    heads: Sequence[HeadLike],
    *,
    n_upstream: int = 3,
    choose_on: PromptBatch | None = None,
    metric: Metric = "logit_diff",
    budget: int | None = None,
) -> Circuit:
    """Score every edge of the circuit through `heads` on every prompt.

    Args:
        model: the model.
        batch: prompts with demonstrations, the same number in each.
        heads: the in-context heads.
        n_upstream: how many components to keep for each head's query, those of the largest absolute mean score.
        choose_on: prompts to choose them on; by default `batch`, which flatters the scores of those chosen.
        metric: a name, or a function of answer-position logits and their prompts with one value for each prompt.
        budget: bytes for a bundle of variants; default a quarter of what is free.

    Returns:
        A `Circuit` with scores `[edge prompt]`, `base - metric without the edge`: positive supports the right answer.
        Where the model's attention scores are out of reach (GPT-J on the Bridge), without text edges.

    Raises:
        InputError: a head twice or one that does not exist, and what `run_each` and `path_patch` raise.
        Unfit: a single prompt, zero-shot prompts, or a model that `path_patch` cannot do.
    """
    heads = require_distinct_heads(model, heads)
    require_demonstrations(batch, "to draw a circuit from")
    if n_upstream < 0:
        raise InputError(f"n_upstream is {n_upstream}: give 0 or more")
    demos, edges = range(batch.n_demos), list[Edge]()
    if scores_are_live(model):
        edges += [*(Edge(Text(demo), Label(demo)) for demo in demos), Edge(Query(), Last())]
    for head in heads:
        edges += [Edge(Label(demo), head, "k") for demo in demos]
        edges += [Edge(Label(demo), head, "v") for demo in demos]
        edges += [Edge(Last(), head, "q"), Edge(head, Logits())]
    if n_upstream:
        edges += _strongest_upstream(
            model, batch if choose_on is None else choose_on, heads, n_upstream, metric, budget
        )
    return score_edges(model, batch, edges, metric=metric, budget=budget)


@torch.no_grad()
def score_edges(
    model: LensModel,
    batch: PromptBatch,
    edges: Sequence[Edge],
    *,
    metric: Metric = "logit_diff",
    budget: int | None = None,
) -> Circuit:
    """Score given edges on other prompts: those of a circuit on label-reversed twins, say.

    Raises:
        InputError: an edge that is none of those `find_circuit` makes, a head or demonstration that does not exist, or
            prompts that `encode` did not make. Also what `run_each`, `path_patch` and `KnockOut` raise.
        Unfit: a single prompt, or a model that `path_patch` or `KnockOut` cannot do.
    """
    require_labels(batch, "to score edges of")
    kinds = by_kind(edges, batch)
    score = {"label": _label_edges, "query": _query_edges, "path": _path_edges, "text": _text_edges}
    found: EdgeScores = {}
    for kind, part in kinds.items():
        found |= score[kind](model, batch, part, metric, budget)
    base = run_each(model, batch, [], metric).base.numpy()
    shape = {
        "n_layers": model.cfg.n_layers,
        "n_heads": model.cfg.n_heads,
        "d_model": model.cfg.d_model,
        "parallel_attn_mlp": is_parallel(model),
    }
    scores = np.stack([found[edge] for edge in edges]) if edges else np.zeros((0, len(base)))
    return Circuit(tuple(edges), scores.astype(np.float32), base.astype(np.float32), metric_name(metric), shape)


def _label_edges(
    model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None
) -> EdgeScores:
    """What each head's score and value at each label position contribute, as patches of z at the answer position."""
    heads = require_some_heads(model, tuple(dict.fromkeys(receiving_head(edge) for edge in edges)))
    layers = sorted({head.layer for head in heads})
    live = scores_are_live(model)  # where not, a score is known up to what all of its row share, as log attention
    site: ReadSite = "attn_scores" if live else "pattern"
    changed: dict[Head, list[Float[Tensor, "input batch demo d_head"]]] = {head: [] for head in heads}
    for chunk in batch.chunks():
        at_answer = Capture([(site, layer) for layer in layers], chunk.last)
        everywhere = Capture([("v", layer) for layer in layers])
        run_hooked(model, chunk, at_answer, everywhere)
        for head in heads:
            row, v = at_answer.of(model, site, head), everywhere.of(model, "v", head)
            both = like_any_label(row if live else row.log(), v, chunk.label_positions)
            changed[head].append(torch.stack(both))
    z_of = {head: torch.cat(parts, 1) for head, parts in changed.items()}
    at_last, variants = batch.last[:, None], []
    for edge in edges:
        head = receiving_head(edge)
        assert isinstance(edge.sender, Label)  # `by_kind` lets no other node be read there
        z = z_of[head][int(edge.input == "v"), :, edge.sender.demo]
        variants.append((Patch("z", head.layer, z[:, None], at_last, head=head.head),))
    run = run_each(model, batch, variants, metric, budget=budget, description="label edges")
    return dict(zip(edges, (run.base - run.values).numpy(), strict=True))


def _query_edges(
    model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None
) -> EdgeScores:
    """What each head's query says of its prompt: it becomes the mean over the prompts."""
    heads = [receiving_head(edge) for edge in edges]
    mean = mean_queries(model, batch, heads)
    at_last = batch.last[:, None]
    variants = [(Patch("q", head.layer, mean[head], at_last, head=head.head),) for head in heads]
    run = run_each(model, batch, variants, metric, budget=budget, description="queries")
    return dict(zip(edges, (run.base - run.values).numpy(), strict=True))


def _path_edges(
    model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None
) -> EdgeScores:
    """What the direct paths of heads, MLPs and the embedding contribute to queries and to the logits."""
    senders = tuple(dict.fromkeys(edge.sender for edge in edges if isinstance(edge.sender, Sender)))
    receivers = tuple(dict.fromkeys(edge.receiver for edge in edges if isinstance(edge.receiver, Head)))
    logits = any(isinstance(edge.receiver, Logits) for edge in edges)
    found = path_patch(model, batch, senders=senders, receivers=receivers, logits=logits, metric=metric, budget=budget)
    effect = dict(zip(found.edges, found.effect, strict=True))
    missing = next((edge for edge in edges if edge not in effect), None)
    if missing is not None:
        raise InputError(f"edge {missing}: its sender does not lie below its receiver")
    return {edge: -effect[edge] for edge in edges}


def _strongest_upstream(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], n_upstream: int, metric: Metric, budget: int | None
) -> list[Edge]:
    """The edges from the components whose direct paths to each head's query contribute most."""
    senders: list[Sender] = [Embedding(), *all_heads(model), *all_mlps(model)]
    found = path_patch(model, batch, senders=senders, receivers=heads, metric=metric, budget=budget)
    effect, chosen = np.abs(found.effect.mean(axis=1)), list[Edge]()
    for head in heads:
        into = [i for i, edge in enumerate(found.edges) if edge.receiver == head]
        chosen += [found.edges[i] for i in sorted(into, key=lambda i: -effect[i])[:n_upstream]]
    return chosen


def _text_edges(
    model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None
) -> EdgeScores:
    """What attention along text -> label contributes, a demonstration at a time, and along query -> last."""
    layers, rows = tuple(range(model.cfg.n_layers)), []
    for chunk in batch.chunks():
        cut = [(KnockOut(layers, attention_along(chunk, edge)),) for edge in edges]
        run = run_each(model, chunk, cut, metric, budget=budget, description="text edges")
        rows.append(run.base - run.values)
    return dict(zip(edges, torch.cat(rows, 1).numpy(), strict=True))
