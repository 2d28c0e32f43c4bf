"""Circuits: planted edges recovered exactly, every edge against hooks written by hand, files, pages."""

import html
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import open_page
from conftest import require_backend
from planted import planted_model, planted_rows
from torch import Tensor

from icl_circuits import InputError
from icl_circuits.circuits import (
    Circuit,
    CircuitTest,
    cut_edges,
    evaluate_circuit,
    find_circuit,
    minimality,
    node_of,
    score_edges,
    to_json,
    to_mib,
)
from icl_circuits.circuits.find import like_any_label
from icl_circuits.interventions import from_logits, mean_z
from icl_circuits.models import LensModel, hook_points, kv_head, read_block, scores_are_live
from icl_circuits.patching import path_patch
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts, zero_shot
from icl_circuits.report import Results, write_results
from icl_circuits.residual import Edge, Embedding, Head, Label, Last, Logits, Mlp, Query, Text, all_heads, answer_logits
from icl_circuits.studies import load_results
from icl_circuits.viz import CircuitView, PromptRow, ShownRun
from icl_circuits.viz.circuit_layout import HALF, layout, x_at

FOO, BAR, LABEL_TEXT, QUERY_TEXT = Head(1, 0), Head(1, 1), Head(0, 0), Head(0, 1)


@pytest.fixture(scope="module")
def small() -> tuple[LensModel, PromptBatch]:
    require_backend("hooked")
    model = planted_model()
    return model, encode(model, sample_prompts(planted_rows(), 8, shots=1, seed=0))


# --- the planted circuit ----------------------------------------------------------------------------------------------


def test_the_planted_circuit(small: tuple[LensModel, PromptBatch]) -> None:
    """One demonstration of each label: the head of the right label reads its position, and nothing else matters."""
    model, batch = small
    circuit = find_circuit(model, batch, [FOO, BAR])
    np.testing.assert_allclose(circuit.base, 4.0, atol=1e-4)
    score = dict(zip(map(str, circuit.edges), circuit.scores, strict=True))
    gold = batch.gold.numpy()
    holds_foo = (batch.demo_labels == 0).int().argmax(1).numpy()
    for label, head in enumerate((FOO, BAR)):
        right = gold == label
        np.testing.assert_allclose(score[f"{head} -> logits"], np.where(right, 4.0, 0.0), atol=1e-4)
        np.testing.assert_allclose(score[f"{QUERY_TEXT} -> {head}.q"], np.where(right, 4.0, 0.0), atol=1e-4)
        for demo in range(2):
            read = right & ((holds_foo == demo) == (label == 0))
            for name, loss in (("k", 4.0), ("v", 2.0)):  # its score falls below that of <s>; its value is halved
                np.testing.assert_allclose(score[f"label{demo} -> {head}.{name}"], np.where(read, loss, 0.0), atol=1e-4)
    np.testing.assert_allclose(score["query -> last"], 4.0, atol=1e-4)
    for demo in range(2):
        read = (holds_foo == demo) == (gold == 0)
        np.testing.assert_allclose(score[f"text{demo} -> label{demo}"], np.where(read, 4.0, 0.0), atol=1e-4)
    strong = circuit.top(12)
    assert {str(node) for node in strong.nodes} >= {"L1H0", "L1H1", "L0H1", "query", "last", "logits"}
    assert (np.abs(strong.mean) > 0.4).all()


def test_the_planted_heads_alone(small: tuple[LensModel, PromptBatch]) -> None:
    model, batch = small
    reference = encode(model, sample_prompts(planted_rows(), 8, shots=1, seed=1))
    heads = (QUERY_TEXT, LABEL_TEXT, FOO, BAR)
    found = evaluate_circuit(model, batch, reference, heads)
    assert found.sizes == (1, 2, 4)
    np.testing.assert_allclose(found.values[0, -1], found.whole, atol=1e-5)  # nothing else does anything
    np.testing.assert_allclose(found.values[1, -1], found.empty, atol=1e-5)
    frame = found.to_frame().set_index(["curve", "size"])
    assert frame.loc[("circuit", 4), "share"] == pytest.approx(1.0)
    assert frame.loc[("complement", 4), "share"] == pytest.approx(0.0)
    assert frame.loc[("random", 1), "share"] < 0.5
    assert (minimality(model, batch, reference, heads)["loss"] > 1).all()  # each head is needed
    nothing = CircuitTest(heads, (1,), "logit_diff", found.empty, found.empty, found.values[:, :1])
    assert nothing.to_frame()["share"].isna().all()  # there is nothing to have a share of


