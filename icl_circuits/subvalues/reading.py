"""What a neuron promotes: its output direction's tokens, directly, and through a later head's values and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, require_whole
from icl_circuits.models import (
    LensModel,
    at_least_float32,
    attention_weights,
    block_norms,
    mlp_weights,
    readout,
    require_identities_of_model,
)
from icl_circuits.residual import HeadLike, Neuron, head_of, require_heads
from icl_circuits.subvalues.exact import projected
from icl_circuits.subvalues.writers import require_dimension, require_neuron

POSITIONS = 8
"""Tokens that identities of a model are checked on, where no prompts are at hand."""


@dataclass(frozen=True, repr=False)
class Promoted(Displayed):
    """The tokens that an output direction raises most and lowers most, best first."""

    top: tuple[str, ...]
    """Raised where the neuron's coefficient is positive."""
    last: tuple[str, ...]
    """Raised where it is negative."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return ", ".join(map(repr, self.top))

    def to_frame(self) -> pd.DataFrame:
        """One row a rank: the token raised that much, and the token lowered that much."""
        return pd.DataFrame({"top": self.top, "last": self.last})


@torch.no_grad()
def neuron_tokens(model: LensModel, neurons: Sequence[Neuron], *, n_tokens: int = 10) -> tuple[Promoted, ...]:
    """The tokens at both ends of each FFN neuron's projection onto the vocabulary (its subvalue's; table 9).

    Raises:
        InputError: no neurons, or one that does not exist.
        Unfit: the model has no such neurons, or norm and unembedding do not make its logits.
    """
    _require_some(neurons)
    return promoted(model, torch.stack([_written(model, neuron) for neuron in neurons]), n_tokens=n_tokens)


@torch.no_grad()
def head_neuron_tokens(
    model: LensModel, dimensions: Sequence[tuple[HeadLike, int]], *, n_tokens: int = 10
) -> tuple[Promoted, ...]:
    """The same for attention neurons: dimensions of heads, whose subvalues are rows of W_O.

    Raises:
        InputError: none, or a head or a dimension that does not exist.
        Unfit: as for `neuron_tokens`.
    """
    _require_some(dimensions)
    rows = []
    for written, dimension in dimensions:
        head = head_of(written)
        require_dimension(model, head, dimension)
        weights = attention_weights(model, head.layer)
        row = at_least_float32(weights.W_O[head.head, dimension])
        rows.append(weights.outlet.linear(row, row.new_ones(1)))
    return promoted(model, torch.stack(rows), n_tokens=n_tokens)


@torch.no_grad()
def tokens_through_head(model: LensModel, neuron: Neuron, head: HeadLike, *, n_tokens: int = 10) -> Promoted:
    """What a query neuron promotes once a later head has read and written it: `u -> LN -> W_V -> W_O -> bs`.

    Most query neurons say nothing when they are projected themselves; this is their hidden-interpretable path. Where
    the neuron's coefficient is negative, `last` holds what it promotes.

    Raises:
        InputError: a neuron or head that does not exist, or a head below the neuron.
        Unfit: as for `neuron_tokens`.
    """
    (head,) = require_heads(model, [head])
    if head.layer <= neuron.layer:
        raise InputError(f"{head} does not read {neuron}: name a head of a later layer")
    weights, norm = attention_weights(model, head.layer), block_norms(model, head.layer).ln1
    u = _written(model, neuron)
    read = norm.linear(u, norm.scale(u)) @ at_least_float32(weights.W_V[head.head])
    written = weights.outlet.linear(read @ at_least_float32(weights.W_O[head.head]), u.new_ones(1))
    return promoted(model, written[None], n_tokens=n_tokens)[0]


def promoted(model: LensModel, vectors: Float[Tensor, "vector d_model"], *, n_tokens: int = 10) -> tuple[Promoted, ...]:
    """The tokens that some vectors of the residual stream raise and lower most. The final scale does not matter.

    Raises:
        InputError: an `n_tokens` below 1.
        Unfit: norm and unembedding do not make the model's logits.
    """
    require_whole(n_tokens, 1, f"n_tokens is {n_tokens}: give how many tokens to show, 1 or more")
    require_identities_of_model(model, POSITIONS, "readout")
    logits = projected(readout(model), vectors)
    n_tokens = min(n_tokens, logits.shape[1])

    def words(tokens: Tensor) -> tuple[str, ...]:
        return tuple(model.tokenizer.decode([token]) for token in tokens.tolist())

    top, last = logits.topk(n_tokens).indices, logits.topk(n_tokens, largest=False).indices
    return tuple(Promoted(words(a), words(b)) for a, b in zip(top, last, strict=True))


def _require_some(neurons: Sequence[object]) -> None:
    if not len(neurons):
        raise InputError("no neurons: give one or more")


def _written(model: LensModel, neuron: Neuron) -> Float[Tensor, " d_model"]:
    require_neuron(model, neuron)
    weights = mlp_weights(model, neuron.layer)
    row = at_least_float32(weights.W_out[neuron.neuron])
    return weights.outlet.linear(row, row.new_ones(1))
