"""The relation index: worked out by hand on a planted model, by a plain triple loop elsewhere, and what is refused.

The loop takes activations from `run_with_cache`, and for each head, triplet and position one projection over the whole
vocabulary, with its softmax.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from architectures import tiny_config
from conftest import loaded, require_backend, save_model, save_tokenizer
from planted_relations import planted_relations
from test_odd_models import EXACT, hooked_model
from test_relations_corpus import text_of
from torch import Tensor

from icl_circuits.errors import InputError, Unfit
from icl_circuits.models import LensModel, attached, attention_weights, kv_head, readout
from icl_circuits.prompts import token_batch
from icl_circuits.relations import (
    Corpus,
    RelationBatch,
    RelationIndex,
    heads,
    load_conllu,
    relation_batch,
    relation_index,
)
from icl_circuits.relations.heads import Attention, OvInput, heads_on_texts
from icl_circuits.relations.index import PERCENTILE, TAUS, TENTH
from icl_circuits.relations.indices import EDGES
from icl_circuits.residual import Head
from icl_circuits.stats import false_discovery

WAYS = [(attention, ov_input) for attention in get_args(Attention) for ov_input in get_args(OvInput)]
MODEL_WAYS = [WAYS[0], *(pytest.param(*way, marks=pytest.mark.thorough) for way in WAYS[1:])]
"""On many models the default is tried every time."""
Place = tuple[int, int, int]
"""Of a triplet: the text, the positions of its head and its tail."""


def batch_of(
    model: LensModel, rows: Sequence[Sequence[int]], triplets: Sequence[Place], relation: Sequence[int] | None = None
) -> RelationBatch:
    """Triplets of tokens, of relations `r0`, `r1` and so on; without `relation`, all of one."""
    numbers = np.array([0] * len(triplets) if relation is None else relation, dtype=np.int64)
    text, head, tail = np.array(triplets, dtype=np.int64).T
    names = tuple(f"r{i}" for i in range(int(numbers.max()) + 1))
    batch = token_batch(model, [list(row) for row in rows], [row[-1] for row in rows])
    return RelationBatch(batch, names, text, numbers, head, tail, ())


# --- the plain loop ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passed:
    """A triplet at a position that attends to its head most, in one head that raises something there."""

    triplet: int
    layer: int
    head: int
    ratio: float
    share: float
    tenth: float
    others: tuple[float, ...]
    """The shares of the different tokens up to head and tail, the tail left out."""
    behind: bool
    """Whether the position is behind the triplet, not that of its later word."""


@torch.no_grad()
def by_hand(model: LensModel, given: RelationBatch, attention: str, ov_input: str) -> list[Passed]:
    found = []
    out, W_E = readout(model), model.embed.W_E.double()
    for row, last in enumerate(given.batch.last.tolist()):
        tokens = given.batch.tokens[row, : last + 1]
        _, cache = model.run_with_cache(tokens[None])
        final = cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][0].double()
        for layer in range(model.cfg.n_layers):
            weights = attention_weights(model, layer)
            for head in range(model.cfg.n_heads):
                W_Q, W_K, W_V, W_O = (getattr(weights, f"W_{x}")[head].double() for x in "QKVO")
                v = cache[f"blocks.{layer}.attn.hook_v"][0, :, kv_head(model, head)].double() - weights.b_V[head]
                for triplet in np.flatnonzero(given.text == row):
                    s, o = int(given.head_pos[triplet]), int(given.tail_pos[triplet])
                    for j in range(max(s, o), last + 1):
                        x = W_E[tokens[: j + 1]]
                        if attention == "model":
                            A = cache[f"blocks.{layer}.attn.hook_pattern"][0, head, j, : j + 1].double()
                        else:
                            A = (x[j] @ W_Q @ W_K.T @ x.T / model.cfg.d_head**0.5).softmax(-1)
                        ratio = float(A[s] / max(A[k] for k in range(j + 1) if k != s))
                        if ratio < 1:
                            continue
                        if ov_input == "embedding":
                            logits = x[j] @ W_V @ W_O @ out.W_U.double()
                        else:
                            written = v[j] @ W_O
                            if weights.outlet.normalises:  # a post-norm, whose scale all heads make together
                                z = cache[f"blocks.{layer}.attn.hook_z"][0, j].double()
                                raw = torch.einsum("hk,hkm->m", z, weights.W_O.double()) + weights.b_O
                                written = normed(weights.outlet, written, raw)
                            logits = normed(out.norm, written, final[j]) @ out.W_U.double()
                        p = logits.softmax(-1)
                        seen = tokens[: j + 1].tolist()
                        different = list(dict.fromkeys(seen))
                        mean = sum(float(p[t]) for t in different) / len(different)
                        q = {t: max(0.0, float(p[t]) - mean) for t in different}
                        total = sum(q.values())
                        if total == 0:
                            continue
                        a = {t: q[t] / total for t in different}
                        tenth = a[seen[9]] if j >= 9 else math.nan
                        before = dict.fromkeys(t for t in seen[: max(s, o) + 1] if t != seen[o])
                        others = tuple(a[t] for t in before)
                        found.append(Passed(int(triplet), layer, head, ratio, a[seen[o]], tenth, others, j > max(s, o)))
    return found


def normed(norm: Any, x: Tensor, own: Tensor) -> Tensor:
    """Through a norm under the scale of `own`, without its bias."""
    if norm.centred:
        x, own = x - x.mean(), own - own.mean()
    scale = (own.pow(2).mean() + norm.eps).sqrt() if norm.normalises else 1.0
    return x / scale * norm.weight.double()


def index_by_hand(
    model: LensModel, given: RelationBatch, found: list[Passed], tau: float, what: Callable[[Passed], float]
) -> np.ndarray:
    """The mean over what passes, for every relation, layer and head."""
    shape = (len(given.relations), model.cfg.n_layers, model.cfg.n_heads)
    values: list[list[float]] = [[] for _ in range(math.prod(shape))]
    for one in found:
        if one.ratio > tau and np.isfinite(what(one)):
            place = (int(given.relation[one.triplet]), one.layer, one.head)
            values[int(np.ravel_multi_index(place, shape))].append(what(one))
    return np.array([np.mean(some) if some else np.nan for some in values]).reshape(shape)


def require_index(model: LensModel, given: RelationBatch, attention: Attention, ov_input: OvInput) -> None:
    expected = by_hand(model, given, attention, ov_input)
    ratios = sorted(one.ratio for one in expected)
    assert len(ratios) >= 10
    tau = (ratios[len(ratios) // 4] + ratios[len(ratios) // 4 + 1]) / 2  # raw embeddings of these models hardly attend
    found = relation_index(model, given, tau=tau, attention=attention, ov_input=ov_input, draws=10)
    near = {"rtol": 0, "atol": 1e-5}
    assert found.relations == given.relations

    def index(what: Callable[[Passed], float], tau: float = tau) -> np.ndarray:
        return index_by_hand(model, given, expected, tau, what)

    np.testing.assert_allclose(found.index, index(lambda one: one.share), **near)
    np.testing.assert_allclose(found.behind, index(lambda one: one.share if one.behind else math.nan), **near)
    np.testing.assert_allclose(found.tenth, index(lambda one: one.tenth), **near)
    counts = [int(np.sum([one.ratio > tau for one in some])) for some in grouped(model, given, expected)]
    assert found.n_passing.ravel().tolist() == counts
    np.testing.assert_allclose(found.random, index(lambda one: float(np.mean(one.others))), **near)
    np.testing.assert_allclose(found.taus, [*TAUS, ratios[math.ceil(len(ratios) * PERCENTILE / 100) - 1]], rtol=1e-4)
    for values, other in zip(found.by_tau[:3], TAUS, strict=True):
        np.testing.assert_allclose(values, index(lambda one: one.share, other), **near)
    assert found.ratios.sum() == len(expected)
    np.testing.assert_array_equal(found.ratios[:-1], np.histogram(ratios, EDGES)[0][:-1])
    by_triplet = np.full((len(given), model.cfg.n_layers, model.cfg.n_heads), np.nan)
    for place in np.ndindex(by_triplet.shape):
        some = [one.share for one in expected if (one.triplet, one.layer, one.head) == place and one.ratio > tau]
        by_triplet[place] = np.mean(some) if some else np.nan
    np.testing.assert_allclose(found.by_triplet, by_triplet, **near)


def grouped(model: LensModel, given: RelationBatch, found: list[Passed]) -> list[list[Passed]]:
    """By relation, layer and head."""
    places = np.ndindex(len(given.relations), model.cfg.n_layers, model.cfg.n_heads)
    return [[one for one in found if (given.relation[one.triplet], one.layer, one.head) == place] for place in places]


ROWS = ([0, 9, 21, 7, 30, 7, 45, 11, 11, 52, 60, 9, 33], [0, 5, 5, 5, 40, 41, 42], [3, 8, 2, 70, 9, 1, 15, 16, 17, 2])
TRIPLETS = (
    (0, 2, 3), (0, 4, 1), (0, 6, 5), (0, 6, 9), (0, 0, 7), (0, 4, 6), (1, 4, 2), (1, 5, 4), (1, 0, 3),
    (2, 0, 1), (2, 1, 2), (2, 5, 3), (2, 4, 0),
)  # fmt: skip
"""A tail before its head and behind it, tails that the text has more than once, texts of fewer than ten tokens and of
just as many. No head is there twice, or raw embeddings would attend to both alike."""
RELATION = (0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0)


@pytest.mark.parametrize(("attention", "ov_input"), MODEL_WAYS)
def test_the_index_is_the_formula(model: LensModel, attention: Attention, ov_input: OvInput) -> None:
    given = batch_of(model, ROWS, TRIPLETS, RELATION)
    given = dataclasses.replace(given, relations=(*given.relations, "none left"))
    require_index(model, given, attention, ov_input)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["post-norms", "no norms", "soft caps", "grouped queries, hooks ungrouped", "parallel"]
)
def test_the_index_is_the_formula_on_odd_models(name: str) -> None:
    model = hooked_model(EXACT[name])
    rows = [[token % 50 for token in row] for row in ROWS]
    triplets = [(text, s, o) for text, s, o in TRIPLETS if rows[text].count(rows[text][s]) == 1]
    for attention, ov_input in WAYS:
        require_index(model, batch_of(model, rows, triplets), attention, ov_input)


def test_heads_that_write_little_are_as_exact() -> None:
    """Their probabilities are close to even, and what is left of those when the mean is off would be rounding."""
    model = hooked_model({"n_layers": 1, "dtype": torch.float32}).to(torch.float32, print_details=False)
    with torch.no_grad():
        for name in ("W_V", "b_V"):
            getattr(model.blocks[0].attn, name).mul_(1e-4)
    rows = [[token % 50 for token in row] for row in ROWS[2:]]
    given = batch_of(model, rows, [(0, 0, 1), (0, 1, 2), (0, 5, 3)])
    for ov_input in get_args(OvInput):
        require_index(model, given, "model", ov_input)


# --- the planted model: every index is known --------------------------------------------------------------------------

FOUND, OTHER_WORD, WEAK = Head(0, 0), Head(0, 1), Head(1, 0)
TEXTS = (
    text_of("the cat eats fish runs so on a dog the", ("eats", "cat", "fish"), ("chases", "dog", "cat")),
    text_of("a dog runs the cat eats fish", ("eats", "cat", "fish")),
) * 3
LATE = (8 - 20 / 10) / (8 - 20 / 10 + 4 - 20 / 10)
"""`fish` in the first text where all ten tokens have been seen: probabilities are as 8 and 4 and eight times 1."""
SHORT = (8 - 18 / 8) / (8 - 18 / 8 + 4 - 18 / 8)
"""`fish` at the end of the second."""


@pytest.fixture(scope="module")
def micro() -> LensModel:
    require_backend("hooked")
    return planted_relations()


@pytest.fixture
def eats(micro: LensModel) -> RelationBatch:
    return relation_batch(micro, Corpus("told", TEXTS))


@pytest.mark.parametrize(("attention", "ov_input"), WAYS)
def test_planted_head_and_no_other(
    micro: LensModel, eats: RelationBatch, attention: Attention, ov_input: OvInput
) -> None:
    """`fish` alone is raised while `dog` is unseen, at five positions of the first text; then at two beside it."""
    found = relation_index(micro, eats, attention=attention, ov_input=ov_input)
    assert found.relations == ("eats", "chases")
    near = {"rtol": 0, "atol": 1e-5}
    n_passing = np.zeros((2, 2, 3))
    n_passing[0, 0, 0], n_passing[0, 0, 1] = 24, 21  # `runs` is not yet seen at `fish`, so L0H1 raises nothing there
    np.testing.assert_array_equal(found.n_passing, n_passing)
    index = np.full((2, 2, 3), np.nan)
    index[0, 0, 0], index[0, 0, 1] = (5 + 2 * LATE + SHORT) / 8, 0
    np.testing.assert_allclose(found.index, index, **near)
    tenth = np.full((2, 2, 3), np.nan)
    tenth[0, 0, 0], tenth[0, 0, 1] = 0, 0  # counted without BOS: a word that no head raises
    np.testing.assert_allclose(found.tenth, tenth, **near)
    random = np.full((2, 2, 3), np.nan)
    random[0, 0, 0], random[0, 0, 1] = (1 - SHORT) / 8 / 6, 1 / 7 / 6  # `dog` and `runs`, each one of six others
    np.testing.assert_allclose(found.random, random, **near)
    p = np.full((2, 2, 3), np.nan)
    p[0, 0, 0], p[0, 0, 1] = 1 / 4001, 1
    np.testing.assert_allclose(found.p, p)
    np.testing.assert_allclose(found.p_fdr[0, 0, :2], [2 / 4001, 1])
    assert found.top("eats", at_least=1) == (FOUND,)
    assert found.top("eats", at_most=1.0, at_least=1) == (FOUND, OTHER_WORD)
    assert found.top("chases", at_least=1) == ()
    by_triplet = np.full((9, 2, 3), np.nan)
    by_triplet[:, 0, 0], by_triplet[:, 0, 1] = [(5 + 2 * LATE) / 7, np.nan, SHORT] * 3, [0, np.nan, 0] * 3
    np.testing.assert_allclose(found.by_triplet, by_triplet, **near)
    assert found.best_heads().tolist() == [[[6, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert found.taus[:3] == (2.0, 2.2, 2.5)
    assert found.taus[3] == pytest.approx(3.05, abs=1e-4)
    for values in found.by_tau[:3]:
        np.testing.assert_allclose(values[0, 0, :2], index[0, 0, :2], **near)
    assert found.by_tau[0][WEAK_PLACE] == pytest.approx(index[0, 0, 0], abs=1e-5)
    assert np.isnan(found.by_tau[1][WEAK_PLACE])
    assert found.ratios[30] == 45
    assert found.ratios[20] == 24
    assert found.ratios[11:].sum() == 69


WEAK_PLACE = (0, *WEAK)


def test_planted_thresholds(micro: LensModel, eats: RelationBatch) -> None:
    assert np.isfinite(relation_index(micro, eats, tau=2.0).index[WEAK_PLACE])
    higher = relation_index(micro, eats, tau=3.1)
    assert not higher.n_passing.any()
    for values in (higher.index, higher.tenth, higher.random, higher.p, higher.p_fdr, higher.by_triplet):
        assert np.isnan(values).all()
    assert not len(higher.to_frame())
    assert not higher.best_heads().any()
    assert higher.top("eats") == ()


def test_attention_to_nothing_else(micro: LensModel, eats: RelationBatch) -> None:
    """A ratio has no limit where the next attention is rounded to 0."""
    found = relation_index(micro, eats)
    W_K, before = micro.blocks[0].attn.W_K, micro.blocks[0].attn.W_K.clone()
    with torch.no_grad():
        W_K *= 1000
    try:
        sharp = relation_index(micro, eats)
    finally:
        with torch.no_grad():
            W_K.copy_(before)
    np.testing.assert_allclose(sharp.index, found.index, atol=1e-6)
    assert sharp.taus[-1] == math.inf
    assert sharp.ratios[-1] == 45


# --- against chance ---------------------------------------------------------------------------------------------------


def random_triplets(n_texts: int, per_text: int, seed: int = 0) -> tuple[list[list[int]], list[Place]]:
    """Random texts, and of each triplets of a random position, a head there or before, and a random token as tail."""
    rng = np.random.default_rng(seed)
    rows, triplets = [], []
    for text in range(n_texts):
        row = rng.integers(50, size=16).tolist()
        for _ in range(per_text):
            after = int(rng.integers(3, 12))
            kinds = list(dict.fromkeys(row[: after + 1]))
            tail = row.index(kinds[rng.integers(len(kinds))])
            triplets.append((text, int(rng.integers(after)) if tail == after else after, tail))
        rows.append(row)
    return rows, triplets


@pytest.mark.slow
@pytest.mark.parametrize("per_relation", [1, 20])
def test_p_values_of_a_random_model_are_even(per_relation: int) -> None:
    """With few triplets p cannot be low: the tail is always one of few tokens."""
    model = hooked_model({})
    rows, triplets = random_triplets(200, 6)
    given = batch_of(model, rows, triplets, [i // per_relation for i in range(len(triplets))])
    found = relation_index(model, given, tau=1.0, draws=199)
    p = found.p[np.isfinite(found.p)]
    assert len(p) > 500
    assert p.min() >= 1 / 200
    for level in (0.05, 0.1, 0.2, 0.5):
        assert (p <= level).mean() <= 1.1 * level
        assert per_relation == 1 or (p <= level).mean() >= 0.6 * level
    assert np.nanmean(found.p_fdr <= 0.05) < 0.01
    far = found.index - found.random
    assert abs(np.nanmean(far)) < 0.02
    np.testing.assert_allclose(found.p_fdr, false_discovery(found.p))


def test_a_p_value_by_hand(micro: LensModel) -> None:
    """One text: of its four tokens up to `fish` only `fish` is raised so much, and a fourth of the draws are it."""
    found = relation_index(micro, relation_batch(micro, Corpus("told", TEXTS[:1])), draws=20000)
    assert found.p[0, 0, 0] == pytest.approx(1 / 4, abs=0.015)
    both = relation_index(micro, relation_batch(micro, Corpus("told", TEXTS[:2])), draws=20000)
    assert both.p[0, 0, 0] == pytest.approx(1 / 4 / 7, abs=0.006)


def test_draws_are_those_of_the_seed(gpt2: LensModel) -> None:
    given = batch_of(gpt2, ROWS, TRIPLETS, RELATION)
    first, again, other = (relation_index(gpt2, given, tau=1.0, draws=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.p, again.p)
    assert (first.p[first.n_passing > 0] != other.p[first.n_passing > 0]).any()
    np.testing.assert_array_equal(first.index, other.index)
    np.testing.assert_array_equal(first.random, other.random)
    assert np.nanmin(first.p) >= 1 / 31
    assert np.nanmax(first.p) <= 1


def test_a_tail_that_nothing_else_stands_before(gpt2: LensModel) -> None:
    """Then every draw is the tail, and so is what the index is compared with."""
    given = batch_of(gpt2, [[7, 7, 7, 21, 30, 9]], [(0, 1, 0)])
    found = relation_index(gpt2, given, tau=1.0, draws=20)
    assert found.n_passing.any()
    np.testing.assert_allclose(found.random, found.index, atol=1e-6)
    assert (found.p[found.n_passing > 0] == 1).all()


def test_false_discovery_by_hand() -> None:
    """Sorted, 0.01 and 0.02 and 0.03 and 0.5 of four: times 4, 2, 4/3 and 1, and none above the next."""
    p = np.array([[0.5, 0.02, np.nan], [0.03, np.nan, 0.01]])
    np.testing.assert_allclose(false_discovery(p), [[0.5, 0.04, np.nan], [0.04, np.nan, 0.04]])
    np.testing.assert_allclose(false_discovery(np.array([0.001, 0.9, 0.8])), [0.003, 0.9, 0.9])
    assert np.isnan(false_discovery(np.full(3, np.nan))).all()
    assert false_discovery(np.array([0.2])).tolist() == [0.2]


# --- which texts run together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attention", "ov_input"), WAYS)
def test_texts_by_themselves_say_the_same(gpt2: LensModel, attention: Attention, ov_input: OvInput) -> None:
    def run(given: RelationBatch) -> np.ndarray:
        return relation_index(gpt2, given, tau=1.0, attention=attention, ov_input=ov_input, draws=2).by_triplet

    together = run(batch_of(gpt2, ROWS, TRIPLETS))
    alone = np.full_like(together, np.nan)
    for row in range(len(ROWS)):
        mine = [i for i, (text, _, _) in enumerate(TRIPLETS) if text == row]
        alone[mine] = run(batch_of(gpt2, [ROWS[row]], [(0, *TRIPLETS[i][1:]) for i in mine]))
        one = mine[0]
        np.testing.assert_allclose(run(batch_of(gpt2, ROWS, [TRIPLETS[one]])), together[[one]], atol=1e-5)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    turned = batch_of(gpt2, ROWS[::-1], [(2 - text, s, o) for text, s, o in TRIPLETS])
    wider = torch.nn.functional.pad(turned.batch.tokens, (0, 5), value=9)
    turned = dataclasses.replace(turned, batch=dataclasses.replace(turned.batch, tokens=wider))
    np.testing.assert_allclose(run(turned), together, atol=1e-5)


def test_many_texts_run_in_parts(gpt2: LensModel) -> None:
    rows, triplets = random_triplets(6, 2)
    longer = [[*row, *range(60, 160)] for row in rows] * 4
    many = [(text + 6 * copy, s, o) for copy in range(4) for text, s, o in triplets]
    given = batch_of(gpt2, longer, many)
    assert len(list(given.batch.chunks(2048))) > 1
    by_triplet = relation_index(gpt2, given, tau=1.5, draws=2).by_triplet
    assert np.isfinite(by_triplet).any()
    for copy in range(1, 4):
        np.testing.assert_allclose(by_triplet[12 * copy : 12 * (copy + 1)], by_triplet[:12], atol=1e-5)


def test_short_texts_have_no_tenth_token(gpt2: LensModel) -> None:
    short = relation_index(gpt2, batch_of(gpt2, [ROWS[0][:TENTH], ROWS[1]], [(0, 2, 3), (1, 4, 2)]), tau=1.0, draws=2)
    assert short.n_passing.any()
    assert np.isnan(short.tenth).all()
    just = batch_of(gpt2, [ROWS[0][: TENTH + 1]], [(0, s, 1) for s in range(2, TENTH)])
    assert np.isfinite(relation_index(gpt2, just, tau=1.0, draws=2).tenth).any()


@pytest.mark.slow
def test_relations_of_smollm2(smollm2: LensModel) -> None:
    given = relation_batch(smollm2, load_conllu("dependencies"), n_texts=20)
    found = relation_index(smollm2, given, draws=100)
    assert found.n_passing.any(axis=(1, 2)).all()
    for values in (found.index, found.tenth, found.random, found.by_tau):
        values = values[np.isfinite(values)]  # noqa: PLW2901
        assert (values >= 0).all()
        assert (values <= 1 + 1e-6).all()
    texts = list(heads_on_texts(smollm2, given.batch, "model", "embedding"))
    assert sorted({text.row for text in texts}) == list(range(len(given.batch)))
    assert len(texts) == len(given.batch) * smollm2.cfg.n_layers
    for text in texts[::10]:
        n_heads, n_pos = text.ratio.shape
        sums = text.shares(torch.arange(n_heads).repeat_interleave(n_pos), torch.arange(n_pos).repeat(n_heads)).sum(1)
        np.testing.assert_allclose(sums[torch.isfinite(sums)], 1, atol=1e-4)


@pytest.mark.slow
def test_embeddings_that_a_model_multiplies(tmp_path: Path) -> None:
    """Gemma's are W_E times the root of its width, and so they are taken; with positions added they are W_E."""
    save_model(tmp_path, tiny_config("GemmaForCausalLM", save_tokenizer(tmp_path)))
    model = loaded(tmp_path, "bridge")
    times = model.cfg.d_model**0.5
    assert heads._embedding_multiplier(model) == pytest.approx(times, rel=1e-3)
    assert heads._embedding_multiplier(hooked_model({})) == 1.0
    rows, triplets = random_triplets(3, 6)
    given = batch_of(model, rows, triplets)
    found = relation_index(model, given, tau=1.0, draws=10)
    with torch.no_grad():
        _, cache = model.run_with_cache(given.batch.tokens)
    expected = cache["blocks.0.hook_resid_pre"][0, 0]
    torch.testing.assert_close(times * model.embed.W_E[given.batch.tokens[0, 0]], expected, rtol=1e-2, atol=1e-3)
    assert np.isfinite(found.index).any()


