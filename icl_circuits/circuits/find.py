"""Build the in-context circuit: what each edge from text to logits contributes, measured in the sweep engine.

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

from icl_circuits.circuits.circuit import LOGITS, Circuit, Edge, Node, head_node
from icl_circuits.errors import InputError
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
    from_logits,
    path_patch,
    run_each,
    sweep,
)
from icl_circuits.models import (
    Head,
    LensModel,
    all_heads,
    at_least_float32,
    is_parallel,
    kv_head,
    require_additive_heads,
    require_live_scores,
    require_some_heads,
)
from icl_circuits.progress import progress
from icl_circuits.prompts import PromptBatch

Scored = tuple[list[Edge], Float[np.ndarray, "edge prompt"]]


@torch.no_grad()
def find_circuit(
    model: LensModel,
    batch: PromptBatch,
    heads: Sequence[Head],
    *,
    n_upstream: int = 3,
    metric: Metric = "logit_diff",
    budget: int | None = None,
) -> Circuit:
    """Score every edge of the circuit through `heads` on every prompt.

    Args:
        model: the model.
        batch: prompts with demonstrations.
        heads: the in-context heads.
        n_upstream: how many components to keep for each head's query, those of the largest absolute mean score.
        metric: a name, or a function of answer-position logits and their prompts with one value for each prompt.
        budget: bytes for a chunk of variants; default a quarter of what is free.

    Returns:
        A `Circuit` with scores `[edge prompt]`, `base - metric without the edge`: positive supports the right answer.
        Where the model's attention scores are out of reach (GPT-J on the Bridge), without text edges.

    Raises:
        InputError: a head that does not exist, zero-shot prompts, and what `run_each` and `path_patch` raise.
    """
    heads = require_some_heads(model, heads)
    require_additive_heads(model)
    if not batch.label_positions.shape[1]:
        raise InputError("zero-shot prompts have no label positions to draw a circuit from: use 1 shot or more")
    if n_upstream < 0:
        raise InputError(f"n_upstream is {n_upstream}: give 0 or more")
    to_logits = path_patch(model, batch, senders=heads, receivers=(), logits=True, metric=metric, budget=budget)
    base = to_logits.base
    edges = [Edge(head_node(head), LOGITS) for head in heads]
    parts: list[Scored] = [(edges, -to_logits.effect)]
    parts.append(_label_edges(model, batch, heads, metric, budget))
    parts.append(_query_edges(model, batch, heads, metric, budget))
    if n_upstream:
        parts.append(_upstream_edges(model, batch, heads, n_upstream, metric, budget))
    try:
        require_live_scores(model)
    except InputError:
        pass
    else:
        parts.append(_text_edges(model, batch, metric))
    shape = {
        "n_layers": model.cfg.n_layers,
        "n_heads": model.cfg.n_heads,
        "d_model": model.cfg.d_model,
        "parallel_attn_mlp": is_parallel(model),
    }
    found = [edge for part, _ in parts for edge in part]
    scores = np.concatenate([scores for _, scores in parts]).astype(np.float32)
    return Circuit(tuple(found), scores, base.astype(np.float32), to_logits.setting[0], shape)


def _label_edges(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], metric: Metric, budget: int | None
) -> Scored:
    """What each head's score and value at each label position contribute, as patches of z at the answer position."""
    layers = sorted({head.layer for head in heads})
    patterns, values = ([f"blocks.{layer}.attn.hook_{site}" for layer in layers] for site in ("pattern", "v"))
    changed: dict[Head, list[Float[Tensor, "input batch demo d_head"]]] = {head: [] for head in heads}
    for chunk in batch.chunks():
        at_answer, everywhere = Capture(patterns, chunk.last), Capture(values)
        answer_logits(model, chunk, at_answer, everywhere)
        for head in heads:
            pattern = at_answer.found[f"blocks.{head.layer}.attn.hook_pattern"][:, head.head]
            v = everywhere.found[f"blocks.{head.layer}.attn.hook_v"][:, :, kv_head(model, head.head)]
            z = like_any_label(at_least_float32(pattern), at_least_float32(v), chunk.label_positions)
            changed[head].append(torch.stack(z))
    edges: list[Edge] = []
    variants: list[tuple[Patch, ...]] = []
    at_last = batch.last[:, None]
    for head, parts in changed.items():
        for name, demos in zip(("k", "v"), torch.cat(parts, 1), strict=True):
            for demo, z in enumerate(demos.unbind(1)):
                edges.append(Edge(Node("label", index=demo), head_node(head), "k" if name == "k" else "v"))
                variants.append((Patch("z", head.layer, z[:, None], at_last, head=head.head),))
    run = run_each(model, batch, variants, metric, budget=budget, description="label edges")
    return edges, (run.base - run.values).numpy()