# --- every edge against hooks written by hand -------------------------------------------------------------------------


def with_hooks(model: LensModel, batch: PromptBatch, hooks: list[Any]) -> np.ndarray:
    rows = torch.arange(len(batch))
    with torch.no_grad():
        logits = model.run_with_hooks(batch.tokens, fwd_hooks=hooks)[rows, batch.last]
    return from_logits("logit_diff", logits, batch).numpy()


def test_every_edge_equals_hooks_by_hand(model: LensModel, words: Rows) -> None:
    batch = encode(model, sample_prompts(words, 4, shots=2, seed=3))
    rows, head, demo = torch.arange(len(batch)), Head(1, 2), 1
    at = batch.label_positions
    live = scores_are_live(model)
    found = find_circuit(model, batch, [head, Head(2, 1)], n_upstream=2)
    score = dict(zip(map(str, found.edges), found.scores, strict=True))
    base = with_hooks(model, batch, [])
    np.testing.assert_allclose(found.base, base, atol=1e-4)

    def check(name: str, *hooks: tuple[str, Any]) -> None:
        np.testing.assert_allclose(score[name], base - with_hooks(model, batch, list(hooks)), atol=2e-4, err_msg=name)

    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        seen[hook.name.split("hook_")[-1]] = value.clone()

    names = [f"blocks.1.attn.hook_{site}" for site in ("pattern", "v", "attn_scores")]
    with torch.no_grad():
        model.run_with_hooks(batch.tokens, fwd_hooks=[(name, keep) for name in names])

    if live:
        row = seen["attn_scores"].softmax(-1)[rows, :, batch.last]
        torch.testing.assert_close(row, seen["pattern"][rows, :, batch.last])

    def replace_value(z: Tensor, hook: Any) -> Tensor:
        v = seen["v"][:, :, kv_head(model, head.head)]
        alpha = seen["pattern"][rows, head.head, batch.last]
        changed = v.clone()
        changed[rows, at[:, demo]] = v[rows[:, None], at].mean(1)
        z[rows, batch.last, head.head] = (alpha[:, :, None] * changed).sum(1)
        return z

    check(f"label{demo} -> {head}.v", ("blocks.1.attn.hook_z", replace_value))

    def replace_query(q: Tensor, hook: Any) -> Tensor:
        q[rows, batch.last, head.head] = q[rows, batch.last, head.head].mean(0)
        return q

    check(f"last -> {head}.q", ("blocks.1.attn.hook_q", replace_query))
    paths = path_patch(model, batch, senders=[head], receivers=(), logits=True)
    np.testing.assert_allclose(score[f"{head} -> logits"], -paths.effect[0], atol=2e-4)
    (of_mlp,) = score_edges(model, batch, [Edge(Mlp(0), head, "q")]).scores
    paths = path_patch(model, batch, senders=[Mlp(0)], receivers=[head])
    np.testing.assert_allclose(of_mlp, -paths.effect[0], atol=2e-4)
    if not live:
        assert not any(isinstance(edge.sender, Text) for edge in found.edges)

        def replace_attention(z: Tensor, hook: Any) -> Tensor:
            alpha = seen["pattern"][rows, head.head, batch.last].clone()
            alpha[rows, at[:, demo]] = alpha[rows[:, None], at].log().mean(1).exp()
            v = seen["v"][:, :, kv_head(model, head.head)]
            z[rows, batch.last, head.head] = ((alpha / alpha.sum(1, keepdim=True))[:, :, None] * v).sum(1)
            return z

        check(f"label{demo} -> {head}.k", ("blocks.1.attn.hook_z", replace_attention))
        return

    def replace_score(scores: Tensor, hook: Any) -> Tensor:
        row = scores[rows, head.head, batch.last].clone()
        row[rows, at[:, demo]] = row[rows[:, None], at].mean(1)
        scores[rows, head.head, batch.last] = row
        return scores

    check(f"label{demo} -> {head}.k", ("blocks.1.attn.hook_attn_scores", replace_score))

    def cut_text(scores: Tensor, hook: Any) -> Tensor:
        for row in range(len(batch)):
            start = int(at[row, demo - 1]) + 1
            scores[row, :, at[row, demo], start : int(at[row, demo])] = float("-inf")
        return scores

    layers = range(model.cfg.n_layers)
    check(f"text{demo} -> label{demo}", *((f"blocks.{layer}.attn.hook_attn_scores", cut_text) for layer in layers))


