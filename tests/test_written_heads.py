"""Heads as people write them: Head(23, 7), (23, 7), "L23H7"."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import icl_circuits as icl
from icl_circuits.errors import InputError
from icl_circuits.heads import attention_patterns, position_increase
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts
from icl_circuits.residual import Head, answer_logits, head_of, heads_of
from icl_circuits.subvalues import head_neuron_tokens

Call = Callable[[LensModel, PromptBatch, Any, Any], Any]
CALLS: dict[str, Call] = {
    "zero_each_head": lambda model, batch, one, two: icl.zero_each_head(model, batch, (one, two)).zeroed.log_prob,
    "attention_patterns": lambda model, batch, one, two: attention_patterns(model, batch, (one, two)),
    "position_increase": lambda model, batch, one, two: position_increase(model, batch, (one, two)).heads,
    "mean_z": lambda model, batch, one, two: list(icl.mean_z(model, batch, (one, two))),
    "two_towers": lambda model, batch, one, two: icl.two_towers(model, batch, (one, two)).heads,
    "label_features": lambda model, batch, one, two: icl.label_features(model, batch, (one, two)).heads,
    "find_circuit": lambda model, batch, one, two: icl.find_circuit(model, batch, (two,)).heads,
    "path_patch": lambda model, batch, one, two: icl.path_patch(model, batch, senders=[one], receivers=[two]).values,
    "attribute_paths": lambda model, batch, one, two: (
        icl.attribute_paths(model, batch, senders=[one], receivers=[two]).values
    ),
    "zero_families": lambda model, batch, one, two: (
        icl.zero_families(model, batch, {"a": [one], "b": [two]}, n_random=1).groups[0].draws
    ),
    "overlap": lambda model, batch, one, two: icl.overlap({"a": [one], "b": [one, two]}, 12).shared,
    "random_heads": lambda model, batch, one, two: icl.random_heads([one, two], [one], seed=(0,)),
    "head_neuron_tokens": lambda model, batch, one, two: str(head_neuron_tokens(model, [(one, 3)])),
    "ZeroHeads": lambda model, batch, one, two: answer_logits(model, batch, icl.ZeroHeads((one, two))),
    "ReplaceHeads": lambda model, batch, one, two: answer_logits(
        model, batch, icl.ReplaceHeads({one: torch.ones(8), two: torch.zeros(8)})
    ),
    "ScaleScores": lambda model, batch, one, two: answer_logits(model, batch, icl.ScaleScores((one, two), 0.0)),
    "WithoutPosition": lambda model, batch, one, two: answer_logits(model, batch, icl.WithoutPosition((one, two))),
    "add_minority_values": lambda model, batch, one, two: answer_logits(
        model, batch, icl.add_minority_values(batch, (one, two))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_heads_are_read_alike(gpt2: LensModel, words: Rows, call: str) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    plain, *others = [
        CALLS[call](gpt2, batch, *heads)
        for heads in ((Head(0, 1), Head(2, 3)), ((0, 1), (2, 3)), ("L0H1", "L2H3"), ("l0h1", Head(2, 3)))
    ]
    for other in others:
        if isinstance(plain, np.ndarray | torch.Tensor):
            np.testing.assert_array_equal(other, plain)
        else:
            assert other == plain


def test_heads_are_written_in_three_ways() -> None:
    assert heads_of([Head(23, 7), (23, 7), "L23H7", " l23h7 ", (np.int64(23), 7)]) == (Head(23, 7),) * 5
    assert all(isinstance(head, Head) for head in heads_of([(1, 2)]))
    for head in ("23.7", "L23", "L-1H2", "", "L1H2H3", (1,), (1, 2, 3), 5, None, "L٣H1"):
        with pytest.raises(InputError, match=r"is no head: write Head\(23, 7\), \(23, 7\) or 'L23H7'"):
            head_of(head)
    for head in ((1.5, 2), (True, 0), ("1", "2")):
        with pytest.raises(InputError, match="does not count layers and heads"):
            head_of(head)
    for one in ("L1H2", Head(1, 2)):
        with pytest.raises(InputError, match=r"heads are 'L1H2': give a list of heads, \['L1H2'\]"):
            heads_of(one)


def test_heads_that_do_not_exist_are_named(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 2, shots=1))
    with pytest.raises(InputError, match="head L9H0 does not exist"):
        icl.two_towers(gpt2, batch, ["L9H0"])
    with pytest.raises(InputError, match="L0H1 is named twice"):
        icl.find_circuit(gpt2, batch, ["L0H1", (0, 1)])
