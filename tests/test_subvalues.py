"""Subvalues: scores worked out by hand on a planted model, by a plain loop elsewhere, and what is refused.

The plain loop takes activations from `run_with_cache`, and for each neuron one projection over the whole vocabulary.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from architectures import tiny_config
from conftest import loaded, require_backend, save_model, save_tokenizer
from hypothesis import given, settings, strategies as st
from planted_neurons import planted_neurons
from test_half import both
from test_odd_models import EXACT, hooked_model, tokens_alone
from torch import Tensor

import icl_circuits as icl
from icl_circuits import subvalues
from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import log_prob_increase
from icl_circuits.interventions import ZeroNeurons
from icl_circuits.models import (
    LensModel,
    attention_weights,
    block_norms,
    is_parallel,
    kv_head,
    mlp_weights,
    readout,
)
from icl_circuits.prompts import Fact, Facts, PromptBatch, Rows, TokenBatch, encode, sample_prompts, token_batch
from icl_circuits.residual import Head, Neuron, answer_logits
from icl_circuits.subvalues import exact, scores, top
from icl_circuits.subvalues.exact import all_gaps, gaps
from icl_circuits.subvalues.ranges import neuron_ranges
from icl_circuits.subvalues.top import By
from icl_circuits.subvalues.writers import AnswerRun

KINDS: tuple[subvalues.Kind, ...] = get_args(subvalues.Kind)
BYS: tuple[By, ...] = get_args(By)

# --- the plain loop ---------------------------------------------------------------------------------------------------


@dataclass
class ByHand:
    """Scores of all neurons of one prompt, in float64: `[layer neuron source]`; of FFN neurons there is one source."""

    log_prob_increase: Tensor
    log_prob: Tensor
    prob_increase: Tensor
    base: Tensor
    coefficient: Tensor


def log_probs(model: LensModel, states: Tensor, final: Tensor) -> Tensor:
    """Of states under the scale of the final one, without the norm's bias."""
    out = readout(model)
    norm, W_U, b_U = out.norm, out.W_U.double(), out.b_U.double()
    if norm.centred:
        states, final = (x - x.mean(-1, keepdim=True) for x in (states, final))
    scale = (final.pow(2).mean() + norm.eps).sqrt() if norm.normalises else 1.0
    logits = states / scale * norm.weight.double() @ W_U + b_U
    if out.softcap is not None:
        logits = out.softcap * torch.tanh(logits / out.softcap)
    return logits.log_softmax(-1)


@torch.no_grad()
def by_hand(model: LensModel, batch: TokenBatch, kind: str) -> list[ByHand]:
    _, cache = model.run_with_cache(batch.tokens)
    n_layers, heads, found = model.cfg.n_layers, range(model.cfg.n_heads), []
    for i, last in enumerate(batch.last.tolist()):
        final = cache[f"blocks.{n_layers - 1}.hook_resid_post"][i, last].double()
        columns: list[list[Tensor]] = [[], [], [], []]
        for layer in range(n_layers):

            def at(name: str, layer: int = layer, i: int = i) -> Tensor:
                return cache[f"blocks.{layer}.{name}"][i].double()

            state = at("hook_resid_pre")[last]
            if kind == "ffn":
                weights, state = mlp_weights(model, layer), state + at("hook_attn_out")[last]
                coefficient = at("mlp.hook_post")[last][:, None]
                rows, bias = weights.W_out.double(), weights.b_out.double()
            else:
                weights = attention_weights(model, layer)
                alpha = at("attn.hook_pattern")[:, last, : last + 1]
                v = at("attn.hook_v")[: last + 1, [kv_head(model, head) for head in heads]]
                coefficient = torch.einsum("hs,shk->hks", alpha, v).flatten(0, 1)
                rows, bias = weights.W_O.double().flatten(0, 1), weights.b_O.double()
            outlet, raw = weights.outlet, coefficient.sum(1) @ rows + bias
            if outlet.normalises:  # a post-norm, whose scale all neurons make together
                assert not outlet.centred
                coefficient = coefficient / (raw.pow(2).mean() + outlet.eps).sqrt()
            vectors = coefficient[..., None] * rows[:, None] * outlet.weight.double()
            target = int(batch.target[i])
            base = log_probs(model, state, final)[target]
            columns[0].append(log_probs(model, state + vectors, final)[..., target] - base)
            columns[1].append(log_probs(model, vectors, final)[..., target])
            columns[2].append(base)
            columns[3].append(coefficient)
        increase, alone, bases, coefficients = (torch.stack(column) for column in columns)
        gained = (bases[:, None, None] + increase).exp() - bases[:, None, None].exp()
        found.append(ByHand(increase, alone, gained, bases, coefficients))
    return found


def close(found: Any, expected: Any, tolerance: float = 1e-5, least: float = 0.0) -> None:
    """To a share of the largest value, and a rounding of `least`."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max() + least)


def rounding(model: LensModel) -> float:
    """Scores under a cap are differences of log-probabilities in float32."""
    return 0.0 if readout(model).softcap is None else 2e-6


def require_scores(model: LensModel, batch: TokenBatch, kind: subvalues.Kind, expected: list[ByHand]) -> None:
    found = subvalues.score_neurons(model, batch, kind)
    assert found.exact
    assert found.lower is found.score
    for i, one in enumerate(expected):
        n = one.base.shape[0]
        assert found.score.shape[1:3] == one.log_prob_increase.shape[:2]
        seen = one.log_prob_increase.shape[2]
        score = found.score[i].reshape(n, -1, 1) if kind == "ffn" else found.score[i][..., :seen]
        close(score, one.log_prob_increase, least=rounding(model))
        close(found.base[i], one.base)
        if kind == "attention":
            assert np.isnan(found.score[i][..., seen:]).all()


def require_best(model: LensModel, batch: TokenBatch, found: subvalues.TopNeurons, expected: list[Tensor]) -> None:
    """The best (or lowest) scores of all, each of a neuron that has it, and nothing better left out."""
    k, least = found.score.shape[1], rounding(model)
    for i, values in enumerate(expected):
        close_enough = off(values) + least
        np.testing.assert_allclose(values.numpy()[places(model, found, i)], found.score[i], rtol=0, atol=close_enough)
        assert len(set(zip(*(part.tolist() for part in places(model, found, i)), strict=True))) == k
        sign = -1 if found.score[i, 0] < found.score[i, -1] else 1
        ordered = sign * (sign * values).flatten().sort(descending=True).values.numpy()
        np.testing.assert_allclose(found.score[i], ordered[:k], rtol=0, atol=close_enough)
        assert sign * ordered[k] <= sign * found.next_bound[i] + close_enough


def off(values: Tensor) -> float:
    return 1e-5 * float(values.abs().max())


def places(model: LensModel, found: subvalues.TopNeurons, i: int) -> tuple[np.ndarray, ...]:
    """Layer, number of the neuron, and source, as `ByHand` counts them."""
    if found.kind == "ffn":
        return found.layer[i], found.neuron[i], np.zeros_like(found.src_pos[i])
    return found.layer[i], found.head[i] * model.cfg.d_head + found.neuron[i], found.src_pos[i]


# --- worked out by hand -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def micro() -> LensModel:
    require_backend("hooked")
    return planted_neurons()


@pytest.fixture
def cities(micro: LensModel) -> TokenBatch:
    return token_batch(micro, ["lima in", "oslo in"], [" peru", " norway"], prepend_bos=True)


def log_p(target: float, *others: float) -> float:
    """The log-probability of a logit among others; of the vocabulary's eight, those not named are 0."""
    logits = np.array([target, *others, *[0.0] * (7 - len(others))])
    return float(target - np.log(np.exp(logits).sum()))


FFN = log_p(4, -2) - log_p(1, -2), log_p(3, -1) - log_p(0, -1)
"""What L1N3 adds to `peru` after `<s> lima in`, and L1N2 to `norway` after `<s> oslo in`."""
ATTENTION = log_p(2) - log_p(0)
"""What L1H1D0 and D1 add at the city's position."""


def test_planted_scores(micro: LensModel, cities: TokenBatch) -> None:
    ffn = subvalues.score_neurons(micro, cities).score
    expected = np.zeros((2, 2, 4))
    expected[0, 1, 3], expected[1, 1, 2] = FFN
    expected[0, 1, 0] = log_p(1, -2, 1.25) - log_p(1, -2)
    expected[1, 1, 0] = log_p(0, -1, 1.25) - log_p(0, -1)
    np.testing.assert_allclose(ffn, expected, atol=1e-6)
    attention = subvalues.score_neurons(micro, cities, "attention").score
    expected = np.zeros((2, 2, 4, 3))
    expected[0, 1, 2, 1] = expected[1, 1, 3, 1] = ATTENTION
    expected[0, 1, 0, 0] = log_p(-1, -2) - log_p(0)
    expected[1, 1, 0, 0] = log_p(-2, -1) - log_p(0)
    np.testing.assert_allclose(attention, expected, atol=1e-6)