def test_cut_edges_change_the_metric_by_their_scores(model: LensModel, words: Rows) -> None:
    """Each edge alone as it was scored; several together as hooks by hand."""
    batch = encode(model, sample_prompts(words, 4, shots=2, seed=3))
    found = find_circuit(model, batch, [Head(1, 2), Head(2, 1)], n_upstream=2)

    def left(*edges: Edge) -> np.ndarray:
        return from_logits("logit_diff", answer_logits(model, batch, *cut_edges(model, batch, edges)), batch).numpy()

    np.testing.assert_allclose(left(), found.base, atol=1e-4)
    for edge, score in zip(found.edges, found.scores, strict=True):
        np.testing.assert_allclose(left(edge), found.base - score, atol=2e-4, err_msg=str(edge))
    assert np.abs(found.scores).max() > 0.1
    assert all(not point.fwd_hooks for point in hook_points(model).values())


def test_edges_cut_together_equal_hooks_by_hand(model: LensModel, words: Rows) -> None:
    """Two values and two scores of one head, its query without two components, and two heads out of the logits."""
    batch = encode(model, sample_prompts(words, 4, shots=2, seed=3))
    rows, head, at = torch.arange(len(batch)), Head(2, 1), batch.label_positions
    if not scores_are_live(model):
        pytest.skip("its hooks show attention after z")
    edges = [Edge(Label(demo), head, name) for demo in (0, 2) for name in ("k", "v")]
    edges += [Edge(Mlp(0), head, "q"), Edge(Head(1, 3), head, "q"), Edge(head, Logits()), Edge(Head(0, 2), Logits())]
    demos, seen = [0, 2], dict[str, Tensor]()

    def keep(value: Tensor, hook: Any, name: str) -> None:
        seen[name] = value.clone()

    def query(q: Tensor, hook: Any) -> Tensor:
        state = seen["blocks.2.hook_resid_pre"] - seen["blocks.0.hook_mlp_out"]
        state = state - seen["blocks.1.attn.hook_z"][:, :, 3] @ model.blocks[1].attn.W_O[3]
        block = read_block(model, 2, batch.tokens.shape[1])
        q[rows, batch.last, 1] = block.project("q", block.ln1(state))[rows, batch.last, 1]
        return q

    def z_of_head(z: Tensor, hook: Any) -> Tensor:
        v = seen["blocks.2.attn.hook_v"][:, :, kv_head(model, 1)].clone()
        score = seen["blocks.2.attn.hook_attn_scores"][rows, 1, batch.last]
        mean_score, mean_v = score[rows[:, None], at].mean(1), v[rows[:, None], at].mean(1)
        for demo in demos:
            score[rows, at[:, demo]], v[rows, at[:, demo]] = mean_score, mean_v
        z[rows, batch.last, 1] = (score.softmax(-1)[:, :, None] * v).sum(1)
        seen["z of the head"] = z.clone()
        return z

    def final(state: Tensor, hook: Any) -> Tensor:
        state = state - seen["z of the head"][:, :, 1] @ model.blocks[2].attn.W_O[1]
        return state - seen["blocks.0.attn.hook_z"][:, :, 2] @ model.blocks[0].attn.W_O[2]

    reads = ["blocks.2.hook_resid_pre", "blocks.0.hook_mlp_out", "blocks.1.attn.hook_z", "blocks.0.attn.hook_z"]
    reads += ["blocks.2.attn.hook_v", "blocks.2.attn.hook_attn_scores"]
    by_hand = [*((name, partial(keep, name=name)) for name in reads), ("blocks.2.attn.hook_q", query)]
    by_hand += [("blocks.2.attn.hook_z", z_of_head), ("blocks.2.hook_resid_post", final)]
    with torch.no_grad():
        expected = model.run_with_hooks(batch.tokens, fwd_hooks=by_hand)[rows, batch.last]
        logits = answer_logits(model, batch, *cut_edges(model, batch, edges))
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=0)
    assert (logits - answer_logits(model, batch)).abs().max() > 0.1


