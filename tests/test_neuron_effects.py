"""Neurons zeroed one by one, what neurons of many prompts share, heads by type, and what towers read of neurons."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control, ttest_rel
from test_subvalues import by_hand, close, tiny

import icl_circuits as icl
from icl_circuits import subvalues
from icl_circuits.errors import InputError
from icl_circuits.heads import log_prob_increase
from icl_circuits.models import LensModel, load_model, mlp_weights
from icl_circuits.prompts import PromptBatch, Rows, encode, imbalance, sample_prompts
from icl_circuits.residual import Head, Mlp, answer_logits
from icl_circuits.stats import generator
from icl_circuits.studies.subvalues.sentences import methods
from icl_circuits.towers import neuron_reads, tower_reads


def losses_by_hooks(model: LensModel, batch: PromptBatch, found: subvalues.ZeroedAlone) -> np.ndarray:
    """The same by `run_with_hooks`, a forward pass a neuron."""
    rows = torch.arange(len(batch))

    def log_prob(*hooks: Any) -> torch.Tensor:
        with torch.no_grad():
            logits = model.run_with_hooks(batch.tokens, fwd_hooks=list(hooks))[rows, batch.last]
        return logits.log_softmax(1)[rows, batch.target]

    lost = []
    for layer, neuron in zip(found.layer.tolist(), found.neuron.tolist(), strict=True):

        def zero(post: torch.Tensor, hook: object, neuron: int = neuron) -> torch.Tensor:
            post = post.clone()
            post[rows, batch.last, neuron] = 0
            return post

        lost.append(log_prob() - log_prob((f"blocks.{layer}.mlp.hook_post", zero)))
    return torch.stack(lost).numpy()


def test_neurons_zeroed_one_by_one(model: LensModel, batch: PromptBatch) -> None:
    found = subvalues.zero_each_neuron(model, batch, per_layer=4, seed=2)
    assert found.layer.tolist() == [layer for layer in range(model.cfg.n_layers) for _ in range(4)]
    np.testing.assert_allclose(found.lost, losses_by_hooks(model, batch, found), atol=2e-5)
    scores = subvalues.score_neurons(model, batch).score
    np.testing.assert_allclose(found.increase, scores[:, found.layer, found.neuron].T, atol=1e-5)
    assert (found.first_order >= found.increase - 1e-5).all()
    of_last = found.layer == model.cfg.n_layers - 1  # what the last layer writes, nothing reads but the final norm
    np.testing.assert_allclose(found.attribution[of_last], found.lost[of_last], atol=0.1 * np.abs(found.lost).max())
    ranks = found.rank_correlations("attribution")
    assert ranks.shape == (model.cfg.n_layers, len(batch))
    assert ranks[-1].mean() > 0.7
    frame = found.to_frame()
    assert len(frame) == 3 * model.cfg.n_layers
    last = frame[(frame["score"] == "attribution") & (frame["layer"] == model.cfg.n_layers - 1)]
    assert last["rank_correlation"].item() == pytest.approx(ranks[-1].mean())
    assert last["rank_correlation_low"].item() <= ranks[-1].mean() <= last["rank_correlation_high"].item()


def test_a_rank_correlation_that_is_none_is_none() -> None:
    same, values = np.zeros((3, 2), np.float32), np.array([[1, 1], [2, 2], [3, 3.0]], np.float32)
    same[:, 1] = [1, 2, 3]
    found = subvalues.ZeroedAlone(np.zeros(3, int), np.arange(3), same, values, values, values)
    ranks = found.rank_correlations("increase")
    assert np.isnan(ranks[0, 0])
    assert ranks[0, 1] == pytest.approx(1)
    assert found.to_frame()["rank_correlation"].tolist() == pytest.approx([1, 1, 1])


@pytest.mark.slow
def test_first_order_under_a_cap_is_a_slope(tmp_path: Any, words: Rows) -> None:
    """Where logits are capped, too, the first order is what a small share of the neuron adds, over that share."""
    model = tiny(tmp_path, "Gemma2ForCausalLM", final_logit_softcapping=1.0)
    batch = encode(model, sample_prompts(words, 2, shots=1))
    found = subvalues.zero_each_neuron(model, batch, per_layer=5)
    exact = [one.log_prob_increase.numpy() for one in by_hand(model, batch, "ffn")]
    increase = np.stack([one[found.layer, found.neuron, 0] for one in exact], 1)
    np.testing.assert_allclose(found.increase, increase, atol=1e-5)
    small = np.abs(increase) < 2e-3
    assert small.any()
    np.testing.assert_allclose(found.first_order[small], increase[small], atol=1e-4)


# --- what prompts share -----------------------------------------------------------------------------------------------


def test_shared_neurons() -> None:
    layer = np.array([[0, 0, 1], [0, 2, 1], [0, 2, 2]])
    head = np.array([[-1, -1, 3], [-1, -1, 3], [-1, -1, 3]])
    neuron = np.array([[7, 7, 5], [7, 4, 5], [7, 4, 5]])
    found = subvalues.shared_neurons((layer, head, neuron))
    assert found.to_dict("records") == [
        {"layer": 0, "head": -1, "neuron": 7, "prompts": 3},  # twice in the first prompt, which counts once
        {"layer": 1, "head": 3, "neuron": 5, "prompts": 2},
        {"layer": 2, "head": -1, "neuron": 4, "prompts": 2},
    ]
    assert len(subvalues.shared_neurons((layer, head, neuron), more_than=0.7)) == 1
    np.testing.assert_array_equal(subvalues.layer_counts(layer, 3), [[2, 1, 1], [1, 1, 0], [0, 1, 2]])


def of_probabilities(*left: list[float]) -> subvalues.NeuronEffects:
    """Effects of groups a, b and so on, without which these probabilities are left, prompt by prompt."""
    zeroed = np.repeat(np.array(left)[:, :, None], 3, axis=2)
    return subvalues.NeuronEffects(tuple("abcdefgh"[: len(left)]), np.ones(zeroed.shape[1:]), zeroed)


def test_the_best_group_is_compared_with_all_others() -> None:
    rng = np.random.default_rng(0)
    much, little = rng.uniform(0.5, 0.9, 20), rng.uniform(0.1, 0.3, 20)
    effects = of_probabilities(much.tolist(), little.tolist(), (little + rng.normal(0.01, 0.1, 20)).tolist())
    p = effects.less_left()
    left = effects.zeroed[:, :, 1]
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    plain = [ttest_rel(left[i], left[j], alternative="less").pvalue for i, j in pairs]
    np.testing.assert_allclose([p[pair] for pair in pairs], false_discovery_control(plain), rtol=1e-9)
    assert np.isnan(np.diag(p)).all()
    assert effects.least_left == left.mean(1).argmin()
    assert (p[effects.least_left, 0] < 0.05, p[1, 2] < 0.05) == (True, False)
    assert np.isnan(of_probabilities([0.5], [0.1]).less_left()).all()
    assert of_probabilities([0.5, 0.6]).less_left().shape == (1, 1)


def test_a_sentence_says_which_scores_do_as_well() -> None:
    few, many, spread = [0.1, 0.11, 0.12, 0.1], [0.8, 0.81, 0.82, 0.8], [0.1, 0.12, 0.12, 0.11]
    assert methods(of_probabilities(few, many)) == (
        "Least is left without the neurons of a: a probability of 0.11 [0.10, 0.11]. "
        "All other scores leave more (p < 0.05, corrected)."
    )
    alike = methods(of_probabilities(few, many, spread))
    assert alike.endswith("What c leaves cannot be told from it.")
    every = methods(of_probabilities([0.1], [0.2], [0.3], [0.4]))
    assert every.endswith("What 3 of the 3 other scores leave cannot be told from it.")


def test_sums_and_shares_of_query_neurons(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 4, shots=1, seed=1))
    increase = log_prob_increase(gpt2, batch)
    for kind, layers in (("ffn", increase.mlp), ("attention", increase.attn)):
        scores = np.nan_to_num(subvalues.score_neurons(gpt2, batch, kind).score.astype(float)).reshape(4, -1)
        sums = subvalues.concentration(gpt2, batch, kind, layers)
        close(sums.all, scores.sum(1), 1e-4)
        close(sums.positive, scores.clip(0).sum(1), 1e-4)
        close(sums.together, layers.sum(1))
    values, attention = (subvalues.top_neurons(gpt2, batch, kind, k=60) for kind in ("ffn", "attention"))
    query = subvalues.query_importance(gpt2, batch, attention, k=40)
    share = subvalues.query_only_share(query, values, gpt2.cfg.n_layers)
    for prompt in range(4):
        mine = set(zip(values.layer[prompt].tolist(), values.neuron[prompt].tolist(), strict=True))
        for layer in range(gpt2.cfg.n_layers):
            here = [n for at, n in zip(query.layer[prompt], query.neuron[prompt], strict=True) if at == layer]
            expected = np.mean([(layer, int(n)) not in mine for n in here]) if here else np.nan
            np.testing.assert_allclose(share[layer, prompt], expected)
    with pytest.raises(InputError, match="the value neurons are attention neurons: give FFN neurons"):
        subvalues.query_only_share(query, attention, gpt2.cfg.n_layers)


def test_heads_by_type(gpt2: LensModel, words: Rows) -> None:
    """Each prompt of the type loses the heads that the other half of its type chooses."""
    batch = encode(gpt2, sample_prompts(words, 6, shots=1, seed=2))
    increase, type_of = log_prob_increase(gpt2, batch), np.array([0, 1, 0, 1, 0, 1])
    found = subvalues.heads_by_type(gpt2, batch, increase, ("a", "b"), type_of, share=0.2, seed=3)
    rng = generator(3)
    for i in range(2):
        second = rng.permutation(np.flatnonzero(type_of == i))[:1]
        first = np.setdiff1d(np.flatnonzero(type_of == i), second)
        expected = np.zeros(6)
        by_side = [
            subvalues.target_measures(answer_logits(gpt2, batch, icl.ZeroHeads(heads)), batch)[:, 1].numpy()
            for heads in found.heads[i]
        ]
        for side, (mine, others) in enumerate(((first, second), (second, first))):
            best = increase.heads[others].mean(0).ravel().argsort()[::-1][:2]  # a fifth of twelve heads
            assert {head.layer * 4 + head.head for head in found.heads[i][side]} == set(best.tolist())
            expected[mine] = by_side[side][mine]
        expected[type_of != i] = np.mean(by_side, axis=0)[type_of != i]
        np.testing.assert_allclose(found.zeroed[i, :, 1], expected, atol=1e-5)
    frame = found.to_frame()
    assert len(frame) == 2 * 2 * 2
    own = frame[(frame["heads_of"] == "a") & (frame["heads"] == "own") & (frame["prompts_of"] == "a")]
    rows = type_of == 0
    change = found.zeroed[0, rows, 1].mean() / found.base[rows, 1].mean() - 1
    assert own["prob"].item() == pytest.approx(change, abs=1e-6)
    with pytest.raises(InputError, match="share is 0.0: give the share"):
        subvalues.heads_by_type(gpt2, batch, increase, ("a", "b"), type_of, share=0.0)
    with pytest.raises(InputError, match="type 'b' has 1 prompts"):
        subvalues.heads_by_type(gpt2, batch, increase, ("a", "b"), np.array([0, 1, 0, 0, 0, 0]))


# --- what towers read of neurons --------------------------------------------------------------------------------------


def test_neurons_that_towers_read(model: LensModel, batch: PromptBatch) -> None:
    """All neurons of a layer make its MLP's part of the class gap, but for the bias; the best come first."""
    heads, d_mlp = (Head(model.cfg.n_layers - 1, 1), Head(1, 0), Head(0, 2)), mlp_weights(model, 0).W_out.shape[0]
    found = neuron_reads(model, batch, heads, k=model.cfg.n_layers * d_mlp)
    reads = tower_reads(model, batch, heads)
    gaps = dict(zip(reads.components, np.moveaxis(reads.class_gap(), 3, 0), strict=True))
    biased = any(mlp_weights(model, layer).b_out.any() for layer in range(model.cfg.n_layers))
    for side in range(2):
        for h, head in enumerate(heads):
            values, finite = found.class_gap[side, h], np.isfinite(gaps[Mlp(0)][side, :, h])
            assert finite.any()
            np.testing.assert_array_equal(np.isfinite(found.all_neurons[side, h]), finite)
            for layer in range(head.layer):
                of_layer = found.layer[side, h] == layer
                assert sorted(found.neuron[side, h][of_layer].tolist()) == list(range(d_mlp))
                if not biased:
                    together = values[of_layer][:, finite].sum(0)
                    np.testing.assert_allclose(together, gaps[Mlp(layer)][side, finite, h], atol=1e-4)
            there = found.layer[side, h] >= 0
            assert there.sum() == head.layer * d_mlp
            close_to = values[there][:, finite].sum(0)
            np.testing.assert_allclose(found.all_neurons[side, h][finite], close_to, atol=1e-4)
            assert (np.diff(values[there][:, finite].mean(1)) <= 1e-6).all()
    assert set(found.to_frame()["side"]) == {"query", "key"}


