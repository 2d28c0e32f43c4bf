"""Two towers: what the planted circuit must give exactly, and every formula against the model's own hooks."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import loaded
from planted import GAIN, SHARP, planted_rows
from test_engine import SPECIAL, special
from torch import Tensor

from icl_circuits import InputError
from icl_circuits.heads import log_prob_increase
from icl_circuits.interventions import KnockOut, WithoutPosition, intervene
from icl_circuits.models import LensModel, kv_head, readout
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts, zero_shot
from icl_circuits.residual import Capture, Head, answer_logits
from icl_circuits.stats import relative_change
from icl_circuits.studies.towers.tables import control_table
from icl_circuits.towers import (
    TwoTowers,
    class_auc,
    knock_out_flow,
    label_features,
    metric_learning,
    ov_circuits,
    probe_flow,
    qk_spectrum,
    reversal,
    split_change,
    tower_reads,
    tower_tokens,
    two_towers,
    value_output,
)
from icl_circuits.towers.flow import ROUTES, route_edges
from icl_circuits.towers.ov_weights import effective_rank

FOOHEAD, BARHEAD = Head(1, 0), Head(1, 1)
COLLECTS_AT_LABELS, COLLECTS_QUERY = Head(0, 0), Head(0, 1)
SHOTS = 2
HEADS = (Head(0, 1), Head(1, 0), Head(1, 1))


@pytest.fixture
def planted_batch(planted: LensModel) -> PromptBatch:
    return encode(planted, sample_prompts(planted_rows(), 8, shots=SHOTS, seed=1))


# --- the planted circuit ----------------------------------------------------------------------------------------------


def test_planted_label_features(planted: LensModel, planted_batch: PromptBatch) -> None:
    found = label_features(planted, planted_batch, [FOOHEAD, BARHEAD])
    for row, gold in enumerate(planted_batch.gold.tolist()):
        held = planted_batch.demo_labels[row].numpy()
        for place in (0, 1):
            at_labels = found.at_labels(found.attention)[row, place]
            np.testing.assert_allclose(at_labels, ((held == place) & (gold == place)) / SHOTS, atol=1e-6)
        minus = found.at_labels(found.logit_minus())[row]
        np.testing.assert_allclose(minus[0], GAIN * (held == 0), atol=1e-6)
        np.testing.assert_allclose(minus[1], -GAIN * (held == 1), atol=1e-6)
    np.testing.assert_allclose(
        found.weighted_logit_minus(), found.attention * found.logit_minus(), atol=1e-6, equal_nan=True
    )
    np.testing.assert_allclose(found.copying(), 0.5)  # each head raises its own label, and says nothing of the other
    frame = found.to_frame()
    foo = frame[(frame["layer"] == 1) & (frame["head"] == 0) & (frame["positions"] == "foo")].iloc[0]
    assert foo["logit_minus"] == pytest.approx(GAIN)
    assert foo["attention"] == pytest.approx(1 / SHOTS / 2)  # half of the prompts have the answer foo
    assert foo["weighted_logit_minus"] == pytest.approx(GAIN / SHOTS / 2)


def test_planted_ov_circuits(planted: LensModel) -> None:
    found = ov_circuits(planted, [FOOHEAD, BARHEAD, COLLECTS_QUERY])
    np.testing.assert_allclose(found.copying_score, [1, 1, 0], atol=1e-4)
    np.testing.assert_allclose(found.singular_values[:2, 0], GAIN, rtol=1e-5)
    np.testing.assert_allclose(found.singular_values[:2, 1:], 0, atol=1e-5)
    assert found.to_frame()["effective_rank"].iloc[0] == pytest.approx(1, abs=1e-3)


def test_planted_towers(planted: LensModel, planted_batch: PromptBatch) -> None:
    """A head's score counts two matches: of the text's class with the query's, and of the label with its own."""
    found = two_towers(planted, planted_batch, [FOOHEAD, BARHEAD])
    held = planted_batch.demo_labels.numpy()
    for place in (0, 1):
        expected = SHARP * (found.same_class.astype(float) + (held == place))
        np.testing.assert_allclose(found.score[:, place], expected, atol=1e-4)
        np.testing.assert_allclose(found.content_score[:, place], expected, atol=1e-4)
    learned = metric_learning(found)
    gold = planted_batch.gold.numpy()
    for place in (0, 1):
        np.testing.assert_allclose(learned.auc[:, place], np.where(gold == place, 1.0, 0.5))
        np.testing.assert_allclose(learned.auc_content[:, place], learned.auc[:, place])
    assert learned.auc_shuffled.mean() == pytest.approx(0.5, abs=0.05)
    frame = learned.to_frame()
    assert frame["auc"].tolist() == [0.75, 0.75]
    assert (frame["p_corrected"] < 0.01).all()
    assert (frame["auc_shuffled_high"] < 0.75).all()


