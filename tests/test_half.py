"""Half precision: the engine is kept, and is no farther from float32 on the same weights than plain hooks are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, BACKENDS, require_backend, require_smollm2
from test_engine import can, logits_of, plain, twin_of
from test_paths import Plain, difference
from torch import Tensor

from icl_circuits.circuits import find_circuit
from icl_circuits.heads import rounding
from icl_circuits.interventions import Interchange, Mean, Patch, mean_z, values_at
from icl_circuits.models import HEAD_SITES, LAYER_SITES, LensModel, load_model
from icl_circuits.patching import attribute, attribute_paths, path_patch, run_each, sweep
from icl_circuits.prompts import PromptBatch, Rows, encode, reverse_labels, sample_prompts
from icl_circuits.residual import Embedding, Head, Mlp

DTYPES = (torch.bfloat16, torch.float16)
SITES = tuple(site for site in (*LAYER_SITES, *HEAD_SITES) if site != "resid_mid")


def both(source: str, backend: Any, dtype: torch.dtype) -> tuple[LensModel, LensModel]:
    """A model in half precision, and the same weights, rounded as they are there, in float32."""
    require_backend(backend)
    half, exact = (load_model(source, backend=backend, device="cpu", dtype=kind) for kind in (dtype, torch.float32))
    with torch.no_grad():
        for parameter in exact.parameters():  # type: ignore[attr-defined]
            parameter.copy_(parameter.to(dtype))
    return half, exact


def require_no_farther(found: Tensor, by_hooks: Tensor, truth: Tensor) -> None:
    """Over all cells and prompts, at the median and at most (where rounding may fall a little either way)."""
    ours, theirs = ((values.float() - truth).abs() for values in (found, by_hooks))
    assert theirs.max() > 0
    assert ours.median() <= theirs.median()
    assert ours.max() <= 1.1 * theirs.max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_farther_off_than_hooks(
    folders: dict[str, Path], words: Rows, name: str, backend: str, dtype: torch.dtype
) -> None:
    half, exact = both(str(folders[name]), backend, dtype)
    clean, corrupted = twin_of(half, words)
    at, layers = clean.label_positions, range(3)
    values, by_hooks, truth = [], [], []
    for site in SITES:
        if not can(half, site, f"{name}-{backend}"):
            continue
        value = values_at(half, clean, Interchange(corrupted), [(site, layer) for layer in layers], "labels")
        heads = (0, 1) if site in HEAD_SITES else (None,)
        variants = [(Patch(site, n, value(site, n, head), at, head=head),) for n in layers for head in heads]
        found, expected = (run_each(model, clean, variants, logits_of) for model in (half, exact))
        assert found.fallback is None
        values.append(found.values)
        truth.append(expected.values)
        by_hooks.append(torch.stack([plain(half, clean, variant) for variant in variants]))
    require_no_farther(torch.cat(values), torch.cat(by_hooks), torch.cat(truth))
    own = plain(half, clean, ())
    require_no_farther(found.base, own, expected.base)
    effects = torch.cat(values) - found.base, torch.cat(by_hooks) - own, torch.cat(truth) - expected.base
    off, by = ((effect - effects[2]).abs().median() for effect in effects[:2])
    assert off <= by


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor multiplies in bfloat16 many times slower than in float32 (AVX512 does not)",
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_farther_off_than_hooks_on_smollm2(words: Rows, backend: str) -> None:
    """Real weights, whose rounding adds up over 30 layers: a head of every other layer, at the last position."""
    require_smollm2()
    half, exact = both("smollm2-135m", backend, torch.bfloat16)
    batch = encode(half, sample_prompts(words, 32, shots=4, seed=0))
    heads = [Head(layer, layer % 9) for layer in range(0, 30, 2)]
    zero, last = torch.zeros(64), batch.last[:, None]
    variants = [(Patch("z", head.layer, zero, last, head=head.head),) for head in heads]
    found, expected = (run_each(model, batch, variants, of_labels, verify=2) for model in (half, exact))
    assert found.fallback is None
    assert found.max_error is not None
    assert found.max_error > 1e-3
    by_hooks = torch.stack([of_labels(plain(half, batch, variant), batch) for variant in variants])
    own = of_labels(plain(half, batch, ()), batch)
    require_no_farther(found.values, by_hooks, expected.values)
    require_no_farther(found.values - found.base, by_hooks - own, expected.values - expected.base)


def of_labels(logits: Tensor, batch: PromptBatch) -> Tensor:
    return logits[:, batch.label_tokens]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_paths_are_no_farther_off_than_three_passes(
    folders: dict[str, Path], words: Rows, name: str, backend: str
) -> None:
    half, exact = both(str(folders[name]), backend, torch.bfloat16)
    prompts = sample_prompts(words, 24, shots=2, seed=3)
    clean, corrupted = encode(half, prompts), encode(half, [reverse_labels(prompt) for prompt in prompts])
    options: dict[str, Any] = {
        "senders": (Embedding(), Head(0, 1), Mlp(0), Head(1, 1)),
        "receivers": (Head(1, 0), Head(2, 1)),
        "inputs": ("q", "k", "v"),
        "logits": True,
        "positions": "labels",
        "replacement": Interchange(corrupted),
    }
    for kind in ("direct", "through_mlps"):
        found, expected = (path_patch(model, clean, kind=kind, **options) for model in (half, exact))
        three = Plain(half, clean, corrupted, clean.label_positions)
        passes = [difference(three.edge(edge, kind)[0].float(), clean) for edge in found.edges]
        values, truth = (torch.from_numpy(paths.values) for paths in (found, expected))
        require_no_farther(values, torch.stack(passes), truth)
        for ours, theirs in ((found.score, expected.score), (found.output, expected.output)):
            assert np.nanmax(np.abs(ours - theirs)) <= 0.15 * np.nanmax(np.abs(theirs))


def test_means_are_not_rounded(folders: dict[str, Path], words: Rows) -> None:
    half, _ = both(str(folders["llama"]), "bridge", torch.bfloat16)
    batch, head = encode(half, sample_prompts(words, 8, shots=2, seed=3)), Head(1, 2)
    with torch.no_grad():
        _, cache = half.run_with_cache(batch.tokens)
    z = cache["blocks.1.attn.hook_z"][:, :, 2].double()
    torch.testing.assert_close(mean_z(half, batch, [head])[head].double(), z[batch.is_text].mean(0), atol=1e-6, rtol=0)
    value = values_at(half, batch, Mean(batch), [("z", 1)], "last")("z", 1, 2)
    at_last = z[torch.arange(len(batch)), batch.last]
    torch.testing.assert_close(value.double(), at_last.mean(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_attribution_and_circuits(folders: dict[str, Path], words: Rows, name: str, backend: str) -> None:
    """Guesses and circuits are those of float32, but for rounding."""
    half, exact = both(str(folders[name]), backend, torch.bfloat16)
    clean, corrupted = twin_of(half, words)
    options: dict[str, Any] = {"positions": "labels", "replacement": Interchange(corrupted)}
    for analyse in (
        lambda model: attribute(model, clean, "z", **options).effect,
        lambda model: attribute(model, clean, "resid_pre", **options, metric="log_prob").effect,
        lambda model: attribute_paths(model, clean, logits=True, **options).effect,
        lambda model: sweep(model, clean, "v", **options).effect,
        lambda model: find_circuit(model, clean, [Head(2, 1), Head(1, 0)], n_upstream=0).scores,
    ):
        ours, theirs = analyse(half), analyse(exact)
        assert np.abs(ours - theirs).max() <= 0.15 * np.abs(theirs).max()


def test_the_difference_from_float32_in_words(folders: dict[str, Path], words: Rows) -> None:
    half, exact = both(str(folders["llama"]), "hooked", torch.bfloat16)
    batch = encode(half, sample_prompts(words, 4, shots=2))
    found = rounding(half, exact, batch)
    apart = np.abs(found.half.log_prob - found.exact.log_prob)
    assert 0 < apart.max() < 0.1
    assert found.half.log_prob.dtype == np.float32
    assert str(found).startswith("Weights and matrix products are bfloat16. Softmaxes")
    assert f"{apart.max():.2g} at most" in str(found)
    assert (rounding(exact, exact, batch).half.log_prob == found.exact.log_prob).all()