# --- what is made of it -----------------------------------------------------------------------------------------------

NAN = np.nan


def told() -> RelationIndex:
    """Of two relations, one layer of three heads; the second relation has nothing that passes in the second head."""
    index = np.array([[[0.2, 0.6, 0.4]], [[0.1, NAN, 0.3]]])
    p_fdr = np.array([[[0.01, 0.05, 0.2]], [[0.04, NAN, 0.03]]])
    by_triplet = np.array(
        [[[0.1, 0.5, NAN]], [[0.5, NAN, 0.5]], [[0.3, 0.7, 0.4]], [[0.0, NAN, 0.0]], [[0.2, NAN, 0.6]]]
    )
    at_three = np.array([[[0.5, 0.6, NAN]], [[NAN, NAN, NAN]]])
    return RelationIndex(
        relations=("subj", "obj"), tau=2.2, index=index, n_passing=np.array([[[4, 3, 2]], [[5, 0, 1]]]),
        behind=index / 3, tenth=index / 2, random=index / 4, p=p_fdr / 2, p_fdr=p_fdr,
        relation_of=np.array([0, 0, 0, 1, 1]), text_of=np.array([0, 0, 1, 1, 2]),
        by_triplet=by_triplet, taus=(2.0, 3.0), by_tau=np.stack([index, at_three]),
        ratios=np.zeros(100, dtype=np.int64),
    )  # fmt: skip


