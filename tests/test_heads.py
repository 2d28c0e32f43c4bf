"""Head scores: exact on a planted model, equal to the plain computation on every architecture."""

import dataclasses
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from planted import GAIN, VOCABULARY, planted_rows

from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import (
    EVERY_RULE,
    Answers,
    HeadEffects,
    InContextHeads,
    answer,
    as_answers,
    group_intervention,
    log_prob_increase,
    position_increase,
    random_heads,
    score_heads,
    select_heads,
    zero_each_head,
)
from icl_circuits.interventions import ZeroHeads, from_logits, from_states
from icl_circuits.models import LensModel, attention_weights, is_parallel, kv_head, load_model, readout
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts
from icl_circuits.residual import Head, all_heads
from icl_circuits.stats import bootstrap_mean

N_PROMPTS = 12
SHOTS = 3
CHANCE = -math.log(len(VOCABULARY))
RIGHT = GAIN - math.log(math.exp(GAIN) + len(VOCABULARY) - 1)
FOOHEAD, BARHEAD = Head(1, 0), Head(1, 1)
COLLECTORS = (Head(0, 0), Head(0, 1))


@pytest.fixture(scope="module")
def planted_batch(planted: LensModel) -> PromptBatch:
    return encode(planted, sample_prompts(planted_rows(), N_PROMPTS, shots=SHOTS, seed=0))


@pytest.fixture(scope="module")
def planted_selection(planted: LensModel, planted_batch: PromptBatch) -> InContextHeads:
    increase = log_prob_increase(planted, planted_batch)
    effects = zero_each_head(planted, planted_batch, positions="all")
    return select_heads(increase, effects, planted_batch.gold.numpy(), ("foo", "bar"), n_heads=2)


# --- the planted model: every score is known --------------------------------------------------------------------------


def test_planted_answers(planted: LensModel, planted_batch: PromptBatch) -> None:
    answers = answer(planted, planted_batch)
    assert answers.top1.all()
    assert answers.between_labels.all()
    np.testing.assert_allclose(answers.log_prob, RIGHT, atol=1e-6)
    np.testing.assert_allclose(answers.logit_diff, GAIN, atol=1e-6)


def test_planted_log_prob_increase(planted: LensModel, planted_batch: PromptBatch) -> None:
    increase = log_prob_increase(planted, planted_batch)
    expected = np.zeros((N_PROMPTS, 2, 3))
    for row, gold in enumerate(planted_batch.gold.tolist()):
        expected[row, 1, gold] = RIGHT - CHANCE
    np.testing.assert_allclose(increase.heads, expected, atol=1e-6)
    np.testing.assert_allclose(increase.attn, expected.sum(axis=2), atol=1e-6)
    np.testing.assert_allclose(increase.mlp, 0)
    frame = increase.to_frame()
    assert list(frame.columns) == [
        "layer", "head", "log_prob_increase", "log_prob_increase_low", "log_prob_increase_high", "p_corrected",
        "significant",
    ]  # fmt: skip
    assert frame.loc[3, "log_prob_increase"] == pytest.approx((RIGHT - CHANCE) / 2)


def test_planted_positions(planted: LensModel, planted_batch: PromptBatch) -> None:
    """Attention is even over the labels of the query's category; each adds its share of the gain."""
    found = position_increase(planted, planted_batch, [FOOHEAD, BARHEAD])
    share = GAIN / SHOTS
    one = share - math.log(math.exp(share) + len(VOCABULARY) - 1) - CHANCE
    for row, gold in enumerate(planted_batch.gold.tolist()):
        at_gold = planted_batch.label_positions[row][planted_batch.demo_labels[row] == gold].numpy()
        attention, increase = np.zeros((2, found.increase.shape[2])), np.zeros((2, found.increase.shape[2]))
        attention[gold, at_gold], increase[gold, at_gold] = 1 / SHOTS, one
        attention[1 - gold, 0] = 1.0
        np.testing.assert_allclose(found.attention[row], attention, atol=1e-6)
        np.testing.assert_allclose(found.increase[row], increase, atol=1e-6)


