"""Memory: what stays the same however many the prompts are, how long, and where activations are kept."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import require_backend
from test_odd_models import hooked_model, tokens_alone

from icl_circuits import stats
from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import attention_patterns, log_prob_increase, zero_each_head
from icl_circuits.interventions import Mean, mean_z, values_at
from icl_circuits.models import LensModel, ModelShape, load_model, prompts_at_once
from icl_circuits.patching import engine, step, sweep
from icl_circuits.patching.base_run import run_base
from icl_circuits.prompts import PromptBatch, encode, load_rows, sample_prompts
from icl_circuits.residual import Capture, Head, answer_logits

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")


GIVEN_BACK = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 18), "TQDM_DISABLE": "1"}
"""Freed tensors leave no holes, so that the peak is what is held."""


RUN_AND_SAY = """
import atexit, runpy, sys
atexit.register(lambda: print(open("/proc/self/status").read()))
runpy.run_module("icl_circuits", run_name="__main__", alter_sys=True)
"""


def peak_of_a_report(out: Path, n_prompts: int) -> int:
    """The most memory that a whole report holds, in KiB: model, heads, all studies, circuit, figures and page."""
    options = f"--model icl-small --heads 4 --prompts {n_prompts} --no-store".split()
    command = [sys.executable, "-c", RUN_AND_SAY, "report", *options, "--out", str(out)]
    done = subprocess.run(command, env=GIVEN_BACK, capture_output=True, text=True, check=True)
    return int(done.stdout.split("VmHWM:")[1].split()[0])


@LINUX
@pytest.mark.thorough
def test_memory_of_a_report_is_flat_in_the_prompts(tmp_path: Path) -> None:
    few, many = (peak_of_a_report(tmp_path / str(n), n) for n in (64, 4096))
    assert many < 1.1 * few, (few, many)


@LINUX
@pytest.mark.thorough
def test_a_long_prompt_takes_little_beyond_its_forward_pass() -> None:
    """Of 8,192 tokens, the attention of one head is 256 MB, that of four heads in two layers 2 GB."""
    require_backend("hooked")
    command = [sys.executable, str(Path(__file__).with_name("long_prompt.py")), "8192"]
    done = subprocess.run(command, capture_output=True, text=True, env=GIVEN_BACK, check=True)
    lines = [line.rsplit(maxsplit=1) for line in done.stdout.splitlines()]
    found = {step: int(number) for step, number in lines}
    assert found.pop("forward") > 1024
    assert max(found.values()) < 512, found


# --- prompts in parts -------------------------------------------------------------------------------------------------


def test_resamples_come_in_parts_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for n_prompts in (1, 7, 300):
        chosen = stats.generator(0).integers(n_prompts, size=(stats.DRAWS, n_prompts))
        expected = np.stack([np.bincount(row, minlength=n_prompts) for row in chosen])
        values = rng.normal(size=(5, n_prompts))
        whole = stats.bootstrap_means(values)
        stats._counted_few.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(stats, "AT_ONCE", 1000)
            parts = list(stats.resamples(n_prompts))
            np.testing.assert_allclose(stats.bootstrap_means(values), whole, atol=1e-12)
        assert n_prompts == 1 or len(parts) > 1
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        np.testing.assert_allclose(whole.low[0], np.quantile(values[0] @ expected.T / n_prompts, 0.025), atol=1e-12)
        stats._counted_few.cache_clear()


def test_means_over_prompts_in_parts(gpt2: LensModel, batch_of_gpt2: PromptBatch) -> None:
    heads = [Head(0, 1), Head(2, 3)]
    capture = Capture([("z", 0), ("z", 2)])
    answer_logits(gpt2, batch_of_gpt2, capture)
    whole = mean_z(gpt2, batch_of_gpt2, heads)
    parts = values_at(gpt2, batch_of_gpt2, Mean(batch_of_gpt2), [("z", 0), ("z", 2)], "all")
    for head in heads:
        expected = capture.of(gpt2, "z", head)[batch_of_gpt2.is_text].mean(0)
        torch.testing.assert_close(whole[head], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(parts("z", head.layer, head.head), expected, atol=1e-6, rtol=1e-5)


def test_a_small_budget_runs_prompts_one_by_one(gpt2: LensModel, batch_of_gpt2: PromptBatch) -> None:
    few = sweep(gpt2, batch_of_gpt2, budget=1)
    assert engine.tokens_at_once(gpt2, batch_of_gpt2, 1) == 1
    np.testing.assert_allclose(few.values, sweep(gpt2, batch_of_gpt2).values, atol=1e-5)


# --- long prompts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["last", "all"])
def test_attention_of_some_query_positions_after_others(monkeypatch: pytest.MonkeyPatch, positions: Any) -> None:
    model, batch = hooked_model({}), tokens_alone()
    expected = zero_each_head(model, batch, positions=positions)
    again = hooked_model({})
    monkeypatch.setattr(step, "ATTENTION_AT_ONCE", 100)
    shown: list[int] = []
    monkeypatch.setattr(step, "_pattern", counting(step._pattern, shown))
    found = zero_each_head(again, batch, positions=positions)
    assert max(shown) < batch.tokens.shape[1]
    np.testing.assert_allclose(found.zeroed.logit_diff, expected.zeroed.logit_diff, atol=1e-9)
    checked = sweep(again, batch, "pattern", positions="all", verify=3)  # against run_with_hooks
    assert checked.max_error is None or checked.max_error < 1e-9


def counting(function: Any, shown: list[int]) -> Any:
    def run(base: Any, layer: int, scores: Any, window: Any) -> Any:
        shown.append(scores.shape[-2])
        return function(base, layer, scores, window)

    return run


def test_attention_of_some_heads_alone(gpt2: LensModel, batch_of_gpt2: PromptBatch) -> None:
    heads = (Head(1, 2), Head(0, 0))
    capture = Capture([("pattern", 0), ("pattern", 1)])
    answer_logits(gpt2, batch_of_gpt2, capture)
    of_text = batch_of_gpt2.is_text[:, None, :, None]
    assert not of_text.all()
    expected = torch.stack([capture.of(gpt2, "pattern", head) for head in heads], 1).where(of_text, 0.0)
    np.testing.assert_allclose(attention_patterns(gpt2, batch_of_gpt2, heads), expected.numpy(), atol=1e-6)


# --- where activations are kept ---------------------------------------------------------------------------------------


def test_past_a_budget_activations_go_to_the_cpu(gpt2: LensModel, batch_of_gpt2: PromptBatch) -> None:
    places = [("z", 0), ("resid_pre", 1), ("pattern", 2)]
    plain = Capture(places, batch_of_gpt2.last)
    answer_logits(gpt2, batch_of_gpt2, plain)
    assert not plain.moved
    room = plain.found["z", 0].nbytes
    for budget, moved in ((0, places), (room, places[1:]), (1 << 30, [])):
        capture = Capture(places, batch_of_gpt2.last, budget=budget)
        for _ in range(2):  # a second run takes the first one's place
            answer_logits(gpt2, batch_of_gpt2, capture)
        assert list(capture.moved) == moved
        for site, layer in places:
            assert capture.raw(site, layer).device == plain.found[site, layer].device
            torch.testing.assert_close(capture.at(site, layer), plain.at(site, layer), atol=0, rtol=0)
        head = Head(2, 1)
        torch.testing.assert_close(capture.of(gpt2, "pattern", head), plain.of(gpt2, "pattern", head), atol=0, rtol=0)


def test_layers_on_several_devices_are_refused(
    gpt2: LensModel, batch_of_gpt2: PromptBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpt2.cfg, "n_devices", 2)
    for analyse in (log_prob_increase, zero_each_head, answer_logits):
        with pytest.raises(Unfit, match="lies on 2 devices"):
            analyse(gpt2, batch_of_gpt2)


def test_a_device_that_holds_no_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="'meta' holds no numbers"):
        load_model("icl-small", device="meta")


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_the_plan_counts_what_there_is() -> None:
    require_backend("hooked")
    model: Any = load_model("icl-small")
    shape = ModelShape.of(model.cfg)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1 and min(p.shape) > 1)
    biases = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "b_" in name.split(".")[-1])
    positions = sum(p.numel() for name, p in model.named_parameters() if "pos_embed" in name)
    assert shape.weights(4) == 4 * (matrices - biases - positions)
    batch = tokens_alone_of(model)
    base = run_base(model, batch)
    kept = sum(part.nbytes for part in (*base.resid_pre, *base.keys, *base.values))
    assert shape.base_run(*batch.tokens.shape, 4) == kept
    assert (prompts_at_once(32), prompts_at_once(8192)) == (64, 1)


def tokens_alone_of(model: Any) -> PromptBatch:
    return encode(model, sample_prompts(load_rows("word-categories"), 6))


@pytest.fixture
def batch_of_gpt2(gpt2: LensModel) -> PromptBatch:
    return tokens_alone_of(gpt2)
