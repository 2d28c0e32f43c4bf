"""What the study computes: value and query neurons, and what is lost without them (arXiv 2312.12141)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from icl_circuits.heads import LogProbIncrease, log_prob_increase
from icl_circuits.studies.subvalues.begun import FactsBegun
from icl_circuits.studies.subvalues.shown import shown_fact
from icl_circuits.subvalues import (
    Concentration,
    HeadsByType,
    Interpolation,
    NeuronEffects,
    QueryImportance,
    TopNeurons,
    ZeroedAlone,
    best_by_each_method,
    concentration,
    heads_by_type,
    interpolation,
    n_neurons,
    query_importance,
    random_neurons,
    top_neurons,
    zero_each_neuron,
    zero_neurons,
)
from icl_circuits.viz import ShownFact

FFN, ATTENTION, QUERIES = 1000, 200, 1000
"""How many value neurons of each prompt are found, and query neurons."""
FFN_READ, FFN_ZEROED = 100, 100
"""Of how many FFN value neurons the queries are asked, and how many are zeroed (tables 6 and 13)."""
TOP_FFN = 300
"""Of how many FFN neurons of a prompt it is asked in which layers they lie, and which come again (table 8)."""
BEST = 10
"""How many neurons each method zeroes (table 2)."""
METHOD_PROMPTS, ALONE_PROMPTS, SUM_PROMPTS = 24, 12, 24
"""How many prompts the methods are compared on, neurons are zeroed one by one on, and every neuron is scored on."""
ALONE_PER_LAYER = 24
"""How many neurons of each layer are zeroed one by one."""


@dataclass(frozen=True)
class TypeNames:
    """The types of knowledge that prompts are of, as `type_of` counts them."""

    names: tuple[str, ...]


KINDS = (
    LogProbIncrease, TopNeurons, QueryImportance, NeuronEffects, Interpolation, Concentration, HeadsByType, ZeroedAlone,
    TypeNames,
)  # fmt: skip


@dataclass(frozen=True)
class OfManyPrompts:
    """What takes prompts of several facts."""

    methods: NeuronEffects
    """The best neurons of each method zeroed."""
    method_layers: Int[np.ndarray, "method prompt rank"]
    """Their layers."""
    sum_rows: tuple[int, ...]
    """The prompts that every neuron is scored on."""
    sums: tuple[Concentration, Concentration]
    """Of FFN and of attention neurons."""
    heads: HeadsByType | None
    """None where a type has a single prompt."""
    alone: ZeroedAlone


@dataclass(frozen=True)
class SubvalueFindings:
    """What the study found."""

    increase: LogProbIncrease
    ffn: TopNeurons
    attention: TopNeurons
    query_ffn: QueryImportance
    """What activates the first FFN value neurons."""
    query_attention: QueryImportance
    """What activates the attention value neurons."""
    effects: NeuronEffects
    """Value neurons zeroed, query neurons zeroed, and random ones."""
    way: Interpolation
    shown: tuple[ShownFact, ...]
    """A prompt of each type."""
    many: OfManyPrompts | None
    """None for one prompt."""


def compute(begun: FactsBegun) -> SubvalueFindings:
    """Score layers, heads and neurons, ask what activates them, and zero them."""
    model, batch = begun.model, begun.known.batch
    increase, way = begun.step(
        "layers and heads", lambda: (log_prob_increase(model, batch), interpolation(model, batch))
    )
    n_ffn = min(FFN, model.cfg.n_layers * n_neurons(model, "ffn"))
    n_attention = min(ATTENTION, _fewest_attention_neurons(begun))
    ffn, attention = begun.step(
        "value neurons",
        lambda: (
            top_neurons(model, batch, "ffn", k=n_ffn),
            top_neurons(model, batch, "attention", k=n_attention),
        ),
    )
    query_ffn, query_attention = begun.step(
        "query neurons",
        lambda: (
            query_importance(model, batch, ffn.first(FFN_READ), k=QUERIES),
            query_importance(model, batch, attention, k=QUERIES),
        ),
    )
    effects = begun.step("zeroing neurons", lambda: _effects(begun, ffn, attention, query_attention))
    rows = [begun.known.rows_of(name)[0] for name in begun.known.types]
    shown = begun.step(
        "prompts to read",
        lambda: [shown_fact(begun, row, increase, ffn, attention, query_attention) for row in rows],
    )
    many = _of_many(begun, increase) if len(batch) > 1 else None
    return SubvalueFindings(increase, ffn, attention, query_ffn, query_attention, effects, way, tuple(shown), many)


def _fewest_attention_neurons(begun: FactsBegun) -> int:
    """How many attention neurons the shortest prompt has."""
    every = begun.model.cfg.n_layers * n_neurons(begun.model, "attention")
    return every * (int(begun.known.batch.last.min()) + 1)


def _effects(begun: FactsBegun, ffn: TopNeurons, attention: TopNeurons, query: QueryImportance) -> NeuronEffects:
    model, seed = begun.model, begun.settings.seed
    values, queries = [ffn.first(FFN_ZEROED).addresses, attention.addresses], query.addresses
    groups = {
        "value neurons": values,
        "random, as many in the same layers": [random_neurons(model, one, seed=seed) for one in values],
        "query neurons": [queries],
        "random, as many as query neurons": [random_neurons(model, queries, seed=seed)],
    }
    return zero_neurons(model, begun.known.batch, groups)


def _of_many(begun: FactsBegun, increase: LogProbIncrease) -> OfManyPrompts:
    model, batch, seed = begun.model, begun.known.batch, begun.settings.seed
    methods, layers = begun.step("eight methods", lambda: _methods(begun))
    rows = spread(len(batch), SUM_PROMPTS)
    some = batch.select(rows)
    sums = begun.step(
        "sums over neurons",
        lambda: (
            concentration(model, some, "ffn", increase.mlp[rows]),
            concentration(model, some, "attention", increase.attn[rows]),
        ),
    )
    heads = None
    if min(len(begun.known.rows_of(name)) for name in begun.known.types) > 1:
        heads = begun.step(
            "heads of each type",
            lambda: heads_by_type(model, batch, increase, begun.known.types, begun.type_of, seed=seed),
        )
    fewest = batch.select(spread(len(batch), ALONE_PROMPTS))
    per_layer = min(ALONE_PER_LAYER, n_neurons(model, "ffn"))
    alone = begun.step("neurons one by one", lambda: zero_each_neuron(model, fewest, per_layer=per_layer, seed=seed))
    return OfManyPrompts(methods, layers, tuple(rows), sums, heads, alone)


def _methods(begun: FactsBegun) -> tuple[NeuronEffects, Int[np.ndarray, "method prompt rank"]]:
    """The best neurons of each method zeroed, and their layers."""
    model, batch = begun.model, begun.known.batch
    few = batch.select(spread(len(batch), METHOD_PROMPTS))
    best = best_by_each_method(model, few, k=min(BEST, n_neurons(model, "ffn")))
    methods = zero_neurons(model, few, {name: [places] for name, places in best.items()})
    return methods, np.stack([layer for layer, _, _ in best.values()])


def spread(n_prompts: int, n: int) -> list[int]:
    """`n` prompts at even distances in the batch; all where there are fewer."""
    return np.unique(np.linspace(0, n_prompts - 1, min(n, n_prompts)).round().astype(int)).tolist()