def test_planted_spectrum(planted: LensModel, planted_batch: PromptBatch) -> None:
    """W_QK compares two classes; the query's own bias reads the label: of centred keys, two directions at most."""
    found = qk_spectrum(planted, two_towers(planted, planted_batch, [FOOHEAD]))
    np.testing.assert_allclose(found.weights[0, :2], SHARP, rtol=1e-4)
    np.testing.assert_allclose(found.weights[0, 2:], 0, atol=1e-3)
    assert (found.features[0, :2] > 1).all()
    np.testing.assert_allclose(found.features[0, 2:], 0, atol=1e-2)


def test_planted_reads(planted: LensModel, planted_batch: PromptBatch) -> None:
    """The query tower reads the query's class from the head that collects it; the key tower the text's class."""
    found = tower_reads(planted, planted_batch, [FOOHEAD])
    match, is_foo = SHARP * found.same_class, SHARP * (planted_batch.demo_labels.numpy() == 0)
    expected = np.zeros_like(found.by_component)
    names = list(map(str, found.components))
    expected[0, :, 0, :, names.index(str(COLLECTS_QUERY))] = match
    expected[0, :, 0, :, names.index("bias")] = is_foo
    expected[1, :, 0, :, names.index(str(COLLECTS_AT_LABELS))] = match
    expected[1, :, 0, :, names.index("embed")] = is_foo
    np.testing.assert_allclose(found.by_component, expected, atol=1e-3)
    by_source = np.zeros_like(found.by_source)
    rows, demos = np.indices(match.shape)
    by_source[0][rows, 0, demos, planted_batch.last.numpy()[:, None] - 1] = match
    labels = planted_batch.label_positions.numpy()
    by_source[1][rows, 0, demos, labels - 2] = match
    by_source[1][rows, 0, demos, labels] += is_foo
    np.testing.assert_allclose(found.by_source, by_source, atol=1e-3)
    frame = found.to_frame()
    query = frame[frame["side"] == "query"].set_index("component")["class_gap"]
    assert query[str(COLLECTS_QUERY)] == pytest.approx(SHARP, abs=1e-3)
    assert query.drop([str(COLLECTS_QUERY), "bias"]).abs().max() == pytest.approx(0, abs=1e-3)


def test_planted_tokens(planted: LensModel, planted_batch: PromptBatch) -> None:
    prompt = int((planted_batch.gold == 0).nonzero()[0])
    frame = tower_tokens(planted, planted_batch, [FOOHEAD], prompt=prompt, n_tokens=1)
    values = frame[(frame["kind"] == "value") & (frame["attention"] > 0.1)]
    assert len(values) == SHOTS
    assert values["top"].tolist() == [("foo",)] * SHOTS
    assert set(frame["kind"]) == {"value", "key", "query", "input"}
    assert frame[frame["kind"] == "query"]["position"].tolist() == [int(planted_batch.last[prompt])]