def test_what_cannot_be_cut(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 2, shots=1, seed=0))
    for edge, why in (
        (Edge(Head(2, 0), Head(1, 0), "q"), "does not lie below"),
        (Edge(Mlp(9), Logits()), "does not lie below"),
        (Edge(Label(7), Head(0, 0), "k"), "demonstrations 0..1"),
        (Edge(Label(0), Head(7, 0), "k"), "L7H0"),
    ):
        with pytest.raises(InputError, match=why):
            cut_edges(gpt2, batch, [edge])
    asks = Edge(Last(), Head(1, 0), "q")
    with pytest.raises(InputError, match="queries has none for L1H0"):
        cut_edges(gpt2, batch, [asks], queries={})
    with pytest.raises(InputError, match="give 2 prompts or more"):
        cut_edges(gpt2, batch.select([0]), [asks])


def test_a_head_alone_equals_hooks_by_hand(model: LensModel, words: Rows) -> None:
    batch, reference = (encode(model, sample_prompts(words, 3, shots=1, seed=seed)) for seed in (0, 1))
    heads = (Head(2, 1), Head(0, 3))
    found = evaluate_circuit(model, batch, reference, heads, sizes=[1, 2])
    mean = mean_z(model, reference, all_heads(model))

    def ablate(out: set[Head]) -> list[Any]:
        def hook_of(layer: int) -> Any:
            def hook(z: Tensor, hook: Any) -> Tensor:
                for head in out:
                    if head.layer == layer:
                        z[:, :, head.head] = mean[head]
                return z

            return hook

        return [(f"blocks.{layer}.attn.hook_z", hook_of(layer)) for layer in range(model.cfg.n_layers)]

    every = set(all_heads(model))
    loss = minimality(model, batch, reference, heads)["loss"]
    pair = with_hooks(model, batch, ablate(every - set(heads)))
    for i, left in enumerate(reversed(heads)):
        expected = (pair - with_hooks(model, batch, ablate(every - {left}))).mean()
        assert loss[i] == pytest.approx(expected, abs=2e-4)
    for values, out in (
        (found.values[0, 0], every - {heads[0]}),
        (found.values[0, 1], every - set(heads)),
        (found.values[1, 1], set(heads)),
        (found.empty, every),
    ):
        np.testing.assert_allclose(values, with_hooks(model, batch, ablate(out)), atol=2e-4)
    assert all(not point.fwd_hooks for point in hook_points(model).values())


def test_like_any_label() -> None:
    """Two labels attended to alike, with opposite values: each is half of the difference from the mean."""
    pattern = torch.tensor([[0.2, 0.4, 0.4]])
    v = torch.tensor([[[1.0], [2.0], [-2.0]]])
    by_score, by_value = like_any_label(pattern.log(), v, torch.tensor([[1, 2]]))
    torch.testing.assert_close(by_score, torch.full((1, 2, 1), 0.2))
    torch.testing.assert_close(by_value, torch.tensor([[[0.2 - 0.8], [0.2 + 0.8]]]))


def test_like_any_label_at_the_edges() -> None:
    """All attention on one label, as good as none on another, and a label that the head cannot see at all."""
    scores = torch.tensor([[120.0, 160.0, 80.0, float("-inf")]])
    v, at = torch.tensor([[[0.0], [1.0], [5.0], [7.0]]]), torch.tensor([[1, 2, 3]])
    by_score, by_value = like_any_label(scores, v, at)
    for demo, changed in enumerate(([120.0, 120.0, 80.0], [120.0, 160.0, 120.0])):
        expected = torch.tensor(changed).softmax(-1) @ v[0, :3]
        torch.testing.assert_close(by_score[0, demo], expected)
    torch.testing.assert_close(by_score[0, 2], torch.tensor([1.0]))  # unseen, it stays unseen
    torch.testing.assert_close(by_value[0, :, 0], torch.tensor([3.0, 1.0, 1.0]))
    only = like_any_label(torch.tensor([[-99.0, 1.0]]), torch.tensor([[[3.0], [4.0]]]), torch.tensor([[1]]))
    for z in only:
        torch.testing.assert_close(z, torch.tensor([[[4.0]]]))  # one label is like any other


