"""What stands in for each edge of a circuit while it is cut: alone, to score it, or with others in one run."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, Unfit
from icl_circuits.interventions import Mean, values_at
from icl_circuits.models import LensModel, unmasked
from icl_circuits.prompts import PromptBatch
from icl_circuits.residual import Edge, Head, Label, Last, Logits, Query, Sender, Text


def by_kind(edges: Sequence[Edge], batch: PromptBatch) -> dict[str, list[Edge]]:
    """The edges by how they are measured. Raises `InputError` for one that cannot be."""
    kinds: dict[str, list[Edge]] = {}
    for edge in edges:
        kinds.setdefault(_kind(edge, batch), []).append(edge)
    return kinds


def _kind(edge: Edge, batch: PromptBatch) -> str:
    sender, into_head = edge.sender, isinstance(edge.receiver, Head)
    if isinstance(sender, Text | Label) and not 0 <= sender.demo < batch.n_demos:
        raise InputError(f"edge {edge}: the prompts have demonstrations 0..{batch.n_demos - 1}")
    if isinstance(sender, Label) and into_head and edge.input in ("k", "v"):
        return "label"
    if isinstance(sender, Last) and into_head and edge.input == "q":
        return "query"
    if isinstance(sender, Sender) and ((into_head and edge.input == "q") or edge == Edge(sender, Logits())):
        return "path"
    if edge == Edge(Query(), Last()) or (isinstance(sender, Text) and edge == Edge(sender, Label(sender.demo))):
        return "text"
    raise InputError(f"edge {edge} is none that a circuit has: see find_circuit for those that are")


def like_any_label(
    scores: Float[Tensor, "batch src_pos"],
    v: Float[Tensor, "batch src_pos d_head"],
    label_positions: Int[Tensor, "batch demo"],
) -> tuple[Float[Tensor, "batch demo d_head"], Float[Tensor, "batch demo d_head"]]:
    """A head's z with the score, and with the value, at each label position made the mean over label positions.

    Label positions that the head cannot see (a sliding window hides them) are no part of the mean, and stay as they
    are.
    """
    n_demos = label_positions.shape[1]
    score, value, at_labels = neutral_label(scores, v, label_positions)
    changed = scores[:, None].expand(-1, n_demos, -1).scatter(2, label_positions[..., None], score[..., None])
    pattern = scores.softmax(-1)
    z = torch.einsum("bs,bsd->bd", pattern, v)[:, None]
    return changed.softmax(-1) @ v, z + pattern.gather(1, label_positions)[..., None] * (value - at_labels)


def neutral_label(
    scores: Float[Tensor, "batch src_pos"],
    v: Float[Tensor, "batch src_pos d_head"],
    label_positions: Int[Tensor, "batch demo"],
) -> tuple[Float[Tensor, "batch demo"], Float[Tensor, "batch 1 d_head"], Float[Tensor, "batch demo d_head"]]:
    """The score that each label position gets, the value that it gets, and the values that are there."""
    own = scores.gather(1, label_positions)
    at_labels = v[torch.arange(len(v), device=v.device)[:, None], label_positions]
    seen = unmasked(own)
    n_seen = seen.sum(1, keepdim=True).clamp(min=1)
    score = torch.where(seen, torch.where(seen, own, 0.0).sum(1, keepdim=True) / n_seen, own)
    value = torch.where(seen[..., None], at_labels, 0.0).sum(1, keepdim=True) / n_seen[..., None]
    return score, value, at_labels


def mean_queries(model: LensModel, batch: PromptBatch, heads: Sequence[Head]) -> dict[Head, Float[Tensor, " d_head"]]:
    """The query of each head at the answer position, before the rotary embedding: its mean over the prompts.

    Raises:
        Unfit: a single prompt.
    """
    if len(batch) < 2:
        raise Unfit("the mean query of one prompt is its own: give 2 prompts or more")
    value_at = values_at(model, batch, Mean(batch), [("q", layer) for layer in {head.layer for head in heads}], "last")
    return {head: value_at("q", *head) for head in heads}


def receiving_head(edge: Edge) -> Head:
    """The head that an edge ends in."""
    assert isinstance(edge.receiver, Head)  # `by_kind` lets no other node be read by q, k or v
    return edge.receiver


def attention_along(batch: PromptBatch, edge: Edge) -> Bool[Tensor, "batch pos src_pos"]:
    """The attention edges from a text's tokens to its label position, or from the query's to the answer position."""
    demo = edge.sender.demo if isinstance(edge.sender, Text) else None
    reader = batch.last if demo is None else batch.label_positions[:, demo]
    segment = batch.n_demos if demo is None else demo
    position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    reads = position == reader[:, None]
    read = (batch.segments == segment) & ~reads
    return reads[:, :, None] & read[:, None, :]