def test_planted_neurons_are_the_best(micro: LensModel, cities: TokenBatch) -> None:
    best = subvalues.top_neurons(micro, cities, k=1)
    assert [best.names(i) for i in range(2)] == [("L1N3",), ("L1N2",)]
    np.testing.assert_allclose(best.score[:, 0], FFN, atol=1e-6)
    np.testing.assert_allclose(best.coefficient[:, 0], 2, atol=1e-6)
    np.testing.assert_allclose(best.base[:, 0], [log_p(1, -2), log_p(0, -1)], atol=1e-6)
    assert best.src_pos.tolist() == [[2], [2]]
    best = subvalues.top_neurons(micro, cities, "attention", k=1)
    assert [best.names(i) for i in range(2)] == [("L1H1D0@1",), ("L1H1D1@1",)]
    np.testing.assert_allclose(best.score[:, 0], ATTENTION, atol=1e-6)
    np.testing.assert_allclose(best.coefficient[:, 0], 2 / 3, atol=1e-6)
    worst = subvalues.top_neurons(micro, cities, "attention", k=2, lowest=True)
    assert [worst.names(i)[0] for i in range(2)] == ["L1H0D0@0", "L1H0D0@0"]
    np.testing.assert_allclose(worst.score[:, 1], 0, atol=1e-6)
    alone = subvalues.top_neurons(micro, cities, k=1, by="log_prob")
    np.testing.assert_allclose(alone.score[:, 0], log_p(3), atol=1e-6)


def test_planted_query_neurons(micro: LensModel, cities: TokenBatch) -> None:
    """CITY, which L1N3 reads six-fold, is 1/3 of a head's and 1/2 of L0N2's; L1H1D0 reads the 2 of L0N0."""
    values = subvalues.top_neurons(micro, cities, k=1)
    found = subvalues.query_importance(micro, cities, values, k=2)
    score = np.array(FFN)
    np.testing.assert_allclose(found.attn, np.stack([2 * score, 0 * score], 1), atol=1e-5)
    np.testing.assert_allclose(found.mlp, np.stack([3 * score, 0 * score], 1), atol=1e-5)
    np.testing.assert_allclose(found.embed, 0, atol=1e-6)
    assert (found.layer[:, 0].tolist(), found.neuron[:, 0].tolist()) == ([0, 0], [2, 2])
    np.testing.assert_allclose(found.score, np.stack([3 * score, 0 * score], 1), atol=1e-5)
    assert found.position[:, 0].tolist() == [2, 2]
    np.testing.assert_allclose(found.coefficient[:, 0], 1, atol=1e-6)
    total = subvalues.query_importance(micro, cities, values, k=1, normalise="total")
    np.testing.assert_allclose(total.attn[:, 0], 2 * score / 5, atol=1e-5)
    values = subvalues.top_neurons(micro, cities, "attention", k=1)
    found = subvalues.query_importance(micro, cities, values, k=1)
    np.testing.assert_allclose(found.attn, 0, atol=1e-6)
    np.testing.assert_allclose(found.mlp, [[2 * ATTENTION, 0]] * 2, atol=1e-5)
    assert (found.layer.tolist(), found.neuron.tolist()) == ([[0], [0]], [[0], [1]])
    np.testing.assert_allclose(found.score, 2 * ATTENTION, atol=1e-5)
    assert found.position.tolist() == [[1], [1]]
    frame = found.layers_to_frame()
    of_first = frame[(frame["part"] == "mlp") & (frame["layer"] == 0)]["query_importance"]
    np.testing.assert_allclose(of_first, 2 * ATTENTION, atol=1e-5)
    assert found.to_frame()["neuron"].tolist() == [0, 1]


def test_planted_neurons_zeroed(micro: LensModel, cities: TokenBatch) -> None:
    ffn, attention = (subvalues.top_neurons(micro, cities, kind, k=1) for kind in KINDS)
    sets = [(found.layer, found.head, found.neuron) for found in (ffn, attention)]
    found = subvalues.zero_neurons(micro, cities, {"ffn": sets[:1], "both": sets})
    assert found.groups == ("ffn", "both")
    left = [
        [(1, log_p(4, -2, 1.25)), (1, log_p(3, -1, 1.25))],
        [(2, log_p(1, -2, 1.25)), (7, log_p(0, -1, 1.25))],
        [(7, log_p(-1, -2, 1.25)), (8, log_p(-2, -1, 1.25))],
    ]
    left[1][1] = (2, log_p(0, -1, 1.25))  # five others are 0 too, and none of them is above
    expected = np.array([[(1 / rank, np.exp(log), log) for rank, log in rows] for rows in left])
    np.testing.assert_allclose(found.base, expected[0], atol=1e-5)
    np.testing.assert_allclose(found.zeroed, expected[1:], atol=1e-5)
    frame = found.to_frame()
    assert frame["zeroed"].tolist() == ["nothing", "ffn", "both"]
    np.testing.assert_allclose(frame["log_prob"], expected[..., 2].mean(1), atol=1e-5)


def test_planted_tokens(micro: LensModel) -> None:
    peru, red = subvalues.neuron_tokens(micro, [Neuron(1, 3), Neuron(1, 0)], n_tokens=1)
    assert (peru.top, red.top) == (("peru",), ("red",))
    (against,) = subvalues.head_neuron_tokens(micro, [(Head(1, 0), 0)], n_tokens=2)
    assert against.last == ("norway", "peru")
    assert not {"norway", "peru"} & set(against.top)
    for neuron, word in ((0, "peru"), (1, "norway")):
        found = subvalues.tokens_through_head(micro, Neuron(0, neuron), Head(1, 1), n_tokens=1)
        assert found.top == (word,)
    assert subvalues.promoted(micro, -micro.unembed.W_U.T[[4]], n_tokens=99)[0].last[0] == "peru"


def test_planted_facts(micro: LensModel) -> None:
    """`city in` says neither country, and of the two rather `peru`; `red in` says `red`, the only colour."""
    told = Facts(
        "planted",
        (
            Fact("red in", "red", "colour"),
            Fact("lima in", "peru", "country"),
            Fact("city in", "norway", "country"),
            Fact("oslo in", "norway", "country"),
        ),
    )
    known = subvalues.known_facts(micro, told)
    assert [fact.text for fact in known.facts] == ["red in", "lima in", "oslo in"]
    assert known.asked == (("colour", 1, 1), ("country", 3, 2))
    assert (known.types, known.rows_of("country")) == (("colour", "country"), [1, 2])
    assert known.batch.texts == ("red in", "lima in", "oslo in")
    assert known.to_frame().iloc[1].to_dict() == {"text": "lima in", "answer": "peru", "type": "country"}
    wrong = Facts("turned", (Fact("lima in", "norway", "country"), Fact("oslo in", "peru", "country")))
    with pytest.raises(Unfit, match="'planted neurons' knows none of the 2 facts in 'turned'"):
        subvalues.known_facts(micro, wrong)