def test_planted_flow(planted: LensModel, planted_batch: PromptBatch) -> None:
    """Texts flow in layer 0, labels in layer 1, and no demonstration's text goes straight to the last position."""
    flow = knock_out_flow(planted, planted_batch)
    assert flow.layers == (0, 1, 2)
    accuracy = dict(zip(flow.routes, flow.cut.top1.mean(axis=2).tolist(), strict=True))
    assert accuracy == {
        "text -> label": [0, 1, 1], "query -> last": [0, 1, 1], "near -> last": [1, 1, 1], "far -> last": [1, 1, 1],
        "labels -> last": [0, 0, 1],
    }  # fmt: skip
    assert flow.base.top1.all()
    assert len(flow.to_frame()) == 5 * 3


def test_planted_probe(planted: LensModel) -> None:
    train, test = (encode(planted, sample_prompts(planted_rows(), 24, shots=SHOTS, seed=s)) for s in (2, 3))
    frame = probe_flow(planted, train, test).to_frame().set_index(["probe", "layer"])["accuracy"]
    assert frame["text at its label"].tolist()[1:] == [1, 1]
    assert frame["query at last"].tolist()[1:] == [1, 1]
    assert frame["query at last", 0] < 0.8
    assert frame["text at its label", 0] < 0.8


