"""Cut several edges of a circuit in one run, each in the way in which its score was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.circuits.stand_ins import attention_along, by_kind, mean_queries, neutral_label, receiving_head
from icl_circuits.errors import InputError, Unfit
from icl_circuits.interventions import Intervention, KnockOut, Patch
from icl_circuits.models import (
    Block,
    HookPair,
    LensModel,
    NotAlgebraError,
    Place,
    at_least_float32,
    hook_name,
    kv_head,
    read_block,
    require_identities,
    scores_are_live,
)
from icl_circuits.prompts import PromptBatch, require_labels
from icl_circuits.residual import (
    Capture,
    Edge,
    Embedding,
    Head,
    Label,
    Logits,
    Sender,
    final_state,
    layer_of,
    require_heads,
)

ByHead = Float[Tensor, "batch pos head d_head"]
Queries = Mapping[Head, Float[Tensor, " d_head"]]
"""What a head's query at the answer position becomes, before the rotary embedding."""


def cut_edges(
    model: LensModel, batch: PromptBatch, edges: Sequence[Edge], *, queries: Queries | None = None
) -> tuple[Intervention, ...]:
    """Interventions that cut `edges` in one run: `answer_logits(model, batch, *cut_edges(model, batch, edges))`.

    One edge alone changes the metric by its score in `find_circuit`. Several are cut together: what is taken away from
    a query or from the logits is what its senders write in this run. A query made the mean reads no component.

    Args:
        model: the model.
        batch: the prompts to run.
        edges: edges of a circuit; none changes nothing.
        queries: what stands in for a query whose edge from the answer position is cut, `[d_head]` for each head; by
            default its mean over `batch`.

    Raises:
        InputError: an edge that is none of those `find_circuit` makes, or a head or demonstration that does not exist.
            Prompts that `encode` did not make, or a head without its query in `queries`.
        Unfit: a model whose attention or queries cannot be cut so, or the mean query of a single prompt.
    """
    require_labels(batch, "to cut edges of")
    kinds = by_kind(tuple(dict.fromkeys(edges)), batch)
    require_heads(model, [node for edge in edges for node in (edge.sender, edge.receiver) if isinstance(node, Head)])
    found = list[Intervention]()
    if "text" in kinds:
        along = torch.stack([attention_along(batch, edge) for edge in kinds["text"]]).any(0)
        found.append(KnockOut(tuple(range(model.cfg.n_layers)), along))
    labels = _neutral_labels(model, batch, kinds.get("label", []))
    paths = _without_paths(model, batch, kinds.get("path", []))
    found += [labels, paths]
    if "query" in kinds:
        heads = [receiving_head(edge) for edge in kinds["query"]]
        known = mean_queries(model, batch, heads) if queries is None else queries
        missing = next((head for head in heads if head not in known), None)
        if missing is not None:
            raise InputError(f"queries has none for {missing}: give mean_queries(model, prompts, heads) of all heads")
        found += [Patch("q", head.layer, known[head], batch.last[:, None], head=head.head) for head in heads]
    return (*found, labels.at_answer, labels.everywhere, paths.at_answer)  # what reads a place comes after all changes


def _neutral_labels(model: LensModel, batch: PromptBatch, edges: Sequence[Edge]) -> "_NeutralLabels":
    """The intervention, and what it reads: attention scores, or where hooks do not show them, what makes them."""
    layers, live = sorted({receiving_head(edge).layer for edge in edges}), scores_are_live(model)
    if layers and not live:
        require_identities(model, batch.tokens, batch.last, "scores")
    return _NeutralLabels(
        batch,
        tuple(edges),
        Capture([("attn_scores" if live else "q", layer) for layer in layers], batch.last),
        Capture([*(("v", layer) for layer in layers), *(("k", layer) for layer in layers if not live)]),
        _blocks(model, batch, [] if live else layers),
    )


@dataclass(frozen=True)
class _NeutralLabels:
    """Scores and values that heads find at some label positions are those of a label like any other."""

    batch: PromptBatch
    edges: tuple[Edge, ...]
    at_answer: Capture
    everywhere: Capture
    blocks: Mapping[int, Block]
    """Of layers whose scores are made from queries and keys."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        heads = {receiving_head(edge) for edge in self.edges}
        rows, last = _answers(self.batch)

        def pair(layer: int) -> HookPair:
            def change(z: ByHead, hook: object) -> ByHead:
                z = z.clone()
                for head in heads:
                    if head.layer == layer:
                        v, keys, values = (
                            self.everywhere.of(model, "v", head),
                            self._demos("k", head),
                            self._demos("v", head),
                        )
                        new = z_without(self._scores(model, head), v, self.batch.label_positions, keys, values)
                        z[rows, last, head.head] = new.to(z)
                return z

            return hook_name("z", layer), change

        return [pair(layer) for layer in sorted({head.layer for head in heads})]

    def _scores(self, model: LensModel, head: Head) -> Float[Tensor, "batch src_pos"]:
        """The head's attention scores from the answer position, masked."""
        block = self.blocks.get(head.layer)
        if block is None:
            return self.at_answer.of(model, "attn_scores", head)
        last = self.batch.last[:, None]
        keys_at = torch.arange(self.batch.tokens.shape[1], device=last.device).expand(len(last), -1)
        q = block.turned("q", self.at_answer.raw("q", head.layer)[:, None], last)[:, :, head.head]
        k = block.turned("k", self.everywhere.raw("k", head.layer), keys_at)[:, :, kv_head(model, head.head)]
        scores = at_least_float32(block.scores(q, k))
        return scores.masked_fill(~block.visible(last, keys_at), float("-inf"))[:, 0]

    def _demos(self, name: str, head: Head) -> list[int]:
        """The demonstrations whose edges into one input of a head are cut."""
        mine = [edge.sender for edge in self.edges if edge.receiver == head and edge.input == name]
        return [sender.demo for sender in mine if isinstance(sender, Label)]