# --- against the plain loop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_a_plain_loop(model: LensModel, batch: PromptBatch, kind: subvalues.Kind) -> None:
    assert len(set(batch.last.tolist())) > 1
    expected = by_hand(model, batch, kind)
    require_scores(model, batch, kind, expected)
    frame = subvalues.score_neurons(model, batch, kind).to_frame()
    assert len(frame) == sum(one.log_prob_increase.numel() for one in expected)
    row = frame.iloc[-1]
    at = int(row["layer"]), int(row["neuron"]), int(row.get("src_pos", 0))
    assert row["score"] == pytest.approx(float(expected[int(row["prompt"])].log_prob_increase[at]), abs=1e-5)
    bounds = subvalues.score_neurons(model, batch, kind, exact="bounds")
    assert not bounds.exact
    for i, one in enumerate(expected):
        true, seen = one.log_prob_increase.numpy(), one.log_prob_increase.shape[2]
        upper, lower = (
            getattr(bounds, name)[i][..., :seen] if kind == "attention" else getattr(bounds, name)[i][..., None]
            for name in ("score", "lower")
        )
        least = off(one.log_prob_increase)
        assert (true <= upper + least).all()
        assert (true >= lower - least).all()
        assert 0 < (upper - lower).max() < 100 * np.abs(true).max()
        assert np.abs(upper - true).max() > 3 * least


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_best_are_those_of_sorting(
    model: LensModel, batch: PromptBatch, kind: subvalues.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "STEP", 16)
    expected = by_hand(model, batch, kind)
    for by in BYS:
        values = [getattr(one, by) for one in expected]
        for lowest in (False, True):
            found = subvalues.top_neurons(model, batch, kind, k=12, by=by, lowest=lowest)
            assert (found.score[:, 0] < found.score[:, -1]).all() == lowest
            require_best(model, batch, found, values)
            for i, one in enumerate(expected):
                place = places(model, found, i)
                close(found.coefficient[i], one.coefficient.numpy()[place])
                if by != "log_prob":
                    close(found.base[i], one.base.numpy()[place[0]])
            n_neurons = np.array([one.numel() for one in values])
            assert (found.evaluated >= 12).all()
            assert (found.evaluated <= n_neurons).all()
            if by == "log_prob_increase" and not lowest:
                assert (found.evaluated < n_neurons).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_where_bounds_say_little(
    folders: dict[str, Path], words: Rows, kind: subvalues.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neurons write much, those of the highest bounds are not the best, and the search goes on behind them."""
    monkeypatch.setattr(top, "STEP", 4)
    model = loaded(folders["gpt2"], "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=1))
    with torch.no_grad():
        model.ln_final.original_component.weight.mul_(40.0)
    expected = by_hand(model, batch, kind)
    bounds = subvalues.score_neurons(model, batch, kind, exact="bounds")
    for lowest, bound in ((False, bounds.score), (True, -bounds.lower)):
        found = subvalues.top_neurons(model, batch, kind, k=8, lowest=lowest)
        require_best(model, batch, found, [one.log_prob_increase for one in expected])
        by_bound = np.nan_to_num(bound, nan=-np.inf).reshape(3, -1).argsort(1)[:, :-9:-1]
        misled = []
        for i, one in enumerate(expected):
            shape = one.log_prob_increase.shape if kind == "ffn" else bound.shape[1:]
            best = np.ravel_multi_index(places(model, found, i), shape)
            misled.append(set(best.tolist()) != set(by_bound[i].tolist()))
        assert any(misled)
        assert (found.evaluated[misled] > 8).all()


def test_all_neurons_can_be_asked_for(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 2, shots=1))
    n_neurons = 3 * gpt2.cfg.d_mlp
    found = subvalues.top_neurons(gpt2, batch, k=n_neurons)
    assert (found.evaluated == n_neurons).all()
    assert (found.next_bound == -np.inf).all()
    scored = subvalues.score_neurons(gpt2, batch).score.reshape(2, -1)
    np.testing.assert_allclose(found.score, -np.sort(-scored), atol=1e-5)
    few = found.first(7)
    np.testing.assert_array_equal(few.score, found.score[:, :7])
    np.testing.assert_array_equal(few.next_bound, found.score[:, 7])
    np.testing.assert_array_equal(found.first(n_neurons).next_bound, found.next_bound)
    frame = few.to_frame()
    assert list(frame) == ["prompt", "rank", "layer", "head", "neuron", "src_pos", "coefficient", "log_prob_increase"]
    assert frame["rank"].tolist() == [*range(7)] * 2
    assert frame["head"].tolist() == [-1] * 14
    np.testing.assert_array_equal(frame["log_prob_increase"], few.score.ravel())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["gpt2-hooked", "llama-bridge"], indirect=True)
def test_parts_of_a_batch_give_the_same(
    model: LensModel, batch: PromptBatch, kind: subvalues.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of() -> list[np.ndarray]:
        scored = [subvalues.score_neurons(model, batch, kind, exact=how) for how in ("all", "bounds")]
        best = subvalues.top_neurons(model, batch, kind, k=9)
        query = subvalues.query_importance(model, batch, best, k=5)
        arrays = [array for found in scored for array in (found.score, found.lower, found.base)]
        return [*arrays, best.score, best.base, query.attn, query.mlp, query.embed, query.score]

    whole, runs = all_of(), []
    monkeypatch.setattr(scores, "SCORES_AT_ONCE", 1)
    monkeypatch.setattr(subvalues.query, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(exact, "LOGITS_AT_ONCE", 5 * model.unembed.W_U.shape[1])
    real = AnswerRun.__init__
    monkeypatch.setattr(AnswerRun, "__init__", lambda self, *args: (runs.append(len(args[1])), real(self, *args))[1])
    parts = all_of()
    assert runs == [1] * (3 * len(batch))
    for one, other in zip(whole, parts, strict=True):
        close(np.nan_to_num(other), np.nan_to_num(one))
        np.testing.assert_array_equal(np.isnan(other), np.isnan(one))


def test_ranges_follow_the_weights(folders: dict[str, Path], words: Rows) -> None:
    """They are remembered with the model, and made anew once a weight changes."""
    model = loaded(folders["gpt2"], "bridge")
    batch = encode(model, sample_prompts(words, 2, shots=1))
    for kind in KINDS:
        before = neuron_ranges(model, kind)
        assert neuron_ranges(model, kind) is before
        with torch.no_grad():
            for parameter in model.parameters():  # type: ignore[attr-defined]
                parameter.mul_(1.5)
        after = neuron_ranges(model, kind)
        assert all((new > 1.4 * old).all() for new, old in zip(after, before, strict=True))
        bounds = subvalues.score_neurons(model, batch, kind, exact="bounds")
        for i, one in enumerate(by_hand(model, batch, kind)):
            lower = (
                bounds.lower[i][..., : one.coefficient.shape[2]] if kind == "attention" else bounds.lower[i][..., None]
            )
            assert (one.log_prob_increase.numpy() >= lower - off(one.log_prob_increase)).all()


# --- the inequalities -------------------------------------------------------------------------------------------------

few = settings(max_examples=60, deadline=None)


@few
@given(seed=st.integers(0, 9999), size=st.floats(1e-3, 30), n_tokens=st.integers(2, 12), peak=st.floats(0, 20))
def test_jensen_and_hoeffding(seed: int, size: float, n_tokens: int, peak: float) -> None:
    """Between nothing and `t^2 range^2 / 8` lies the gap; by the series too, where it says that it is enough."""
    generator = torch.Generator().manual_seed(seed)
    u, t = (torch.randn(5, n, generator=generator) for n in (n_tokens, 3))
    logits = peak * torch.randn(2, n_tokens, generator=generator)
    t = (size * t).expand(2, 5, 3)
    log_p = logits.double().log_softmax(1)
    mean = torch.einsum("bv,nv->bn", log_p.exp(), u.double())
    x = t.double()[..., None] * (u.double() - mean[..., None])[:, :, None]
    expected = (log_p[:, None, None] + x).logsumexp(-1)
    spread = u.double().amax(1) - u.double().amin(1)
    assert (expected >= -1e-12).all()
    assert (expected <= (t.double() * spread[:, None]) ** 2 / 8 + 1e-12).all()
    rows = torch.arange(2).repeat_interleave(15)
    found = gaps(u.repeat_interleave(3, 0).repeat(2, 1), t.flatten(), log_p.float()[rows]).view_as(expected)
    torch.testing.assert_close(found.double(), expected, atol=1e-6 * (1 + float(x.abs().max())), rtol=0)
    cheap, far = all_gaps(u, t, log_p.exp().float())
    assert not far[t.abs() * spread[:, None].float() < 2 * exact.REACH - 0.01].any()
    assert far[t.abs() * spread[:, None].float() > 2 * exact.REACH + 0.01].all()
    torch.testing.assert_close(cheap[~far].double(), expected[~far], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [0.5, 30.0, 1e4, -1e4])
def test_large_coefficients_do_not_overflow(size: float) -> None:
    u = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    log_p, t = torch.tensor([[1.0, -40.0, 2.0], [0.0, 0.0, 0.0]]).log_softmax(1), torch.full((2,), size)
    x = size * (u.double() - (log_p.double().exp() * u.double()).sum(1, keepdim=True))
    expected = (log_p.double() + x).logsumexp(1)
    torch.testing.assert_close(gaps(u, t, log_p).double(), expected, atol=1e-5, rtol=1e-5)


# --- identities, post-norms, caps, experts ----------------------------------------------------------------------------

POST_NORMS = {
    "gemma2": ("Gemma2ForCausalLM", {"final_logit_softcapping": None}),
    "olmo2": ("Olmo2ForCausalLM", {}),
}
"""Models whose heads and neurons go through a norm on their way out."""


@pytest.fixture(scope="module", params=[*POST_NORMS, "a config of one's own"])
def post_normed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LensModel:
    if request.param not in POST_NORMS:
        return hooked_model(EXACT["post-norms"])
    name, more = POST_NORMS[request.param]
    return tiny(tmp_path_factory.mktemp("post"), name, **more)


def tiny(folder: Path, name: str, **more: Any) -> LensModel:
    save_model(folder, tiny_config(name, save_tokenizer(folder), **more))
    return loaded(folder, "bridge")


def some_prompts(model: LensModel, words: Rows) -> TokenBatch:
    if getattr(model, "tokenizer", None) is None:
        return tokens_alone()
    return encode(model, sample_prompts(words, 3, shots=1, seed=3))


def require_sums(model: LensModel, batch: TokenBatch) -> None:
    """Neurons and biases make what sublayers write, and layers lead from the first state to the last."""
    run, rows = AnswerRun(model, batch, *KINDS), torch.arange(len(batch))
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens)
    n_layers, (n_heads, d_head) = model.cfg.n_layers, (model.cfg.n_heads, model.cfg.d_head)
    for layer in range(n_layers):
        at = {name: cache[f"blocks.{layer}.{name}"][rows, batch.last] for name in ("hook_attn_out", "attn.hook_z")}
        ffn, attention = (run.writers(kind, layer) for kind in KINDS)
        weights, post = mlp_weights(model, layer), cache[f"blocks.{layer}.mlp.hook_post"][rows, batch.last]
        bias = weights.outlet.linear(weights.b_out.expand(len(batch), -1), weights.outlet_scale(post))
        together = ffn.coefficients[..., 0] @ ffn.written(slice(None)) + bias + weights.outlet.bias
        close(together, cache[f"blocks.{layer}.hook_mlp_out"][rows, batch.last])
        heads, bias = attention_weights(model, layer).added(at["attn.hook_z"])
        by_head = attention.coefficients.sum(2).view(len(batch), n_heads, d_head)
        written = attention.written(slice(None)).view(n_heads, d_head, -1)
        together = torch.einsum("bhk,hkm->bhm", by_head, written)
        close(together, heads)
        close(together.sum(1) + bias, at["hook_attn_out"])
    increase = log_prob_increase(model, batch)
    for i, (last, target) in enumerate(zip(batch.last.tolist(), batch.target.tolist(), strict=True)):
        ends = cache[f"blocks.{n_layers - 1}.hook_resid_post"], cache["blocks.0.hook_resid_pre"]
        final, first = (end[i, last].double() for end in ends)
        gained = log_probs(model, final, final)[target] - log_probs(model, first, final)[target]
        assert increase.attn[i].sum() + increase.mlp[i].sum() == pytest.approx(float(gained), abs=1e-4)


def test_neurons_add_up(model: LensModel, batch: PromptBatch) -> None:
    require_sums(model, batch)


@pytest.mark.slow
def test_neurons_add_up_behind_post_norms(post_normed: LensModel, words: Rows) -> None:
    batch = some_prompts(post_normed, words)
    assert block_norms(post_normed, 0).mlp_outlet is not None
    require_sums(post_normed, batch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_scores_behind_post_norms(post_normed: LensModel, words: Rows, kind: subvalues.Kind) -> None:
    batch = some_prompts(post_normed, words)
    expected = by_hand(post_normed, batch, kind)
    require_scores(post_normed, batch, kind, expected)
    values = [one.log_prob_increase for one in expected]
    found = subvalues.top_neurons(post_normed, batch, kind, k=60)
    require_best(post_normed, batch, found, values)
    query = subvalues.query_importance(post_normed, batch, found, k=10**6)
    weights = [mlp_weights(post_normed, layer) for layer in range(post_normed.cfg.n_layers)]
    if not any(one.b_out.any() for one in weights):  # then neurons are all there is
        for i in range(len(batch)):
            by_layer = [query.score[i][query.layer[i] == layer].sum() for layer in range(len(weights))]
            close(by_layer, query.mlp[i], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_caps_its_logits(tmp_path: Path, words: Rows, kind: subvalues.Kind) -> None:
    model = tiny(tmp_path, "Gemma2ForCausalLM", final_logit_softcapping=1.0)
    batch = encode(model, sample_prompts(words, 2, shots=1))
    expected = by_hand(model, batch, kind)
    require_scores(model, batch, kind, expected)
    for lowest in (False, True):
        found = subvalues.top_neurons(model, batch, kind, k=5, lowest=lowest)
        require_best(model, batch, found, [one.log_prob_increase for one in expected])
    with pytest.raises(Unfit, match="caps its logits, so scores have no bounds: ask for exact='all'"):
        subvalues.score_neurons(model, batch, kind, exact="bounds")


@pytest.mark.slow
def test_a_mixture_of_experts(tmp_path: Path, words: Rows) -> None:
    model = tiny(tmp_path, "MixtralForCausalLM")
    batch = encode(model, sample_prompts(words, 2, shots=1))
    expected = by_hand(model, batch, "attention")
    require_scores(model, batch, "attention", expected)
    values = subvalues.top_neurons(model, batch, "attention", k=5)
    require_best(model, batch, values, [one.log_prob_increase for one in expected])
    for refused in (
        lambda: subvalues.score_neurons(model, batch),
        lambda: subvalues.top_neurons(model, batch, k=3),
        lambda: subvalues.best_by_each_method(model, batch, k=3),
        lambda: subvalues.query_importance(model, batch, values),
        lambda: subvalues.neuron_tokens(model, [Neuron(0, 0)]),
    ):
        with pytest.raises(Unfit, match="layer 0 of .* has no MLP whose neurons could be read one by one"):
            refused()


def test_a_model_without_mlps(planted: LensModel) -> None:
    batch = token_batch(planted, ["cat : foo dog :"], [" foo"], prepend_bos=True)
    require_scores(planted, batch, "attention", by_hand(planted, batch, "attention"))
    with pytest.raises(Unfit, match="'planted' has no MLPs, so no FFN neurons: ask for attention neurons"):
        subvalues.score_neurons(planted, batch)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), [("gpt2", torch.float16), ("llama", torch.bfloat16)])
def test_half_precision(folders: dict[str, Path], words: Rows, name: str, dtype: torch.dtype) -> None:
    half, same = both(str(folders[name]), "bridge", dtype)
    batch = encode(half, sample_prompts(words, 3, shots=1))
    tolerance = 0.15 if dtype == torch.bfloat16 else 0.02
    for kind in KINDS:
        ours, theirs = (subvalues.score_neurons(model, batch, kind).score for model in (half, same))
        assert ours.dtype == np.float32
        close(np.nan_to_num(ours), np.nan_to_num(theirs), tolerance)
        best, truth = (subvalues.top_neurons(model, batch, kind, k=10) for model in (half, same))
        close(best.score, truth.score, tolerance)
        queries = [
            subvalues.query_importance(model, batch, found, k=5) for model, found in ((half, best), (same, truth))
        ]
        close(queries[0].score, queries[1].score, 2 * tolerance)
        groups = {"best": [(truth.layer, truth.head, truth.neuron)]}
        zeroed = [subvalues.zero_neurons(model, batch, groups).zeroed[..., 1:] for model in (half, same)]
        close(*zeroed, tolerance)
    close(*(subvalues.interpolation(model, batch, segments=4).log_prob for model in (half, same)), tolerance)


# --- query importance -------------------------------------------------------------------------------------------------


@torch.no_grad()
def queries_by_hand(
    model: LensModel, batch: TokenBatch, values: subvalues.TopNeurons, i: int, key: str, normalise: str
) -> tuple[float, Tensor, Tensor, Tensor, Tensor]:
    """Of one prompt: the embedding's importance, each layer's, and each FFN neuron's by position; its activations."""
    _, cache = model.run_with_cache(batch.tokens[i : i + 1, : int(batch.last[i]) + 1])
    n_layers, n_pos = model.cfg.n_layers, int(batch.last[i]) + 1

    def at(name: str, layer: int) -> Tensor:
        return cache[f"blocks.{layer}.{name}"][0].double()

    posts = torch.stack([at("mlp.hook_post", layer) for layer in range(n_layers)])
    embed, attn, mlp, neurons = 0.0, torch.zeros(n_layers), torch.zeros(n_layers), torch.zeros_like(posts)
    parallel = is_parallel(model)
    for rank in range(values.score.shape[1]):
        layer, head, number = (int(getattr(values, name)[i, rank]) for name in ("layer", "head", "neuron"))
        weights, norms, score = mlp_weights(model, layer), block_norms(model, layer), float(values.score[i, rank])
        if values.kind == "attention":
            pos = int(values.src_pos[i, rank])
            subkey, norm = attention_weights(model, layer).W_V[head, :, number].double(), norms.ln1
            state = at("hook_resid_pre", layer)[pos]
        else:
            pos = n_pos - 1
            gate = weights.W_in if weights.W_gate is None else weights.W_gate
            columns = {"gate": gate.T, "up": weights.W_in.T, "down_compat": weights.W_out}
            subkey, norm = columns[key][number].double(), norms.ln2 or norms.ln1
            state = at("hook_resid_pre", layer)[pos] + (0 if parallel else at("hook_attn_out", layer)[pos])
        if normalise == "total":
            subkey = subkey * norm.weight.double()
            score = score / float(state @ subkey)
        embed += score * float(at("hook_resid_pre", 0)[pos] @ subkey)
        for below in range(layer + 1):
            if below < layer or (values.kind == "ffn" and not parallel):
                attn[below] += score * float(at("hook_attn_out", below)[pos] @ subkey)
            if below < layer:
                mlp[below] += score * float(at("hook_mlp_out", below)[pos] @ subkey)
                written = mlp_weights(model, below).W_out.double() @ subkey
                neurons[below, pos] += score * posts[below, pos] * written
    return embed, attn, mlp, neurons, posts


@pytest.mark.parametrize("kind", KINDS)
def test_query_importance_is_that_of_a_plain_loop(model: LensModel, batch: PromptBatch, kind: subvalues.Kind) -> None:
    order = batch.last.argsort().tolist()
    batch = batch.select([order[0], order[-1]])
    assert batch.last[0] < batch.last[1]
    values = subvalues.top_neurons(model, batch, kind, k=8)
    ways = {"ffn": (("gate", "none"), ("gate", "total"), ("up", "none"), ("down_compat", "total"))}
    for key, normalise in ways.get(kind, (("gate", "none"), ("gate", "total"))):
        k = 3 * mlp_weights(model, 0).W_out.shape[0]
        found = subvalues.query_importance(model, batch, values, k=k, key=key, normalise=normalise)
        for i in range(len(batch)):
            embed, attn, mlp, neurons, posts = queries_by_hand(model, batch, values, i, key, normalise)
            size = float(torch.cat([attn, mlp]).abs().max())
            assert found.embed[i] == pytest.approx(embed, abs=1e-3 * max(size, abs(embed)))
            np.testing.assert_allclose(found.attn[i], attn, rtol=0, atol=1e-3 * size)
            np.testing.assert_allclose(found.mlp[i], mlp, rtol=0, atol=1e-3 * size)
            total = neurons.sum(1)
            close(found.score[i], total.flatten().sort(descending=True).values, 1e-3)
            layer, number, position = found.layer[i], found.neuron[i], found.position[i]
            close(total[layer, number], found.score[i], 1e-3)
            assert (position <= int(batch.last[i])).all()
            most = neurons[layer, :, number]
            if kind == "ffn":  # nothing else is read
                most = most[:, -1:].expand(-1, most.shape[1])
                assert (position == int(batch.last[i])).all()
            close(most[torch.arange(k), position], most.amax(1), 1e-3)
            close(found.coefficient[i], posts[layer, position, number])
    few = subvalues.query_importance(model, batch, values.first(3), k=2)
    assert few.score.shape == (len(batch), 2)


def test_query_neurons_act_inside_the_prompt(gpt2: LensModel) -> None:
    """Padding is no place, though nothing is read there, which is more than less than nothing."""
    batch = token_batch(gpt2, ["foo", "foo bar baz cat dog"], [" foo", " bar"], prepend_bos=False)
    assert batch.last[0] < batch.last[1]
    values = subvalues.top_neurons(gpt2, batch, "attention", k=80)
    assert set(values.src_pos[0].tolist()) == set(range(int(batch.last[0]) + 1))
    found = subvalues.query_importance(gpt2, batch, values, k=3 * gpt2.cfg.d_mlp)
    assert (found.score < 0).any()
    assert (found.position <= batch.last[:, None].numpy()).all()


# --- effects and methods ----------------------------------------------------------------------------------------------


def test_zeroed_neurons_are_zeroed_rows(model: LensModel, batch: PromptBatch) -> None:
    """Each prompt without its own, as if these rows of W_out and W_O were zero."""
    ffn = torch.zeros(len(batch), mlp_weights(model, 1).W_out.shape[0], dtype=torch.bool)
    attention = torch.zeros(len(batch), model.cfg.n_heads, model.cfg.d_head, dtype=torch.bool)
    for i in range(2):
        ffn[i, [i, 5, 20 + i]] = True
        attention[i, 1 + i, [0, 2 + i]] = True
    found = answer_logits(model, batch, ZeroNeurons({1: ffn}, {0: attention, 2: attention.roll(1, 2)}))
    plain = answer_logits(model, batch)
    torch.testing.assert_close(found[2:], plain[2:], atol=1e-5, rtol=0)
    for i in range(2):
        rows: list[tuple[Tensor, Tensor]] = [(model.blocks[1].mlp.W_out, ffn[i])]
        rows += [(model.blocks[0].attn.W_O, attention[i]), (model.blocks[2].attn.W_O, attention[i].roll(1, 1))]
        kept = [weight.detach().clone() for weight, _ in rows]
        try:
            with torch.no_grad():
                for weight, mask in rows:
                    weight[mask] = 0.0  # a view of the parameter in both classes
                assert not mlp_weights(model, 1).W_out[ffn[i]].any()
                assert not attention_weights(model, 0).W_O[attention[i]].any()
                expected = model(batch.tokens)[i, batch.last[i]]
        finally:
            with torch.no_grad():
                for (weight, _), old in zip(rows, kept, strict=True):
                    weight.copy_(old)
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)
        assert (found[i] - plain[i]).abs().max() > 1e-3


