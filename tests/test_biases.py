"""Biases and their mitigations: planted biases that a known intervention removes, and the sweep against real runs."""

import numpy as np
import pytest
import torch
from conftest import require_backend
from planted import planted_model, planted_rows

from icl_circuits import InputError, Unfit
from icl_circuits.biases import (
    MajorityBias,
    RecencyBias,
    add_minority_values,
    arrangements,
    choose,
    majority_bias,
    mitigation,
    recency_bias,
)
from icl_circuits.biases.majority import imbalances, minority_weights
from icl_circuits.biases.recency import arrange
from icl_circuits.heads import Answers, answer
from icl_circuits.interventions import WithoutPosition, intervene
from icl_circuits.models import LensModel
from icl_circuits.prompts import Rows, encode, imbalance, sample_prompts, zero_shot
from icl_circuits.residual import Head, answer_logits

READER = Head(1, 2)
"""The planted head that reads labels whatever their text."""


# --- majority ---------------------------------------------------------------------------------------------------------


def test_planted_majority() -> None:
    """A head that adds up label positions gives 4:1 to the majority; adding the minority's values back mends it."""
    require_backend("hooked")
    model = planted_model(recency=0.0)
    prompts = sample_prompts(planted_rows(), 8, shots=4, seed=0)
    found = majority_bias(model, prompts, [READER], coefficients=(0.0, 1.0), controls=[[Head(0, 2)]])
    assert found.keeps == ((4, 4), (3, 4), (2, 4), (1, 4), (4, 3), (4, 2), (4, 1))
    wrong = {
        (c, label) for c in range(7) for label in (0, 1) if not found.answers.top1[c, 0][found.gold == label].any()
    }
    assert wrong == {(3, 0), (6, 1)}
    assert found.fluctuation(0) == pytest.approx(1 / 6)
    assert found.overall_fluctuation(0) == pytest.approx(1 / 6)
    assert choose(found) == 1
    gained = mitigation(found, found, 1, len(prompts))
    assert gained.before.mean == pytest.approx(1 / 6)
    assert gained.after == pytest.approx((0, 0, 0))
    assert gained.reduction == pytest.approx((1, 1, 1))
    assert gained.cost.mean == pytest.approx(-1 / 7)  # it answers more, not fewer, prompts right
    control = found.controls[0]
    np.testing.assert_array_equal(control.answers.log_prob[:, 0], control.answers.log_prob[:, 1])
    assert mitigation(found, control, 1, len(prompts)).reduction.mean == 0
    frame = found.to_frame()
    assert frame.loc[frame["gold"].isna() & (frame["coefficient"] == 0), "top1"].tolist() == [1, 1, 1, 0.5, 1, 1, 0.5]


def test_no_bias_is_exactly_none() -> None:
    """Always right: nothing to reduce, and no strength is better than none, whatever the rounding."""
    right = np.ones((3, 2, 48), bool)
    answers = Answers(right, right, np.zeros(right.shape), np.zeros(right.shape))
    found = MajorityBias(((2, 2), (1, 2), (2, 1)), (0.0, 0.3), answers, np.arange(48) % 2, ("foo", "bar"))
    gained = mitigation(found, found, 1, 48)
    assert gained.before == gained.after == (0, 0, 0)
    assert np.isnan(gained.reduction).all()
    assert choose(found) == 0


def test_no_recency_is_none_despite_rounding() -> None:
    """Three orders, each right on one prompt in ten: their standard deviation is 0, but for rounding."""
    right = np.zeros((3, 2, 10), bool)
    right[:, :, 0] = True
    answers = Answers(right, right, np.zeros(right.shape), np.zeros(right.shape))
    orders = ((True, False, False), (False, True, False), (False, False, True))
    found = RecencyBias(orders, (0.0, 1.0), answers, (READER,), np.zeros((3, 2, 10, 1, 3)))
    assert 0 < found.fluctuation(0)[0] < 1e-15
    assert np.isnan(mitigation(found, found, 1, 10).reduction).all()
    assert choose(found) == 0