def like_any_label(
    pattern: Float[Tensor, "batch src_pos"],
    v: Float[Tensor, "batch src_pos d_head"],
    label_positions: Int[Tensor, "batch demo"],
) -> tuple[Float[Tensor, "batch demo d_head"], Float[Tensor, "batch demo d_head"]]:
    """A head's z with the score, and with the value, at each label position made the mean over label positions.

    A mean of scores is a geometric mean of attention: with `g` that mean, `alpha_i` becomes `g` and the row is
    normalised again.
    """
    z = torch.einsum("bs,bsd->bd", pattern, v)[:, None]
    alpha = pattern.gather(1, label_positions)[..., None]
    at_labels = v[torch.arange(len(v), device=v.device)[:, None], label_positions]
    mean_alpha = alpha.clamp(min=torch.finfo(alpha.dtype).tiny).log().mean(1, keepdim=True).exp()
    by_score = (z + (mean_alpha - alpha) * at_labels) / (1 - alpha + mean_alpha)
    by_value = z + alpha * (at_labels.mean(1, keepdim=True) - at_labels)
    return by_score, by_value


def _query_edges(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], metric: Metric, budget: int | None
) -> Scored:
    """What each head's query says of its prompt: it becomes the mean over the prompts."""
    layers = sorted({head.layer for head in heads})
    found = sweep(model, batch, "q", replacement=Mean(batch), metric=metric, layers=layers, budget=budget)
    row = {(cell.layer, cell.head): i for i, cell in enumerate(found.cells)}
    scores = -found.effect[[row[head] for head in heads]]
    return [Edge(Node("last"), head_node(head), "q") for head in heads], scores


def _upstream_edges(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], n_upstream: int, metric: Metric, budget: int | None
) -> Scored:
    """The components whose direct paths to each head's query contribute most."""
    senders: list[Sender] = [Embedding(), *all_heads(model)]
    if not getattr(model.cfg, "attn_only", False):
        senders += [Mlp(layer) for layer in range(model.cfg.n_layers)]
    found = path_patch(model, batch, senders=senders, receivers=heads, metric=metric, budget=budget)
    effect = np.abs(found.effect.mean(axis=1))
    rows = []
    for head in heads:
        own = [i for i, edge in enumerate(found.edges) if edge.receiver == head]
        rows += sorted(own, key=lambda i: -effect[i])[:n_upstream]
    edges = [Edge(_sender_node(found.edges[i].sender), head_node(_head(found.edges[i].receiver)), "q") for i in rows]
    return edges, -found.effect[rows]


def _sender_node(sender: Sender) -> Node:
    if isinstance(sender, Head):
        return head_node(sender)
    return Node("mlp", sender.layer) if isinstance(sender, Mlp) else Node("embed")


def _head(head: Head | None) -> Head:
    assert head is not None  # no edge into the logits was asked for
    return head


def _text_edges(model: LensModel, batch: PromptBatch, metric: Metric) -> Scored:
    """What attention along text -> label contributes, a demonstration at a time, and along query -> last."""
    n_demos, layers = batch.label_positions.shape[1], tuple(range(model.cfg.n_layers))
    edges = [Edge(Node("text", index=demo), Node("label", index=demo)) for demo in range(n_demos)]
    edges.append(Edge(Node("query"), Node("last")))
    rows = []
    for edge in progress([None, *edges], "text edges"):
        values = []
        for chunk in batch.chunks():
            cut = [] if edge is None else [KnockOut(layers, _attention_along(chunk, edge))]
            values.append(from_logits(metric, answer_logits(model, chunk, *cut), chunk).cpu())
        rows.append(torch.cat(values))
    base, *without = rows
    return edges, (base - torch.stack(without)).numpy()


def _attention_along(batch: PromptBatch, edge: Edge) -> Bool[Tensor, "batch pos src_pos"]:
    """The attention edges from a text's tokens to its label position, or from the query's to the answer position."""
    reader = batch.last if edge.sender.index is None else batch.label_positions[:, edge.sender.index]
    segment = batch.label_positions.shape[1] if edge.sender.index is None else edge.sender.index
    position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    reads = position == reader[:, None]
    read = (batch.segments == segment) & ~reads
    return reads[:, :, None] & read[:, None, :]
