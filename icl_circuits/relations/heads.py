"""What every head does on a text: which position it attends to most, and which of the text's tokens it raises."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models import (
    AttentionWeights,
    Hook,
    HookPair,
    LensModel,
    Place,
    Readout,
    ReadSite,
    at_least_float32,
    attention_weights,
    hook_name,
    hooks_set_aside,
    kv_heads,
    probe_tokens,
    readout,
    rows_agree,
)
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, answer_logits, embedding, final_state

Attention = Literal["model", "embedding"]
"""The model's own attention, or what W_Q and W_K make of raw token embeddings, without norms and positions."""
OvInput = Literal["embedding", "resid"]
"""What stands before W_V: the token's raw embedding, as in the paper, or the normed state of its position."""
_READ: tuple[ReadSite, ...] = ("v", "z")
"""What is read of each layer for the latter."""


@dataclass(frozen=True)
class TextHeads:
    """What the heads of one layer do at every position of one text."""

    row: int
    layer: int
    attended: Int[Tensor, "head pos"]
    """The position that each position attends to most."""
    ratio: Float[Tensor, "head pos"]
    """How many times it exceeds the next."""
    kinds: Int[Tensor, " pos"]
    """Which of the text's different tokens stands at a position, in order of appearance."""
    seen: Int[Tensor, " pos"]
    """How many different tokens there are up to a position."""
    logits: Callable[[int, Int[Tensor, " some"]], Float[Tensor, "some kind"]]
    """What a head would write at some positions, as logits of the text's different tokens."""

    def shares(self, heads: Int[Tensor, " some"], positions: Int[Tensor, " some"]) -> Float[Tensor, "some kind"]:
        """`a` at some heads' positions: each token's share of what the head raises; NaN where it raises nothing."""
        n_kinds = int(self.kinds.max()) + 1
        logits = torch.zeros(len(heads), n_kinds, dtype=self.ratio.dtype, device=heads.device)
        for head in heads.unique().tolist():
            chosen = heads == head
            logits[chosen] = self.logits(head, positions[chosen]).to(logits)
        seen = self.seen[positions][:, None]
        visible = torch.arange(n_kinds, device=heads.device) < seen
        logits = logits.masked_fill(~visible, -torch.inf)
        p = torch.expm1(logits - logits.amax(1, keepdim=True)) * visible  # up to a factor and a term, which cancel
        q = (p - p.sum(1, keepdim=True) / seen).clamp(min=0) * visible
        total = q.sum(1, keepdim=True)
        return torch.where(total > 0, q / total, torch.nan)


@torch.no_grad()
def heads_on_texts(model: LensModel, batch: TokenBatch, attention: Attention, ov_input: OvInput) -> Iterator[TextHeads]:
    """The layers of each text one by one; texts of like length run together. No layer's attention is kept whole."""
    by_length = batch.last.argsort(stable=True)
    layers, out, last = range(model.cfg.n_layers), readout(model), final_state(model)
    times = _embedding_multiplier(model)
    start = 0
    for chunk in tracked(list(batch.select(by_length.tolist()).chunks(2048)), "heads on texts"):
        places: list[Place] = [(site, layer) for layer in layers for site in _READ if ov_input == "resid"]
        seen, most = Capture([*places, last]), _Most(layers if attention == "model" else ())
        answer_logits(model, chunk, seen, most)
        vocabulary, which = chunk.tokens.unique(return_inverse=True)
        rows = [_Row.of(seen.at(*last)[i], which[i, : int(chunk.last[i]) + 1]) for i in range(len(chunk))]
        for layer in layers:
            one = _OneLayer.of(model, layer, out, vocabulary, times)
            for i, row in enumerate(rows):
                n_pos = len(row.which)
                if attention == "embedding":
                    attended, ratio = one.most(row)
                else:
                    attended, ratio = (part[i, :, :n_pos] for part in most.found[layer])
                if ov_input == "embedding":
                    logits = partial(one.logits, row)
                else:
                    v, z = (seen.at(site, layer)[i, :n_pos] for site in _READ)
                    logits = partial(one.logits_of, v[:, kv_heads(model)], z, row)
                number = int(by_length[start + i])
                yield TextHeads(number, layer, attended, ratio, row.kinds, row.seen, logits)
        start += len(chunk)


