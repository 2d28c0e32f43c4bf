"""A circuit for other programs: its edges as plain JSON, and the graph of the MIB benchmark."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from icl_circuits.circuits.circuit import Circuit
from icl_circuits.errors import InputError
from icl_circuits.prompts import shown
from icl_circuits.residual import Embedding, Head, Label, Mlp, Node, Text

FORMAT = "icl_circuits.circuit/1"


def to_json(circuit: Circuit) -> dict[str, Any]:
    """Every edge with its score for every prompt, as plain values: `base`, `edges`, `metric`, `shape`, `provenance`.

    Raises:
        InputError: a score that is not finite.
    """
    if not (np.isfinite(circuit.scores).all() and np.isfinite(circuit.base).all()):
        raise InputError("the circuit has scores that are not finite: find it with another metric")
    return {
        "format": FORMAT,
        "metric": circuit.metric,
        "shape": dict(circuit.shape),
        "provenance": dict(circuit.provenance),
        "base": circuit.base.tolist(),
        "edges": [
            {"sender": plain_node(e.sender), "receiver": plain_node(e.receiver), "input": e.input}
            | {"score": float(mean), "scores": scores.tolist()}
            for e, mean, scores in zip(circuit.edges, circuit.mean, circuit.scores, strict=True)
        ],
    }


def to_mib(circuit: Circuit) -> dict[str, Any]:
    """The paths between components as the MIB benchmark writes graphs (arXiv 2504.13151): `cfg`, `nodes`, `edges`.

    Heads are `a0.h1`, MLPs `m0`, the embedding `input`, and edges `a0.h1->a5.h2<q>`. That format knows no positions
    and only direct paths, so what heads read of texts and label positions is left out.
    """
    paths, inside = {}, {"input", "logits"}
    for edge, mean in zip(circuit.edges, circuit.mean, strict=True):
        if isinstance(edge.sender, Embedding | Head | Mlp):
            ends = _mib_name(edge.sender), _mib_name(edge.receiver)
            path = "->".join(ends) + (f"<{edge.input}>" if edge.input else "")
            paths[path] = {"score": float(mean), "in_graph": True}
            inside |= {*ends}
    names = ["input"]
    for layer in range(circuit.shape["n_layers"]):
        names += [*(f"a{layer}.h{head}" for head in range(circuit.shape["n_heads"])), f"m{layer}"]
    nodes = {name: {"in_graph": name in inside} for name in (*names, "logits")}
    return {"cfg": dict(circuit.shape), "nodes": nodes, "edges": paths}


def _mib_name(node: Node) -> str:
    if isinstance(node, Head):
        return f"a{node.layer}.h{node.head}"
    return f"m{node.layer}" if isinstance(node, Mlp) else "input" if isinstance(node, Embedding) else "logits"


def plain_node(node: Node) -> dict[str, Any]:
    """A node's kind, its layer where it has one, and its number among those alike: head, or demonstration."""
    index = node.head if isinstance(node, Head) else node.demo if isinstance(node, Text | Label) else None
    return {"kind": _kind(type(node)), "layer": node.layer if isinstance(node, Head | Mlp) else None, "index": index}


def node_of(plain: Mapping[str, Any]) -> Node:
    """The inverse of `plain_node`. Raises `InputError` for what is none of its values."""
    try:
        numbers = [plain[name] for name in ("layer", "index") if plain[name] is not None]
        node: Node = KINDS[plain["kind"]](*numbers)
        if all(type(number) is int and 0 <= number < 2**31 for number in numbers) and plain_node(node) == plain:
            return node
    except (LookupError, TypeError):
        pass
    raise InputError(f"{shown(plain)} is no node of a circuit: give its kind, layer and index")


def _kind(node: type) -> str:
    return "embed" if node is Embedding else node.__name__.lower()


KINDS = {_kind(node): node for node in get_args(Node)}
