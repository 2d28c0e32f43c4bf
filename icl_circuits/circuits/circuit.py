"""A circuit as a value: nodes, signed edges with a score for each prompt, and files to keep it in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.errors import InputError
from icl_circuits.models import Head, LensModel, require_some_heads
from icl_circuits.stats import bootstrap_means

FORMAT = "icl_circuits.circuit/1"
NodeKind = Literal["text", "label", "query", "last", "embed", "head", "mlp", "logits"]
"""`text`: the tokens of a demonstration's text; `label`: its label position; `query`: the query's tokens; `last`: the
answer position; `embed`, `head` and `mlp`: what that component writes to the answer position."""


@dataclass(frozen=True)
class Node:
    """One node; `index` counts demonstrations for `text` and `label`, heads of a layer for `head`."""

    kind: NodeKind
    layer: int | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        has = self.layer is not None, self.index is not None
        needs = {"head": (True, True), "mlp": (True, False), "text": (False, True), "label": (False, True)}
        if has != needs.get(self.kind, (False, False)):
            raise InputError(f"a {self.kind} node with layer {self.layer} and index {self.index} does not exist")

    def __str__(self) -> str:
        if self.kind == "head":
            return f"L{self.layer}H{self.index}"
        if self.kind == "mlp":
            return f"MLP{self.layer}"
        return self.kind if self.index is None else f"{self.kind}{self.index}"

    @property
    def head(self) -> Head | None:
        """The head, where this is one."""
        return Head(self.layer, self.index) if self.layer is not None and self.index is not None else None


def head_node(head: Head) -> Node:
    """The node of a head at the answer position."""
    return Node("head", head.layer, head.head)


LOGITS = Node("logits")


@dataclass(frozen=True)
class Edge:
    """From a node to a node, or to one input of a head."""

    sender: Node
    receiver: Node
    input: Literal["q", "k", "v"] | None = None
    """Which input of the head; None for label positions and the logits."""

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}" + (f".{self.input}" if self.input else "")


@dataclass(frozen=True)
class Circuit:
    """Edges and what each contributes: `base - metric without it`, for each prompt, in the metric's unit.

    A positive score supports the right answer, a negative one works against it. Edges of different kinds are cut in
    different ways (see `find_circuit`), so their scores share a unit, not a baseline.
    """

    edges: tuple[Edge, ...]
    scores: Float[np.ndarray, "edge prompt"]
    base: Float[np.ndarray, " prompt"]
    """The metric of the whole model."""
    metric: str
    shape: Mapping[str, Any]
    """The model's `n_layers`, `n_heads`, `d_model` and `parallel_attn_mlp`."""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The ends of the edges, in the order of a prompt and then of the layers."""
        found = {node for edge in self.edges for node in (edge.sender, edge.receiver)}
        return tuple(sorted(found, key=_place))

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads among the nodes, in the order of the layers."""
        return tuple(node.head for node in self.nodes if node.head is not None)

    @property
    def mean(self) -> Float[np.ndarray, " edge"]:
        """The mean score of each edge over prompts."""
        return self.scores.mean(axis=1)

    def to_frame(self) -> pd.DataFrame:
        """One row an edge, strongest first: its ends, mean score and its 95 % bootstrap interval over prompts."""
        frame = pd.DataFrame(
            {
                "sender": [str(edge.sender) for edge in self.edges],
                "receiver": [str(edge.receiver) for edge in self.edges],
                "input": [edge.input for edge in self.edges],
                **bootstrap_means(self.scores).columns("score"),
            }
        )
        return frame.sort_values("score", key=np.abs, ascending=False, kind="stable").reset_index(drop=True)

    def top(self, n_edges: int) -> "Circuit":
        """The `n_edges` edges of the largest absolute mean score, less those that no longer lead to the logits.

        Raises:
            InputError: fewer than one edge asked for.
        """
        if n_edges < 1:
            raise InputError(f"a circuit of {n_edges} edges is none: keep at least 1")
        order = np.argsort(-np.abs(self.mean), kind="stable")[:n_edges]
        return self._keep(np.isin(np.arange(len(self.edges)), order))

    def above(self, threshold: float) -> "Circuit":
        """The edges whose absolute mean score is `threshold` or more, less those that no longer lead to the logits."""
        return self._keep(np.abs(self.mean) >= threshold)

    def _keep(self, kept: np.ndarray) -> "Circuit":
        leads = {LOGITS}
        for edge in sorted((e for e, k in zip(self.edges, kept, strict=True) if k), key=_depth, reverse=True):
            if edge.receiver in leads:
                leads.add(edge.sender)
        rows = [
            i for i, (edge, keep) in enumerate(zip(self.edges, kept, strict=True)) if keep and edge.receiver in leads
        ]
        return replace(self, edges=tuple(self.edges[i] for i in rows), scores=self.scores[rows])

    def save(self, path: str | Path) -> None:
        """Write the circuit as JSON: edges with their score for every prompt.

        Raises:
            InputError: a score that is not finite.
        """
        value = {
            "format": FORMAT,
            "metric": self.metric,
            "shape": dict(self.shape),
            "provenance": dict(self.provenance),
            "base": self.base.tolist(),
            "edges": [
                {"sender": _node_json(e.sender), "receiver": _node_json(e.receiver), "input": e.input}
                | {"score": float(mean), "scores": scores.tolist()}
                for e, mean, scores in zip(self.edges, self.mean, self.scores, strict=True)
            ],
        }
        try:
            text = json.dumps(value, indent=1, allow_nan=False)
        except ValueError:
            raise InputError("the circuit has scores that are not finite: find it with another metric") from None
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Circuit":
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or none that `save` wrote.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
            if value.get("format") != FORMAT:
                raise InputError(f"{str(path)!r} has format {value.get('format')!r}, not {FORMAT!r}")
            edges = tuple(
                Edge(_node(edge["sender"]), _node(edge["receiver"]), edge["input"]) for edge in value["edges"]
            )
            base = np.array(value["base"], dtype=np.float32)
            scores = np.array([edge["scores"] for edge in value["edges"]], dtype=np.float32).reshape(-1, len(base))
            return cls(edges, scores, base, value["metric"], value["shape"], value["provenance"])
        except OSError as error:
            raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{str(path)!r} holds no circuit ({error}): give a file that Circuit.save wrote") from None

    def to_mib(self) -> dict[str, Any]:
        """The paths between components as the MIB benchmark writes graphs (arXiv 2504.13151): `cfg`, `nodes`, `edges`.

        Heads are `a0.h1`, MLPs `m0`, the embedding `input`, and edges `a0.h1->a5.h2<q>`. That format knows no positions
        and only direct paths, so what heads read of texts and label positions is left out.
        """
        paths = {
            f"{_mib_name(edge.sender)}->{_mib_name(edge.receiver)}" + (f"<{edge.input}>" if edge.input else ""): {
                "score": float(mean),
                "in_graph": True,
            }
            for edge, mean in zip(self.edges, self.mean, strict=True)
            if edge.sender.kind in ("embed", "head", "mlp")
        }
        inside = {name for path in paths for name in path.split("<")[0].split("->")} | {"input", "logits"}
        names = ["input"]
        for layer in range(self.shape["n_layers"]):
            names += [*(f"a{layer}.h{head}" for head in range(self.shape["n_heads"])), f"m{layer}"]
        nodes = {name: {"in_graph": name in inside} for name in (*names, "logits")}
        return {"cfg": dict(self.shape), "nodes": nodes, "edges": paths}


def require_distinct_heads(model: LensModel, heads: Sequence[Head]) -> tuple[Head, ...]:
    """`heads` as a tuple. Raises `InputError` where there is none, one twice, or one that `model` does not have."""
    heads = require_some_heads(model, heads)
    twice = next((head for head in heads if heads.count(head) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is named twice: name each head once")
    return heads


def _place(node: Node) -> tuple[int, int, int]:
    """Order of a prompt, then of the layers, then the logits."""
    if node.kind in ("head", "mlp"):
        return 1 + (node.layer or 0), node.kind == "mlp", node.index or 0
    if node.kind == "logits":
        return 1 << 30, 0, 0
    order = get_args(NodeKind).index(node.kind)
    return 0, order, node.index or 0


def _depth(edge: Edge) -> tuple[int, int, int]:
    """Where an edge ends: an edge into a node sorts below all edges out of it."""
    return _place(edge.receiver)


def _mib_name(node: Node) -> str:
    if node.kind == "head":
        return f"a{node.layer}.h{node.index}"
    return f"m{node.layer}" if node.kind == "mlp" else "logits" if node.kind == "logits" else "input"


def _node_json(node: Node) -> dict[str, Any]:
    return {"kind": node.kind, "layer": node.layer, "index": node.index}


def _node(value: Mapping[str, Any]) -> Node:
    if value["kind"] not in get_args(NodeKind):
        raise InputError(f"node kind {value['kind']!r} is unknown: use one of {', '.join(get_args(NodeKind))}")
    return Node(value["kind"], value["layer"], value["index"])
