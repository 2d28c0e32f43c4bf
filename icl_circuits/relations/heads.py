"""What every head does on a text: which position it attends to most, and which of the text's tokens it raises."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.models import (
    AttentionWeights,
    LensModel,
    Place,
    Readout,
    ReadSite,
    at_least_float32,
    attention_weights,
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
    """What every head does at every position of one text. `head` counts all heads of the model in a row."""

    row: int
    attended: Int[Tensor, "head pos"]
    """The position that each position attends to most."""
    ratio: Float[Tensor, "head pos"]
    """How many times it exceeds the next."""
    kinds: Int[Tensor, " pos"]
    """Which of the text's different tokens stands at a position, in order of appearance."""
    seen: Int[Tensor, " pos"]
    """How many different tokens there are up to a position."""
    share: Float[Tensor, "head pos kind"]
    """`a`: each token's share of what the head raises at a position; NaN where it raises nothing."""


@torch.no_grad()
def heads_on_texts(model: LensModel, batch: TokenBatch, attention: Attention, ov_input: OvInput) -> Iterator[TextHeads]:
    """The texts one by one, those of like length run together."""
    by_length = batch.last.argsort(stable=True)
    layers, out, last = range(model.cfg.n_layers), readout(model), final_state(model)
    times = _embedding_multiplier(model)
    start = 0
    for chunk in tracked(list(batch.select(by_length.tolist()).chunks(2048)), "heads on texts"):
        places: list[Place] = [("pattern", layer) for layer in layers if attention == "model"]
        places += [(site, layer) for layer in layers for site in _READ if ov_input == "resid"]
        seen = Capture([*places, last])
        answer_logits(model, chunk, seen)
        vocabulary, which = chunk.tokens.unique(return_inverse=True)
        rows = [_Row.of(seen.at(*last)[i], which[i, : int(chunk.last[i]) + 1]) for i in range(len(chunk))]
        patterns: list[list[Tensor]] = [[] for _ in rows]
        logits: list[list[Tensor]] = [[] for _ in rows]
        for layer in layers:
            one = _OneLayer.of(model, layer, out, vocabulary, times)
            for i, row in enumerate(rows):
                n_pos = len(row.which)
                pattern = one.pattern(row) if attention == "embedding" else seen.at("pattern", layer)[i]
                patterns[i].append(pattern[:, :n_pos, :n_pos])
                if ov_input == "embedding":
                    logits[i].append(one.logits(row))
                else:
                    v, z = (seen.at(site, layer)[i, :n_pos] for site in _READ)
                    logits[i].append(one.logits_of(v[:, kv_heads(model)], z, row))
        for i, row in enumerate(rows):
            yield _text(int(by_length[start + i]), row, torch.cat(patterns[i]), torch.cat(logits[i]))
        start += len(chunk)


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

    def pattern(self, row: _Row) -> Float[Tensor, "head pos src_pos"]:
        """Equation 2 on raw embeddings."""
        q, k = self.queries[:, row.which], self.keys[:, row.which]
        scores = q @ k.transpose(1, 2) / q.shape[2] ** 0.5
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(2)

    def logits(self, row: _Row) -> Float[Tensor, "head pos kind"]:
        """What the values of each position's raw embedding would write, as logits of the text's different tokens."""
        return (self.values[:, row.different] @ self.onto[:, :, row.different])[:, row.kinds]

    def logits_of(
        self, v: Float[Tensor, "pos head d_head"], z: Float[Tensor, "pos head d_head"], row: _Row
    ) -> Float[Tensor, "head pos kind"]:
        """What values without their bias would write, through the norms at each position's own scale."""
        norm, outlet, W_O = self.out.norm, self.weights.outlet, at_least_float32(self.weights.W_O)
        written = torch.einsum("phk,hkm->hpm", v - self.weights.b_V, W_O)
        written = outlet.linear(written, self.weights.outlet_scale(z))
        return norm.linear(written, norm.scale(row.final)) @ self.W_U[:, row.different]


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


def _text(
    number: int,
    row: _Row,
    pattern: Float[Tensor, "head pos src_pos"],
    logits: Float[Tensor, "head pos kind"],
) -> TextHeads:
    """From all heads' attention and logits."""
    n_pos = len(row.kinds)
    best = pattern.topk(min(2, n_pos), dim=2)
    second = best.values[..., 1] if n_pos > 1 else torch.zeros_like(best.values[..., 0])
    visible = row.first <= torch.arange(n_pos, device=row.first.device)[:, None]  # [pos kind]
    seen = visible.sum(1)
    logits = logits.masked_fill(~visible, -torch.inf)
    p = torch.expm1(logits - logits.amax(2, keepdim=True)) * visible  # up to a factor and a term, which cancel below
    q = (p - p.sum(2, keepdim=True) / seen[:, None]).clamp(min=0) * visible
    total = q.sum(2, keepdim=True)
    share = torch.where(total > 0, q / total, torch.nan)
    return TextHeads(number, best.indices[..., 0], best.values[..., 0] / second, row.kinds, seen, share)


def _kinds(tokens: Int[Tensor, " pos"]) -> tuple[Int[Tensor, " pos"], Int[Tensor, " kind"]]:
    """Which different token stands where, in order of appearance, and where each stands first."""
    _, which = tokens.unique(return_inverse=True)
    positions = torch.arange(len(tokens), device=tokens.device)
    first = torch.full((int(which.max()) + 1,), len(tokens), device=tokens.device)
    first = first.scatter_reduce(0, which, positions, "amin")
    order = first.argsort()
    return order.argsort()[which], first[order]