def test_groups_are_zeroed_together(model: LensModel, batch: PromptBatch) -> None:
    """What `zero_neurons` measures is the rank and log-probability of logits under the same masks."""
    best = [subvalues.top_neurons(model, batch, kind, k=4) for kind in KINDS]
    sets = [(one.layer, one.head, one.neuron) for one in best]
    found = subvalues.zero_neurons(model, batch, {"ffn": sets[:1], "attention": sets[1:], "both": sets, "none": []})
    masks: list[dict[int, Tensor]] = [{}, {}]
    shapes = (len(batch), mlp_weights(model, 0).W_out.shape[0]), (len(batch), model.cfg.n_heads, model.cfg.d_head)
    for (layers, heads, numbers), mask, shape in zip(sets, masks, shapes, strict=True):
        for (i, rank), layer in np.ndenumerate(layers):
            place = (i, numbers[i, rank]) if heads[i, rank] < 0 else (i, heads[i, rank], numbers[i, rank])
            mask.setdefault(int(layer), torch.zeros(shape, dtype=torch.bool))[place] = True
    changes = (ZeroNeurons(masks[0]), ZeroNeurons({}, masks[1]), ZeroNeurons(*masks), ZeroNeurons())
    for one, change in zip((found.base, *found.zeroed), (ZeroNeurons(), *changes), strict=True):
        logits = answer_logits(model, batch, change).double()
        right = logits[torch.arange(len(batch)), batch.target]
        log = right - logits.logsumexp(1)
        rank = 1 + (logits > right[:, None]).sum(1)
        np.testing.assert_allclose(one, torch.stack([1 / rank, log.exp(), log], 1), atol=1e-5)
    np.testing.assert_array_equal(found.zeroed[3], found.base)
    assert (found.zeroed[:3, :, 2] < found.base[:, 2]).mean() > 0.8  # they were the best