def z_without(
    scores: Float[Tensor, "batch src_pos"],
    v: Float[Tensor, "batch src_pos d_head"],
    label_positions: Int[Tensor, "batch demo"],
    keys: list[int],
    values: list[int],
) -> Float[Tensor, "batch d_head"]:
    """A head's z with the scores at some label positions, and the values at some, made the mean over label positions.

    `keys` and `values` say at which demonstrations' labels.
    """
    score, value, at_labels = neutral_label(scores, v, label_positions)
    pattern = scores.scatter(1, label_positions[:, keys], score[:, keys]).softmax(-1)
    weight = pattern.gather(1, label_positions[:, values])
    return torch.einsum("bs,bsd->bd", pattern, v) + torch.einsum("bn,bnd->bd", weight, value - at_labels[:, values])


def _without_paths(model: LensModel, batch: PromptBatch, edges: Sequence[Edge]) -> "_WithoutPaths":
    """The intervention, for a model whose equations were checked.

    Raises:
        InputError: a sender that does not lie below its receiver.
        Unfit: a layer that has no equations, or other ones.
    """
    senders: dict[Head | Logits, list[Sender]] = {}
    for edge in edges:
        assert isinstance(edge.sender, Sender)  # `by_kind` lets no other pass
        assert isinstance(edge.receiver, Head | Logits)
        above = edge.receiver.layer if isinstance(edge.receiver, Head) else model.cfg.n_layers
        if layer_of(edge.sender) >= above:
            raise InputError(f"edge {edge}: its sender does not lie below its receiver")
        senders.setdefault(edge.receiver, []).append(edge.sender)
    if edges:
        require_identities(model, batch.tokens, batch.last, "projections", "heads")
    nodes = {node for receiver, mine in senders.items() for node in (receiver, *mine)}
    read = {_place(sender) for mine in senders.values() for sender in mine}
    read |= {("resid_pre", receiver.layer) for receiver in senders if isinstance(receiver, Head)}
    blocks = _blocks(model, batch, sorted({node.layer for node in nodes if isinstance(node, Head)}))
    return _WithoutPaths(batch, senders, Capture(sorted(read), batch.last), blocks)


@dataclass(frozen=True)
class _WithoutPaths:
    """Queries and logits, at the answer position, read the residual stream without what some components write."""

    batch: PromptBatch
    senders: Mapping[Head | Logits, Sequence[Sender]]
    """What no longer reaches each receiver."""
    at_answer: Capture
    blocks: Mapping[int, Block]
    """Of the layers that heads among senders and receivers are in."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        rows, last = _answers(self.batch)

        def query(layer: int) -> HookPair:
            def change(q: ByHead, hook: object) -> ByHead:
                q, block, state = q.clone(), self.blocks[layer], self.at_answer.at("resid_pre", layer)
                for head in self.senders:
                    if isinstance(head, Head) and head.layer == layer:
                        left = block.project("q", block.ln1(state - self._written(head)))
                        q[rows, last, head.head] = left[:, head.head].to(q)
                return q

            return hook_name("q", layer), change

        def final(state: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
            state = state.clone()
            state[rows, last] = (at_least_float32(state[rows, last]) - self._written(Logits())).to(state)
            return state

        layers = sorted({receiver.layer for receiver in self.senders if isinstance(receiver, Head)})
        to_logits = [(hook_name(*final_state(model)), final)] if Logits() in self.senders else []
        return [*map(query, layers), *to_logits]

    def _written(self, receiver: Head | Logits) -> Float[Tensor, "batch d_model"]:
        """What the senders that are cut from a receiver write at the answer position, heads of a layer together."""
        mine = self.senders[receiver]
        heads = [sender for sender in mine if isinstance(sender, Head)]
        written = [self.at_answer.at(*_place(sender)) for sender in mine if not isinstance(sender, Head)]
        for layer in sorted({head.layer for head in heads}):
            block, z = self.blocks[layer], self.at_answer.at("z", layer)
            numbers = [head.head for head in heads if head.layer == layer]
            of_heads = torch.einsum("bhd,hdm->bm", z[:, numbers], at_least_float32(block.attn.W_O[numbers]))
            outlet, out = block.attn_outlet, block.output(z)
            written.append(of_heads if outlet is None else outlet(out) - outlet(out - of_heads))
        return torch.stack(written).sum(0)


def _place(sender: Sender) -> Place:
    """Where what a component writes is read."""
    if isinstance(sender, Embedding):
        return "resid_pre", 0
    return ("z" if isinstance(sender, Head) else "mlp_out"), sender.layer


def _blocks(model: LensModel, batch: PromptBatch, layers: Sequence[int]) -> dict[int, Block]:
    """The equations of some layers. Raises `Unfit` where one has none."""
    try:
        return {layer: read_block(model, layer, batch.tokens.shape[1]) for layer in layers}
    except NotAlgebraError as error:
        raise Unfit(f"edges of {model.cfg.model_name!r} cannot be cut: {error}") from None


def _answers(batch: PromptBatch) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
    """The rows of a batch and their answer positions, as an index."""
    return torch.arange(len(batch), device=batch.last.device), batch.last
