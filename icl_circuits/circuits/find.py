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
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.circuits.circuit import LOGITS, Circuit, Edge, Node, head_node, require_distinct_heads
from icl_circuits.errors import InputError, Unfit
from icl_circuits.interventions import (
    Capture,
    Embedding,
    KnockOut,
    Mean,
    Metric,
    Mlp,
    Patch,
    Sender,
    answer_logits,
    metric_name,
    path_patch,
    plain_metric,
    run_each,
    values_at,
)
from icl_circuits.models import (
    Head,
    LensModel,
    all_heads,
    at_least_float32,
    is_parallel,
    kv_head,
    require_additive_heads,
    require_some_heads,
    scores_are_live,
    unmasked,
)
from icl_circuits.progress import progress
from icl_circuits.prompts import PromptBatch

Scores = dict[Edge, Float[np.ndarray, " prompt"]]


@torch.no_grad()
def find_circuit(
    model: LensModel,
    batch: PromptBatch,
    heads: Sequence[Head],
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
        budget: bytes for a chunk of variants; default a quarter of what is free.

    Returns:
        A `Circuit` with scores `[edge prompt]`, `base - metric without the edge`: positive supports the right answer.
        Where the model's attention scores are out of reach (GPT-J on the Bridge), without text edges.

    Raises:
        InputError: a head twice or one that does not exist, a single prompt, zero-shot prompts, and what `run_each` and
            `path_patch` raise.
    """
    heads = require_distinct_heads(model, heads)
    if not batch.label_positions.shape[1]:
        raise Unfit("zero-shot prompts have no label positions to draw a circuit from: use 1 shot or more")
    if n_upstream < 0:
        raise InputError(f"n_upstream is {n_upstream}: give 0 or more")
    demos = range(batch.label_positions.shape[1])
    edges = []
    if scores_are_live(model):
        edges += [Edge(Node("text", index=demo), Node("label", index=demo)) for demo in demos]
        edges.append(Edge(Node("query"), Node("last")))
    for head in map(head_node, heads):
        edges += [Edge(Node("label", index=demo), head, name) for name in ("k", "v") for demo in demos]
        edges += [Edge(Node("last"), head, "q"), Edge(head, LOGITS)]
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
        InputError: an edge that is none of those `find_circuit` makes, a head or demonstration that does not exist,
            and what `run_each`, `path_patch` and `KnockOut` raise.
    """
    require_additive_heads(model)
    kinds: dict[str, list[Edge]] = {}
    for edge in edges:
        kinds.setdefault(_kind(edge, batch), []).append(edge)
    score = {"label": _label_edges, "query": _query_edges, "path": _path_edges, "text": _text_edges}
    found: Scores = {}
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


def _kind(edge: Edge, batch: PromptBatch) -> str:
    """How an edge is measured; `InputError` for one that cannot be."""
    sender, receiver, n_demos = edge.sender, edge.receiver, batch.label_positions.shape[1]
    if sender.kind in ("text", "label") and not 0 <= (-1 if sender.index is None else sender.index) < n_demos:
        raise InputError(f"edge {edge}: the prompts have demonstrations 0..{n_demos - 1}")
    ends = sender.kind, receiver.kind, edge.input
    if ends in (("label", "head", "k"), ("label", "head", "v")):
        return "label"
    if ends == ("last", "head", "q"):
        return "query"
    if sender.kind in ("head", "mlp", "embed") and ends[1:] in (("head", "q"), ("logits", None)):
        return "path"
    if ends == ("query", "last", None) or (ends == ("text", "label", None) and sender.index == receiver.index):
        return "text"
    raise InputError(f"edge {edge} is none that a circuit has: see find_circuit for those that are")


def _label_edges(model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None) -> Scores:
    """What each head's score and value at each label position contribute, as patches of z at the answer position."""
    heads = require_some_heads(model, tuple(dict.fromkeys(_head(edge.receiver) for edge in edges)))
    layers = sorted({head.layer for head in heads})
    live = scores_are_live(model)  # where not, a score is known up to what all of its row share, as log attention
    site = "attn_scores" if live else "pattern"
    row_names, values = ([f"blocks.{layer}.attn.hook_{name}" for layer in layers] for name in (site, "v"))
    changed: dict[Head, list[Float[Tensor, "input batch demo d_head"]]] = {head: [] for head in heads}
    for chunk in batch.chunks():
        at_answer, everywhere = Capture(row_names, chunk.last), Capture(values)
        answer_logits(model, chunk, at_answer, everywhere)
        for head in heads:
            row = at_least_float32(at_answer.found[f"blocks.{head.layer}.attn.hook_{site}"][:, head.head])
            scores = row if live else row.log()
            v = everywhere.found[f"blocks.{head.layer}.attn.hook_v"][:, :, kv_head(model, head.head)]
            both = like_any_label(scores, at_least_float32(v), chunk.label_positions)
            changed[head].append(torch.stack(both))
    z_of = {head: torch.cat(parts, 1) for head, parts in changed.items()}
    at_last, variants = batch.last[:, None], []
    for edge in edges:
        head = _head(edge.receiver)
        z = z_of[head][int(edge.input == "v"), :, edge.sender.index]
        variants.append((Patch("z", head.layer, z[:, None], at_last, head=head.head),))
    run = run_each(model, batch, variants, metric, budget=budget, description="label edges")
    return dict(zip(edges, (run.base - run.values).numpy(), strict=True))


def like_any_label(
    scores: Float[Tensor, "batch src_pos"],
    v: Float[Tensor, "batch src_pos d_head"],
    label_positions: Int[Tensor, "batch demo"],
) -> tuple[Float[Tensor, "batch demo d_head"], Float[Tensor, "batch demo d_head"]]:
    """A head's z with the score, and with the value, at each label position made the mean over label positions.

    Label positions that the head cannot see (a sliding window hides them) are no part of the mean, and stay as they
    are.
    """
    own, n_demos = scores.gather(1, label_positions), label_positions.shape[1]
    at_labels = v[torch.arange(len(v), device=v.device)[:, None], label_positions]
    seen = unmasked(own)
    n_seen = seen.sum(1, keepdim=True).clamp(min=1)
    new = torch.where(seen, torch.where(seen, own, 0.0).sum(1, keepdim=True) / n_seen, own)
    changed = scores[:, None].expand(-1, n_demos, -1).scatter(2, label_positions[..., None], new[..., None])
    mean = torch.where(seen[..., None], at_labels, 0.0).sum(1, keepdim=True) / n_seen[..., None]
    pattern = scores.softmax(-1)
    z = torch.einsum("bs,bsd->bd", pattern, v)[:, None]
    return changed.softmax(-1) @ v, z + pattern.gather(1, label_positions)[..., None] * (mean - at_labels)


def _query_edges(model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None) -> Scores:
    """What each head's query says of its prompt: it becomes the mean over the prompts."""
    if len(batch) < 2:
        raise Unfit("the mean query of one prompt is its own: give 2 prompts or more")
    heads = [_head(edge.receiver) for edge in edges]
    mean = values_at(model, batch, Mean(batch), [("q", layer) for layer in {head.layer for head in heads}], "last")
    at_last = batch.last[:, None]
    variants = [(Patch("q", layer, mean("q", layer, head), at_last, head=head),) for layer, head in heads]
    run = run_each(model, batch, variants, metric, budget=budget, description="queries")
    return dict(zip(edges, (run.base - run.values).numpy(), strict=True))


def _path_edges(model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None) -> Scores:
    """What the direct paths of heads, MLPs and the embedding contribute to queries and to the logits."""
    senders = tuple(dict.fromkeys(_sender(edge.sender) for edge in edges))
    receivers = tuple(dict.fromkeys(_head(edge.receiver) for edge in edges if edge.input))
    logits = any(edge.input is None for edge in edges)
    found = path_patch(model, batch, senders=senders, receivers=receivers, logits=logits, metric=metric, budget=budget)
    effect = {(edge.sender, edge.receiver): effect for edge, effect in zip(found.edges, found.effect, strict=True)}
    missing = [e for e in edges if (_sender(e.sender), e.receiver.head) not in effect]
    if missing:
        raise InputError(f"edge {missing[0]}: its sender does not lie below its receiver")
    return {edge: -effect[_sender(edge.sender), edge.receiver.head] for edge in edges}


def _strongest_upstream(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], n_upstream: int, metric: Metric, budget: int | None
) -> list[Edge]:
    """The edges from the components whose direct paths to each head's query contribute most."""
    senders: list[Sender] = [Embedding(), *all_heads(model)]
    if not getattr(model.cfg, "attn_only", False):
        senders += [Mlp(layer) for layer in range(model.cfg.n_layers)]
    found = path_patch(model, batch, senders=senders, receivers=heads, metric=metric, budget=budget)
    effect, chosen = np.abs(found.effect.mean(axis=1)), []
    for head in heads:
        into = [i for i, edge in enumerate(found.edges) if edge.receiver == head]
        for i in sorted(into, key=lambda i: -effect[i])[:n_upstream]:
            chosen.append(Edge(_sender_node(found.edges[i].sender), head_node(head), "q"))
    return chosen


