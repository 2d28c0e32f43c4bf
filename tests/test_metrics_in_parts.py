"""A function as a metric: told which prompts it gets, and refused where it counts on the whole batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import icl_circuits as icl
from icl_circuits.errors import InputError
from icl_circuits.models import LensModel
from icl_circuits.patching import run_each
from icl_circuits.prompts import PromptBatch, Rows, TokenBatch, encode, sample_prompts
from icl_circuits.residual import Head

CALLS: dict[str, Callable[..., Any]] = {
    "sweep": lambda model, batch, metric: icl.sweep(model, batch, "z", metric=metric),
    "path_patch": lambda model, batch, metric: icl.path_patch(
        model, batch, receivers=[Head(2, 0)], logits=True, metric=metric
    ),
    "attribute": lambda model, batch, metric: icl.attribute(model, batch, "z", metric=metric),
    "attribute_paths": lambda model, batch, metric: icl.attribute_paths(
        model, batch, receivers=[Head(2, 0)], logits=True, metric=metric
    ),
}


@pytest.fixture
def batch(gpt2: LensModel, words: Rows) -> PromptBatch:
    return encode(gpt2, sample_prompts(words, 7, shots=1, seed=3))


@pytest.fixture(params=[1, 3])
def in_parts(request: pytest.FixtureRequest, batch: PromptBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts run one by one, or three at a time."""
    for module in ("engine", "routes", "attribution"):
        monkeypatch.setattr(f"icl_circuits.patching.{module}.PROMPT_TOKENS", request.param * batch.tokens.shape[1])


def of_rows(answers: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
    return logits.gather(1, answers[rows][:, None])[:, 0]


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("call", CALLS)
def test_a_closure_gets_the_rows_it_is_asked_about(gpt2: LensModel, batch: PromptBatch, call: str) -> None:
    answers = torch.arange(len(batch)) + 5

    def by_rows(logits: Tensor, prompts: TokenBatch) -> Tensor:
        return of_rows(answers, logits, prompts.rows)

    def by_place(logits: Tensor, prompts: TokenBatch) -> Tensor:
        return of_rows(answers, logits, torch.arange(len(logits)))

    apart = CALLS[call](gpt2, batch, by_rows)
    with pytest.raises(InputError, match=r"metric 'by_place' .* they are run in parts: .* values\[batch.rows\]"):
        CALLS[call](gpt2, batch, by_place)
    with pytest.MonkeyPatch.context() as whole:
        for module in ("engine", "routes", "attribution"):
            whole.setattr(f"icl_circuits.patching.{module}.PROMPT_TOKENS", 2048)
        together = CALLS[call](gpt2, batch, by_place)
    np.testing.assert_allclose(apart.base, together.base, atol=1e-4)
    np.testing.assert_allclose(apart.values, together.values, atol=1e-4)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.filterwarnings("ignore:.*takes a forward pass for each")
def test_plain_hooks_tell_the_rows_too(gpt2: LensModel, batch: PromptBatch) -> None:
    variants = [(icl.ScaleScores((Head(0, 0),), 1.0),), (icl.ZeroHeads((Head(1, 1),)),)]

    def rows(logits: Tensor, prompts: TokenBatch) -> Tensor:
        return prompts.rows.float()

    found = run_each(gpt2, batch, variants, rows)
    assert found.fallback
    assert found.base.tolist() == found.values[1].tolist() == list(range(7))


def test_parts_know_their_rows(batch: PromptBatch) -> None:
    assert batch.part(0, 7) is batch
    part = batch.part(2, 6)
    assert part.rows.tolist() == [2, 3, 4, 5]
    assert part.part(1, 3).rows.tolist() == [3, 4]
    assert part.select([3, 0]).rows.tolist() == [5, 2]
    assert [chunk.rows.tolist() for chunk in batch.chunks(3 * batch.tokens.shape[1])] == [[0, 1], [2, 3], [4, 5, 6]]
    assert batch.select([4, 1]).rows.tolist() == [0, 1]
