"""What the study computes of each head: OV label features, QK two towers, flow, reversal (arXiv 2402.02872)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from icl_circuits.errors import Unfit
from icl_circuits.heads import random_heads
from icl_circuits.prompts import encode, group_by_label
from icl_circuits.residual import Head, all_heads
from icl_circuits.studies.begun import Begun
from icl_circuits.towers import (
    Flow,
    HeadGroup,
    LabelFeatures,
    MetricLearning,
    NeuronReads,
    OVCircuits,
    Probe,
    QKSpectrum,
    Reversal,
    TowerReads,
    TwoTowers,
    knock_out_flow,
    label_features,
    metric_learning,
    neuron_reads,
    ov_circuits,
    probe_flow,
    qk_spectrum,
    reversal,
    tower_reads,
    tower_tokens,
    two_towers,
)

T = TypeVar("T")
RANDOM_DRAWS = 3
FLOW_PROMPTS = 16
NEURON_PROMPTS = 32
"""How many prompts neurons are chosen on, and how many others they are measured on."""
TOKENS_SHOWN = 6
KINDS = (LabelFeatures, OVCircuits, MetricLearning, QKSpectrum, Flow, Probe, Reversal, NeuronReads)


@dataclass(frozen=True)
class TowerFindings:
    """What the study found."""

    own: HeadGroup
    """The selected heads."""
    random: HeadGroup
    """Random heads of the same layers."""
    grouped: MetricLearning
    """Of the selected heads in the paper's order, where demonstrations of the query's class come last."""
    circuits: OVCircuits
    spectrum: QKSpectrum
    reads: TowerReads | None
    neurons: NeuronReads | None
    tokens: pd.DataFrame
    """Of the best head in the first prompt."""
    flow: Flow | None
    probe: Probe
    refused: tuple[str, ...]
    """Why `reads`, `neurons` or `flow` is None: scores that are no sums, experts, or score hooks without effect."""


def compute(begun: Begun) -> TowerFindings:
    """What the selected heads do on evaluation prompts, beside random heads of the same layers."""
    model, batch, heads, settings = begun.model, begun.detailed, begun.heads, begun.settings
    random = _random(begun)
    own_places, random_places = range(len(heads)), range(len(heads), len(heads) + len(random))
    features, circuits = begun.step(
        "label features", lambda: (label_features(model, batch, (*heads, *random)), ov_circuits(model, heads))
    )
    learned, random_learned, grouped, spectrum = begun.step("two towers", lambda: _towers(begun, random))
    reads, neurons, tokens, unread = begun.step("what the towers read", lambda: _reads(begun))
    flow, probe, stuck = begun.step("flow", lambda: _flow(begun))
    pairs = begun.step(
        "reversal", lambda: reversal(model, batch, (*heads, *random)) if len(settings.labels) == 2 else None
    )
    own, other = (
        HeadGroup(features.of_heads(places), auc, pairs and pairs.of_heads(places))
        for places, auc in ((own_places, learned), (random_places, random_learned))
    )
    return TowerFindings(
        own, other, grouped, circuits, spectrum, reads, neurons, tokens, flow, probe, (*unread, *stuck)
    )


def _towers(
    begun: Begun, random: tuple[Head, ...]
) -> tuple[MetricLearning, MetricLearning, MetricLearning, QKSpectrum]:
    """What three sets of towers have learned: selected heads, random heads, selected heads in the paper's order."""
    towers, others = (two_towers(begun.model, begun.detailed, heads) for heads in (begun.heads, random))
    learned, random_learned, grouped = (
        metric_learning(found, seed=begun.settings.seed) for found in (towers, others, _in_the_papers_order(begun))
    )
    return learned, random_learned, grouped, qk_spectrum(begun.model, towers)


def _reads(begun: Begun) -> tuple[TowerReads | None, NeuronReads | None, pd.DataFrame, tuple[str, ...]]:
    """What the towers read, and why not, where they cannot be asked."""
    refused: list[str] = []
    reads = _unless_unfit(lambda: tower_reads(begun.model, begun.detailed, begun.heads), refused)
    neurons = None if reads is None else _unless_unfit(lambda: _neurons(begun), refused)
    tokens = tower_tokens(begun.model, begun.detailed, begun.heads[:1], n_tokens=TOKENS_SHOWN)
    return reads, neurons, tokens, tuple(refused)


def _flow(begun: Begun) -> tuple[Flow | None, Probe, tuple[str, ...]]:
    """Where the labels flow, and why that is not known, where it is not."""
    refused: list[str] = []
    few = begun.evaluation.first(FLOW_PROMPTS)
    flow = _unless_unfit(lambda: knock_out_flow(begun.model, few), refused)
    probe = probe_flow(begun.model, begun.scores.batch, begun.detailed, seed=begun.settings.seed)
    return flow, probe, tuple(refused)


def _neurons(begun: Begun) -> NeuronReads:
    """The FFN neurons that the towers read, chosen on selection prompts and measured on others."""
    some, others = (batch.first(NEURON_PROMPTS) for batch in (begun.scores.batch, begun.evaluation))
    return neuron_reads(begun.model, others, begun.heads, choose_on=some)


def _random(begun: Begun) -> tuple[Head, ...]:
    """Several draws of random heads, each head once."""
    every, seed = all_heads(begun.model), begun.settings.seed
    draws = [random_heads(every, begun.heads, seed=(seed, i)) for i in range(RANDOM_DRAWS)]
    return tuple(dict.fromkeys(head for draw in draws for head in draw))


def _in_the_papers_order(begun: Begun) -> TwoTowers:
    """The towers of the selected heads, where demonstrations of the query's class come last."""
    batch = begun.detailed
    grouped = encode(begun.model, [group_by_label(prompt) for prompt in batch.prompts], separator=batch.separator)
    return two_towers(begun.model, grouped, begun.heads)


def _unless_unfit(analyse: Callable[[], T], refused: list[str]) -> T | None:
    """What `analyse` finds, or None where the model is not of a kind it can be done on; why goes to `refused`."""
    try:
        return analyse()
    except Unfit as error:
        refused.append(str(error))
        return None
