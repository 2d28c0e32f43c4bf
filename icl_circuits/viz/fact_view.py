"""The page of a prompt: which layers, heads and neurons write its answer, and what each of them promotes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

WriterKind = Literal["attn", "mlp", "head", "ffn", "attention", "query"]
"""A layer's attention or MLP, a head, an FFN neuron, an attention neuron, or an FFN neuron that activates others."""


@dataclass(frozen=True)
class ShownWriter:
    """What writes the answer, or activates what does."""

    name: str
    """`attn23`, `MLP27`, `L23H4`, `L27N846`, `L29H1D46@4`."""
    kind: WriterKind
    layer: int
    score: float
    """Log-probability increase, nats; of a query neuron its query importance."""
    top: tuple[str, ...]
    """The tokens that what it writes here raises most."""
    last: tuple[str, ...]
    """The tokens that it lowers most."""
    coefficient: float | None = None
    """Of a neuron."""
    attention: tuple[float, ...] | None = None
    """Of a head, from the last position to each position."""
    by_position: tuple[float, ...] | None = None
    """Of a head: log-probability increase of what it moves from each position, nats."""
    position: int | None = None
    """The source position of an attention neuron, and where a query neuron acts."""
    through: str = ""
    """The head through which a query neuron's `top` and `last` are read."""


@dataclass(frozen=True)
class ShownFact:
    """One prompt, and what writes its answer."""

    tokens: tuple[str, ...]
    answer: str
    type: str
    prob: float
    rank: int
    """Of the answer in the vocabulary; 1 for the first."""
    predicted: tuple[tuple[str, float], ...]
    """The most probable next tokens and their probabilities."""
    attn: Float[np.ndarray, " layer"]
    """Log-probability increase of each attention layer, nats."""
    mlp: Float[np.ndarray, " layer"]
    log_prob: Float[np.ndarray, " state"]
    """Log-probability of the answer in the state that enters each layer, and in the last, nats."""
    heads: Float[np.ndarray, "layer head"]
    """Log-probability increase of each head, nats."""
    writers: tuple[ShownWriter, ...]


@dataclass(frozen=True)
class FactView:
    """A page of some prompts. It displays itself in a notebook."""

    title: str
    summary: str
    facts: tuple[ShownFact, ...]

    def save(self, path: str | Path) -> None:
        """Write the page, which opens without a network."""
        raise NotImplementedError