def _sender_node(sender: Sender) -> Node:
    if isinstance(sender, Head):
        return head_node(sender)
    return Node("mlp", sender.layer) if isinstance(sender, Mlp) else Node("embed")


def _sender(node: Node) -> Sender:
    if node.head is not None:
        return node.head
    return Embedding() if node.layer is None else Mlp(node.layer)  # `_kind` lets no other node send


def _head(node: Node) -> Head:
    assert node.head is not None  # `_kind` lets no other node be read by q, k or v
    return node.head


def _text_edges(model: LensModel, batch: PromptBatch, edges: list[Edge], metric: Metric, budget: int | None) -> Scores:
    """What attention along text -> label contributes, a demonstration at a time, and along query -> last."""
    layers, rows = tuple(range(model.cfg.n_layers)), []
    for edge in progress([None, *edges], "text edges"):
        values = []
        for chunk in batch.chunks():
            cut = [] if edge is None else [KnockOut(layers, _attention_along(chunk, edge))]
            values.append(plain_metric(model, chunk, cut, metric))
        rows.append(torch.cat(values))
    base, *without = rows
    return {edge: (base - cut).numpy() for edge, cut in zip(edges, without, strict=True)}


def _attention_along(batch: PromptBatch, edge: Edge) -> Bool[Tensor, "batch pos src_pos"]:
    """The attention edges from a text's tokens to its label position, or from the query's to the answer position."""
    reader = batch.last if edge.sender.index is None else batch.label_positions[:, edge.sender.index]
    segment = batch.label_positions.shape[1] if edge.sender.index is None else edge.sender.index
    position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    reads = position == reader[:, None]
    read = (batch.segments == segment) & ~reads
    return reads[:, :, None] & read[:, None, :]