def test_the_sweep_is_the_intervention(model: LensModel, words: Rows) -> None:
    prompts, heads = sample_prompts(words, 4, shots=2, seed=1), (Head(0, 1), Head(1, 0), Head(2, 1))
    found = majority_bias(model, prompts, heads, coefficients=(0.0, 0.5, 2.0))
    for c, keep in enumerate(found.keeps):
        batch = encode(model, [imbalance(prompt, keep) for prompt in prompts])
        for s, coefficient in enumerate(found.strengths):
            with intervene(model, add_minority_values(batch, heads, coefficient)):
                logits = model(batch.tokens)[torch.arange(len(batch)), batch.last]
            expected = logits.log_softmax(-1).gather(1, batch.target[:, None])[:, 0]
            np.testing.assert_allclose(found.answers.log_prob[c, s], expected.numpy(), atol=1e-4)
    assert np.abs(found.answers.log_prob[1:, 2] - found.answers.log_prob[1:, 0]).max() > 1e-3
    np.testing.assert_array_equal(found.answers.log_prob[0, 0], found.answers.log_prob[0, 2])  # balanced: no minority


def test_added_values_by_hand(model: LensModel, words: Rows) -> None:
    """What is added, from the model's own cache: `a_c n_maj / n_min alpha_p v_p W_O` at minority positions."""
    prompts, head = [imbalance(p, (2, 1)) for p in sample_prompts(words, 3, shots=2, seed=1)], Head(1, 1)
    batch = encode(model, prompts)
    rows = torch.arange(len(batch))
    _, cache = model.run_with_cache(batch.tokens)
    v = cache["blocks.1.attn.hook_v"]
    v = v[:, :, head.head * v.shape[2] // model.cfg.n_heads]
    alpha = cache["blocks.1.attn.hook_pattern"][rows, head.head, batch.last]
    minority = torch.zeros_like(alpha)
    for row, prompt in enumerate(prompts):
        for place, demo in enumerate(prompt.demos):
            if demo.label == 1:
                minority[row, batch.label_positions[row, place]] = 2.0
    torch.testing.assert_close(minority_weights(batch), minority)
    added = torch.einsum("bs,bsk->bk", 0.5 * minority * alpha, v) @ model.blocks[1].attn.W_O[head.head]
    final = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"

    def add(resid: torch.Tensor, hook: object) -> torch.Tensor:
        resid = resid.clone()
        resid[rows, batch.last] += added
        return resid

    expected = model.run_with_hooks(batch.tokens, fwd_hooks=[(final, add)])[rows, batch.last]
    found = answer_logits(model, batch, add_minority_values(batch, [head], 0.5))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_majority_refuses(gpt2: LensModel, words: Rows) -> None:
    prompts = sample_prompts(words, 3, shots=2)
    with pytest.raises(InputError, match="2 or more demonstrations of each label"):
        majority_bias(gpt2, sample_prompts(words, 3, shots=1), [Head(0, 0)])
    with pytest.raises(InputError, match=r"\(2, 1\)"):
        majority_bias(gpt2, [imbalance(p, (2, 1)) for p in prompts], [Head(0, 0)])
    with pytest.raises(InputError, match="L0H99"):
        majority_bias(gpt2, prompts, [Head(0, 99)])
    with pytest.raises(InputError, match="name at least one"):
        majority_bias(gpt2, prompts, [])
    with pytest.raises(InputError, match="at least one of each"):
        majority_bias(gpt2, [], [Head(0, 0)])
    late = majority_bias(gpt2, prompts, [Head(0, 0)], coefficients=(0.3,))
    with pytest.raises(InputError, match="run 0, no mitigation, first"):
        choose(late)
    with pytest.raises(InputError, match="run 0, no mitigation, first"):
        mitigation(late, late, 0, 3)
    batch = encode(gpt2, prompts)
    with pytest.raises(InputError, match="added values have shape"):
        answer_logits(gpt2, batch.select([0]), add_minority_values(batch, [Head(0, 0)]))
    assert imbalances(3, 3)[:3] == ((3, 3, 3), (2, 3, 3), (1, 3, 3))


# --- recency ----------------------------------------------------------------------------------------------------------


def test_planted_recency() -> None:
    """A head that reads the last label makes its class the answer; without position it reads all labels alike."""
    require_backend("hooked")
    model, even = planted_model(recency=10.0), planted_model(recency=0.0)
    prompts = sample_prompts(planted_rows(), 6, shots=2, seed=0)
    found = recency_bias(model, prompts, [READER], n_orders=6)
    assert len(found.orders) == 6
    assert found.answers.top1[:, 0].mean(axis=1).tolist() == [float(order[-1]) for order in found.orders]
    assert found.fluctuation(0) == pytest.approx(0.5)
    full = found.strengths.index(1.0)
    gained = mitigation(found, found, full, len(prompts))
    assert gained.before == pytest.approx((0.5, 0.5, 0.5))
    assert gained.after == pytest.approx((0, 0, 0))
    assert gained.reduction == pytest.approx((1, 1, 1))
    assert gained.cost.mean == pytest.approx(-0.5)
    np.testing.assert_allclose(found.attention_by_place(0)[0], [[0, 0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(found.attention_by_place(full)[0], [[0.25] * 4], atol=1e-6)
    assert found.relative_attention_fluctuation(0) == pytest.approx(np.std([0, 0, 0, 4]))
    assert found.attention_fluctuation(0) == pytest.approx(np.std([0, 0, 0, 1]))
    batch = encode(model, prompts)
    with intervene(model, WithoutPosition((READER,))):
        logits = model(batch.tokens)
    torch.testing.assert_close(logits, even(batch.tokens), atol=1e-4, rtol=1e-4)


def test_recency_runs_are_the_models_own(model: LensModel, words: Rows) -> None:
    prompts, heads = sample_prompts(words, 3, shots=2, seed=1), (Head(1, 0),)
    if not getattr(model, "icl_scores_are_live", True):
        with pytest.raises(InputError, match="does not compute with the attention scores"):
            recency_bias(model, prompts, heads)
        return
    found = recency_bias(model, prompts, heads, n_orders=3, seed=2)
    for o, order in enumerate(found.orders):
        ordered = [arrange(prompt, order) for prompt in prompts]
        assert all(
            tuple(demo.label == prompt.gold for demo in prompt.demos) == order
            and {demo.text for demo in prompt.demos} == {demo.text for demo in old.demos}
            for prompt, old in zip(ordered, prompts, strict=True)
        )
        batch = encode(model, ordered)
        np.testing.assert_allclose(found.answers.log_prob[o, 0], answer(model, batch).log_prob, atol=1e-5)
        plain = answer(model, batch, WithoutPosition(heads))
        np.testing.assert_allclose(found.answers.log_prob[o, 2], plain.log_prob, atol=1e-5)
    assert found.attention.shape == (3, 3, 3, 1, 4)
    assert len(found.to_frame()) == 9


def test_arrangements() -> None:
    assert set(arrangements(3, 1, 10)) == {(True, False, False), (False, True, False), (False, False, True)}
    some = arrangements(8, 4, 5, seed=3)
    assert len(set(some)) == 5
    assert some[:2] == ((True,) * 4 + (False,) * 4, (False,) * 4 + (True,) * 4)
    assert all(sum(order) == 4 for order in some)
    assert some == arrangements(8, 4, 5, seed=3)
    with pytest.raises(Unfit, match="can stand in 1 order: recency needs 2"):
        arrangements(4, 4, 5)
    with pytest.raises(InputError, match="the number of orders is 1: .* ask for at least 2") as asked:
        arrangements(8, 4, 1)
    assert not isinstance(asked.value, Unfit)


def test_recency_refuses(gpt2: LensModel, words: Rows) -> None:
    prompts = sample_prompts(words, 2, shots=2)
    with pytest.raises(InputError, match="at least one of each"):
        recency_bias(gpt2, prompts, [Head(0, 0)], strengths=())
    with pytest.raises(InputError, match="different numbers of demonstrations"):
        recency_bias(gpt2, [prompts[0], imbalance(prompts[1], (2, 1))], [Head(0, 0)])
    with pytest.raises(Unfit, match="recency needs 2"):
        recency_bias(gpt2, [zero_shot(prompt) for prompt in prompts], [Head(0, 0)])
