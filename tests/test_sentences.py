"""What the pages of studies say is what their results hold: each verdict on planted results, both ways."""

from typing import Any

import numpy as np
import pytest

from icl_circuits.errors import InputError
from icl_circuits.heads import FamilyEffects, FamilyGroup, FamilyKind, LogProbIncrease, overlap
from icl_circuits.interventions import require_metric
from icl_circuits.relations import RelationIndex
from icl_circuits.residual import Head
from icl_circuits.stats import Interval
from icl_circuits.studies.relations import sentences as of_relations
from icl_circuits.studies.subvalues import sentences as of_subvalues
from icl_circuits.studies.verdicts import verdict, without_family
from icl_circuits.subvalues import HeadsByType, Interpolation

N, NAN = 40, float("nan")


def effects(own: float, random: float) -> FamilyEffects:
    """Prompts that lose so much without a family, and without random heads, give or take little."""
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 1, N)).astype(np.float32)

    def group(family: str | None, kind: FamilyKind, lost: float, row: int) -> FamilyGroup:
        heads = ((Head(0, 0),),) if family else ((),)
        return FamilyGroup(family, kind, heads, np.ones((1, N), bool), noise[row] - np.float32(lost))

    kinds: tuple[FamilyKind, ...] = ("whole", "exclusive", "random_whole", "random_exclusive")
    groups = [group("copying", kind, random if "random" in kind else own, 1 + ("random" in kind)) for kind in kinds]
    return FamilyEffects(group(None, "base", 0, 0), tuple(groups))


@pytest.mark.parametrize(
    ("own", "random", "said"),
    [(1.0, 0.2, "more than without random"), (0.2, 1.0, "less than without"), (0.5, 0.5, "about as much as without")],
)
def test_a_family_is_compared_with_random_heads(own: float, random: float, said: str) -> None:
    sentence = without_family(effects(own, random), "copying")
    assert said in sentence
    assert f"{own:.2f}" in sentence
    assert of_relations.zeroed(effects(own, random)) == sentence


def test_shared_heads_are_named_where_they_are_more_than_by_chance() -> None:
    some = tuple(Head(0, place) for place in range(5))
    others = tuple(Head(1, place) for place in range(5))
    assert "shared by one and two (p < 0.05" in of_relations.shared(overlap({"one": some, "two": some}, 100))
    assert "No two families" in of_relations.shared(overlap({"one": some, "two": others}, 100))


def index(best: list[int], by_tau: list[list[float]], ratios: dict[int, int], *, a_text: int = 1) -> RelationIndex:
    """Of one relation and four heads: which head is best for each triplet, the index at taus 2.2 and 3, and ratios.

    `a_text` triplets stand in each text.
    """
    values = np.array(by_tau)[:, None, None]
    by_triplet = np.zeros((len(best), 1, 4))
    for triplet, head in enumerate(best):
        by_triplet[triplet, 0, head] = head >= 0
    counts = np.zeros(100, dtype=np.int64)
    for place, count in ratios.items():
        counts[place] = count
    one = values[0]
    return RelationIndex(
        relations=("obj",), tau=2.2, index=one, n_passing=np.where(np.isfinite(one), 3, 0), behind=one, tenth=one,
        random=one, p=one, p_fdr=one, relation_of=np.zeros(len(best), dtype=np.int64), by_triplet=by_triplet,
        text_of=np.arange(len(best)) // a_text, taus=(2.2, 3.0), by_tau=values, ratios=counts,
    )  # fmt: skip


RANKED = [[0.4, 0.3, 0.2, 0.1], [0.3, 0.4, NAN, NAN]]


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ([1] * 40, "best for 20 of 20, a share of 1.00 [0.84, 1.00]: more than an even share of 0.25."),
        ([1] * 20 + [0, 2] * 10, "best for 0 of 20, a share of 0.00 [0.00, 0.16]: less than an even share of 0.25."),
        (
            [1, 1, 1, 0, 1, 2, 3, 0],
            "best for 1 of 4, a share of 0.25 [0.05, 0.70]: not to be told from an even share of 0.25.",
        ),
    ],
)
def test_the_best_head_is_counted_on_other_triplets_than_it_is_chosen_on(best: list[int], said: str) -> None:
    sentence = of_relations.best_heads(index(best, RANKED, {}))
    assert sentence.startswith("L0H1 is best most often")
    assert sentence.endswith(said)
    again = [head for head in best for _ in range(3)]  # as sure as of one triplet a text, and no more
    assert of_relations.best_heads(index(again, RANKED, {}, a_text=3)) == sentence
    assert "Fewer than two" in of_relations.best_heads(index(best[:1], RANKED, {}))