def test_random_neurons(model: LensModel, batch: PromptBatch) -> None:
    for kind in KINDS:
        best = subvalues.top_neurons(model, batch, kind, k=20)
        layer, head, neuron = subvalues.random_neurons(model, best.addresses, seed=4)
        np.testing.assert_array_equal(layer, best.layer)
        np.testing.assert_array_equal(head < 0, best.head < 0)
        assert neuron.min() >= 0
        assert neuron.max() < (mlp_weights(model, 0).W_out.shape[0] if kind == "ffn" else model.cfg.d_head)
        assert head.max() < model.cfg.n_heads
        for i in range(len(batch)):
            given, drawn = (
                set(zip(*(part[i].tolist() for part in places), strict=True))
                for places in (best.addresses, (layer, head, neuron))
            )
            assert len(given) == len(drawn)  # source positions of one dimension count once
            assert not given & drawn
        again, other = (subvalues.random_neurons(model, best.addresses, seed=seed)[2] for seed in (4, 5))
        np.testing.assert_array_equal(again, neuron)
        assert (other != neuron).any()


def test_random_neurons_of_both_kinds(gpt2: LensModel) -> None:
    """Kinds stay where they are; more than there are come more than once."""
    layer = np.array([[0, 0, 2, 2, 2], [1, 1, 1, 0, 0]])
    head = np.array([[-1, 3, -1, 0, -1], [2, -1, 2, -1, -1]])
    drawn = subvalues.random_neurons(gpt2, (layer, head, np.zeros_like(layer)))
    np.testing.assert_array_equal(drawn[0], layer)
    np.testing.assert_array_equal(drawn[1] < 0, head < 0)
    many = np.zeros((1, 40), int)
    _, heads, dimensions = subvalues.random_neurons(gpt2, (many, many, many))
    assert heads.max() < 4
    assert dimensions.max() < 8


