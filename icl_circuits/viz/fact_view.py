"""The page of a prompt: which layers, heads and neurons write its answer, and what each of them promotes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from icl_circuits.errors import InputError
from icl_circuits.viz.circuit_svg import printable
from icl_circuits.viz.look import ATTENTION_COLOUR, MLP_COLOUR
from icl_circuits.viz.page import framed, template
from icl_circuits.viz.views import script_json

BUTTONS = 12
"""Up to so many facts are chosen by buttons; more, from a list."""

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
    """Of a head or an attention layer: log-probability increase of what it moves from each position, nats."""
    position: int | None = None
    """The source position of an attention neuron, and where a query neuron acts."""
    through: str = ""
    """The head through which a query neuron's `top` and `last` are read."""
    activated_by: tuple[tuple[str, float], ...] | None = None
    """Of an FFN neuron: the components that add most to the input of its activation function, and how much; then what
    all others add together."""


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


@dataclass(frozen=True, repr=False)
class FactView:
    """A page of some prompts. It displays itself in a notebook."""

    title: str
    summary: str
    facts: tuple[ShownFact, ...]

    def __post_init__(self) -> None:
        if not self.facts:
            raise InputError("no facts to show: give one or more")
        for i, fact in enumerate(self.facts):
            self._require_fitting(f"fact {i} ({printable(fact.answer)})", fact)

    def __repr__(self) -> str:
        return f"FactView of {len(self.facts)} facts"

    def to_html(self) -> str:
        """The page: one file with everything in it."""
        return template("fact.html.jinja").render(
            title=printable(self.title),
            summary=printable(self.summary),
            data=Markup(script_json([_fact(fact) for fact in self.facts])),
            chosen_by_buttons=len(self.facts) <= BUTTONS,
            attention_colour=ATTENTION_COLOUR,
            mlp_colour=MLP_COLOUR,
        )

    def save(self, path: str | Path) -> None:
        """Write the page, which opens without a network."""
        Path(path).write_text(self.to_html(), encoding="utf-8")

    def _repr_html_(self) -> str:
        return framed(self.to_html())

    @staticmethod
    def _require_fitting(name: str, fact: ShownFact) -> None:
        n_tokens, n_layers = len(fact.tokens), len(fact.attn)
        if len(fact.mlp) != n_layers or len(fact.heads) != n_layers or len(fact.log_prob) != n_layers + 1:
            raise InputError(
                f"{name} has {n_layers} attention layers, {len(fact.mlp)} MLPs, heads of {len(fact.heads)} layers and "
                f"{len(fact.log_prob)} states: give as many of each, and one state more"
            )
        for writer in fact.writers:
            of_tokens = [values for values in (writer.attention, writer.by_position) if values is not None]
            outside = writer.position is not None and not 0 <= writer.position < n_tokens
            if outside or any(len(values) != n_tokens for values in of_tokens):
                raise InputError(f"{writer.name} of {name} does not fit its prompt of {n_tokens} tokens")
            if not 0 <= writer.layer < n_layers:
                raise InputError(f"{writer.name} of {name} is in layer {writer.layer} of {n_layers}")


def _fact(fact: ShownFact) -> dict[str, object]:
    return {
        "tokens": _visible(fact.tokens),
        "answer": _shown(fact.answer),
        "type": printable(fact.type),
        "prob": _rounded(fact.prob),
        "rank": fact.rank,
        "predicted": [[_shown(token), _rounded(prob)] for token, prob in fact.predicted],
        "attn": _row(fact.attn),
        "mlp": _row(fact.mlp),
        "logProb": _row(fact.log_prob),
        "heads": [_row(layer) for layer in fact.heads],
        "writers": [_writer(writer) for writer in fact.writers],
    }


def _writer(writer: ShownWriter) -> dict[str, object]:
    """What is not there is left out."""
    shown = {
        "name": printable(writer.name),
        "kind": writer.kind,
        "layer": writer.layer,
        "score": _rounded(writer.score),
        "top": _visible(writer.top),
        "last": _visible(writer.last),
        "coefficient": None if writer.coefficient is None else _rounded(writer.coefficient),
        "attention": None if writer.attention is None else _row(writer.attention),
        "moved": None if writer.by_position is None else _row(writer.by_position),
        "position": writer.position,
        "through": printable(writer.through) or None,
        "activatedBy": None
        if writer.activated_by is None
        else [[printable(name), _rounded(part)] for name, part in writer.activated_by],
    }
    return {name: value for name, value in shown.items() if value is not None or name == "score"}


def _visible(tokens: Iterable[str]) -> list[str]:
    return [_shown(token) for token in tokens]


def _shown(token: str) -> str:
    """A token as text that shows: tabs and spaces that stand alone have signs, and so has nothing."""
    text = printable(token.replace("\t", "\u21e5").replace("\xa0", "\u237d"))
    return text if text.strip() else "\u2423" * len(text) or "\u2205"


def _row(values: Sequence[float] | Float[np.ndarray, " _"]) -> list[float | None]:
    return [_rounded(float(value)) for value in values]


def _rounded(value: float) -> float | None:
    """Four digits; None for what is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