# --- the value, its files, what is refused ----------------------------------------------------------------------------

CHAIN = Circuit(
    edges=(
        Edge(Text(0), Label(0)),
        Edge(Label(0), Head(3, 1), "v"),
        Edge(Label(0), Head(3, 1), "k"),
        Edge(Mlp(0), Head(3, 1), "q"),
        Edge(Head(3, 1), Logits()),
        Edge(Head(2, 0), Logits()),
    ),
    scores=np.array([[1, 3], [-4, -6], [0.5, 0.5], [0.1, 0.1], [7, 9], [0, 0.4]], dtype=np.float32),
    base=np.array([1, 2], dtype=np.float32),
    metric="logit_diff",
    shape={"n_layers": 4, "n_heads": 2, "d_model": 8, "parallel_attn_mlp": False},
    provenance={"name": "chain"},
)


def test_choosing_edges() -> None:
    assert [str(node) for node in CHAIN.nodes] == ["text0", "label0", "MLP0", "L2H0", "L3H1", "logits"]
    assert CHAIN.heads == (Head(2, 0), Head(3, 1))
    assert [str(edge) for edge in CHAIN.top(3).edges] == ["text0 -> label0", "label0 -> L3H1.v", "L3H1 -> logits"]
    assert CHAIN.above(0.5).edges == CHAIN.edges[:3] + CHAIN.edges[4:5]
    no_end = CHAIN.above(3.0).above(6.0)
    assert [str(edge) for edge in no_end.edges] == ["L3H1 -> logits"]
    dangling = Circuit(CHAIN.edges[:4], CHAIN.scores[:4], CHAIN.base, "logit_diff", CHAIN.shape)
    assert dangling.top(4).edges == ()  # nothing leads to the logits
    frame = CHAIN.to_frame()
    assert frame["score"].tolist() == pytest.approx([8, -5, 2, 0.5, 0.2, 0.1])
    with pytest.raises(InputError, match="keep at least 1"):
        CHAIN.top(0)


def test_files(tmp_path: Path) -> None:
    write_results(Results({}, {"c": CHAIN}), tmp_path / "c.safetensors", (Circuit,))
    loaded = load_results(tmp_path / "c.safetensors").values["c"]
    assert loaded.edges == CHAIN.edges
    np.testing.assert_array_equal(loaded.scores, CHAIN.scores)
    np.testing.assert_array_equal(loaded.base, CHAIN.base)
    assert (loaded.metric, loaded.shape, loaded.provenance) == (CHAIN.metric, CHAIN.shape, CHAIN.provenance)


