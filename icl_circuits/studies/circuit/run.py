"""What the study computes: the circuit through the selected heads, what it does alone, and prompts to see it on."""

from dataclasses import dataclass, replace

from icl_circuits.circuits import Circuit, CircuitTest, evaluate_circuit, find_circuit, score_edges
from icl_circuits.prompts import encode, reverse_labels
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.circuit.prompts import shown_runs
from icl_circuits.viz import ShownRun

PROMPTS = 32
"""How many test prompts the edges are scored on, and how many selection prompts upstream components are chosen on."""
SHOWN = 3
"""How many test prompts the page shows."""
SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Sizes of the circuits that are run alone, as shares of the model's heads, besides the selected ones."""
KINDS = (CircuitTest, Circuit)


@dataclass(frozen=True)
class CircuitFindings:
    """What the study found."""

    circuit: Circuit
    reversed: Circuit
    """The same edges, scored on the same prompts with their labels reversed."""
    test: CircuitTest
    """What the first heads do alone, and the model without them."""
    runs: tuple[ShownRun, ...]
    """The first prompts, as they are and with their labels reversed."""


def compute(begun: Begun) -> CircuitFindings:
    """Find the circuit on the first test prompts, score it on their label-reversed twins too, and run its heads alone.

    Raises:
        InputError: what `find_circuit` and the studies of its heads raise.
    """
    model, heads, settings = begun.model, begun.heads, begun.settings
    batch = begun.evaluation.select(range(min(PROMPTS, len(begun.evaluation))))
    selection = begun.scores.batch.select(range(min(PROMPTS, len(begun.scores.batch))))
    circuit = begun.step("circuit", lambda: find_circuit(model, batch, heads, choose_on=selection))
    twins = encode(model, [reverse_labels(prompt) for prompt in batch.prompts], separator=settings.separator)
    reversed_circuit = begun.step("label-reversed circuit", lambda: score_edges(model, twins, circuit.edges))
    ranked = begun.scores.ranked
    sizes = sorted({len(heads), *(round(share * len(ranked)) for share in SHARES)} - {0})
    tested = begun.step(
        "heads alone",
        lambda: evaluate_circuit(model, batch, begun.scores.batch, ranked, sizes=sizes, seed=settings.seed),
    )
    versions = (("original", batch, circuit), ("labels reversed", twins, reversed_circuit))
    few = range(min(SHOWN, len(batch)))
    runs = begun.step(
        "prompts to see it on",
        lambda: [shown_runs(model, part.select(few), heads, found, name) for name, part, found in versions],
    )
    circuit, reversed_circuit = (replace(c, provenance=begun.provenance) for c in (circuit, reversed_circuit))
    return CircuitFindings(circuit, reversed_circuit, tested, tuple(run for of_version in runs for run in of_version))
