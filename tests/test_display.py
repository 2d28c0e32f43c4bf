"""Every result shows itself: in one line, as a table in a notebook, and as a data frame with the same column names."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
from test_development import run as training_run

import icl_circuits as icl
from icl_circuits.biases import choose
from icl_circuits.display import ROWS, WIDTH, Displayed, highest
from icl_circuits.heads import LogProbIncrease, score_heads
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch, Rows
from icl_circuits.prompts.rows import Row
from icl_circuits.relations import HeadProbe
from icl_circuits.residual import Head
from icl_circuits.studies import kinds_of
from icl_circuits.subvalues import KnownFacts, concentration

NO_RESULTS = (
    "Prompt",
    "Demo",
    "LevelTask",
    "RelationText",
    "Triplet",
    "Task",
    "InContextHead",
    "AddWeightedValues",
    "TypeNames",
)
"""What is asked for or what rows of data are made of, not found."""
OF_COMPONENTS = ("component", "sender", "receiver", "worst")
"""Columns that name a head or another part of a model."""


def results() -> set[type]:
    """The classes of everything that the package's functions give, and of everything in files, with all they hold."""
    functions = [getattr(icl, name) for name in icl.__all__ if not isinstance(getattr(icl, name), type)]
    waiting = [*kinds_of(), *(get_type_hints(function)["return"] for function in functions)]
    found: dict[Any, None] = {}
    while waiting:
        kind = waiting.pop()
        of_package = isinstance(kind, type) and kind.__module__.startswith("icl_circuits.")
        if not (of_package and kind in found):
            waiting += get_type_hints(kind).values() if of_package else get_args(kind)
        if of_package and is_dataclass(kind):
            found[kind] = None
    return {kind for kind in found if kind.__name__ not in NO_RESULTS and "components" not in kind.__module__}