def test_the_best_by_each_method(model: LensModel, batch: PromptBatch) -> None:
    k = 6
    found = subvalues.best_by_each_method(model, batch, k=k)
    assert list(found) == list(subvalues.METHODS)
    assert len(found) == 8
    scored = by_hand(model, batch, "ffn")
    out, layers = readout(model), range(model.cfg.n_layers)
    directions = torch.stack([mlp_weights(model, layer).W_out for layer in layers]).double()
    shown = directions - directions.mean(-1, keepdim=True) if out.norm.centred else directions
    u = shown * out.norm.weight.double() @ out.W_U.double()
    norms = directions.norm(dim=-1)
    for i, one in enumerate(scored):
        m = one.coefficient[..., 0].abs()
        rank = 1 + (u > u[..., int(batch.target[i]), None]).sum(-1)
        expected = {
            "log-probability increase": one.log_prob_increase[..., 0],
            "log-probability": one.log_prob[..., 0],
            "probability increase": one.prob_increase[..., 0],
            "norm": norms,
            "coefficient": m,
            "1 / rank": 1 / rank,
            "coefficient x norm": m * norms,
            "coefficient / rank": m / rank,
        }
        for name, values in expected.items():
            layer, head, neuron = (part[i] for part in found[name])
            assert head.tolist() == [-1] * k
            assert len(set(zip(layer.tolist(), neuron.tolist(), strict=True))) == k
            close(values[layer, neuron], values.flatten().topk(k).values, 1e-4)


# --- interpolation, and why subvalues can be read ---------------------------------------------------------------------


def test_interpolation(model: LensModel, batch: PromptBatch) -> None:
    found = subvalues.interpolation(model, batch, segments=4)
    assert found.log_prob.shape == (len(batch), 5)
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens)
    for i, (last, target) in enumerate(zip(batch.last.tolist(), batch.target.tolist(), strict=True)):
        names = "blocks.0.hook_resid_pre", f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
        first, final = (cache[name][i, last].double() for name in names)
        way = torch.stack([first + share * (final - first) for share in (0, 0.25, 0.5, 0.75, 1)])
        np.testing.assert_allclose(found.log_prob[i], log_probs(model, way, final)[:, target], atol=1e-5)
    frame = found.to_frame()
    assert frame["segment"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(frame["log_prob"], found.log_prob.mean(0), atol=1e-6)
    np.testing.assert_allclose(frame["prob"], np.exp(found.log_prob).mean(0), atol=1e-6)


def test_vectors_add_before_the_softmax() -> None:
    """The paper's table 1, whose numbers are cut or rounded so that they add up to 1."""
    added = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 3], [3, 1, 1, 1], [6, 4, 4, 4], [6, 2, 2, 2], [-6, -2, -2, -2]])
    table = [
        [0.03, 0.09, 0.24, 0.64],
        [0.01, 0.02, 0.05, 0.93],
        [0.20, 0.07, 0.20, 0.53],
        [0.20, 0.07, 0.20, 0.53],
        [0.64, 0.03, 0.09, 0.23],
        [0.00, 0.09, 0.24, 0.67],
    ]
    found = subvalues.added_before_softmax(torch.tensor([1.0, 2.0, 3.0, 4.0]), added.float())
    np.testing.assert_allclose(found, table, atol=0.0075)
    torch.testing.assert_close(found[2], found[3])


# --- source positions, what activates a neuron, and sums beside scores ------------------------------------------------


def moved_by_hand(model: LensModel, cache: Any, i: int, layer: int, last: int) -> Tensor:
    """What the heads of a layer move from each position to the answer's, all together, in float64."""
    weights = attention_weights(model, layer)
    alpha = cache[f"blocks.{layer}.attn.hook_pattern"][i, :, last, : last + 1].double()
    kv = [kv_head(model, head) for head in range(model.cfg.n_heads)]
    v = cache[f"blocks.{layer}.attn.hook_v"][i, : last + 1, kv].double()
    return torch.einsum("hs,shk,hkm->sm", alpha, v, weights.W_O.double())


def test_source_positions_of_layers(model: LensModel, batch: PromptBatch) -> None:
    found = subvalues.layer_positions(model, batch)
    n_layers = model.cfg.n_layers
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens)
    for i, (last, target) in enumerate(zip(batch.last.tolist(), batch.target.tolist(), strict=True)):
        final = cache[f"blocks.{n_layers - 1}.hook_resid_post"][i, last].double()
        for layer in range(n_layers):
            moved = moved_by_hand(model, cache, i, layer, last)
            added = moved.sum(0) + attention_weights(model, layer).b_O
            close(added, cache[f"blocks.{layer}.hook_attn_out"][i, last])
            state = cache[f"blocks.{layer}.hook_resid_pre"][i, last].double()
            increase = log_probs(model, state + moved, final) - log_probs(model, state, final)
            np.testing.assert_allclose(found.increase[i, layer, : last + 1], increase[:, target], atol=1e-5)
        assert np.isnan(found.increase[i, :, last + 1 :]).all()
    frame = found.to_frame()
    assert len(frame) == n_layers * int((batch.last + 1).sum())
    one = frame[(frame["prompt"] == 1) & (frame["layer"] == 1) & (frame["src_pos"] == 2)]
    assert one["log_prob_increase"].item() == found.increase[1, 1, 2]


def test_what_activates_neurons(model: LensModel, batch: PromptBatch) -> None:
    """The parts are those of the plain inner products, and add up to what the activation function is given."""
    values = subvalues.top_neurons(model, batch, k=40)
    found = subvalues.coefficient_split(model, batch, values)
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens)
    names = [str(component) for component in found.components]
    for i, last in enumerate(batch.last.tolist()):
        for rank in range(0, 40, 7):
            layer, neuron = int(found.layer[i, rank]), int(found.neuron[i, rank])
            pre = float(cache[f"blocks.{layer}.mlp.hook_pre"][i, last, neuron])
            assert found.read[i, rank] == pytest.approx(pre, abs=2e-5)
            parts = dict(zip(names, found.parts[i, rank].tolist(), strict=True))
            assert all(part == 0 for name, part in parts.items() if comes_behind(model, name, layer))
            norm, (W, _) = block_norms(model, layer).before_mlp, mlp_weights(model, layer).read_by("gate")
            state = cache[f"blocks.{layer}.hook_resid_pre"][i, last]
            if not is_parallel(model):
                state = state + cache[f"blocks.{layer}.hook_attn_out"][i, last]
            scale = norm.scale(state)
            for below in range(layer):
                written = cache[f"blocks.{below}.hook_mlp_out"][i, last]
                by_hand = float(norm.linear(written, scale) @ W[:, neuron])
                assert parts[f"MLP{below}"] == pytest.approx(by_hand, abs=2e-5)
            for below in range(layer + 1 - int(is_parallel(model))):
                heads, _ = attention_weights(model, below).added(cache[f"blocks.{below}.attn.hook_z"][i, last])
                for head, written in enumerate(heads):
                    by_hand = float(norm.linear(written, scale) @ W[:, neuron])
                    assert parts[f"L{below}H{head}"] == pytest.approx(by_hand, abs=2e-5)
    close(found.shares().sum(2) + found.constant / found.read * found.coefficient, values.coefficient, 1e-4)
    frame = found.to_frame(3)
    assert len(frame) == len(batch) * 40 * 3
    first = frame.iloc[0]
    assert abs(first["part"]) == np.abs(found.parts[0, 0]).max()
    assert first["component"] == names[int(np.abs(found.parts[0, 0]).argmax())]