def test_planted_zeroing(planted: LensModel, planted_batch: PromptBatch) -> None:
    effects = zero_each_head(planted, planted_batch, positions="all")
    drops = dict(zip(effects.heads, effects.accuracy_drop, strict=True))
    assert drops == {
        COLLECTORS[0]: 1.0, COLLECTORS[1]: 1.0, Head(0, 2): 0.0, FOOHEAD: 0.5, BARHEAD: 0.5, Head(1, 2): 0.0,
    }  # fmt: skip
    lost = dict(zip(effects.heads, effects.log_prob_drop, strict=True))
    gold = planted_batch.gold.numpy()
    np.testing.assert_allclose(lost[COLLECTORS[0]], RIGHT - CHANCE, atol=1e-6)
    np.testing.assert_allclose(lost[FOOHEAD], np.where(gold == 0, RIGHT - CHANCE, 0), atol=1e-6)
    np.testing.assert_allclose(effects.logit_diff_drop[effects.heads.index(BARHEAD)], np.where(gold == 1, GAIN, 0))
    assert list(effects.to_frame()["accuracy_drop"]) == list(effects.accuracy_drop)


def test_planted_zeroing_at_the_last_position(planted: LensModel, planted_batch: PromptBatch) -> None:
    """There the heads that write count, and the one that collects the query, not the one that collects at labels."""
    effects = zero_each_head(planted, planted_batch)
    assert effects.heads == all_heads(planted)
    assert dict(zip(effects.heads, effects.accuracy_drop, strict=True)) == {
        COLLECTORS[0]: 0.0, COLLECTORS[1]: 1.0, Head(0, 2): 0.0, FOOHEAD: 0.5, BARHEAD: 0.5, Head(1, 2): 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("n_heads", "combine", "expected"),
    [
        (4, "intersection", {FOOHEAD, BARHEAD, *COLLECTORS}),
        (4, "union", {FOOHEAD, BARHEAD, *COLLECTORS}),
        (2, "union", {FOOHEAD, COLLECTORS[0]}),
    ],
)
def test_planted_selection(
    planted: LensModel, planted_batch: PromptBatch, n_heads: int, combine: Any, expected: set[Head]
) -> None:
    increase = log_prob_increase(planted, planted_batch)
    effects = zero_each_head(planted, planted_batch, positions="all")
    gold = planted_batch.gold.numpy()
    selected = select_heads(increase, effects, gold, ("foo", "bar"), n_heads=n_heads, rule="paper", combine=combine)
    assert set(selected.of()) == expected
    labels = {head.component: head.label for head in selected.heads}
    assert labels.get(FOOHEAD, "foo") == "foo"
    assert labels.get(BARHEAD, "bar") == "bar"
    assert set(selected.of("foo")) | set(selected.of("bar")) == expected


def test_sure_heads_are_those_whose_loss_is_told_from_zero(planted: LensModel, planted_batch: PromptBatch) -> None:
    """At the last position three of six heads do nothing, and are never selected; the others are."""
    increase, effects = log_prob_increase(planted, planted_batch), zero_each_head(planted, planted_batch)
    gold = planted_batch.gold.numpy()
    selected = select_heads(increase, effects, gold, ("foo", "bar"), n_heads=6)
    assert set(selected.of()) == {FOOHEAD, BARHEAD, COLLECTORS[1]}
    frame = effects.to_frame()
    for row in frame.itertuples():
        assert row.significant == (Head(row.layer, row.head) in selected.of())
        assert row.log_prob_drop_low <= row.log_prob_drop <= row.log_prob_drop_high
    for head in selected.heads:
        row = frame[(frame["layer"] == head.layer) & (frame["head"] == head.head)].iloc[0]
        assert (head.log_prob_drop_low, head.p_drop) == (row.log_prob_drop_low, row.p_corrected)


def test_noise_selects_no_head_more_often_than_it_should() -> None:
    """Of 200 scans of 100 heads that all do nothing, a false-discovery rate of 5 % flags any in some ten."""
    rng, flagged = np.random.default_rng(0), 0
    heads = tuple(Head(0, head) for head in range(100))
    for _ in range(200):
        base, zeroed = np.zeros(32), rng.normal(size=(100, 32))
        right = base > 0
        effects = HeadEffects(heads, Answers(right, right, base, base), Answers(zeroed > 0, zeroed > 0, zeroed, zeroed))
        flagged += effects.significant.any()
    assert 1 <= flagged <= 20