class _Most:
    """Reads where every head attends most, and how many times that exceeds the next, while the model runs."""

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = layers
        self.found: dict[int, tuple[Int[Tensor, "batch head pos"], Float[Tensor, "batch head pos"]]] = {}

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this."""
        return [(hook_name("pattern", layer), self._reader(layer)) for layer in self.layers]

    def _reader(self, layer: int) -> Hook:
        def read(pattern: Float[Tensor, "batch head pos src_pos"], hook: object) -> None:
            by_head = [_most(at_least_float32(pattern[:, head].detach())) for head in range(pattern.shape[1])]
            attended, ratio = (torch.stack(part, 1) for part in zip(*by_head, strict=True))
            self.found[layer] = attended, ratio

        return read


def _most(
    pattern: Float[Tensor, "*rows src_pos"],
) -> tuple[Int[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """Which position is attended to most, and how many times the next."""
    best = pattern.topk(min(2, pattern.shape[-1]), dim=-1)
    second = best.values[..., 1] if pattern.shape[-1] > 1 else torch.zeros_like(best.values[..., 0])
    return best.indices[..., 0], best.values[..., 0] / second


@dataclass(frozen=True)
class _Row:
    """One text of a part."""

    final: Float[Tensor, "pos d_model"]
    which: Int[Tensor, " pos"]
    """The number of each position's token in the part's vocabulary."""
    kinds: Int[Tensor, " pos"]
    first: Int[Tensor, " kind"]
    """Where each of its different tokens stands first."""

    @classmethod
    def of(cls, final: Float[Tensor, "_ d_model"], which: Int[Tensor, " pos"]) -> "_Row":
        return cls(final[: len(which)], which, *_kinds(which))

    @property
    def seen(self) -> Int[Tensor, " pos"]:
        """How many different tokens there are up to each position."""
        return torch.searchsorted(self.first, torch.arange(len(self.kinds), device=self.first.device), right=True)

    @property
    def different(self) -> Int[Tensor, " kind"]:
        """Its different tokens by their numbers in the part's vocabulary."""
        return self.which[self.first]


@dataclass(frozen=True)
class _OneLayer:
    """A layer's heads on the vocabulary of some texts."""

    out: Readout
    weights: AttentionWeights
    W_U: Float[Tensor, "d_model word"]
    queries: Float[Tensor, "head word d_head"]
    """Of raw embeddings, as keys and values are."""
    keys: Float[Tensor, "head word d_head"]
    values: Float[Tensor, "head word d_head"]
    onto: Float[Tensor, "head d_head word"]
    """`W_O W_U`."""

    @classmethod
    def of(
        cls, model: LensModel, layer: int, out: Readout, vocabulary: Int[Tensor, " word"], times: float
    ) -> "_OneLayer":
        weights, W_U = attention_weights(model, layer), out.W_U[:, vocabulary]
        x = times * at_least_float32(model.embed.W_E[vocabulary])
        W_Q, W_K, W_V, W_O = (at_least_float32(getattr(weights, name)) for name in ("W_Q", "W_K", "W_V", "W_O"))
        return cls(out, weights, W_U, x @ W_Q, x @ W_K, x @ W_V, W_O @ W_U)

    def most(self, row: _Row) -> tuple[Int[Tensor, "head pos"], Float[Tensor, "head pos"]]:
        """Equation 2 on raw embeddings, by its largest attention."""
        n_pos, found = len(row.which), list[tuple[Tensor, Tensor]]()
        later = torch.ones(n_pos, n_pos, dtype=torch.bool, device=row.which.device).triu(1)
        for queries, keys in zip(self.queries, self.keys, strict=True):
            scores = queries[row.which] @ keys[row.which].T / queries.shape[1] ** 0.5
            found.append(_most(scores.masked_fill(later, -torch.inf).softmax(1)))
        attended, ratio = (torch.stack(part) for part in zip(*found, strict=True))
        return attended, ratio

    def logits(self, row: _Row, head: int, positions: Int[Tensor, " some"]) -> Float[Tensor, "some kind"]:
        """What the values of the positions' raw embeddings would write, as logits of the text's different tokens."""
        return self.values[head, row.which[positions]] @ self.onto[head][:, row.different]

    def logits_of(
        self,
        v: Float[Tensor, "pos head d_head"],
        z: Float[Tensor, "pos head d_head"],
        row: _Row,
        head: int,
        positions: Int[Tensor, " some"],
    ) -> Float[Tensor, "some kind"]:
        """What values without their bias would write, through the norms at each position's own scale."""
        norm, outlet = self.out.norm, self.weights.outlet
        written = (v[positions, head] - self.weights.b_V[head]) @ at_least_float32(self.weights.W_O[head])
        written = outlet.linear(written, self.weights.outlet_scale(z[positions]))
        return norm.linear(written, norm.scale(row.final[positions])) @ self.W_U[:, row.different]


def _embedding_multiplier(model: LensModel) -> float:
    """How many times `W_E` the model's embeddings are (Gemma, Granite); 1 where positions or norms come in too."""
    tokens = probe_tokens(model)
    with hooks_set_aside(model):
        found = at_least_float32(embedding(model, tokens))[0]
    rows = at_least_float32(model.embed.W_E)[tokens[0]]
    if rows.shape != found.shape:
        return 1.0
    times = float((found * rows).sum() / (rows * rows).sum())
    return times if rows_agree(times * rows, found, 1e-2) else 1.0


def _kinds(tokens: Int[Tensor, " pos"]) -> tuple[Int[Tensor, " pos"], Int[Tensor, " kind"]]:
    """Which different token stands where, in order of appearance, and where each stands first."""
    _, which = tokens.unique(return_inverse=True)
    positions = torch.arange(len(tokens), device=tokens.device)
    first = torch.full((int(which.max()) + 1,), len(tokens), device=tokens.device)
    first = first.scatter_reduce(0, which, positions, "amin")
    order = first.argsort()
    return order.argsort()[which], first[order]
