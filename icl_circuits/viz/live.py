"""The circuit live in a notebook: a click cuts an edge, the model runs without it, and the answer moves.

The one module here that runs a model. What a notebook or a page keeps is the drawing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.circuits import Circuit, Queries, cut_edges, mean_queries
from icl_circuits.errors import InputError
from icl_circuits.interventions import Metric, MetricName, from_logits
from icl_circuits.models import LensModel, at_least_float32
from icl_circuits.patching import run_each
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.residual import Head, Last, answer_logits
from icl_circuits.viz.circuit_svg import PromptRow, draw, printable, strongest
from icl_circuits.viz.circuit_view import EDGES_SHOWN, FIRST, METRICS
from icl_circuits.viz.look import arrows

if TYPE_CHECKING:
    from anywidget import AnyWidget

SPREAD, ROUNDING = 0.1, 1e-4
"""How far a circuit's prompts may be from those given, a mean: shares of the metric's spread, and of the logit scale.

Other prompts differ by about the spread itself."""
TOKENS_SHOWN = 5
"""How many of the likeliest answers are shown, of the whole model and of the model without the edges."""


def live_circuit(
    model: LensModel, batch: PromptBatch, circuit: Circuit, *, metric: Metric | None = None
) -> "AnyWidget":
    """A widget that draws `circuit` on one prompt, and runs the model without the edges that are clicked.

    Edges are cut as `find_circuit` cuts them, all together in one run (`cut_edges`). Each time the widget shows the
    metric, and the probabilities of the likeliest answers, before and after. `widget.cut` holds the numbers of the cut
    edges, places in `circuit.edges`, and `widget.prompt` that of the prompt; both can be set.

    Args:
        model: the model that the circuit was found in.
        batch: the prompts that it was scored on.
        circuit: what `find_circuit` or `score_edges` gave. On each prompt its 40 strongest edges can be clicked or
            ticked, and the 24 strongest are drawn before any is.
        metric: the function that edges were scored by, where it was no named metric.

    Returns:
        An `anywidget.AnyWidget`, for Jupyter, VS Code, Colab and marimo.

    Raises:
        InputError: no `anywidget`, a circuit of another model or of other prompts, a function not given, and what
            `cut_edges` raises.
        Unfit: zero-shot prompts, and what `cut_edges` raises.
    """
    try:
        from icl_circuits.viz.live_widget import CircuitWidget
    except ModuleNotFoundError as error:
        raise InputError("live_circuit needs anywidget: run `pip install 'icl_circuits[live]'`") from error
    require_demonstrations(batch, "to draw a circuit from")
    return CircuitWidget(_LiveRuns(model, batch, circuit, _metric(circuit, metric), _queries(model, batch, circuit)))


def _metric(circuit: Circuit, metric: Metric | None) -> Metric:
    """The metric that the circuit's edges were scored by."""
    if metric is not None:
        return metric
    named = next((name for name in get_args(MetricName) if name == circuit.metric), None)
    if named is None:
        raise InputError(f"the circuit was scored by the function {circuit.metric!r}: give it, metric={circuit.metric}")
    return named


def _queries(model: LensModel, batch: PromptBatch, circuit: Circuit) -> Queries:
    """What stands in for the queries, over all prompts as in the circuit's scores."""
    heads = [edge.receiver for edge in circuit.edges if isinstance(edge.sender, Last)]
    return mean_queries(model, batch, [head for head in heads if isinstance(head, Head)]) if heads else {}