def comes_behind(model: LensModel, component: str, layer: int) -> bool:
    """Whether a component is written after the MLP of a layer reads."""
    if match := re.fullmatch(r"MLP(\d+)", component):
        return int(match[1]) >= layer
    match = re.fullmatch(r"L(\d+)H\d+", component)
    return match is not None and int(match[1]) >= layer + 1 - int(is_parallel(model))


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_added_together(model: LensModel, batch: PromptBatch, kind: subvalues.Kind) -> None:
    layer, k = 1, 20
    found = subvalues.added_together(model, batch, kind, layer=layer, k=k)
    expected = by_hand(model, batch, kind)
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens)
    for i, (last, target) in enumerate(zip(batch.last.tolist(), batch.target.tolist(), strict=True)):
        scores = expected[i].log_prob_increase[layer]
        best, order = scores.flatten().topk(k)
        np.testing.assert_allclose(found.alone[i], best.cumsum(0), atol=1e-5)
        run = AnswerRun(model, batch, kind)
        neuron, source = np.unravel_index(order.numpy(), scores.shape)
        written = run.writers(kind, layer).written(slice(None))[neuron].double()
        vectors = expected[i].coefficient[layer, neuron, source][:, None] * written
        final = cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][i, last].double()
        state = cache[f"blocks.{layer}.hook_resid_pre"][i, last].double()
        if kind == "ffn":
            state = state + cache[f"blocks.{layer}.hook_attn_out"][i, last]
        base, together = (log_probs(model, x, final)[..., target] for x in (state, state + vectors.cumsum(0)))
        np.testing.assert_allclose(found.together[i], together - base, atol=1e-5)
    frame = found.to_frame()
    assert frame["n"].tolist() == list(range(1, k + 1))
    np.testing.assert_allclose(frame["alone"], found.alone.mean(0), atol=1e-6)


# --- bad input --------------------------------------------------------------------------------------------------------


def addresses(layer: int = 0, head: int = -1, neuron: int = 0, n_prompts: int = 2) -> list[Any]:
    part = np.zeros((n_prompts, 1), int)
    return [(part + layer, part + head, part + neuron)]


