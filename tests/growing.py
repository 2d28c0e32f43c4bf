"""What a report computes of icl-small, on as many prompts as asked for: prints how far memory grew, in MiB, by step.

A process of its own, since a peak of memory never falls: `python growing.py PROMPTS`.
"""

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

os.environ["TQDM_DISABLE"] = "1"
import torch

import icl_circuits as icl
from icl_circuits.biases import choose, majority_bias, mitigation, recency_bias
from icl_circuits.circuits import evaluate_circuit, find_circuit
from icl_circuits.heads import group_intervention, position_increase, random_heads, score_heads
from icl_circuits.prompts import encode, group_by_label
from icl_circuits.residual import all_heads
from icl_circuits.towers import (
    knock_out_flow,
    label_features,
    metric_learning,
    neuron_reads,
    probe_flow,
    reversal,
    tower_reads,
    two_towers,
)

SHOTS = 4
"""As in a report: 64 prompts of 26 tokens nearly fill a part."""


def peak() -> int:
    """The most memory that the process ever held, MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


def say(step: str, mebibytes: int) -> None:
    """A line of what this prints."""
    sys.stdout.write(f"{step} {mebibytes}\n")
    sys.stdout.flush()


def report(n_prompts: int) -> None:
    """Compute what `icl-circuits report` and `circuit` do, with fewer draws, heads and strengths."""
    model = icl.load_model("icl-small")
    few = sample(model, 8, 2)
    everything(model, few, few)  # what is imported and set up on first use is part of the baseline
    baseline = peak()
    say("baseline", baseline)
    selection, evaluation = sample(model, n_prompts, 0), sample(model, n_prompts, 1)
    everything(model, selection, evaluation, lambda step: say(step, peak() - baseline))


def sample(model: Any, n_prompts: int, seed: int) -> Any:
    rows = icl.load_rows("word-categories")
    return encode(model, icl.sample_prompts(rows, n_prompts, labels=("foo", "bar"), shots=SHOTS, seed=seed))


def everything(model: Any, selection: Any, evaluation: Any, said: Callable[[str], None] = lambda step: None) -> None:
    kept: list[Any] = []

    def keep(step: str, *found: Any) -> None:
        kept.extend(found)
        said(step)

    scores = score_heads(model, selection, n_heads=2)
    heads, every = scores.selected.of(), all_heads(model)
    random = random_heads(every, heads, seed=(0, 0))
    keep("scores", scores, scores.effects.to_frame())
    groups = group_intervention(model, evaluation, scores.selected, n_random=1)
    keep("groups", groups, groups.to_frame())
    keep("positions", position_increase(model, evaluation, heads))
    features = label_features(model, evaluation, (*heads, *random))
    keep("features", features, features.to_frame())
    towers = two_towers(model, evaluation, heads)
    learned = metric_learning(towers, draws=20)
    in_order = encode(model, [group_by_label(prompt) for prompt in evaluation.prompts])
    grouped = metric_learning(two_towers(model, in_order, heads), draws=20)
    keep("towers", learned, learned.to_frame(), grouped)
    reads = tower_reads(model, evaluation, heads)
    keep("reads", reads, reads.to_frame())
    first = range(8)
    neurons = neuron_reads(model, evaluation.select(first), heads, choose_on=selection.select(first))
    keep("neurons", neurons, neurons.to_frame(), knock_out_flow(model, evaluation.select(first)))
    probe = probe_flow(model, selection, evaluation, layers=(1,))
    keep("probe", probe, probe.to_frame())
    twins = reversal(model, evaluation, heads)
    keep("reversal", twins, twins.to_frame())
    bias = majority_bias(model, evaluation.prompts, heads, coefficients=(0.0, 0.3), controls=(random,))
    keep("majority", bias, bias.to_frame(), mitigation(bias, bias, choose(bias), len(evaluation)))
    order = recency_bias(model, evaluation.prompts, heads, n_orders=2, strengths=(0.0, 1.0))
    keep("recency", order, order.to_frame(), mitigation(order, order, choose(order), len(evaluation)))
    circuit = find_circuit(model, evaluation.select(first), heads, n_upstream=1)
    test = evaluate_circuit(model, evaluation.select(first), selection, scores.ranked, sizes=(2,), n_random=1)
    keep("circuit", circuit, test, test.to_frame())


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    warnings.simplefilter("ignore")
    report(int(sys.argv[1]))
