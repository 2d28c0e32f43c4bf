"""What writes to the residual stream and what reads from it: components, places in a prompt, and edges between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple

from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, has_mlp, require_per_head_z


class Head(NamedTuple):
    """One attention head, printed as the field writes it: `L10H7`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


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


def require_heads(model: LensModel, heads: Sequence[Head]) -> None:
    """Raise `InputError` naming the first of `heads` that is no `Head` or that `model` does not have.

    Raises `Unfit` for a model whose hooks show no heads.
    """
    require_per_head_z(model)
    for head in heads:
        if not isinstance(head, Head):
            raise InputError(f"{head!r} is no Head: write Head(layer, head)")
        given: tuple[object, ...] = tuple(head)
        if not all(isinstance(number, Integral) and not isinstance(number, bool) for number in given):
            raise InputError(f"Head{given} does not count layers and heads: give whole numbers")
        if not (0 <= head.layer < model.cfg.n_layers and 0 <= head.head < model.cfg.n_heads):
            raise InputError(
                f"head {head} does not exist: {model.cfg.model_name!r} has layers 0..{model.cfg.n_layers - 1} with "
                f"heads 0..{model.cfg.n_heads - 1}"
            )


def require_some_heads(model: LensModel, heads: Sequence[Head]) -> tuple[Head, ...]:
    """`heads` as a tuple. Raises `InputError` where there is none, or one that `model` does not have."""
    heads = tuple(heads)
    if not heads:
        raise InputError("no heads to analyse: name at least one")
    require_heads(model, heads)
    return heads


def require_distinct_heads(model: LensModel, heads: Sequence[Head]) -> tuple[Head, ...]:
    """`heads` as a tuple. Raises `InputError` where there is none, one twice, or one that `model` does not have."""
    heads = require_some_heads(model, heads)
    twice = next((head for head in heads if heads.count(head) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is named twice: name each head once")
    return heads