BAD: dict[str, tuple[Callable[[LensModel, TokenBatch], Any], str]] = {
    "no neurons": (lambda m, b: subvalues.top_neurons(m, b, k=0), "k is 0: give how many neurons"),
    "k is no number": (lambda m, b: subvalues.top_neurons(m, b, k=2.5), "k is 2.5: give how many"),
    "k is true": (lambda m, b: subvalues.top_neurons(m, b, k=True), "k is True: give how many"),
    "more FFN neurons than there are": (lambda m, b: subvalues.top_neurons(m, b, k=385), "384 ffn neurons, not 385"),
    "more attention neurons": (
        lambda m, b: subvalues.top_neurons(m, b, "attention", k=10**6), "attention neurons, not 1000000: ask for fewer",
    ),
    "methods, too many": (lambda m, b: subvalues.best_by_each_method(m, b, k=385), "384 ffn neurons, not 385"),
    "methods, none": (lambda m, b: subvalues.best_by_each_method(m, b, k=0), "k is 0"),
    "kind": (lambda m, b: subvalues.top_neurons(m, b, "mlp"), "kind 'mlp' is unknown: use one of ffn, attention"),
    "kind of scores": (lambda m, b: subvalues.score_neurons(m, b, "mlp"), "kind 'mlp' is unknown: use one of"),
    "by": (lambda m, b: subvalues.top_neurons(m, b, by="norm"), "by 'norm' is unknown: use one of log_prob_increase"),
    "exact": (lambda m, b: subvalues.score_neurons(m, b, exact="no"), "exact 'no' is unknown: use one of all, bounds"),
    "no prompts to score": (lambda m, b: subvalues.score_neurons(m, b.select([])), "no prompts .* the batch is empty"),
    "no prompts of top": (lambda m, b: subvalues.top_neurons(m, b.select([])), "no prompts .* the batch is empty"),
    "no prompts of methods": (lambda m, b: subvalues.best_by_each_method(m, b.select([])), "the batch is empty"),
    "no prompts to zero": (lambda m, b: subvalues.zero_neurons(m, b.select([]), {}), "the batch is empty"),
    "no prompts on the way": (lambda m, b: subvalues.interpolation(m, b.select([])), "the batch is empty"),
    "no prompts of queries": (
        lambda m, b: subvalues.query_importance(m, b.select([]), subvalues.top_neurons(m, b, k=1).of(range(0))),
        "the batch is empty",
    ),
    "values of other prompts": (
        lambda m, b: subvalues.query_importance(m, b, subvalues.top_neurons(m, b, k=1).of(range(1))),
        "value neurons of 1 prompts, but the batch has 2: give its own",
    ),
    "no queries": (
        lambda m, b: subvalues.query_importance(m, b, subvalues.top_neurons(m, b, k=1), k=0), "k is 0: give how many",
    ),
    "key": (
        lambda m, b: subvalues.query_importance(m, b, subvalues.top_neurons(m, b, k=1), key="down"),
        "key 'down' is unknown: use one of gate, up, down_compat",
    ),
    "normalise": (
        lambda m, b: subvalues.query_importance(m, b, subvalues.top_neurons(m, b, k=1), normalise="sum"),
        "normalise 'sum' is unknown: use one of none, total",
    ),
    "groups of other prompts": (
        lambda m, b: subvalues.zero_neurons(m, b, {"mine": addresses(n_prompts=3)}),
        "group 'mine' is of 3 prompts, but the batch has 2: give its own",
    ),
    "a layer to zero": (
        lambda m, b: subvalues.zero_neurons(m, b, {"mine": addresses(layer=3)}), "layer 3 does not exist: .* 0..2",
    ),
    "a layer before the first": (
        lambda m, b: subvalues.zero_neurons(m, b, {"mine": addresses(layer=-1)}), "layer -1 does not exist",
    ),
    "a neuron to zero": (
        lambda m, b: subvalues.zero_neurons(m, b, {"mine": addresses(neuron=128)}),
        "L0N128 does not exist: layer 0 has neurons 0..127",
    ),
    "a neuron before the first": (
        lambda m, b: subvalues.zero_neurons(m, b, {"mine": addresses(neuron=-1)}), "L0N-1 does not exist",
    ),
    "a head to zero": (
        lambda m, b: subvalues.zero_neurons(m, b, {"mine": addresses(head=4)}),
        "head L0H4 does not exist: .* heads 0..3",
    ),
    "a dimension to zero": (
        lambda m, b: subvalues.zero_neurons(m, b, {"mine": addresses(1, 0, 8)}),
        "L1H0 has no dimension 8: its dimensions are 0..7",
    ),
    "random neurons of no layer": (
        lambda m, b: subvalues.random_neurons(m, addresses(layer=7)[0]), "layer 7 does not exist",
    ),
    "seed": (lambda m, b: subvalues.random_neurons(m, addresses()[0], seed=-1), "seed is -1: give a whole number"),
    "a split of attention neurons": (
        lambda m, b: subvalues.coefficient_split(m, b, subvalues.top_neurons(m, b, "attention", k=1)),
        "these are attention neurons: give ffn neurons",
    ),
    "a split of other prompts": (
        lambda m, b: subvalues.coefficient_split(m, b, subvalues.top_neurons(m, b, k=1).of(range(1))),
        "value neurons of 1 prompts, but the batch has 2: give its own",
    ),
    "values by another score": (
        lambda m, b: subvalues.query_importance(m, b, subvalues.top_neurons(m, b, k=1, by="log_prob")),
        "these neurons are the best by log_prob: give those of the highest",
    ),
    "the lowest": (
        lambda m, b: subvalues.coefficient_split(m, b, subvalues.top_neurons(m, b, k=1, lowest=True)),
        "these neurons are the lowest by log_prob_increase: give",
    ),
    "values of longer prompts": (
        lambda m, b: subvalues.query_importance(m, b, subvalues.top_neurons(m, b.select([0, 0]), k=1)),
        "value neurons are of prompts of other lengths",
    ),
    "one neuron a layer": (
        lambda m, b: subvalues.zero_each_neuron(m, b, per_layer=1), "per_layer is 1: give a whole number .*, 3 or more",
    ),
    "neurons in halves": (lambda m, b: subvalues.zero_each_neuron(m, b, per_layer=3.5), "per_layer is 3.5"),
    "first of no neurons": (lambda m, b: subvalues.top_neurons(m, b, k=2).first(-1), "k is -1: give how many"),
    "first of no components": (
        lambda m, b: subvalues.coefficient_split(m, b, subvalues.top_neurons(m, b, k=1)).to_frame(0), "n is 0: give",
    ),
    "no prompts of positions": (lambda m, b: subvalues.layer_positions(m, b.select([])), "the batch is empty"),
    "no neurons together": (lambda m, b: subvalues.added_together(m, b, layer=0, k=0), "k is 0: give how many"),
    "too many together": (
        lambda m, b: subvalues.added_together(m, b, layer=0, k=129), "a prompt has 128 ffn neurons in layer 0, not 129",
    ),
    "no layer together": (lambda m, b: subvalues.added_together(m, b, layer=3), "layer 3 does not exist"),
    "no segments": (lambda m, b: subvalues.interpolation(m, b, segments=0), "segments is 0: give a whole number"),
    "half a segment": (lambda m, b: subvalues.interpolation(m, b, segments=1.5), "segments is 1.5"),
    "a mask of few neurons": (
        lambda m, b: answer_logits(m, b, ZeroNeurons({0: torch.ones(2, 7, dtype=torch.bool)})),
        r"a mask has shape \[2, 7\], but the neurons there have \[2, 128\]",
    ),
    "a mask of other prompts": (
        lambda m, b: answer_logits(m, b, ZeroNeurons({}, {1: torch.ones(1, 4, 8, dtype=torch.bool)})),
        r"a mask has shape \[1, 4, 8\], but the neurons there have \[2, 4, 8\]",
    ),
    "a mask of no layer": (
        lambda m, b: answer_logits(m, b, ZeroNeurons({3: torch.ones(2, 128, dtype=torch.bool)})),
        "layer 3 does not exist",
    ),
    "tokens of no neuron": (
        lambda m, b: subvalues.neuron_tokens(m, [Neuron(0, 128)]), "L0N128 does not exist: layer 0 has neurons 0..127",
    ),
    "tokens of no layer": (lambda m, b: subvalues.neuron_tokens(m, [Neuron(3, 0)]), "layer 3 does not exist"),
    "tokens of no head": (lambda m, b: subvalues.head_neuron_tokens(m, [(Head(0, 4), 0)]), "head L0H4 does not exist"),
    "tokens of no dimension": (
        lambda m, b: subvalues.head_neuron_tokens(m, [(Head(0, 1), 8)]), "L0H1 has no dimension 8: .* are 0..7",
    ),
    "through no head": (
        lambda m, b: subvalues.tokens_through_head(m, Neuron(0, 1), Head(3, 0)), "head L3H0 does not exist",
    ),
    "through a head below": (
        lambda m, b: subvalues.tokens_through_head(m, Neuron(1, 1), Head(1, 0)),
        "L1H0 does not read L1N1: name a head of a later layer",
    ),
    "no neuron through a head": (
        lambda m, b: subvalues.tokens_through_head(m, Neuron(0, 999), Head(1, 0)), "L0N999 does not exist",
    ),
    "tokens of nothing": (lambda m, b: subvalues.neuron_tokens(m, []), "no neurons: give one or more"),
    "tokens of no dimensions": (lambda m, b: subvalues.head_neuron_tokens(m, []), "no neurons: give one or more"),
    "no tokens": (lambda m, b: subvalues.neuron_tokens(m, [Neuron(0, 1)], n_tokens=0), "n_tokens is 0: give"),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(gpt2: LensModel, name: str) -> None:
    batch = token_batch(gpt2, ["foo bar baz", "cat dog"], [" foo", " bar"])
    call, message = BAD[name]
    with pytest.raises(InputError, match=message) as raised:
        call(gpt2, batch)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


# --- the authors' own numbers -----------------------------------------------------------------------------------------

PROMPT = "Tim Duncan plays the sport of"
GOLDEN: dict[str, dict[str, Any]] = {
    "ICL_CIRCUITS_GPT2_LARGE": {
        "target": 9669,
        "prepend_bos": False,
        "sums": (5.586, 4.406),
        "attn": {21: 0.698, 19: 0.471, 28: 0.443, 23: 0.400, 30: 0.400},
        "mlp": {27: 0.706, 28: 0.603, 22: 0.566, 25: 0.458},
        "heads": {
            (21, 19): 0.6981, (28, 18): 0.4259, (23, 13): 0.3098, (27, 15): 0.2711, (19, 0): 0.2553, (26, 7): 0.2506,
        },
        "head": Head(21, 19),
        "positions": {1: (0.5208, 0.5343), 4: (0.1021, 0.1839), 2: (0.029, 0.0444), 5: (0.0252, 0.0936)},
        "ffn": {
            "L28N29": 0.4481, "L21N983": 0.2473, "L24N4743": 0.2323, "L27N1254": 0.1643, "L27N3482": 0.1453,
            "L18N5016": 0.1254,
        },
        "attention": {"L21H19D7@1": 0.0712, "L21H19D5@1": 0.0559, "L23H13D36@1": 0.0452, "L28H18D10@1": 0.0386},
        "query neurons": {
            "L27N1254": 0.0682, "L0N1984": 0.0244, "L16N505": 0.0199, "L4N1707": 0.0169,
            "L6N2476": 0.0159,
        },
        "query layers of ffn": {("attn", 19): 0.535, ("attn", 17): 0.4908, ("attn", 21): 0.4661, ("mlp", 22): 0.3634},
        "query layers of attention": {
            ("mlp", 0): 0.2297, ("mlp", 27): 0.1457, ("mlp", 2): 0.1363, ("mlp", 1): 0.1212,
        },
    },
    "ICL_CIRCUITS_LLAMA_7B": {
        "target": 20305,
        "prepend_bos": True,
        "sums": (6.077, 3.929),
        "attn": {23: 1.201, 21: 0.919, 18: 0.728, 31: 0.506, 15: 0.489},
        "mlp": {31: 1.315, 20: 1.109, 22: 1.017, 21: 0.902, 30: -1.325},
        "heads": {
            (23, 12): 0.9781, (21, 0): 0.8648, (15, 15): 0.3579, (31, 25): 0.3314, (18, 23): 0.3287, (20, 12): 0.2692,
        },
        "head": Head(15, 15),
        "positions": {
            3: (0.2512, 0.3677), 2: (0.0478, 0.1298), 4: (0.0267, 0.0482), 6: (0.0116, 0.0279), 0: (0.0079, 0.3365),
        },
        "ffn": {"L22N1674": 0.5977, "L23N6740": 0.4383, "L20N3975": 0.2703, "L19N3291": 0.2416},
        "attention": {"L21H0D79@3": 0.0433, "L21H0D64@3": 0.0405, "L18H23D79@3": 0.0366, "L15H15D112@3": 0.0348},
        "query neurons": {
            "L19N3291": 0.0675, "L10N8021": 0.0318, "L17N5502": 0.0249, "L15N1837": 0.0194, "L8N2689": 0.0192,
            "L5N5005": 0.0161,
        },
    },
}  # fmt: skip
"""What the notebooks of arXiv 2312.12141's authors show: importance in nats, and query importance as their code has it,
over the whole inner product, with 30 FFN and 100 attention value neurons."""


@pytest.mark.slow
@pytest.mark.parametrize("variable", GOLDEN)
def test_the_authors_numbers(variable: str) -> None:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder of weights")
    model, golden = icl.load_model(folder, device="cpu"), GOLDEN[variable]
    batch = token_batch(model, [PROMPT], [golden["target"]], prepend_bos=golden["prepend_bos"])
    near = {"abs": 0.002}
    layers = log_prob_increase(model, batch)
    assert (layers.attn.sum(), layers.mlp.sum()) == pytest.approx(golden["sums"], abs=0.005)
    for part in ("attn", "mlp"):
        assert {n: getattr(layers, part)[0, n] for n in golden[part]} == pytest.approx(golden[part], **near)
    assert {place: layers.heads[(0, *place)] for place in golden["heads"]} == pytest.approx(golden["heads"], **near)
    inside = icl.position_increase(model, batch, [golden["head"]])
    for position, expected in golden["positions"].items():
        found = inside.increase[0, 0, position], inside.attention[0, 0, position]
        assert found == pytest.approx(expected, **near)
    best = {kind: subvalues.top_neurons(model, batch, kind) for kind in KINDS}
    for kind, values in best.items():
        found = dict(zip(values.names(0), values.score[0], strict=True))
        assert {name: found[name] for name in golden[kind]} == pytest.approx(golden[kind], **near)
        if kind == "ffn":
            assert list(found)[:4] == list(golden["ffn"])[:4]
    for kind, k in (("ffn", 30), ("attention", 100)):
        query = subvalues.query_importance(
            model, batch, best[kind].first(k), key="gate" if "GPT2" in variable else "down_compat", normalise="total"
        )
        for (part, layer), expected in golden.get(f"query layers of {kind}", {}).items():
            assert getattr(query, part)[0, layer] == pytest.approx(expected, **near)
        if kind == "attention":
            names = [f"L{n}N{k}" for n, k in zip(query.layer[0], query.neuron[0], strict=True)]
            found = dict(zip(names, query.score[0], strict=True))
            assert {name: found[name] for name in golden["query neurons"]} == pytest.approx(
                golden["query neurons"], **near
            )