def test_planted_reversal(planted: LensModel, planted_batch: PromptBatch) -> None:
    """All of the flip is attention's: the foohead no longer attends, its values at foo stay what they were."""
    found = reversal(planted, planted_batch, [FOOHEAD, BARHEAD])
    assert found.flips.all()
    assert (found.original.gold == 0).all()
    assert (found.reversed.gold == 1).all()
    assert found.relative_change("attention", 0, 0).mean == pytest.approx(-1)
    assert found.relative_change("logit_minus", 0, 0).mean == pytest.approx(0)
    assert found.relative_change("logit_minus", 0, 0, "slots").mean == pytest.approx(-1)
    before, after = found.at("attention", 1, "holders")
    np.testing.assert_allclose(before[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(after[:, 1], 1 / SHOTS, atol=1e-6)
    frame = found.to_frame()
    row = frame[(frame["head"] == 0) & (frame["positions"] == "foo") & (frame["reading"] == "holders")].iloc[0]
    assert row["attention_part"] == pytest.approx(-GAIN / SHOTS)
    assert row["value_part"] == pytest.approx(0, abs=1e-6)
    assert row["pairs"] == len(planted_batch)
    barhead = found.of_heads([1])
    assert barhead.original.heads == (BARHEAD,)
    np.testing.assert_array_equal(barhead.at("attention", 1, "holders")[1][:, 0], after[:, 1])


# --- every formula on every architecture ------------------------------------------------------------------------------


def test_value_outputs_add_up_to_the_head(model: LensModel, batch: PromptBatch) -> None:
    head = Head(1, 1)
    raw, weighted = value_output(model, batch, head)
    seen = Capture([("z", head.layer), ("pattern", head.layer)], batch.last)
    final = Capture([("resid_post", model.cfg.n_layers - 1)], batch.last)
    answer_logits(model, batch, seen, final)
    W_O = model.blocks[head.layer].attn.W_O[head.head]
    torch.testing.assert_close(weighted.sum(1), seen.found["z", 1][:, head.head] @ W_O)
    out, found = readout(model), label_features(model, batch, [head])
    scale = out.norm.scale(next(iter(final.found.values())))[:, None]
    text = batch.is_text.numpy()
    for vectors, values in ((raw, found.logit_minus()), (weighted, found.weighted_logit_minus())):
        logits = out.project(vectors, scale)[..., batch.label_tokens]
        np.testing.assert_allclose(values[:, 0][text], (logits[..., 0] - logits[..., 1])[text], atol=1e-5)
    assert np.isnan(found.attention[:, 0][~text]).all()


def test_scores_are_the_models_own(model: LensModel, batch: PromptBatch) -> None:
    """The scores, softmaxed with what else there is to see, are the model's attention; the parts add up to them."""
    towers = two_towers(model, batch, HEADS)
    seen = Capture([("attn_scores", 0), ("attn_scores", 1)], batch.last)
    if getattr(model, "icl_scores_are_live", True):
        answer_logits(model, batch, seen)
        for place, (layer, head) in enumerate(HEADS):
            scores = seen.found["attn_scores", layer][:, head].gather(1, batch.label_positions)
            np.testing.assert_allclose(towers.score[:, place], scores.numpy(), atol=1e-5)
    relative = towers.score - np.log(towers.attention)  # the softmax's normaliser, one for each prompt and head
    np.testing.assert_allclose(relative, relative[..., :1].repeat(relative.shape[2], 2), atol=1e-4)
    reads = tower_reads(model, batch, HEADS)
    np.testing.assert_allclose(reads.score, towers.score, atol=1e-5)
    for side in (0, 1):
        np.testing.assert_allclose(reads.by_component[side].sum(-1), towers.score, atol=1e-5)
        by_source = reads.by_source[side].sum(-1) + reads.by_component[side][..., -1]
        np.testing.assert_allclose(by_source, towers.score, atol=1e-5)


def test_what_a_component_adds_is_what_is_lost_without_it(model: LensModel, batch: PromptBatch) -> None:
    """A head's part of the query side: the score that goes when its output is taken off the query's input."""
    head, writer = Head(1, 0), Head(0, 1)
    reads = tower_reads(model, batch, [head])
    part = reads.by_component[0, :, 0, :, reads.components.index(writer)]
    seen = Capture([("z", 0), ("resid_pre", 1)], batch.last)
    answer_logits(model, batch, seen)
    from icl_circuits.models import attention_weights, read_block

    block, weights = read_block(model, 1, batch.tokens.shape[1]), attention_weights(model, 1)
    written = seen.found["z", 0][:, writer.head] @ attention_weights(model, 0).W_O[writer.head]
    resid = seen.found["resid_pre", 1]
    normed = (written - written.mean(-1, keepdim=True) * block.ln1.centred) / block.ln1.scale(resid) * block.ln1.weight
    q = block.rotary(_as_heads(normed @ weights.W_Q[0]), batch.last[:, None]) if block.rotary else None
    q = _as_heads(normed @ weights.W_Q[0]) if q is None else q
    keys = Capture([("k", 1)], batch.label_positions)
    answer_logits(model, batch, keys)
    k = block.turned("k", keys.found["k", 1], batch.label_positions)[:, :, kv_head(model, 0)]
    np.testing.assert_allclose(part, ((q[:, 0] * k).sum(-1) / block.scale).numpy(), atol=1e-5)


def _as_heads(q: Tensor) -> Tensor:
    return q[:, None, None]


def test_without_position(model: LensModel, batch: PromptBatch) -> None:
    """Against scores written here from the model's cache, and, where TransformerLens turns queries and keys at a hook
    point of its own, against hooks that put the unturned ones there."""
    layer, n_heads = 1, model.cfg.n_heads
    heads = tuple(Head(layer, head) for head in range(n_heads))
    if not getattr(model, "icl_scores_are_live", True):
        with pytest.raises(InputError, match="does not compute with the attention scores"):
            answer_logits(model, batch, WithoutPosition(heads))
        return
    _, cache = model.run_with_cache(batch.tokens)
    learned = "gpt2" in str(model.cfg.model_name)
    q, k = _without_learned_positions(model, cache, layer) if learned else _unturned(cache, layer, n_heads)
    content = q @ k.transpose(-1, -2) / math.sqrt(model.cfg.d_head)

    def replaced(scores: Tensor, hook: Any) -> Tensor:
        return torch.where(torch.ones_like(scores).tril().bool(), content, scores)

    rows = torch.arange(len(batch))
    hooks = [(f"blocks.{layer}.attn.hook_attn_scores", replaced)]
    expected = model.run_with_hooks(batch.tokens, fwd_hooks=hooks)[rows, batch.last]
    plain, found = answer_logits(model, batch), answer_logits(model, batch, WithoutPosition(heads))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 1e-3
    torch.testing.assert_close(answer_logits(model, batch, WithoutPosition(heads, 0.0)), plain)
    if f"blocks.{layer}.attn.hook_rot_q" in cache and cache[f"blocks.{layer}.attn.hook_rot_q"].ndim == 4:
        rotary = []
        for n in ("q", "k"):
            raw, turned = cache[f"blocks.{layer}.attn.hook_{n}"], cache[f"blocks.{layer}.attn.hook_rot_{n}"]
            value = raw if turned.shape == raw.shape else raw.transpose(1, 2)
            rotary.append((f"blocks.{layer}.attn.hook_rot_{n}", lambda x, hook, value=value: value))
        by_rotary = model.run_with_hooks(batch.tokens, fwd_hooks=rotary)[rows, batch.last]
        torch.testing.assert_close(found, by_rotary, atol=1e-4, rtol=1e-4)


def _unturned(cache: Any, layer: int, n_heads: int) -> list[Tensor]:
    found = []
    for n in ("q", "k"):
        x = cache[f"blocks.{layer}.attn.hook_{n}"]
        found.append(x.repeat_interleave(n_heads // x.shape[2], 2).transpose(1, 2))
    return found


def _without_learned_positions(model: LensModel, cache: Any, layer: int) -> list[Tensor]:
    """Queries and keys from the residual stream less W_pos, under the norm's own scale."""
    ln1, attn = model.blocks[layer].ln1, model.blocks[layer].attn
    x = cache[f"blocks.{layer}.hook_resid_pre"]
    sigma = (x.var(-1, unbiased=False, keepdim=True) + model.cfg.eps).sqrt()
    less = x - cache["hook_pos_embed"]
    w, b = (getattr(ln1, a) if hasattr(ln1, a) else getattr(ln1, f) for a, f in (("w", "weight"), ("b", "bias")))
    normed = (less - less.mean(-1, keepdim=True)) / sigma * w + b
    return [
        torch.einsum("bpm,hmd->bhpd", normed, W) + bias[:, None]
        for W, bias in ((attn.W_Q, attn.b_Q), (attn.W_K, attn.b_K))
    ]


def test_knock_out_is_a_mask(model: LensModel, batch: PromptBatch) -> None:
    if not getattr(model, "icl_scores_are_live", True):
        with pytest.raises(InputError, match="does not compute with the attention scores"):
            knock_out_flow(model, batch)
        return
    edges = route_edges(batch, "labels -> last")
    capture = Capture([("pattern", 0), ("pattern", 1)], batch.last)
    with intervene(model, KnockOut((1,), edges), capture):
        model(batch.tokens)
    cut = capture.found["pattern", 1].gather(2, batch.label_positions[:, None].expand(-1, model.cfg.n_heads, -1))
    assert (cut == 0).all()
    torch.testing.assert_close(capture.found["pattern", 1].sum(-1), torch.ones(len(batch), model.cfg.n_heads))
    kept = capture.found["pattern", 0].gather(2, batch.label_positions[:, None].expand(-1, model.cfg.n_heads, -1))
    assert (kept > 0).all()


@pytest.mark.parametrize("name", ["gemma2", "qwen3"])
def test_normed_queries_and_capped_scores(tmp_path: Path, words: Rows, name: str) -> None:
    """Scores are the model's own behind norms of queries and keys and soft caps; sums that do not hold are refused."""
    config, more = SPECIAL[name]
    special_model = loaded(special(tmp_path, config, **more), "bridge")
    batch = encode(special_model, sample_prompts(words, 3, shots=2))
    towers = two_towers(special_model, batch, HEADS)
    seen = Capture([("attn_scores", 0), ("attn_scores", 1)], batch.last)
    answer_logits(special_model, batch, seen)
    for place, (layer, head) in enumerate(HEADS):
        scores = seen.found["attn_scores", layer][:, head].gather(1, batch.label_positions).numpy()
        visible = scores > -1e4  # a sliding window hides the first labels
        np.testing.assert_allclose(towers.score[:, place][visible], scores[visible], atol=1e-5)
    assert (
        answer_logits(special_model, batch, WithoutPosition(HEADS)) - answer_logits(special_model, batch)
    ).abs().max() > 1e-4
    with pytest.raises(InputError, match="caps its attention scores" if name == "gemma2" else "norms its queries"):
        tower_reads(special_model, batch, HEADS)


# --- edges, statistics, bad input -------------------------------------------------------------------------------------


def test_routes_cover_what_they_say(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 2, shots=1, seed=0), prepend_bos=False)
    edges = {route: route_edges(batch, route) for route in ROUTES}
    first, second = batch.label_positions[0].tolist()
    last = int(batch.last[0])
    to_last = {route: set(found[0, last].nonzero()[:, 0].tolist()) for route, found in edges.items()}
    assert to_last["text -> label"] == set()
    assert to_last["query -> last"] == set(range(second + 1, last))
    assert to_last["near -> last"] == set(range(first + 1, second))
    assert to_last["far -> last"] == set(range(first))
    assert to_last["labels -> last"] == {first, second}
    assert set(edges["text -> label"][0, second].nonzero()[:, 0].tolist()) == set(range(first + 1, second))
    assert not edges["text -> label"][0, last - 1].any()
    with_bos = encode(gpt2, batch.prompts, prepend_bos=True)
    assert not route_edges(with_bos, "far -> last")[:, :, 0].any()


def test_class_auc_counts_pairs() -> None:
    scores = np.array([[[3.0, 1.0, 2.0, 2.0]]])
    assert class_auc(scores, np.array([[True, False, True, False]])).item() == (1 + 1 + 1 + 0.5) / 4
    assert np.isnan(class_auc(scores, np.array([[True] * 4]))).all()


def test_split_change_is_exact() -> None:
    rng = np.random.default_rng(0)
    a0, a1, m0, m1 = rng.normal(size=(4, 100))
    attention, value = split_change((a0, a1), (m0, m1))
    np.testing.assert_allclose(attention + value, a1 * m1 - a0 * m0)
    np.testing.assert_allclose(split_change((a0, a0), (m0, m1))[0], 0)


def test_relative_change_needs_something_to_be_relative_to() -> None:
    before = np.array([1.0, 1.2, 0.8, 1.0])
    assert relative_change(before, 3 * before).mean == pytest.approx(2)
    assert relative_change(-before, -3 * before).mean == pytest.approx(-2)
    assert np.isnan(relative_change(before - 1, before).mean)
    assert np.isnan(relative_change(before[:0], before[:0]).mean)


def test_effective_rank() -> None:
    assert effective_rank(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert effective_rank(np.zeros(3)) == 0


def test_bad_input(gpt2: LensModel, words: Rows) -> None:
    prompts = sample_prompts(words, 3, shots=1, seed=0)
    batch = encode(gpt2, prompts)
    with pytest.raises(InputError, match="name at least one"):
        label_features(gpt2, batch, [])
    with pytest.raises(InputError, match="L9H9 does not exist"):
        two_towers(gpt2, batch, [Head(9, 9)])
    with pytest.raises(InputError, match="layer 7 does not exist"):
        knock_out_flow(gpt2, batch, layers=[7])
    none = encode(gpt2, [zero_shot(prompt) for prompt in prompts])
    for study in (
        lambda: knock_out_flow(gpt2, none),
        lambda: probe_flow(gpt2, none, none),
        lambda: two_towers(gpt2, none, [Head(0, 0)]),
        lambda: tower_reads(gpt2, none, [Head(0, 0)]),
    ):
        with pytest.raises(InputError, match="zero-shot"):
            study()
    with pytest.raises(InputError, match="no layer to cut from"):
        knock_out_flow(gpt2, batch, layers=[])
    with pytest.raises(InputError, match="prompt 9 does not exist"):
        tower_tokens(gpt2, batch, [Head(0, 0)], prompt=9)
    assert set(tower_tokens(gpt2, batch, [Head(0, 0)])["kind"]) == {"value", "input"}
    three = encode(gpt2, sample_prompts(words, 3, labels=("foo", "bar", "baz"), shots=1))
    with pytest.raises(InputError, match="give two"):
        reversal(gpt2, three, [Head(0, 0)])
    everything = torch.ones(len(batch), *[batch.tokens.shape[1]] * 2, dtype=torch.bool)
    with pytest.raises(InputError, match="leaves position 0 of prompt 0 nothing"):
        answer_logits(gpt2, batch, KnockOut((0,), everything))
    with pytest.raises(InputError, match="edges have shape"):
        answer_logits(gpt2, batch, KnockOut((0,), everything[:, :2, :2].tril(-1)))


def test_three_labels(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, labels=("foo", "bar", "baz"), shots=1))
    found = label_features(gpt2, batch, [Head(0, 0)])
    assert set(found.to_frame()["pair"]) == {"foo-bar", "foo-baz", "bar-baz"}
    pairs = [found.logit_minus(pair) for pair in ((0, 1), (1, 2), (0, 2))]
    np.testing.assert_allclose(pairs[0] + pairs[1], pairs[2], atol=1e-6)


def test_on_the_real_model(smollm2: LensModel, words: Rows) -> None:
    """L23H7 of SmolLM2 copies labels, and its attention at foo falls when the labels are reversed."""
    batch = encode(smollm2, sample_prompts(words.split(0)[1], 24, shots=4, seed=5))
    found = reversal(smollm2, batch, [Head(23, 7)])
    assert found.original.copying().mean() > 0.9
    assert found.flips.sum() >= 5
    assert found.relative_change("attention", 0, 0).mean < -0.1
    assert log_prob_increase(smollm2, batch).head_means()[23, 7] > 0


@pytest.mark.usefixtures("unchecked")
def test_in_context_heads_have_their_hyphen_in_tables() -> None:
    means: Any = dict.fromkeys(("qk_auc", "ov_copying", "ov_contrast"), 0.5)
    own = SimpleNamespace(heads=(Head(0, 0),))
    findings: Any = SimpleNamespace(own=own, random=own)
    rows = control_table(findings, {"in_context_heads": means, "random_heads": means}).rows
    assert [row[:2] for row in rows] == [("in-context heads", "1"), ("random heads", "1")]


def test_the_best_of_many_heads_is_corrected_for_having_looked_at_all() -> None:
    """Twelve heads that score at random: uncorrected, the best is below 5 % in half of all cases; corrected, in few."""
    rng, below = np.random.default_rng(0), {"corrected": 0, "alone": 0}
    same = np.arange(4) < 2
    for case in range(60):
        score = rng.normal(size=(16, 12, 4))
        towers = made_towers(score, np.stack([rng.permuted(same) for _ in range(16)]))
        learned = metric_learning(towers, draws=100, seed=case)
        alone = (1 + (learned.auc_shuffled >= learned.auc.mean(axis=0)).sum(axis=0)) / 101
        below["alone"] += (alone <= 0.05).any()
        below["corrected"] += (learned.p_corrected <= 0.05).any()
        assert (learned.p_corrected >= alone - 0.05).all()
    assert below["alone"] > 15
    assert below["corrected"] <= 9


def made_towers(score: np.ndarray, same_class: np.ndarray) -> TwoTowers:
    """Scores of heads as two towers would have them."""
    heads = tuple(Head(0, head) for head in range(score.shape[1]))
    towers = np.zeros((*score.shape, 1))
    labels = np.where(same_class, 0, 1)
    return TwoTowers(
        heads, ("foo", "bar"), towers[:, :, 0], towers, score, score, score, labels, np.zeros(len(score), int)
    )