def test_frame() -> None:
    frame = told().to_frame()
    columns = ["relation", "layer", "head", "index", "n_passing", "behind", "tenth", "random", "p", "p_fdr"]
    assert frame.columns.tolist() == columns
    assert frame["relation"].tolist() == ["subj"] * 3 + ["obj"] * 2
    assert frame["head"].tolist() == [1, 2, 0, 2, 0]
    assert frame["index"].tolist() == [0.6, 0.4, 0.2, 0.3, 0.1]
    assert frame["n_passing"].tolist() == [3, 2, 4, 1, 5]
    assert frame.iloc[0].tolist() == ["subj", 0, 1, 0.6, 3, pytest.approx(0.2), 0.3, 0.15, 0.025, 0.05]


def test_top() -> None:
    found = told()
    assert found.top("subj", at_least=1) == (Head(0, 1), Head(0, 0))
    assert found.top("subj", 1, at_least=1) == (Head(0, 1),)
    assert found.top("subj", at_most=1.0, at_least=1) == (Head(0, 1), Head(0, 2), Head(0, 0))
    assert found.top("obj", 9, at_least=1) == (Head(0, 2), Head(0, 0))
    assert found.top("obj", at_most=0.01, at_least=1) == ()
    assert found.top("subj", at_least=4) == (Head(0, 0),)
    assert found.top("subj") == found.salient(3) == ()  # fewer than ten pairs pass
    assert found.salient(3, at_least=1) == (Head(0, 1), Head(0, 2), Head(0, 0))