def test_corrected_p_values_by_hand() -> None:
    """Student's t over prompts, one-sided, and Benjamini and Hochberg's step-up, written out."""
    drops = np.random.default_rng(1).normal(0.3, 1.0, size=(3, 10))
    zeros = np.zeros(10)
    effects = HeadEffects(
        tuple(Head(0, head) for head in range(3)),
        Answers(zeros > 0, zeros > 0, zeros, zeros),
        Answers(drops > 0, drops > 0, -drops, drops),
    )
    p = scipy.stats.ttest_1samp(drops, 0, axis=1, alternative="greater").pvalue
    order = np.argsort(p)
    stepped = np.minimum.accumulate((p[order] * 3 / np.arange(1, 4))[::-1])[::-1]
    np.testing.assert_allclose(effects.p_corrected[order], stepped)


def test_planted_selection_lists(planted: LensModel, planted_batch: PromptBatch) -> None:
    """Static picks the copying heads, causal the collectors: two of each make four, and none in common."""
    increase = log_prob_increase(planted, planted_batch)
    effects = zero_each_head(planted, planted_batch, positions="all")
    arguments = (increase, effects, planted_batch.gold.numpy(), ("foo", "bar"))
    selected = select_heads(*arguments, n_heads=6, rule="paper", top_n=2)
    assert set(selected.of()) == {FOOHEAD, BARHEAD, *COLLECTORS}
    assert list(selected.to_frame()["layer"]) == [head.layer for head in selected.of()]
    with pytest.raises(InputError, match="no head is among the best 2 by both scores"):
        select_heads(*arguments, n_heads=6, rule="paper", top_n=2, combine="intersection")


def test_planted_groups(planted: LensModel, planted_batch: PromptBatch) -> None:
    """Zeroing the foohead leaves no foo answer and every bar answer; random heads may be the collectors."""
    increase = log_prob_increase(planted, planted_batch)
    effects = zero_each_head(planted, planted_batch, [FOOHEAD, BARHEAD, Head(1, 2)])
    gold = planted_batch.gold.numpy()
    selected = select_heads(increase, effects, gold, ("foo", "bar"), n_heads=2)
    groups = group_intervention(planted, planted_batch, selected, n_random=8, seed=0)
    frame = groups.to_frame()
    top1 = {(row.zeroed, row.gold): row.top1 for row in frame.itertuples()}
    assert top1["nothing", None] == 1.0
    assert top1["in-context heads", None] == 0.0
    assert (top1["fooheads", "foo"], top1["fooheads", "bar"]) == (0.0, 1.0)
    assert (top1["barheads", "foo"], top1["barheads", "bar"]) == (1.0, 0.0)
    assert len(groups.random.draws) == 8
    assert all(Head(1, 2) in draw and not set(draw) & set(selected.of()) for draw in groups.random.draws)
    harmless = [set(draw) == {Head(1, 2), Head(0, 2)} for draw in groups.random.draws]
    assert top1["random heads", None] == pytest.approx(np.mean(harmless))
    assert [group.n_heads for group in groups.groups] == [0, 2, 2, 1, 1, 1, 1]
    for control in groups.random_by_label:  # the layer has one head left, which does nothing
        assert control.draws == ((Head(1, 2),),) * 8
        assert top1[f"random, as many as {control.label}heads", None] == 1.0
    with pytest.raises(InputError, match="0 draws of random heads"):
        group_intervention(planted, planted_batch, selected, n_random=0)


def test_label_words_cannot_be_taken_for_groups(words: Any, gpt2: LensModel) -> None:
    """A label may be called `all` or `random` where the tokenizer has one token for it."""
    batch = encode(gpt2, sample_prompts(words, 4, shots=1))
    effects = zero_each_head(gpt2, batch, all_heads(gpt2))
    increase, gold = log_prob_increase(gpt2, batch), batch.gold.numpy()
    selected = select_heads(increase, effects, gold, ("all", "random"), n_heads=4, rule="paper")
    groups = group_intervention(gpt2, batch, selected, n_random=2)
    assert groups.all.n_heads == groups.random.n_heads == 4
    assert sum(group.n_heads for group in groups.by_label) == 4
    frame = groups.to_frame()
    assert len(frame[frame["gold"].isna()]) == len(groups.groups)