@dataclass(frozen=True)
class _LiveRuns:
    """The model, its circuit and its prompts: what the widget asks, in plain values."""

    model: LensModel
    batch: PromptBatch
    circuit: Circuit
    metric: Metric
    queries: Queries
    whole: dict[int, Float[Tensor, "1 d_vocab"]] = field(default_factory=dict)
    """The answer-position logits of the whole model, of each prompt that was shown."""

    def __post_init__(self) -> None:
        found = run_each(self.model, self.batch, [], self.metric)
        base, scored = found.base.numpy().astype(np.float32), self.circuit.base
        limit = SPREAD * scored.std() + ROUNDING * max(1.0, found.logit_scale)
        if base.shape != scored.shape or not np.abs(base - scored).mean() <= limit:
            raise InputError(
                f"the circuit was scored on {len(scored)} prompts with a {self.circuit.metric} of {scored.mean():.4g}; "
                f"these are {len(base)}, and this model has {base.mean():.4g}: give the model, the batch and the "
                "metric that the circuit was scored with"
            )

    @property
    def prompts(self) -> list[str]:
        """The prompts by number and query."""
        return [printable(f"{i + 1}: {prompt.query}") for i, prompt in enumerate(self.batch.prompts)]

    @property
    def words(self) -> str:
        """The metric in words."""
        return METRICS.get(self.circuit.metric, printable(self.circuit.metric))

    def drawn(self, prompt: int, cut: Sequence[int]) -> dict[str, Any]:
        """The drawing of a prompt's strongest edges, and those by the size of their effect; cut ones are among them."""
        self._require(prompt, cut)
        circuit, scores, labels = self.circuit, self.circuit.scores[:, prompt], self.batch.labels
        of_circuit = np.arange(len(circuit.edges))
        kept = np.flatnonzero(strongest(circuit.edges, scores, EDGES_SHOWN) | np.isin(of_circuit, cut))
        part = replace(circuit, edges=tuple(circuit.edges[i] for i in kept), scores=circuit.scores[kept])
        row, title = PromptRow.of(self.batch.prompts[prompt]), f"Circuit on prompt {self.prompts[prompt]}"
        svg = draw(part, [row], scores[kept], labels, {}, shown=FIRST, title=title, numbers=kept.tolist())
        by_size = kept[np.argsort(-np.abs(scores[kept]), kind="stable")].tolist()
        return {
            "prompt": prompt,
            "svg": svg.encode("utf-8", "replace").decode("utf-8"),
            "answer": printable(labels[self.batch.prompts[prompt].gold]),
            "n_edges": len(circuit.edges),
            "edges": [
                {
                    "number": i,
                    "name": arrows(str(circuit.edges[i])),
                    "score": _plain(scores[i]),
                    "from": str(circuit.edges[i].sender),
                    "to": str(circuit.edges[i].receiver),
                }
                for i in by_size
            ],
        }

    def answer(self, prompt: int, cut: Sequence[int]) -> dict[str, Any]:
        """The metric and the likeliest answers of a prompt, of the whole model and without the cut edges."""
        self._require(prompt, cut)
        part = next(self.batch.part(prompt, prompt + 1).chunks())
        if prompt not in self.whole:
            self.whole[prompt] = answer_logits(self.model, part)
        edges = [self.circuit.edges[i] for i in cut]
        changes = cut_edges(self.model, part, edges, queries=self.queries)
        both = torch.cat([self.whole[prompt], answer_logits(self.model, part, *changes)])
        probs = at_least_float32(both).softmax(-1).cpu()
        target = int(part.target[0])
        likely = probs.topk(min(TOKENS_SHOWN, probs.shape[1])).indices.flatten().tolist()
        return {
            "prompt": prompt,
            "cut": list(cut),
            "error": "",
            "metric": [_plain(from_logits(self.metric, row[None], part)[0]) for row in both],
            "tokens": [
                {
                    "text": printable(self.model.tokenizer.decode([token])),
                    "probs": probs[:, token].tolist(),
                    "right": token == target,
                }
                for token in dict.fromkeys([*likely, target])
            ],
        }

    def _require(self, prompt: int, cut: Sequence[int]) -> None:
        """Raise `InputError` for a prompt or an edge that does not exist."""
        if not 0 <= prompt < len(self.batch):
            raise InputError(f"prompt {prompt} does not exist: there are prompts 0..{len(self.batch) - 1}")
        wrong = next((i for i in cut if not 0 <= i < len(self.circuit.edges)), None)
        if wrong is not None:
            raise InputError(f"edge {wrong} does not exist: the circuit has edges 0..{len(self.circuit.edges) - 1}")


def _plain(value: Any) -> float | None:
    """A number as JSON has it; None for what is not finite."""
    return float(value) if np.isfinite(float(value)) else None