def test_neurons_that_towers_read_go_by_their_numbers(folders: dict[str, Path], words: Rows) -> None:
    """A model whose neurons are put in another order says the same of them."""
    one, other = (load_model(str(folders["gpt2"]), device="cpu") for _ in range(2))
    batch = encode(one, sample_prompts(words, 4, shots=2, seed=3))
    order = torch.randperm(one.cfg.d_mlp, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mlp = other.blocks[0].mlp
        for name, moved in (("W_in", mlp.W_in[:, order]), ("b_in", mlp.b_in[order]), ("W_out", mlp.W_out[order])):
            getattr(mlp, name).copy_(moved.clone())
    found, moved = (neuron_reads(model, batch, [Head(1, 1)], k=6) for model in (one, other))
    np.testing.assert_array_equal(order.numpy()[moved.neuron], found.neuron)
    np.testing.assert_allclose(moved.class_gap, found.class_gap, atol=1e-5)


def test_neurons_are_chosen_on_prompts_with_a_gap(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 4, shots=2, seed=3))
    chosen = neuron_reads(gpt2, batch, [Head(2, 1)], k=3)
    elsewhere = encode(gpt2, sample_prompts(words, 4, shots=2, seed=4))
    measured = neuron_reads(gpt2, elsewhere, [Head(2, 1)], k=3, choose_on=batch)
    np.testing.assert_array_equal(measured.layer, chosen.layer)
    np.testing.assert_array_equal(measured.neuron, chosen.neuron)
    assert not np.allclose(measured.class_gap, chosen.class_gap)
    prompts = [imbalance(prompt, (2, 0)) for prompt in sample_prompts(words, 2, shots=2, seed=3)]
    one_sort = encode(gpt2, prompts)
    with pytest.raises(InputError, match="no class gap to choose by"):
        neuron_reads(gpt2, batch, [Head(2, 1)], choose_on=one_sort)