def test_planted_three_labels_share_nothing(planted: LensModel) -> None:
    """A label that no prompt has as gold gets no head."""
    batch = encode(planted, sample_prompts(planted_rows(), 1, shots=2, seed=0))
    effects = zero_each_head(planted, batch, [FOOHEAD, BARHEAD])
    increase, gold = log_prob_increase(planted, batch), batch.gold.numpy()
    selected = select_heads(increase, effects, gold, ("foo", "bar"), n_heads=2, rule="paper")
    assert {head.label for head in selected.heads} == {("foo", "bar")[int(batch.gold[0])]}


# --- every architecture: equal to the plain computation ---------------------------------------------------------------


def plain_log_prob(model: LensModel, state: torch.Tensor, final: torch.Tensor, target: int) -> float:
    """log p(target) of one state with the norm's scale frozen at `final`, written out."""
    out = readout(model)
    if str(model.cfg.normalization_type).startswith("LN"):
        sigma = torch.sqrt(final.var(unbiased=False) + model.cfg.eps)
        normed = (state - state.mean()) / sigma * out.norm.weight
    else:
        normed = state / torch.sqrt(final.pow(2).mean() + model.cfg.eps) * out.norm.weight
    return float((normed @ out.W_U + out.b_U).log_softmax(-1)[target])


def test_increase_equals_the_formula(model: LensModel, batch: PromptBatch) -> None:
    increase = log_prob_increase(model, batch)
    _, cache = model.run_with_cache(batch.tokens)
    positions = position_increase(model, batch, [Head(1, 3)])
    for row in range(len(batch)):
        last, target = int(batch.last[row]), int(batch.target[row])
        final = cache["blocks.2.hook_resid_post"][row, last]

        def log_prob(state: torch.Tensor, final: torch.Tensor = final, target: int = target) -> float:
            return plain_log_prob(model, state, final, target)

        for layer in range(3):
            at = {
                site: cache[f"blocks.{layer}.hook_{site}"][row, last] for site in ("resid_pre", "attn_out", "mlp_out")
            }
            with_attn = at["resid_pre"] + at["attn_out"]
            if not is_parallel(model):
                torch.testing.assert_close(with_attn, cache[f"blocks.{layer}.hook_resid_mid"][row, last])
            expected = log_prob(with_attn) - log_prob(at["resid_pre"])
            assert increase.attn[row, layer] == pytest.approx(expected, abs=1e-4)
            expected = log_prob(with_attn + at["mlp_out"]) - log_prob(with_attn)
            assert increase.mlp[row, layer] == pytest.approx(expected, abs=1e-4)
            for head in range(4):
                z = cache[f"blocks.{layer}.attn.hook_z"][row, last, head]
                head_out = z @ attention_weights(model, layer).W_O[head]
                expected = log_prob(at["resid_pre"] + head_out) - log_prob(at["resid_pre"])
                assert increase.heads[row, layer, head] == pytest.approx(expected, abs=1e-4)
        pre = cache["blocks.1.hook_resid_pre"][row, last]
        for p in range(last + 1):
            alpha = cache["blocks.1.attn.hook_pattern"][row, 3, last, p]
            vo = cache["blocks.1.attn.hook_v"][row, p, kv_head(model, 3)] @ attention_weights(model, 1).W_O[3]
            expected = log_prob(pre + alpha * vo) - log_prob(pre)
            assert positions.attention[row, 0, p] == pytest.approx(float(alpha), abs=1e-6)
            assert positions.increase[row, 0, p] == pytest.approx(expected, abs=1e-4)
        assert np.isnan(positions.increase[row, 0, last + 1 :]).all()


