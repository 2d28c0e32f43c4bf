"""The interactive circuit: one offline page, a frame in a notebook, a drawing for a paper."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from icl_circuits.circuits import CURVES
from icl_circuits.errors import InputError
from icl_circuits.residual import Label, Text
from icl_circuits.stats import Interval, bootstrap_means
from icl_circuits.viz.circuit_figure import circuit_curves
from icl_circuits.viz.circuit_svg import PromptRow, draw, edge_class, edge_kind, printable, strongest
from icl_circuits.viz.look import arrows, svg
from icl_circuits.viz.page import Table, framed, svg_uri, template
from icl_circuits.viz.views import circuitsvis_bundle, script_json

if TYPE_CHECKING:
    from icl_circuits.circuits import Circuit, CircuitTest
    from icl_circuits.residual import Head

EDGES_SHOWN, FIRST = 40, 24
"""How many edges of each prompt the page can show, and how many it shows at first."""
METRICS = {
    "logit_diff": "logit difference", "log_prob": "log-probability", "prob": "probability",
    "between_labels": "accuracy between labels", "top1": "top-1 accuracy",
}  # fmt: skip
"""The names of metrics in words."""
PATTERN_CELLS = 600_000
"""Attention values on one page, of the triangular part: about 3 MB."""


@dataclass(frozen=True)
class ShownRun:
    """One prompt in one version, as numbers to show."""

    title: str
    version: str
    """`original` or `labels reversed`."""
    tokens: tuple[str, ...]
    row: PromptRow
    answer: str
    """The right answer."""
    right: bool
    """Whether the model gives it."""
    base: float
    """The metric of the whole model."""
    scores: Float[np.ndarray, " edge"]
    """What each edge contributes."""
    attention: Float[np.ndarray, "selected demo"]
    raw: Float[np.ndarray, "selected demo"]
    """How far the value-output vector at each label position raises its own label above the others, logits."""
    towers: Float[np.ndarray, "tower selected demo"]
    """The attention score, and the same without position; NaN where there is none."""
    top: tuple[tuple[tuple[str, ...], ...], ...]
    """The top tokens of the value-output vector of each head at each label position."""
    patterns: Float[np.ndarray, "selected pos src_pos"]


@dataclass(frozen=True, repr=False)
class CircuitView:
    """A circuit and the prompts to see it on. In a notebook it displays itself, without any network call."""

    circuit: "Circuit"
    heads: tuple["Head", ...]
    head_labels: tuple[str, ...]
    """The label of each head."""
    labels: tuple[str, ...]
    runs: tuple[ShownRun, ...]
    summary: str
    reversed: "Circuit"
    """The same edges, scored on the same prompts with their labels reversed."""
    test: "CircuitTest | None" = None
    """What the first heads do alone, and the model without them; None: not measured."""

    def __post_init__(self) -> None:
        heads = {str(head) for head in self.heads}
        unknown = next(
            (str(e) for e in self.circuit.edges if e.input in ("k", "v") and str(e.receiver) not in heads), None
        )
        if unknown is not None:
            raise InputError(f"edge {unknown} ends in a head that is not to be shown: give it among the heads")
        if self.reversed.edges != self.circuit.edges:
            raise InputError("the label-reversed circuit has other edges: score the same edges (`score_edges`)")
        for run in self.runs:
            if len(run.scores) != len(self.circuit.edges) or len(run.attention) != len(self.heads):
                raise InputError(
                    f"{run.title}, {run.version} has {len(run.scores)} scores and {len(run.attention)} heads, the "
                    f"circuit {len(self.circuit.edges)} edges and {len(self.heads)} heads: make a new view for it"
                )

    def __repr__(self) -> str:
        return f"CircuitView of {len(self.circuit.edges)} edges and {len(self.heads)} heads, {len(self.runs)} runs"

    @property
    def metric(self) -> str:
        """What edges are scored by, in words."""
        return METRICS.get(self.circuit.metric, self.circuit.metric)

    def to_svg(self, run: int = 0, *, n_edges: int = FIRST) -> str:
        """The drawing of one run, with its `n_edges` strongest edges.

        Raises:
            InputError: a run that does not exist, or fewer than one edge.
        """
        if not 0 <= run < len(self.runs) or n_edges < 1:
            raise InputError(
                f"run {run} with {n_edges} edges: give a run of 0..{len(self.runs) - 1} and 1 edge or more"
            )
        return self._svg((self.runs[run],), n_edges, n_edges)

    def to_html(self) -> str:
        """The page: one file with everything in it."""
        kept, cut = self._patterns()
        shown = min(EDGES_SHOWN, len(self.circuit.edges))
        page = template("circuit.html.jinja").render(
            title=f"In-context circuit of {self.circuit.provenance.get('name', 'a model')}",
            summary=self.summary,
            svg=Markup(self._svg(self.runs, EDGES_SHOWN, FIRST)),
            data=Markup(script_json(self._data(kept))),
            bundle=Markup(circuitsvis_bundle()),
            n_edges=len(self.circuit.edges),
            shown=shown,
            at_first=min(FIRST, shown),
            titles=self._titles,
            versions=list(dict.fromkeys(run.version for run in self.runs)),
            labels=[printable(label) for label in self.labels],
            metric=self.metric,
            cut=cut,
            tests=self.test and self.test_table(),
            curves=self.test and svg_uri(svg(circuit_curves(self.test, len(self.heads)))),
            table=self.edge_rows(),
        )
        return page.encode("utf-8", "replace").decode("utf-8")  # lone surrogates have no UTF-8

    def save(self, path: str | Path) -> None:
        """Write the page."""
        Path(path).write_text(self.to_html(), encoding="utf-8")

    def test_table(self) -> Table:
        """Faithfulness and completeness by size, as text.

        Raises:
            InputError: they were not measured.
        """
        if self.test is None:
            raise InputError("the heads of this circuit were not run alone: give `test`, of `evaluate_circuit`")
        frame, metric = self.test.to_frame(), self.test.metric
        body = []
        for size in self.test.sizes:
            rows = frame[frame["size"] == size].set_index("curve")
            cells = [f"{Interval.in_row(rows.loc[curve], metric):+.2f}" for curve in CURVES]
            body.append((f"{size} (in-context heads)" if size == len(self.heads) else str(size), *cells))
        return Table(("heads", "these alone", "the model without them", "random heads alone"), tuple(body))

    def edge_rows(self) -> list[tuple[int, tuple[str, ...]]]:
        """Every edge, strongest mean first: its number, and its cells."""
        interval, mean, twin = bootstrap_means(self.circuit.scores), self.circuit.mean, self.reversed.mean
        return [
            (
                int(i),
                (
                    arrows(str(self.circuit.edges[i])),
                    f"{interval.of(int(i)):+.3f}",
                    f"{twin[i]:+.3f}",
                ),
            )
            for i in np.argsort(-np.abs(mean), kind="stable")
        ]

    def _repr_html_(self) -> str:
        return framed(self.to_html())

    def _repr_svg_(self) -> str:
        """Shown where a notebook is stored without the page."""
        return self.to_svg()

    @property
    def _titles(self) -> list[str]:
        return list(dict.fromkeys(printable(run.title) for run in self.runs))

    @property
    def _head_classes(self) -> dict[str, int]:
        """The class of each head's label, by the head's name."""
        return {str(head): self.labels.index(label) for head, label in zip(self.heads, self.head_labels, strict=True)}

    def _svg(self, runs: tuple[ShownRun, ...], drawn: int, shown: int) -> str:
        """The `drawn` strongest edges of each run, of which the `shown` strongest of the first are visible."""
        edges, first = self.circuit.edges, runs[0]
        kept = np.flatnonzero(np.any([strongest(edges, run.scores, drawn) for run in runs], axis=0)).tolist()
        part = replace(self.circuit, edges=tuple(edges[i] for i in kept), scores=self.circuit.scores[kept])
        title = f"{first.title}, {first.version}: the {shown} strongest of {len(edges)} edges"
        rows = [run.row for run in runs]
        return draw(
            part, rows, first.scores[kept], self.labels, self._head_classes, shown=shown, title=title, numbers=kept
        )

    def _patterns(self) -> tuple[list[list[list[list[float]]] | None], int]:
        """Lower triangles of the attention patterns, run by run while there is room; and how many runs lack."""
        room, kept = PATTERN_CELLS, list[list[list[list[float]]] | None]()
        for run in self.runs:
            n_heads, n_pos, _ = run.patterns.shape
            room -= n_heads * n_pos * (n_pos + 1) // 2
            rounded = np.round(run.patterns.astype(np.float64), 3)
            kept.append(
                [[row[: i + 1].tolist() for i, row in enumerate(head)] for head in rounded] if room >= 0 else None
            )
        return kept, sum(pattern is None for pattern in kept)

    def _data(self, patterns: list[list[list[list[float]]] | None]) -> dict[str, object]:
        names = [str(head) for head in self.heads]
        place = {name: i for i, name in enumerate(names)}
        head_classes, runs = self._head_classes, []
        for run, pattern in zip(self.runs, patterns, strict=True):
            runs.append(
                {
                    "title": printable(run.title),
                    "version": run.version,
                    "tokens": [printable(token) for token in run.tokens],
                    "demos": [printable(text) for text in run.row.texts],
                    "classes": list(run.row.labels),
                    "answer": printable(run.answer),
                    "right": run.right,
                    "base": round(run.base, 3),
                    "scores": _rounded(run.scores),
                    "edge_classes": [edge_class(edge, run.row.labels, head_classes) for edge in self.circuit.edges],
                    "attention": _rounded(run.attention),
                    "raw": _rounded(run.raw),
                    "towers": _rounded(run.towers),
                    "top": [[[printable(token) for token in tokens] for tokens in head] for head in run.top],
                    "patterns": pattern,
                }
            )
        means = bootstrap_means(self.circuit.scores)
        edges = [
            {
                "name": arrows(str(edge)),
                "kind": edge_kind(edge),
                "mean": f"{means.of(i):+.3f}",
                "head": place.get(str(edge.receiver)),
                "demo": edge.sender.demo if isinstance(edge.sender, Text | Label) else None,
                "from": str(edge.sender),
                "to": str(edge.receiver),
            }
            for i, edge in enumerate(self.circuit.edges)
        ]
        labels = [printable(label) for label in self.labels]
        return {
            "titles": self._titles,
            "runs": runs,
            "edges": edges,
            "heads": names,
            "labels": labels,
            "metric": self.metric,
        }


def _rounded(values: Float[np.ndarray, "..."]) -> object:
    """Nested lists with four places; None for what is not finite."""
    if values.ndim > 1:
        return [_rounded(part) for part in values]
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