def test_the_json_format() -> None:
    found = json.loads(json.dumps(to_json(CHAIN)))
    assert found["base"] == [1, 2]
    assert (found["metric"], found["shape"], found["provenance"]) == (CHAIN.metric, CHAIN.shape, CHAIN.provenance)
    assert found["edges"][1] == {
        "sender": {"kind": "label", "layer": None, "index": 0},
        "receiver": {"kind": "head", "layer": 3, "index": 1},
        "input": "v", "score": -5, "scores": [-4, -6],
    }  # fmt: skip
    assert found["edges"][3]["sender"] == {"kind": "mlp", "layer": 0, "index": None}
    assert found["edges"][5]["receiver"] == {"kind": "logits", "layer": None, "index": None}
    with pytest.raises(InputError, match="not finite"):
        to_json(replace(CHAIN, scores=np.full_like(CHAIN.scores, np.nan)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "plain",
    [
        None, 3, [], "head", {}, {"kind": "head"}, {"kind": ["head"], "layer": 0, "index": 1},
        {"kind": "none", "layer": None, "index": 1}, {"kind": "head", "layer": 0, "index": None},
        {"kind": "head", "layer": 0, "index": -1}, {"kind": "head", "layer": 0, "index": True},
        {"kind": "text", "layer": 3, "index": None}, {"kind": "mlp", "layer": 10**30, "index": None},
    ],
)  # fmt: skip
def test_what_is_no_node(plain: Any) -> None:
    with pytest.raises(InputError, match="is no node of a circuit: give its kind, layer and index"):
        node_of(plain)


def test_the_mib_format() -> None:
    found = to_mib(CHAIN)
    assert found["cfg"] == CHAIN.shape
    assert list(found["nodes"])[:4] == ["input", "a0.h0", "a0.h1", "m0"]
    assert {name for name, node in found["nodes"].items() if node["in_graph"]} == {
        "input", "m0", "a2.h0", "a3.h1", "logits",
    }  # fmt: skip
    assert {name: edge["score"] for name, edge in found["edges"].items()} == pytest.approx(
        {"m0->a3.h1<q>": 0.1, "a3.h1->logits": 8, "a2.h0->logits": 0.2}  # no positions there
    )


def test_what_is_refused(gpt2: LensModel, words: Rows) -> None:
    prompts = sample_prompts(words, 2, shots=1, seed=0)
    batch = encode(gpt2, prompts)
    with pytest.raises(InputError, match="use 1 shot or more"):
        find_circuit(gpt2, encode(gpt2, [zero_shot(prompt) for prompt in prompts]), [Head(0, 0)])
    with pytest.raises(InputError, match="0 or more"):
        find_circuit(gpt2, batch, [Head(0, 0)], n_upstream=-1)
    for edge, why in (
        (Edge(Label(7), Head(0, 0), "k"), "demonstrations 0..1"),
        (Edge(Text(0), Label(1)), "none that a circuit has"),
        (Edge(Head(2, 0), Head(1, 0), "q"), "does not lie below"),
    ):
        with pytest.raises(InputError, match=why):
            score_edges(gpt2, batch, [edge, Edge(Head(1, 0), Head(2, 0), "q")])
    with pytest.raises(InputError, match="give 2 prompts or more"):
        find_circuit(gpt2, batch.select([0]), [Head(0, 0)])
    with pytest.raises(InputError, match="name each head once"):
        find_circuit(gpt2, batch, [Head(0, 0), Head(0, 0)])
    with pytest.raises(InputError, match="name each head once"):
        evaluate_circuit(gpt2, batch, batch, [Head(0, 0), Head(0, 0)])
    with pytest.raises(InputError, match="between 1 and 1"):
        evaluate_circuit(gpt2, batch, batch, [Head(0, 0)], sizes=[2])
    with pytest.raises(InputError, match="at least 1"):
        evaluate_circuit(gpt2, batch, batch, [Head(0, 0)], n_random=0)


# --- the page ---------------------------------------------------------------------------------------------------------

HOSTILE = (
    "</script><b>x",
    "\"'`&lt;",
    "a\u2028b\u2029",
    "\u202eright to left \u05d0",
    "\U0001f600 \u0301",
    "nul\x00\x08\x1b\ud800",
)


def hostile_view() -> CircuitView:
    """A circuit whose every string is hostile."""
    heads = (Head(1, 0), Head(2, 1))
    edges = [Edge(Text(i), Label(i)) for i in range(2)]
    edges += [Edge(Label(i), h, name) for h in heads for name in ("k", "v") for i in range(2)]
    edges += [Edge(Query(), Last()), Edge(Embedding(), heads[1], "q")]
    edges += [Edge(Last(), heads[0], "q"), *(Edge(head, Logits()) for head in heads)]
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(len(edges), 2)).astype(np.float32)
    shape = {"n_layers": 3, "n_heads": 2, "d_model": 4, "parallel_attn_mlp": False}
    circuit = Circuit(tuple(edges), scores, np.ones(2, np.float32), "logit_diff", shape, {"name": HOSTILE[0]})
    pattern = np.tril(np.ones((2, 6, 6), np.float32)) / np.arange(1, 7)[:, None]
    runs = [
        ShownRun(
            title=f"Prompt 1 {HOSTILE[1]}", version=version, tokens=HOSTILE,
            row=PromptRow((HOSTILE[0] * 9, HOSTILE[3], HOSTILE[5]), (0, 1)), answer=HOSTILE[0], right=True, base=0.5,
            scores=scores[:, i], attention=np.full((2, 2), 0.25), raw=rng.normal(size=(2, 2)),
            towers=np.stack([rng.normal(size=(2, 2)), np.full((2, 2), np.nan)]),
            top=tuple((HOSTILE, HOSTILE) for _ in heads), patterns=pattern,
        )
        for i, version in enumerate(("original", "labels reversed"))
    ]  # fmt: skip
    values = rng.normal(size=(3, 2, 2)).astype(np.float32)
    test = CircuitTest(heads, (1, 2), HOSTILE[3], circuit.base, circuit.base - 1, values)
    return CircuitView(circuit, heads, (HOSTILE[0], HOSTILE[1]), HOSTILE[:2], tuple(runs), HOSTILE[4], circuit, test)


