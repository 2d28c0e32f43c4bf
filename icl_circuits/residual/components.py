"""What writes to the residual stream and what reads from it: components, places in a prompt, and edges between them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple, cast

from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, has_mlp, require_per_head_z


class Head(NamedTuple):
    """One attention head, printed as the field writes it: `L10H7`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


HeadLike = Head | tuple[int, int] | str
"""A head as people write it: `Head(23, 7)`, `(23, 7)` or `"L23H7"`."""


@dataclass(frozen=True)
class Mlp:
    """The MLP of a layer."""

    layer: int

    def __str__(self) -> str:
        return f"MLP{self.layer}"


@dataclass(frozen=True)
class Neuron:
    """One neuron of an MLP: it writes its activation times its output direction, the papers' subvalue."""

    layer: int
    neuron: int

    def __str__(self) -> str:
        return f"L{self.layer}N{self.neuron}"


@dataclass(frozen=True)
class Embedding:
    """The embedding, of token and position."""

    def __str__(self) -> str:
        return "embed"


@dataclass(frozen=True)
class Bias:
    """The biases that a state or a score holds, all together."""

    def __str__(self) -> str:
        return "bias"


@dataclass(frozen=True)
class Logits:
    """The final norm and the unembedding, at the answer position."""

    def __str__(self) -> str:
        return "logits"


@dataclass(frozen=True)
class Text:
    """The tokens of a demonstration's text."""

    demo: int

    def __str__(self) -> str:
        return f"text{self.demo}"


@dataclass(frozen=True)
class Label:
    """A demonstration's label position."""

    demo: int

    def __str__(self) -> str:
        return f"label{self.demo}"


@dataclass(frozen=True)
class Query:
    """The tokens of the query."""

    def __str__(self) -> str:
        return "query"


@dataclass(frozen=True)
class Last:
    """The answer position, the last of a prompt."""

    def __str__(self) -> str:
        return "last"


Component = Head | Mlp | Neuron | Embedding | Bias
"""What the residual stream is the sum of."""
Sender = Head | Mlp | Embedding
"""What a path can start from."""
Node = Sender | Logits | Text | Label | Query | Last
"""What an edge can start from or end in."""
HeadInput = Literal["q", "k", "v"]


@dataclass(frozen=True)
class Edge:
    """From a node to a node, or to one input of a head."""

    sender: Node
    receiver: Node
    input: HeadInput | None = None
    """Which input of the head; None for label positions, the answer position and the logits.

    Of a path patch, `k` and `v` belong to a key-value head, and its whole group of query heads reads the change. In a
    circuit they belong to a query head, and it alone reads the change. Without grouped queries both are one."""

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}" + (f".{self.input}" if self.input else "")


def layer_of(component: Component) -> int:
    """The layer that writes a component; -1 for what is there before the first."""
    return component.layer if isinstance(component, Head | Mlp | Neuron) else -1


def write_order(sender: Sender) -> tuple[int, int]:
    """Where a sender writes to the residual stream: its layer, and heads before the MLP."""
    return layer_of(sender), int(isinstance(sender, Mlp))


def all_heads(model: LensModel) -> tuple[Head, ...]:
    """Every head of the model, layer by layer."""
    return tuple(Head(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads))


def all_mlps(model: LensModel) -> tuple[Mlp, ...]:
    """Every MLP of the model; none where its layers have none."""
    return tuple(Mlp(layer) for layer in range(model.cfg.n_layers if has_mlp(model) else 0))


def head_of(head: object) -> Head:
    """A head as people write it: `Head(23, 7)`, `(23, 7)` or `"L23H7"`. Raises `InputError` for anything else."""
    if isinstance(head, str):
        written = re.fullmatch(r"L(\d{1,6})H(\d{1,6})", head.strip(), re.IGNORECASE | re.ASCII)
        given: tuple[object, ...] = tuple(map(int, written.groups())) if written else ()
    else:
        given = head if isinstance(head, tuple) else ()
    if len(given) != 2:
        raise InputError(f"{head!r} is no head: write Head(23, 7), (23, 7) or 'L23H7', the layer first")
    if not all(isinstance(number, Integral) and not isinstance(number, bool) for number in given):
        raise InputError(f"head {given} does not count layers and heads: give whole numbers")
    layer, number = (int(cast(int, number)) for number in given)
    return Head(layer, number)


def heads_of(heads: Iterable[object]) -> tuple[Head, ...]:
    """Heads as people write them. Raises `InputError` for what is none, and for one head in place of several."""
    if isinstance(heads, str | Head):
        raise InputError(f"heads are {str(heads)!r}: give a list of heads, [{str(heads)!r}]")
    return tuple(map(head_of, heads))


def require_heads(model: LensModel, heads: Iterable[HeadLike]) -> tuple[Head, ...]:
    """`heads`, read by `head_of`. Raises `InputError` naming the first that is no head or that `model` does not have.

    Raises `Unfit` for a model whose hooks show no heads.
    """
    require_per_head_z(model)
    found = heads_of(heads)
    for head in found:
        if not (0 <= head.layer < model.cfg.n_layers and 0 <= head.head < model.cfg.n_heads):
            raise InputError(
                f"head {head} does not exist: {model.cfg.model_name!r} has layers 0..{model.cfg.n_layers - 1} with "
                f"heads 0..{model.cfg.n_heads - 1}"
            )
    return found


def require_some_heads(model: LensModel, heads: Iterable[HeadLike]) -> tuple[Head, ...]:
    """`heads`, read by `head_of`. Raises `InputError` where there is none, or one that `model` does not have."""
    found = heads_of(heads)
    if not found:
        raise InputError("no heads to analyse: name at least one")
    return require_heads(model, found)


def require_distinct_heads(model: LensModel, heads: Iterable[HeadLike]) -> tuple[Head, ...]:
    """The same. Raises `InputError` also where a head stands there twice."""
    found = require_some_heads(model, heads)
    twice = next((head for head in found if found.count(head) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is named twice: name each head once")
    return found
