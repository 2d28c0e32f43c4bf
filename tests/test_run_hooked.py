"""Forward passes under hooks by the equations, and knock-outs in the engine, equal plain hooks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES, BACKENDS, require_backend

from icl_circuits.interventions import KnockOut, ScaleScores, WithoutPosition, ZeroHeads
from icl_circuits.models import LensModel, load_model, scores_are_live
from icl_circuits.patching import hooked, keeping_runs, run_each, run_hooked
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts
from icl_circuits.residual import Capture, Head, Hooked, Moves, answer_logits, final_state
from icl_circuits.towers.flow import ROUTES, route_edges

HEADS = (Head(1, 1), Head(2, 0))


def batch_of(model: LensModel, words: Rows, n: int = 3) -> PromptBatch:
    return encode(model, sample_prompts(words, n, shots=2, seed=1))


def interventions_on(model: LensModel, batch: PromptBatch) -> list[tuple[Hooked, ...]]:
    found: list[tuple[Hooked, ...]] = [(), (ZeroHeads(HEADS),), (ZeroHeads(HEADS[:1], batch.last[:, None]),)]
    if scores_are_live(model):
        edges = route_edges(batch, "text -> label")
        found += [(ScaleScores(HEADS, 0.5),), (WithoutPosition(HEADS),), (KnockOut((1, 2), edges), ZeroHeads(HEADS))]
    return found


def captures_of(model: LensModel, batch: PromptBatch) -> tuple[Capture, ...]:
    sites: list[Any] = ["resid_pre", "q", "k", "v", "z", "attn_out", "mlp_out", "resid_post"]
    some = torch.cat([batch.last[:, None], batch.label_positions], 1)
    layers = range(model.cfg.n_layers)
    attention = ("pattern",) if scores_are_live(model) else ()
    return (
        Capture([(site, layer) for layer in layers for site in (*sites, *attention)]),
        Capture([("z", 0), final_state(model), *((site, 1) for site in attention)], batch.last),
        Capture([("k", 2), final_state(model), *((site, 2) for site in attention)], some),
    )


def require_alike(model: LensModel, batch: PromptBatch, parts: tuple[Hooked, ...], limit: float = 1e-5) -> None:
    """Logits and everything captured, by the equations and by plain hooks, but for what padding holds."""
    ours, theirs = captures_of(model, batch), captures_of(model, batch)
    found, expected = run_hooked(model, batch, *parts, *ours), answer_logits(model, batch, *parts, *theirs)
    torch.testing.assert_close(found, expected, atol=limit * float(expected.abs().max()), rtol=0)
    for our, their in zip(ours, theirs, strict=True):
        assert our.found.keys() == their.found.keys()
        for place in their.found:
            values = [capture.found[place] for capture in (our, their)]
            if our.positions is None:
                values = [(x.transpose(1, 2) if "pattern" in place else x)[batch.is_text] for x in values]
            scale = max(float(values[1].abs().max()), 1e-3)
            torch.testing.assert_close(*values, atol=limit * scale, rtol=0, check_dtype=False)


@pytest.mark.parametrize("keeping", [False, True])
def test_runs_under_hooks_equal_plain_ones(
    model: LensModel, words: Rows, monkeypatch: pytest.MonkeyPatch, keeping: bool
) -> None:
    batch = batch_of(model, words)
    expected = [answer_logits(model, batch, *parts) for parts in interventions_on(model, batch)]
    parts_of = interventions_on(model, batch)
    plain = [parts for parts in parts_of if any(isinstance(part, WithoutPosition) for part in parts)]
    learned = getattr(model.cfg, "positional_embedding_type", "") == "standard" and not hasattr(model, "rotary_emb")

    def never(*given: Any) -> Any:
        raise AssertionError("a plain forward pass")

    with monkeypatch.context() as patched:
        patched.setattr(hooked, "answer_logits", never)
        for parts, logits in zip(parts_of, expected, strict=True):
            if parts in plain and learned:
                continue  # reads the position embedding, which the equations do not show
            found = run_hooked(model, batch, *parts)
            torch.testing.assert_close(found, logits, atol=1e-5 * float(logits.abs().max()), rtol=0)
    if keeping:
        with keeping_runs(model):
            for parts in (*parts_of, *parts_of):
                require_alike(model, batch, parts, 2e-5)
    else:
        for parts in parts_of:
            require_alike(model, batch, parts, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float64(folders: dict[str, Path], words: Rows, name: str, backend: Any) -> None:
    if (name, backend) == ("gptj", "bridge"):
        pytest.skip("its attention rounds to float32")
    require_backend(backend)
    model = load_model(str(folders[name]), backend=backend, device="cpu", dtype=torch.float64)
    batch = batch_of(model, words)
    for parts in interventions_on(model, batch):
        require_alike(model, batch, parts, 1e-9)


def test_what_the_equations_do_not_show_takes_a_plain_pass(gpt2: LensModel, words: Rows) -> None:
    batch = batch_of(gpt2, words)
    ours, theirs = (Capture([("mlp_post", 1), ("pos_embed", 0)]) for _ in range(2))
    torch.testing.assert_close(run_hooked(gpt2, batch, ours), answer_logits(gpt2, batch, theirs))
    torch.testing.assert_close(ours.at("mlp_post", 1), theirs.at("mlp_post", 1))


def test_moves(gpt2: LensModel, words: Rows) -> None:
    batch = batch_of(gpt2, words)
    ours, theirs = (Moves(HEADS, batch.last) for _ in range(2))
    run_hooked(gpt2, batch, ours)
    answer_logits(gpt2, batch, theirs)
    for head in HEADS:
        found, expected = ours.of(gpt2, head).weighted(), theirs.of(gpt2, head).weighted()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_kept_runs_are_of_the_same_prompts_and_weights(folders: dict[str, Path], words: Rows) -> None:
    model = load_model(str(folders["gpt2"]), device="cpu")
    batch, other = batch_of(model, words), encode(model, sample_prompts(words, 3, shots=2, seed=7))
    with keeping_runs(model):
        for prompts in (batch, other, batch):
            torch.testing.assert_close(run_hooked(model, prompts), answer_logits(model, prompts), atol=1e-5, rtol=0)
        with torch.no_grad():
            model.blocks[0].attn.W_O.mul_(0.5)
        torch.testing.assert_close(run_hooked(model, batch), answer_logits(model, batch), atol=1e-5, rtol=0)
        assert model.icl_kept_runs  # type: ignore[attr-defined]
    assert not hasattr(model, "icl_kept_runs")


@pytest.mark.parametrize("route", ROUTES)
def test_knock_outs_in_the_engine(model: LensModel, words: Rows, route: str) -> None:
    if not scores_are_live(model):
        pytest.skip("nothing reads its scores")
    batch = batch_of(model, words)
    edges = route_edges(batch, route)
    variants = [
        (KnockOut(layers, edges), *more)
        for layers in ((0, 1, 2), (1, 2), (2,), ())
        for more in ((), (ZeroHeads(HEADS, batch.last[:, None]),))
    ]

    def logits_of(logits: torch.Tensor, prompts: object) -> torch.Tensor:
        return logits

    found = run_each(model, batch, variants, logits_of)
    assert found.fallback is None
    for values, variant in zip(found.values, variants, strict=True):
        expected = answer_logits(model, batch, *variant)
        torch.testing.assert_close(values, expected, atol=1e-5 * found.logit_scale, rtol=0)