DRIVE = """
<script>
document.querySelector('[name=version][value="labels reversed"]').click();
document.querySelector('[name=mode][value=weighted]').click();
for (const node of document.querySelectorAll(".node")) {
  node.focus();
  node.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
  const button = document.querySelector("#panel button");
  if (button) button.click();
}
document.getElementById("shown").value = 3;
document.getElementById("shown").dispatchEvent(new Event("input"));
</script>
"""


@pytest.mark.slow
def test_the_page_with_hostile_strings(tmp_path: Path, chromium: str) -> None:
    view = hostile_view()
    view.save(tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    (tmp_path / "driven.html").write_text(page.replace("</body>", DRIVE + "</body>"), encoding="utf-8")
    opened = open_page(chromium, tmp_path / "driven.html")
    assert opened.console == []
    assert opened.count("b") == 0
    assert opened.count("canvas") >= 1  # the head's attention is drawn
    assert '<section id="opened">' in opened.dom  # no longer hidden
    assert "labels reversed</h2>" in opened.dom
    assert "<td>not measured</td>" in opened.dom
    assert opened.dom.count('visibility="visible"') == 3
    assert re.search(r'<td data-score="0">[+\u2212]\d', opened.dom)
    assert view._repr_svg_() == view.to_svg()
    frame = view._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts"')
    assert "<script" not in frame  # all of the page is inside an attribute
    (tmp_path / "notebook.html").write_text(f"<html><body>{frame}</body></html>", encoding="utf-8")
    assert open_page(chromium, tmp_path / "notebook.html").console == []


def test_a_view_that_does_not_fit_is_refused() -> None:
    view = hostile_view()
    with pytest.raises(InputError, match="make a new view for it"):
        replace(view, circuit=view.circuit.top(2), reversed=view.circuit.top(2))
    with pytest.raises(InputError, match="score the same edges"):
        replace(view, circuit=view.circuit.top(2))
    with pytest.raises(InputError, match="give it among the heads"):
        replace(view, heads=view.heads[:1])
    empty = view.circuit.above(99.0)
    assert empty.to_frame().empty
    runs = tuple(replace(run, scores=run.scores[:0]) for run in view.runs)
    assert "0 edges" in replace(view, circuit=empty, reversed=empty, runs=runs).to_html()


def test_edges_pass_beside_nodes() -> None:
    """Forty heads in five layers, and edges from every label to all of them: none touches a node but its ends."""
    heads = [Head(layer, head) for layer in range(5) for head in range(8)]
    edges = [Edge(Label(demo), head, name) for head in heads for demo in range(8) for name in ("k", "v")]
    edges += [Edge(head, Logits()) for head in heads] + [Edge(Last(), head, "q") for head in heads]
    edges += [Edge(Embedding(), head, "q") for head in heads] + [Edge(heads[0], head, "q") for head in heads[8:]]
    scores = np.ones((len(edges), 2), np.float32)
    circuit = Circuit(tuple(edges), scores, scores[0], "logit_diff", {"n_layers": 5, "n_heads": 8})
    widths = {node: 80.0 for node in circuit.nodes if isinstance(node, Head | Embedding)}
    at = layout(circuit, 8, widths, 44.0, 60.0)
    assert max(x for x, _ in at.place.values()) < at.width
    for edge in edges:
        points = at.points(edge)
        (low, high), ends = (points[-1][1], points[0][1]), {edge.sender, edge.receiver}
        for node, width in widths.items():
            x, y = at.place[node]
            for height in np.linspace(y - HALF, y + HALF, 11) if node not in ends else ():
                inside = low < height < high and abs(x_at(points, float(height)) - x) < width / 2
                assert not inside, (str(edge), str(node))


def test_long_labels_are_numbers_that_the_drawing_explains() -> None:
    view = hostile_view()
    labels = ("a label of many words", "short")
    drawing = replace(view, labels=labels, head_labels=labels).to_svg()
    shown = re.sub("<title>.*?</title>", "", drawing)
    assert "(1) a label of many words</text>" in shown
    assert ">L1H0 (1)</text>" in shown
    assert ">L2H1 short</text>" in shown
    assert "\u2026</text>" not in re.sub(r'<g class="prompt".*?</g></g>', "", shown, flags=re.DOTALL).split("node")[-1]


def test_the_panel_tells_the_edges_of_a_node_by_effect(tmp_path: Path, chromium: str) -> None:
    view = hostile_view()
    page, pin = view.to_html(), "<script>pin('L1H0');</script></body>"
    (tmp_path / "p.html").write_text(page.replace("</body>", pin), encoding="utf-8")
    opened = open_page(chromium, tmp_path / "p.html")
    assert opened.console == []
    panel = opened.dom.split('id="panel"')[1].split("</aside>")[0]
    told = [float(value.replace("\u2212", "-")) for value in re.findall(r'class="number">([+\u2212][\d.]+)<', panel)]
    own = [i for i, edge in enumerate(view.circuit.edges) if Head(1, 0) in (edge.sender, edge.receiver)]
    expected = sorted(view.runs[0].scores[own], key=abs, reverse=True)
    np.testing.assert_allclose(told, expected, atol=6e-4)


def test_a_narrow_page_shows_all_and_only_layers_in_use(tmp_path: Path, chromium: str) -> None:
    """At 700 pixels nothing is off-screen; a layer has a line where one of its nodes is seen."""
    look = r"""<script>
      const box = document.querySelector(".wide"), drawn = (kind) => [...svg.querySelectorAll(kind)];
      const seen = drawn(".node:not([visibility=hidden])").map((node) => node.dataset.node.match(/^(?:L|MLP)(\d+)/));
      const layers = [...new Set(seen.filter((one) => one).map((one) => one[1]))].sort();
      const lines = drawn(".tick:not([visibility=hidden])").map((tick) => tick.dataset.layer).sort();
      const wide = box.scrollWidth - box.clientWidth;
      document.title = JSON.stringify([wide, layers, lines, drawn(".tick").length]);
    </script></body>"""
    few = "<script>$('shown').value = 2; widths();</script></body>"
    (tmp_path / "p.html").write_text(hostile_view().to_html().replace("</body>", few).replace("</body>", look))
    opened = open_page(chromium, tmp_path / "p.html", width=700)
    assert opened.console == []
    title = re.search("<title>(.*?)</title>", opened.dom, re.DOTALL)
    assert title is not None
    wide, layers, lines, n_lines = json.loads(html.unescape(title.group(1)))
    assert wide == 0
    assert lines == layers
    assert 0 < len(lines) < n_lines


def test_the_drawing(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    view = hostile_view()
    root = ElementTree.fromstring(view.to_svg(n_edges=5))
    edges = [element for element in root.iter() if "data-edge" in element.attrib]
    assert len(edges) == 5
    assert not any("visibility" in element.attrib for element in root.iter())  # nothing is there that is not seen
    shown = edges
    negative = {int(e.attrib["data-edge"]) for e in shown if "stroke-dasharray" in e.attrib}
    assert negative == {i for i in (int(e.attrib["data-edge"]) for e in shown) if view.runs[0].scores[i] < 0}
    assert view.to_svg(1) != view.to_svg(0)
    for run, n_edges in ((2, 5), (0, 0)):
        with pytest.raises(InputError, match="give a run of 0..1"):
            view.to_svg(run, n_edges=n_edges)
