"""What the pages of studies say is what their results hold: each verdict on planted results, both ways."""

from typing import Any

import numpy as np
import pytest

from icl_circuits.errors import InputError
from icl_circuits.heads import FamilyEffects, FamilyGroup, FamilyKind, LogProbIncrease, overlap
from icl_circuits.interventions import require_metric
from icl_circuits.residual import Head
from icl_circuits.stats import Interval
from icl_circuits.studies.relations import sentences as of_relations
from icl_circuits.studies.subvalues import sentences as of_subvalues
from icl_circuits.studies.verdicts import verdict, without_family
from icl_circuits.subvalues import Interpolation

N = 40


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


def test_log_probability_is_half_way_where_its_curve_is() -> None:
    log_prob = np.linspace(-10, 0, 11, dtype=np.float32)[None].repeat(3, axis=0)
    assert "half way at 50% of the way, and probability at 100%" in of_subvalues.way(Interpolation(log_prob))


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