def test_thresholds_are_compared_with_a_random_order() -> None:
    assert of_relations.thresholds(index([0], RANKED, {})) == (
        "Of each relation's best heads at tau 2.2 (at most 1), these are so again: 0% at 3. In a random order of "
        "heads, 25% would be."
    )
    nothing = [[NAN] * 4] * 2
    assert of_relations.thresholds(index([0], nothing, {})) == "No position passes tau 2.2."


def test_ratios_are_those_that_pass() -> None:
    assert of_relations.ratios(index([0], RANKED, {10: 36, 25: 12})) == (
        "A relation's head is attended to most in 48 cases (a triplet, and a head at a position), and 25.0% pass tau "
        "2.2. In this model 5% of the ratios exceed 3."
    )
    assert of_relations.ratios(index([0], RANKED, {})) == "No head attends to a relation's head most."


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        (0.3, 0.1, "The heads matter more to their own type (+0."),
        (0.1, 0.3, "The heads matter less to their own type (-0."),
        (0.2, 0.2, "No difference between the types can be told ("),
    ],
)
def test_heads_of_a_type_are_compared_on_the_same_prompts(own: float, other: float, said: str) -> None:
    type_of, noise = np.arange(N) % 2, np.random.default_rng(0).normal(0, 0.02, (2, N))
    lost = np.where(type_of == np.arange(2)[:, None], own, other) + noise
    random = np.full((2, N, 3), 0.5, np.float32)
    zeroed = (random - lost[..., None]).astype(np.float32)
    heads = (((Head(0, 0),),) * 2,) * 2
    found = HeadsByType(("one", "two"), type_of, heads, random[0], zeroed, random)
    sentence = of_subvalues.heads_of_types(found)
    assert float(sentence.split()[7]) == pytest.approx(own, abs=0.01)
    assert sentence.startswith("Without a type's heads its answers lose")
    assert said in sentence
    alone = HeadsByType(("one",), type_of * 0, heads[:1], random[0], zeroed[:1], random[:1])
    assert "other types" not in of_subvalues.heads_of_types(alone)


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (-10, 0, "Log-probability is half way up at 50% of the way and probability is half way up at 100% of the way."),
        (0, -10, "Log-probability does not rise on the way and probability does not rise on the way."),
        (-1, -1, "Log-probability does not rise on the way and probability does not rise on the way."),
    ],
)
def test_log_probability_is_half_way_where_its_curve_is(first: float, last: float, said: str) -> None:
    log_prob = np.linspace(first, last, 11, dtype=np.float32)[None].repeat(3, axis=0)
    assert of_subvalues.way(Interpolation(log_prob)) == said


def test_heads_are_counted_where_there_are_prompts_to_tell() -> None:
    rng = np.random.default_rng(0)
    heads = rng.normal(0, 0.1, (N, 2, 3)).astype(np.float32)
    heads[:, 1, 2] += 2
    found = LogProbIncrease(np.ones((N, 2), np.float32), np.full((N, 2), 2, np.float32), heads)
    assert "L1H2 raises the answer most, by 2.0" in of_subvalues.heads(found)
    assert "1 of 6 heads raise it beyond chance" in of_subvalues.heads(found)
    one = LogProbIncrease(found.attn[:1], found.mlp[:1], heads[:1])
    assert "beyond chance" not in of_subvalues.heads(one)
    assert of_subvalues.layers(found) == (
        "FFN layers add 4.00 [4.00, 4.00] nats to the answer's log-probability, and attention layers 2.00 [2.00, 2.00]."
    )


def test_what_cannot_be_told_is_said_so() -> None:
    """No prompt with correlations in every layer, no significant head, one prompt: no verdict, and no crash."""
    assert of_subvalues.agreement({"increase": float("nan")}) == "No prompt has a rank correlation in every layer."
    assert "of attribution; the others: 0.10 of increase" in of_subvalues.agreement(
        {"increase": 0.1, "attribution": 0.9, "first_order": float("nan")}
    )
    assert verdict(Interval(1.0, 1.0, 1.0), above="above", below="below", neither="neither") == "neither"
    assert verdict(Interval(1.0, 0.5, 1.5), above="above", below="below", neither="neither") == "above"


@pytest.mark.parametrize("metric", [(), ("top1", "top2")])
def test_a_tuple_holds_names_alone(metric: Any) -> None:
    with pytest.raises(InputError, match="metric"):
        require_metric(metric)