def test_zeroing_scores_equal_run_with_hooks(model: LensModel, batch: PromptBatch) -> None:
    heads = (Head(0, 2), Head(2, 1))
    effects = zero_each_head(model, batch, heads, positions="all")
    for i, head in enumerate(heads):

        def zero(z: torch.Tensor, hook: object, head: Head = head) -> torch.Tensor:
            z = z.clone()
            z[:, :, head.head] = 0.0
            return z

        with torch.no_grad():
            logits = model.run_with_hooks(batch.tokens, fwd_hooks=[(f"blocks.{head.layer}.attn.hook_z", zero)])
        at_last = logits[torch.arange(len(batch)), batch.last]
        label_logits = at_last[:, batch.label_tokens]
        right = label_logits[torch.arange(len(batch)), batch.gold]
        other = label_logits[torch.arange(len(batch)), 1 - batch.gold]
        expected = at_last.log_softmax(-1)[torch.arange(len(batch)), batch.target]
        np.testing.assert_allclose(effects.zeroed.log_prob[i], expected.numpy(), atol=1e-4)
        np.testing.assert_allclose(effects.zeroed.logit_diff[i], (right - other).numpy(), atol=1e-4)
        assert (effects.zeroed.top1[i] == (at_last.argmax(-1) == batch.target).numpy()).all()


