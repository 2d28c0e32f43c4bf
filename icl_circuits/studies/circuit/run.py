"""What the study computes: the circuit through the selected heads, what it does alone, and prompts to see it on."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from icl_circuits.circuits import Circuit, CircuitTest, evaluate_circuit, find_circuit, score_edges
from icl_circuits.heads import answer
from icl_circuits.interventions import MetricName
from icl_circuits.jobs import CircuitSettings
from icl_circuits.prompts import PromptBatch, encode, reverse_labels
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.circuit.prompts import shown_runs
from icl_circuits.viz import ShownRun

PROMPTS, SHOWN = 32, 3
"""How many prompts the edges are scored on, as many selection prompts upstream components are chosen on; and how many
the page shows."""
BRIEF_PROMPTS, BRIEF_SHOWN = 3, 1
"""The same in a report of several studies, to show one prompt."""
BRIEFLY_LOOKED_AT = 8
"""The test prompts that those are taken from, right answers first."""
SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Sizes of the circuits that are run alone, as shares of the model's heads, besides the selected ones."""
KINDS = (CircuitTest, Circuit)


@dataclass(frozen=True)
class CircuitFindings:
    """What the study found."""

    circuit: Circuit
    reversed: Circuit
    """The same edges, scored on the same prompts with their labels reversed."""
    test: CircuitTest | None
    """What the first heads do alone, and the model without them; None in a report of several studies."""
    runs: tuple[ShownRun, ...]
    """The first prompts, as they are and with their labels reversed."""


def _find(begun: Begun, looked_at: int, n_prompts: int, n_shown: int) -> CircuitFindings:
    model, heads, settings, metric = begun.model, begun.heads, begun.settings, _metric(begun)
    size = begun.step.digest, n_prompts  # the same steps in a report are of fewer prompts
    rows = begun.step("right answers first", lambda: _right_first(begun, looked_at), on=size)
    batch = begun.evaluation.select(rows.tolist()[:n_prompts])
    selection = begun.scores.batch.first(n_prompts)
    circuit = begun.step(
        "circuit", lambda: find_circuit(model, batch, heads, choose_on=selection, metric=metric), on=size
    )
    twins = encode(model, [reverse_labels(prompt) for prompt in batch.prompts], separator=settings.separator)
    reversed_circuit = begun.step(
        "label-reversed circuit", lambda: score_edges(model, twins, circuit.edges, metric=metric), on=size
    )
    versions = (("original", batch, circuit), ("labels reversed", twins, reversed_circuit))
    few = range(min(n_shown, len(batch)))

    def runs_of(part: PromptBatch, found: Circuit, version: str) -> list[ShownRun]:
        shown = part.select(few)
        return shown_runs(model, shown, answer(model, shown).top1, heads, found, version)

    runs = begun.step(
        "prompts to see it on", lambda: [runs_of(part, found, name) for name, part, found in versions], on=size
    )
    circuit, reversed_circuit = (replace(c, provenance=begun.provenance) for c in (circuit, reversed_circuit))
    return CircuitFindings(circuit, reversed_circuit, None, tuple(run for of_version in runs for run in of_version))


def compute(begun: Begun) -> CircuitFindings:
    """Find the circuit on test prompts, score it on their label-reversed twins too, and run its heads alone.

    Raises:
        InputError: what `find_circuit` and the studies of its heads raise.
    """
    model, settings, metric = begun.model, begun.settings, _metric(begun)
    found = _find(begun, PROMPTS, PROMPTS, SHOWN)
    batch = begun.evaluation.first(PROMPTS)
    ranked = begun.scores.ranked
    sizes = sorted({len(begun.heads), *(round(share * len(ranked)) for share in SHARES)} - {0})
    tested = begun.step(
        "heads alone",
        lambda: evaluate_circuit(
            model, batch, begun.scores.batch, ranked, sizes=sizes, seed=settings.seed, metric=metric
        ),
    )
    return replace(found, test=tested)


def compute_briefly(begun: Begun) -> CircuitFindings:
    """The circuit of one rightly answered prompt, scored on few; its heads are not run alone."""
    return _find(begun, BRIEFLY_LOOKED_AT, BRIEF_PROMPTS, BRIEF_SHOWN)


def _metric(begun: Begun) -> MetricName:
    """What edges are scored by: `prepare` has refused what is no metric. A report does not ask for one."""
    settings = begun.settings
    return cast(MetricName, settings.metric if isinstance(settings, CircuitSettings) else CircuitSettings.metric)


def _right_first(begun: Begun, looked_at: int) -> np.ndarray:
    """The rows of the first test prompts, those that the model answers right before the others."""
    batch = begun.evaluation.first(looked_at)
    return np.argsort(~answer(begun.model, batch).top1, kind="stable")