def test_means_of_triplets() -> None:
    np.testing.assert_allclose(told().mean_of_triplets(), [[[0.3, 0.6, 0.45]], [[0.1, NAN, 0.3]]])


def test_best_heads() -> None:
    """Of two that are best the first counts, and none where all are 0."""
    assert told().best_heads().tolist() == [[[1, 2, 0]], [[0, 0, 1]]]


def test_frame_of_thresholds() -> None:
    frame = told().by_tau_frame(2)
    assert frame["relation"].tolist() == ["subj", "subj", "obj", "obj"]
    assert frame["tau"].tolist() == [2.0, 3.0] * 2
    assert frame["shared"].tolist() == [2, 1, 2, 0]
    assert frame["of"].tolist() == [2] * 4
    np.testing.assert_allclose(frame["expected"], [4 / 3, 4 / 3, 2, 0])  # of 3, 3, 2 and no heads
    np.testing.assert_allclose(frame["highest"], [0.6, 0.6, 0.3, NAN])
    assert told().by_tau_frame(1)["shared"].tolist() == [1, 1, 1, 0]


# --- bad input --------------------------------------------------------------------------------------------------------

Call = Callable[[LensModel, RelationBatch], Any]
BAD: dict[str, tuple[Call, str]] = {
    "a low tau": (lambda m, b: relation_index(m, b, tau=0.9), "tau is 0.9: .* give 1 or more"),
    "no number as tau": (lambda m, b: relation_index(m, b, tau=math.nan), "tau is nan: .* give 1 or more"),
    "attention": (
        lambda m, b: relation_index(m, b, attention="real"),  # type: ignore[arg-type]
        "attention 'real' is unknown: use one of model, embedding",
    ),
    "input": (
        lambda m, b: relation_index(m, b, ov_input="mlp"),  # type: ignore[arg-type]
        "ov_input 'mlp' is unknown: use one of embedding, resid",
    ),
    "a tau of words": (lambda m, b: relation_index(m, b, tau="2"), "tau is 2: "),  # type: ignore[arg-type]
    "a tau of yes": (lambda m, b: relation_index(m, b, tau=True), "tau is True: "),
    "no draws": (lambda m, b: relation_index(m, b, draws=0), "draws is 0: give how many"),
    "half a draw": (lambda m, b: relation_index(m, b, draws=1.5), "draws is 1.5: give"),  # type: ignore[arg-type]
    "seed": (lambda m, b: relation_index(m, b, seed=-1), "seed is -1: give a whole number"),
    "top of none": (lambda m, b: told().top("mod"), "relation 'mod' is unknown: use one of subj, obj"),
    "no top": (lambda m, b: told().top("subj", 0), "n is 0: give how many heads to name"),
    "none compared": (lambda m, b: told().by_tau_frame(0), "n is 0: give how many heads to compare"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(gpt2: LensModel, name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(InputError, match=message) as raised:
        call(gpt2, batch_of(gpt2, [[3, 4, 5]], [(0, 1, 0)]))
    assert str(raised.value).isprintable()


def test_models_without_heads_or_identities_are_refused(gpt2: LensModel) -> None:
    given = batch_of(gpt2, [[3, 4, 5]], [(0, 1, 0)])
    for place, name in (("attn.hook_v", "value_projection"), ("attn.hook_z", "values"), ("hook_attn_out", "heads")):
        with (
            attached(gpt2, [(f"blocks.1.{place}", lambda x, hook: x * 1.2)]),
            pytest.raises(Unfit, match=f"'{name}' .* fails at layer 1"),
        ):
            relation_index(gpt2, given)
    with (
        attached(gpt2, [("blocks.2.attn.hook_q", lambda x, hook: x * 1.2)]),
        pytest.raises(Unfit, match="'projections' .* fails at layer 2"),
    ):
        relation_index(gpt2, given, attention="embedding")
    require_backend("hooked")
    bare: Any = planted_relations()
    given = relation_batch(bare, Corpus("told", TEXTS))
    del bare.hook_dict["blocks.1.attn.hook_z"]
    with pytest.raises(Unfit, match="'planted relations' has no per-head z in layer 1"):
        relation_index(bare, given)
