"""A circuit as a value: signed edges between its nodes, with a score for each prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError
from icl_circuits.residual import Edge, Embedding, Head, Label, Last, Logits, Mlp, Node, Query, Text
from icl_circuits.stats import bootstrap_means


@dataclass(frozen=True, repr=False)
class Circuit(Displayed):
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
        return tuple(sorted(found, key=reading_order))

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads among the nodes, in the order of the layers."""
        return tuple(node for node in self.nodes if isinstance(node, Head))

    @property
    def mean(self) -> Float[np.ndarray, " edge"]:
        """The mean score of each edge over prompts."""
        return self.scores.mean(axis=1)

    @property
    def headline(self) -> str:
        """Its main number."""
        best = highest("score", np.abs(self.mean), lambda i: f"{self.edges[i].sender} -> {self.edges[i].receiver}")
        return f"{self.provenance.get('name', 'a model')}, head={len(self.heads)}, {self.metric}, {best}"

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
            raise InputError(f"cannot keep {n_edges} edges: keep at least 1")
        order = np.argsort(-np.abs(self.mean), kind="stable")[:n_edges]
        return self._keep(np.isin(np.arange(len(self.edges)), order))

    def above(self, threshold: float) -> "Circuit":
        """The edges whose absolute mean score is `threshold` or more, less those that no longer lead to the logits."""
        return self._keep(np.abs(self.mean) >= threshold)

    def _keep(self, kept: np.ndarray) -> "Circuit":
        rows = np.flatnonzero(kept).tolist()
        leads: set[Node] = {Logits()}
        for row in sorted(rows, key=lambda row: reading_order(self.edges[row].receiver), reverse=True):
            if self.edges[row].receiver in leads:
                leads.add(self.edges[row].sender)
        rows = [row for row in rows if self.edges[row].receiver in leads]
        return replace(self, edges=tuple(self.edges[row] for row in rows), scores=self.scores[rows])


def reading_order(node: Node) -> tuple[int, int, int]:
    """Order of a prompt, then of the layers, then the logits: an edge into a node comes before all edges out of it."""
    if isinstance(node, Head | Mlp):
        return 1 + node.layer, int(isinstance(node, Mlp)), node.head if isinstance(node, Head) else 0
    if isinstance(node, Logits):
        return 1 << 30, 0, 0
    order = (Text, Label, Query, Last, Embedding).index(type(node))
    return 0, order, node.demo if isinstance(node, Text | Label) else 0