def test_chunks_do_not_change_scores(gpt2: LensModel, words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = encode(gpt2, sample_prompts(words, 7, shots=2))
    heads = [Head(0, 1), Head(2, 3)]
    whole = log_prob_increase(gpt2, batch), position_increase(gpt2, batch, heads), answer(gpt2, batch)
    chunks = PromptBatch.chunks
    monkeypatch.setattr(PromptBatch, "chunks", lambda self: chunks(self, max_tokens=1))
    monkeypatch.setattr("icl_circuits.heads.increase.LOGITS_AT_ONCE", 1000)
    monkeypatch.setattr("icl_circuits.models.norms.IN_CACHE", 100)
    monkeypatch.setattr("icl_circuits.models.norms.ROWS_AT_ONCE", 3)
    parts = log_prob_increase(gpt2, batch), position_increase(gpt2, batch, heads), answer(gpt2, batch)
    for one, other in zip(whole, parts, strict=True):
        for field, value in vars(one).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(getattr(other, field), value, atol=1e-4, err_msg=field)


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("at_once", [1, 7, 1 << 22])
def test_metrics_of_states_are_those_of_their_logits(
    planted_batch: PromptBatch, gpt2: LensModel, at_once: int, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts of the vocabulary as in whole rows, where logits tie, and where a bias tips the scales."""
    monkeypatch.setattr("icl_circuits.models.norms.IN_CACHE", at_once * len(planted_batch))
    out = readout(gpt2)
    n_vocab = 1 + int(max(planted_batch.answer_tokens.max(), planted_batch.target.max()))
    W_U = torch.randn(5, n_vocab, generator=torch.Generator().manual_seed(0))
    W_U[:, 0] = W_U[:, planted_batch.target[0]]
    out = replace(out, W_U=W_U, b_U=torch.linspace(-1, 1, n_vocab), softcap=cap)
    out.b_U[0] = out.b_U[planted_batch.target[0]]
    states = torch.randn(4, len(planted_batch), 5, generator=torch.Generator().manual_seed(1))
    found = from_states(EVERY_RULE, out, states, planted_batch)
    rows = torch.stack([from_logits(EVERY_RULE, out.unembed(row), planted_batch) for row in states])
    torch.testing.assert_close(found, rows, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[..., 0], rows[..., 0])
    for name in ("top1", "prob", "logit_diff"):
        one = torch.stack([from_logits(name, out.unembed(row), planted_batch) for row in states])
        torch.testing.assert_close(from_states(name, out, states, planted_batch), one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_hold_in_other_precisions(folders: Any, words: Any, dtype: torch.dtype, monkeypatch: Any) -> None:
    """Also where the residual stream is large: float16 overflows in the squares of a norm at 256."""
    exact = load_model(str(folders["llama"]), device="cpu")
    model = load_model(str(folders["llama"]), device="cpu", dtype=dtype)
    for some in (exact, model):
        some.W_E.data *= 3000 if dtype != torch.bfloat16 else 1  # beyond the reach of float16's squares
    scores = [log_prob_increase(some, encode(some, sample_prompts(words, 4, shots=2))) for some in (exact, model)]
    assert (scores[0].heads != 0).all()
    tolerance = 1e-3 if dtype == torch.float64 else 0.05 * np.abs(scores[0].heads).max()
    np.testing.assert_allclose(scores[1].heads, scores[0].heads, atol=tolerance)


def test_zero_shot_prompts_are_scored(model: LensModel, words: Any) -> None:
    batch = encode(model, sample_prompts(words, 3, shots=0))
    assert batch.label_positions.shape == (3, 0)
    assert np.isfinite(log_prob_increase(model, batch).heads).all()


def test_positions_to_frame(planted: LensModel, planted_batch: PromptBatch) -> None:
    frame = position_increase(planted, planted_batch, [FOOHEAD]).to_frame()
    assert len(frame) == int((planted_batch.last + 1).sum())
    assert frame["attention"].sum() == pytest.approx(N_PROMPTS)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_every_rule_by_hand(planted_batch: PromptBatch) -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]))
    of_three = planted_batch.select([0, 1, 2])
    gold = torch.tensor([0, 1, 0])
    of_three = dataclasses.replace(of_three, label_tokens=torch.tensor([0, 1]), gold=gold, target=gold)
    answers = as_answers(from_logits(EVERY_RULE, logits, of_three))
    assert answers.top1.tolist() == [True, False, False]
    assert answers.between_labels.tolist() == [True, True, False]
    np.testing.assert_allclose(answers.log_prob, np.log([0.5, 0.3, 0.4]), rtol=1e-6)
    np.testing.assert_allclose(answers.logit_diff, np.log([5 / 3, 3 / 2, 1]), atol=1e-6)


def test_random_heads_keep_to_the_layers() -> None:
    heads = tuple(Head(layer, head) for layer in range(3) for head in range(4))
    selected = (Head(0, 0), Head(2, 0), Head(2, 1), Head(2, 2))
    draws = [random_heads(heads, selected, seed=(seed,)) for seed in range(20)]
    for draw in draws:
        assert len(set(draw)) == 4
        assert not set(draw) & set(selected)
        layers = sorted(head.layer for head in draw)
        assert layers == [0, 1, 1, 2]  # layer 2 has one head left, so two come from the layer beside it
    assert len(set(draws)) > 5
    assert draws == [random_heads(heads, selected, seed=(seed,)) for seed in range(20)]
    with pytest.raises(InputError, match="select at most 6"):
        random_heads(heads, heads[:7], seed=(0,))


def test_selecting_more_heads_than_scored(planted: LensModel, planted_batch: PromptBatch) -> None:
    effects = zero_each_head(planted, planted_batch, [FOOHEAD])
    increase = log_prob_increase(planted, planted_batch)
    for n_heads in (0, 2):
        with pytest.raises(InputError, match=f"cannot select {n_heads} heads: ask for 1 to 1"):
            select_heads(increase, effects, planted_batch.gold.numpy(), ("foo", "bar"), n_heads=n_heads)


def test_bootstrap() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, size=400)
    interval = bootstrap_mean(values)
    half_width = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.015)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.015)
    assert bootstrap_mean(values) == interval
    assert bootstrap_mean(np.ones(5)) == (1.0, 1.0, 1.0)
    assert math.isnan(bootstrap_mean(np.array([])).mean)


def test_group_zeroing_equals_zeroing_together(
    planted: LensModel, planted_batch: PromptBatch, planted_selection: Any
) -> None:
    groups = group_intervention(planted, planted_batch, planted_selection, n_random=2)
    expected = answer(planted, planted_batch, ZeroHeads(planted_selection.of()))
    np.testing.assert_array_equal(groups.all.answers.log_prob, expected.log_prob)


@pytest.mark.usefixtures("unchecked")
def test_one_prompt_selects_heads_with_a_warning(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 1, shots=1))
    with pytest.warns(UserWarning, match="selected on 1 prompt, mostly by chance: use more prompts"):
        score_heads(gpt2, batch, n_heads=2, rule="paper")
    with pytest.raises(Unfit, match="no head of 12 adds log-probability.* that 1 prompts tell from zero"):
        score_heads(gpt2, batch, n_heads=2)