@pytest.fixture(scope="module")
def shown(gpt2: LensModel) -> dict[str, Displayed]:
    """One of each, of a small model."""
    model = gpt2
    rows = icl.load_rows("word-categories")
    batch, others = (icl.encode(model, icl.sample_prompts(rows, 8, shots=2, seed=seed)) for seed in (0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a random model's scores
        every = [*of_heads(model, batch, others), *of_patching(model, batch, others), *of_neurons(model)]
        every += [*of_texts(model), rows, icl.load_facts(), training_run([0, 10, 20], {Head(0, 0): 10})]
    return {type(one).__name__: one for one in reversed([*every, *held(every)])}


def held(values: Sequence[Any]) -> Iterator[Displayed]:
    """What results hold that can be shown by itself."""
    for value in values:
        for field in fields(value):
            part = getattr(value, field.name)
            inner = [one for one in (part if isinstance(part, tuple) else (part,)) if isinstance(one, Displayed)]
            yield from inner
            yield from held(inner)


def of_heads(model: LensModel, batch: PromptBatch, others: PromptBatch) -> Iterator[Displayed]:
    scores = score_heads(model, batch, n_heads=2, rule="paper")
    heads = scores.selected.of()
    yield scores
    yield icl.group_intervention(model, others, scores.selected, n_random=2)
    yield icl.position_increase(model, others, heads)
    yield icl.label_features(model, others, heads)
    yield icl.ov_circuits(model, heads)
    towers = icl.two_towers(model, others, heads)
    yield from (towers, icl.metric_learning(towers, draws=5), icl.qk_spectrum(model, towers))
    yield icl.tower_reads(model, others, heads)
    yield icl.neuron_reads(model, others, heads, k=3)
    yield icl.knock_out_flow(model, others)
    yield icl.probe_flow(model, batch, others, layers=(1,))
    yield icl.reversal(model, others, heads)
    bias = icl.majority_bias(model, others.prompts, heads, coefficients=(0.0, 0.3))
    yield from (bias, icl.mitigation(bias, bias, choose(bias), len(others)))
    yield icl.recency_bias(model, others.prompts, heads, n_orders=2, strengths=(0.0, 1.0))
    yield icl.induction_scores(model, n_sequences=2, length=8)
    yield icl.concept_scores(model, n_sequences=2, n_words=4)
    families = {"one": heads, "two": [heads[0], Head(0, 0)]}
    yield from (icl.overlap(families, 12), icl.zero_families(model, others, families, n_random=2))
    tasks = icl.task_prompts(model, icl.load_tasks()[:2], n=3, shots=2)
    yield icl.function_vector_heads(model, tasks.clean, tasks.shuffled)


def of_patching(model: LensModel, batch: PromptBatch, others: PromptBatch) -> Iterator[Displayed]:
    swept = icl.sweep(model, batch, "z", replacement=icl.Zero())
    yield from (swept, icl.agreement(icl.attribute(model, batch, "z", replacement=icl.Zero()), swept))
    yield icl.run_each(model, batch, [[icl.ZeroHeads((Head(0, 0),))], [icl.ZeroHeads((Head(1, 0),))]])
    yield icl.path_patch(model, batch, replacement=icl.Zero())
    yield icl.find_circuit(model, batch, [Head(1, 0)], n_upstream=1)
    yield icl.evaluate_circuit(model, batch, others, [Head(1, 0), Head(0, 0)], sizes=(1,), n_random=1)


def of_neurons(model: LensModel) -> Iterator[Displayed]:
    facts = icl.load_facts().facts[:4]
    batch = icl.token_batch(model, [fact.text for fact in facts], [f" {fact.answer}" for fact in facts])
    best = icl.top_neurons(model, batch, k=5)
    yield from (best, icl.query_importance(model, batch, best, k=4), icl.coefficient_split(model, batch, best.first(1)))
    yield from (icl.score_neurons(model, batch), icl.layer_positions(model, batch), icl.interpolation(model, batch))
    yield icl.added_together(model, batch, layer=0, k=3)
    yield icl.zero_neurons(model, batch, {"best": [best.addresses]})
    yield icl.zero_each_neuron(model, batch, per_layer=3)
    yield concentration(model, batch, "ffn", icl.log_prob_increase(model, batch).mlp)
    yield icl.heads_by_type(model, batch, icl.log_prob_increase(model, batch), ("a", "b"), np.array([0, 0, 1, 1]))
    yield KnownFacts(batch, facts, (("fact", 9, 4),))
    yield from icl.neuron_tokens(model, [icl.Neuron(0, 0)], n_tokens=3)


def of_texts(model: LensModel) -> Iterator[Displayed]:
    corpus = icl.load_conllu()
    batch = icl.relation_batch(model, corpus, n_texts=20)
    yield from (corpus, batch, icl.relation_index(model, batch, draws=20))
    yield icl.icl_levels(model, icl.level_tasks()[:2], shots=(0, 1), n_prompts=3)
    yield icl.loss_reduction(model, [" ".join(text.text for text in corpus.texts[:60])])
    yield HeadProbe(("probe", "offset"), np.array([[0.5, 0.7], [0.2, 0.1]]), np.array([6, 7]), 1, 3, 20, ())


@pytest.mark.slow
def test_every_result_is_displayed(shown: dict[str, Displayed]) -> None:
    assert len(results()) > 45
    assert [kind.__name__ for kind in results() if not issubclass(kind, Displayed)] == []
    assert {kind.__name__ for kind in results()} - set(shown) == set()


def test_a_result_is_one_line(shown: dict[str, Displayed]) -> None:
    for name, one in shown.items():
        assert repr(one).startswith(f"<{name}"), name
        assert 12 < len(repr(one)) <= WIDTH, name
        assert "\n" not in repr(one)
        assert "array" not in repr(one)
        assert one.headline, name


@pytest.mark.slow
def test_a_head_has_the_same_columns_in_every_table(shown: dict[str, Displayed]) -> None:
    for name, one in shown.items():
        frame = one.to_frame()
        columns = frame.columns.tolist()
        assert columns, name
        if "head" in columns:
            assert columns[columns.index("head") - 1] == "layer", name
            assert all(pd.api.types.is_integer_dtype(frame[column]) for column in ("layer", "head")), name
        for column in columns:
            assert re.fullmatch(r"\w+", column), (name, column)
            if column.endswith(("_low", "_high")):
                assert re.sub("_(low|high)$", "", column) in columns, (name, column)
            if column not in OF_COMPONENTS:
                assert not any(re.fullmatch(r"L\d+H\d+", str(value)) for value in frame[column]), (name, column)


def test_a_table_in_a_notebook_is_escaped_and_not_endless() -> None:
    many = Rows("<script>", tuple(Row(f"<b>{i}", "ab"[i % 2]) for i in range(1000)))
    page = many._repr_html_()
    assert page.count("<tr") <= ROWS + 2
    assert "1000 rows" in page
    assert "<script>" not in page
    assert "<b>" not in page


def test_the_sizes_are_those_of_the_arrays() -> None:
    heads = np.zeros((2, 3, 4))
    heads[:, 1, 2] = 1.25
    found = LogProbIncrease(np.zeros((2, 3)), np.zeros((2, 3)), heads)
    assert repr(found) == "<LogProbIncrease prompt=2 layer=3 head=4: highest log_prob_increase 1.25 at L1H2>"
    assert highest("x", np.array([np.nan, np.nan]), str) == "no x"
    assert highest("x", np.array([1.0, np.nan, 2.0]), str) == "highest x 2 at 2"
