"""The sweep engine equals plain hooks: every site, position and shape, on every architecture and class."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import ARCHITECTURES, BACKENDS, loaded, require_backend, save_model, save_tokenizer
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions import (
    Interchange,
    Mean,
    Patch,
    ReplaceHeads,
    Resample,
    ScaleScores,
    Zero,
    ZeroHeads,
    from_logits,
    intervene,
    positions_of,
    require_metric,
)
from icl_circuits.models import (
    HEAD_SITES,
    LAYER_SITES,
    LensModel,
    NotAlgebraError,
    is_parallel,
    load_model,
    n_kv_heads,
    read_block,
)
from icl_circuits.models.lens import hooked_transformer_class
from icl_circuits.patching import bundles, engine, run_each, sweep
from icl_circuits.patching.base_run import run_base
from icl_circuits.prompts import PromptBatch, Rows, encode, reverse_labels, sample_prompts, zero_shot
from icl_circuits.residual import Head, answer_logits

SITES = (*LAYER_SITES, *HEAD_SITES)


def plain(model: LensModel, batch: PromptBatch, patches: tuple[Patch, ...]) -> Tensor:
    """Answer-position logits by `run_with_hooks`, with edits written out here, not by the package's interventions."""
    rows = torch.arange(len(batch))
    hooks: list[tuple[str, Any]] = []
    for patch in patches:
        n_pos = batch.tokens.shape[1]
        at = torch.arange(n_pos).expand(len(batch), -1) if patch.positions is None else patch.positions

        def edit(x: Tensor, hook: object, patch: Patch = patch, at: Tensor = at) -> Tensor:
            x = x.clone()
            for row in range(len(x)):
                for i, position in enumerate(at[row].tolist()):
                    value = patch.value if patch.value.ndim == 1 else patch.value[row, i]
                    if patch.site == "pattern":
                        seen = torch.arange(x.shape[-1]) <= position
                        x[row, patch.head, position] = torch.where(seen, value.to(x), 0.0)
                    elif patch.head is None:
                        x[row, position] = value
                    else:
                        x[row, position, patch.head] = value
            return x

        inner = "attn." if patch.site in HEAD_SITES else ""
        hooks.append((f"blocks.{patch.layer}.{inner}hook_{patch.site}", edit))
    with torch.no_grad():
        return model.run_with_hooks(batch.tokens, fwd_hooks=hooks)[rows, batch.last]


def logits_of(logits: Tensor, batch: PromptBatch) -> Tensor:
    """A metric of many values: the logits themselves."""
    return logits


def can(model: LensModel, site: str, node: str) -> bool:
    if site == "resid_mid":
        # the Bridge's hook_resid_mid is no place to patch by hand: test_patching_sites compares it by algebra
        return not is_parallel(model) and "bridge" not in node
    return not (site == "pattern" and "gptj-bridge" in node)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_engine_equals_plain_hooks(
    model: LensModel, words: Rows, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    n_prompts, shots = data.draw(st.integers(1, 4), "prompts"), data.draw(st.integers(1, 3), "shots")
    batch = encode(model, sample_prompts(words, n_prompts, shots=shots, seed=data.draw(st.integers(0, 9), "seed")))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9), "values"))
    n_pos = batch.tokens.shape[1]
    places: list[Any] = [None, batch.last[:, None], batch.label_positions]
    places.append(torch.randint(0, n_pos, (n_prompts, 1), generator=generator))
    variants = []
    for _ in range(data.draw(st.integers(1, 6), "variants")):
        variant = []
        for _ in range(data.draw(st.integers(0, 3), "patches")):
            site = data.draw(st.sampled_from([s for s in SITES if can(model, s, request.node.name)]))
            layer = data.draw(st.integers(0, model.cfg.n_layers - 1))
            at = places[data.draw(st.integers(0, len(places) - 1))]
            head = None
            if site in HEAD_SITES:
                head = data.draw(st.integers(0, (n_kv_heads(model) if site in "kv" else model.cfg.n_heads) - 1))
            width = {"pattern": n_pos}.get(site, model.cfg.d_head if head is not None else model.cfg.d_model)
            n_chosen = n_pos if at is None else at.shape[1]
            shape = data.draw(st.sampled_from([(width,), (n_prompts, n_chosen, width)]))
            value = (
                torch.rand(shape, generator=generator) if site == "pattern" else torch.randn(shape, generator=generator)
            )
            variant.append(Patch(site, layer, value, at, head=head))
        variants.append(_one_patch_a_place(variant))
    found = run_each(model, batch, variants, logits_of)
    assert found.fallback is None
    expected = torch.stack([plain(model, batch, variant) for variant in variants])
    assert (found.values - expected).abs().max() <= 1e-4 * found.logit_scale
    torch.testing.assert_close(found.base, plain(model, batch, ()), atol=1e-5, rtol=0)


def _one_patch_a_place(patches: list[Patch]) -> tuple[Patch, ...]:
    """Which of two patches of one place wins is a matter of hook order: keep one."""
    return tuple({(p.site, p.layer, p.head): p for p in patches}.values())


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float64(folders: dict[str, Path], words: Rows, name: str, backend: str) -> None:
    require_backend(backend)
    model = load_model(str(folders[name]), backend=backend, device="cpu", dtype=torch.float64)
    batch = encode(model, sample_prompts(words, 4, shots=2, seed=1))
    value = torch.randn(4, 4, 8, dtype=torch.float64)
    variants = [(Patch(site, layer, value, batch.label_positions, head=1),) for site in "qkvz" for layer in range(3)]
    variants.append((ZeroHeads((Head(0, 0), Head(2, 1))), Patch("mlp_out", 1, value.new_ones(32), batch.last[:, None])))
    if (name, backend) == ("gptj", "bridge"):  # this one model rounds q and k to float32 in its own float64
        with pytest.warns(UserWarning, match="its attention rounds queries and keys to float32"):
            found = run_each(model, batch, variants, logits_of)
    else:
        found = run_each(model, batch, variants, logits_of)
        assert found.fallback is None
    patches = [tuple(patch for part in variant for patch in part.patches(model)) for variant in variants]
    expected = torch.stack([plain(model, batch, variant) for variant in patches])
    assert found.values.dtype == torch.float64
    assert (found.values - expected).abs().max() <= 1e-9 * found.logit_scale


# --- post-norms, soft caps, sliding windows, norms of q and k ---------------------------------------------------------


def special(tmp_path: Path, config: type, **more: Any) -> Path:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 4, "intermediate_size": 64}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}
    save_model(tmp_path, config(vocab_size=save_tokenizer(tmp_path), **(sizes | more)))
    return tmp_path


SPECIAL = {
    "gemma2": (transformers.Gemma2Config, {"sliding_window": 8, "attn_logit_softcapping": 2.0}),
    "mistral": (transformers.MistralConfig, {"sliding_window": 8}),
    "qwen3": (transformers.Qwen3Config, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECIAL)
def test_special_attention_on_the_bridge(tmp_path: Path, words: Rows, name: str) -> None:
    """Gemma 2: post-norms, both soft caps, sliding windows in every other layer. Qwen 3: normed q and k."""
    config, more = SPECIAL[name]
    model = loaded(special(tmp_path, config, **more), "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=2))
    _require_all_sites_exact(model, batch, [site for site in SITES if site != "resid_mid"])


def test_post_norms_and_soft_caps_on_hooked_transformer(words: Rows, gpt2: LensModel) -> None:
    require_backend("hooked")
    hooked = hooked_transformer_class()
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=3, d_model=32, n_ctx=256, d_head=8, n_heads=4, d_mlp=64, d_vocab=gpt2.cfg.d_vocab, act_fn="gelu_new",
        normalization_type="RMS", use_normalization_before_and_after=True, attn_scores_soft_cap=2.0,
        output_logits_soft_cap=3.0, use_local_attn=True, window_size=8, attn_types=["local", "global", "local"],
        n_key_value_heads=2, positional_embedding_type="rotary", rotary_dim=8, gated_mlp=True, final_rms=True,
        model_name="gemma2-like", init_weights=True, seed=0, device="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = hooked(config)  # type: ignore[misc]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0))
    model.tokenizer = gpt2.tokenizer
    batch = encode(model.eval().requires_grad_(False), sample_prompts(words, 3, shots=2), prepend_bos=False)
    _require_all_sites_exact(model, batch, SITES)


def _require_all_sites_exact(model: LensModel, batch: PromptBatch, sites: Any) -> None:
    n_pos, n_layers = batch.tokens.shape[1], model.cfg.n_layers
    for site in sites:
        head = 1 if site in HEAD_SITES else None
        width = {"pattern": n_pos}.get(site, model.cfg.d_head if head is not None else model.cfg.d_model)
        variants = []
        for at in (batch.last[:, None], batch.label_positions):
            value = torch.rand(len(batch), at.shape[1], width, generator=torch.Generator().manual_seed(0))
            variants += [(Patch(site, layer, value, at, head=head),) for layer in range(n_layers)]
        found = run_each(model, batch, variants, logits_of)
        expected = torch.stack([plain(model, batch, variant) for variant in variants])
        assert found.fallback is None
        assert (found.values - expected).abs().max() <= 1e-4 * found.logit_scale, site
        assert (found.values[0] - found.base).abs().max() > 1e-3, site


def test_resid_mid_behind_a_post_norm_on_the_bridge(tmp_path: Path, words: Rows) -> None:
    config, more = SPECIAL["gemma2"]
    model = loaded(special(tmp_path, config, **more), "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=1))
    variants = [(Patch("resid_mid", layer, torch.ones(32), batch.last[:, None]),) for layer in range(4)]
    found = run_each(model, batch, variants, verify=4)
    assert found.fallback is None
    assert found.max_error is not None
    assert found.max_error < 1e-4


# --- what cannot be exact falls back, or is refused, by name ----------------------------------------------------------


def test_hooks_of_others_make_it_fall_back(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    variants = [(ZeroHeads((Head(1, 1),)),), (ZeroHeads((Head(2, 1),)),)]
    outer = ZeroHeads((Head(0, 0), Head(0, 1)))
    with intervene(gpt2, outer), pytest.warns(UserWarning, match="a forward pass for each of 2 variants: a hook is on"):
        found = run_each(gpt2, batch, variants)
    assert found.fallback is not None
    assert "blocks.0.attn.hook_z" in found.fallback
    inside = run_each(gpt2, batch, [(outer, *variant) for variant in variants])
    torch.testing.assert_close(found.values, inside.values, atol=1e-5, rtol=0)


def test_other_interventions_make_it_fall_back(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    variant = (ScaleScores((Head(1, 1),), 0.0), ZeroHeads((Head(2, 1),)))
    with pytest.warns(UserWarning, match="ScaleScores is no patch"):
        found = run_each(gpt2, batch, [variant], logits_of)
    torch.testing.assert_close(found.values[0], answer_logits(gpt2, batch, *variant), atol=1e-5, rtol=0)


def test_equations_that_miss_make_it_fall_back(folders: dict[str, Path], words: Rows, monkeypatch: Any) -> None:
    model = loaded(folders["llama"], "bridge")
    batch = encode(model, sample_prompts(words, 2, shots=1))

    def wrong(model: LensModel, layer: int, n_pos: int) -> Any:
        return dataclasses.replace(read_block(model, layer, n_pos), scale=1.0)

    monkeypatch.setattr("icl_circuits.patching.base_run.read_block", wrong)
    with pytest.raises(NotAlgebraError, match=r"miss its blocks\.0\.attn\.hook_attn_scores"):
        run_base(model, batch)
    with pytest.warns(UserWarning, match="the engine's equations miss its"):
        found = run_each(model, batch, [(ZeroHeads((Head(0, 0),)),)])
    monkeypatch.undo()
    exact = run_each(model, batch, [(ZeroHeads((Head(0, 0),)),)])
    torch.testing.assert_close(found.values, exact.values, atol=1e-5, rtol=0)


def test_verify_finds_a_wrong_variant(gpt2: LensModel, words: Rows, monkeypatch: Any) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    variants = [(ZeroHeads((head,)),) for head in (Head(0, 0), Head(1, 0), Head(2, 0))]
    found = run_each(gpt2, batch, variants, verify=3)
    assert found.max_error is not None
    assert found.max_error <= 1e-4 * found.logit_scale
    metric_of = bundles.metric_of
    monkeypatch.setattr(bundles, "metric_of", lambda base, normed, metric: metric_of(base, 1.1 * normed, metric))
    with pytest.raises(InputError, match=r"the logits of variant \d differ from run_with_hooks by"):
        run_each(gpt2, batch, variants, verify=3)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ((ZeroHeads((Head(9, 0),)),), "head L9H0 does not exist"),
        ((Patch("z", 0, torch.zeros(8)),), "carries many heads: say which"),
        ((Patch("k", 0, torch.zeros(8), head=4),), "head 4 does not exist"),
        ((Patch("z", 0, torch.zeros(9), head=0),), r"patch of z in layer 0: the value has shape \[9\]"),
        ((Patch("mlp_out", 0, torch.zeros(32), head=0),), "mlp_out has no heads"),
        ((Patch("resid_pre", 5, torch.zeros(32)),), "layer 5 does not exist"),
        ((Patch("resid_pre", 0, torch.zeros(32), torch.full((3, 1), 99)),), "position 99 does not exist"),
        ((Patch("resid_pre", 0, torch.full((32,), torch.nan)),), "patch of resid_pre in layer 0: the value holds NaN"),
        ((Patch("resid_pre", 0, torch.full((32,), 3e38)),), "a variant gives NaN states"),
    ],
)
def test_what_does_not_fit_is_named(gpt2: LensModel, words: Rows, variant: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_each(gpt2, encode(gpt2, sample_prompts(words, 3, shots=1)), [variant])


def test_unknown_metrics_and_counts_are_named(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    with pytest.raises(InputError, match="metric 'accuracy' is unknown: use logit_diff"):
        require_metric.__wrapped__("accuracy")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="verify is 2: give how many of the 1 variants"):
        run_each(gpt2, batch, [()], verify=2)
    with pytest.raises(InputError, match=r"the metric gave shape \[\] for 3 prompts"):
        run_each(gpt2, batch, [()], lambda logits, batch: logits.mean())


def test_a_function_sees_float32(gpt2: LensModel, words: Rows) -> None:
    """Also where the model itself gives logits in half precision, which a sum over the vocabulary would lose."""
    batch = encode(gpt2, sample_prompts(words, 2, shots=1))
    logits = answer_logits(gpt2, batch)

    def log_prob(logits: Tensor, batch: PromptBatch) -> Tensor:
        assert logits.dtype == torch.float32
        return logits.log_softmax(-1)[torch.arange(2), batch.target]

    half = from_logits(log_prob, logits.bfloat16(), batch)
    torch.testing.assert_close(half, from_logits("log_prob", logits.bfloat16(), batch))


def test_a_changed_model_is_checked_again(folders: dict[str, Path], words: Rows) -> None:
    model = loaded(folders["gpt2"], "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=1))
    variants = [(ZeroHeads((Head(0, 0),)),)]
    before = run_each(model, batch, variants)
    handle = model.blocks[1].mlp.register_forward_hook(lambda module, inputs, output: 2 * output)
    try:
        with pytest.warns(UserWarning, match="the engine's equations miss its blocks.1.hook_mlp_out"):
            found = run_each(model, batch, variants)
    finally:
        handle.remove()
    assert (found.values - before.values).abs().max() > 1e-3
    torch.testing.assert_close(run_each(model, batch, variants).values, before.values)


def test_patches_of_one_place_apply_in_order(model: LensModel, words: Rows) -> None:
    """Also where one place is patched again, or resid_mid beside the states that it is made of."""
    batch = encode(model, sample_prompts(words, 3, shots=1))
    last, again = batch.last[:, None], batch.last[:, None].clone()
    z = [Patch("z", 1, torch.full((8,), value), at, head=1) for value, at in ((1.0, last), (2.0, again), (3.0, last))]
    states = [Patch(site, 1, torch.randn(32), last) for site in ("resid_mid", "resid_pre", "attn_out")]
    variants = [tuple(z), (z[0], z[1]), (z[1], z[0])]
    if not is_parallel(model):
        variants += [tuple(states), tuple(states[::-1]), (states[1], states[0])]
    found = run_each(model, batch, variants, logits_of)
    expected = torch.stack([answer_logits(model, batch, *variant) for variant in variants])
    assert (found.values - expected).abs().max() <= 1e-4 * found.logit_scale
    if not is_parallel(model):  # resid_mid is what it was set to, whatever it is made of
        alone = answer_logits(model, batch, states[0])
        torch.testing.assert_close(found.values[3], alone, atol=1e-4, rtol=0)


def test_misspelt_options_are_named(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    for call, message in (
        (
            lambda: positions_of.__wrapped__(batch, "label"),
            "positions 'label' is unknown: use one of last, labels",
        ),
        (lambda: sweep(gpt2, batch, positions=torch.full((3, 1), 99)), "positions: position 99 does not exist"),
        (lambda: sweep(gpt2, batch, positions=batch.last[:, None].repeat(1, 2)), "has a position twice"),
        (lambda: sweep(gpt2, batch, layers=[]), "layers is empty"),
        (lambda: run_each(gpt2, batch.select([]), [()]), "there are no prompts"),
        (lambda: sweep(gpt2, zero_shot_of(gpt2, words), positions="labels"), "have no demonstrations"),
    ):
        with pytest.raises(InputError, match=message):
            call()  # type: ignore[no-untyped-call]
    assert sweep(gpt2, zero_shot_of(gpt2, words)).values.shape == (12, 3)


def zero_shot_of(model: LensModel, words: Rows) -> PromptBatch:
    return encode(model, [zero_shot(prompt) for prompt in sample_prompts(words, 3, shots=1)])


# --- memory -----------------------------------------------------------------------------------------------------------


def test_bundles_and_prompt_parts_change_nothing(gpt2: LensModel, words: Rows, monkeypatch: Any) -> None:
    batch = encode(gpt2, sample_prompts(words, 7, shots=2))
    variants: list[Any] = [(ZeroHeads((Head(layer, head),)),) for layer in range(3) for head in range(4)] + [()]
    variants += [(ZeroHeads((Head(1, 1), Head(0, 2)), batch.label_positions[:, :1]),)]
    n_pos = batch.tokens.shape[1]
    variants += [
        (Patch("pattern", 1, torch.rand(7, n_pos, n_pos), head=1),),
        (Patch("k", 1, torch.rand(7, n_pos, 8), head=1),),
    ]
    whole = run_each(gpt2, batch, variants, logits_of)
    expected = torch.stack([plain(gpt2, batch, variant) for variant in variants[-2:]])
    torch.testing.assert_close(whole.values[-2:], expected, atol=1e-5, rtol=0)
    monkeypatch.setattr(engine, "PROMPT_TOKENS", 3 * batch.tokens.shape[1])
    parts = run_each(gpt2, batch, variants, logits_of, budget=1)
    torch.testing.assert_close(parts.values, whole.values, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.values[12], whole.base, atol=0, rtol=0)
    sizes = {
        len(bundle.rows) for bundle in bundles.into_bundles(gpt2, batch, [v[0].patches(gpt2) for v in variants[:12]], 1)
    }
    assert sizes == {1}


def test_a_gpu_out_of_memory_halves_the_bundle(gpt2: LensModel, words: Rows, monkeypatch: Any) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    variants = [(ZeroHeads((Head(layer, head),)),) for layer in range(3) for head in range(4)]
    expected = run_each(gpt2, batch, variants).values
    advance, limit = bundles.advance, [4]

    def small(base: Any, layer: int, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        if len(x) > limit[0]:
            raise torch.cuda.OutOfMemoryError("pretend")
        return advance(base, layer, x, *rest, **options)

    monkeypatch.setattr(bundles, "advance", small)
    torch.testing.assert_close(run_each(gpt2, batch, variants).values, expected, atol=1e-5, rtol=0)
    limit[0] = 0
    with pytest.raises(InputError, match="one variant of 3 prompts does not fit"):
        run_each(gpt2, batch, variants)


# --- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["logit_diff", "between_labels", "log_prob", "prob", "top1"])
def test_metrics(model: LensModel, batch: PromptBatch, metric: Any) -> None:
    found = sweep(model, batch, "z", positions="all", metric=metric)
    assert [cell[:2] for cell in found.cells] == [(layer, head) for layer in range(3) for head in range(4)]
    for i in (0, 5, 11):
        layer, head, _ = found.cells[i]
        logits = plain(model, batch, (Patch("z", layer, torch.zeros(8), head=head),))
        right, other = batch.label_tokens[batch.gold], batch.label_tokens[1 - batch.gold]
        rows = torch.arange(len(batch))
        expected = {
            "logit_diff": logits[rows, right] - logits[rows, other],
            "between_labels": (logits[rows, right] > logits[rows, other]).float(),
            "log_prob": logits.log_softmax(-1)[rows, right],
            "prob": logits.softmax(-1)[rows, right],
            "top1": (logits.argmax(-1) == right).float(),
        }[metric]
        np.testing.assert_allclose(found.values[i], expected.numpy(), atol=1e-4)


def twin_of(model: LensModel, words: Rows) -> tuple[PromptBatch, PromptBatch]:
    prompts = sample_prompts(words, 5, shots=2, seed=3)
    return encode(model, prompts), encode(model, [reverse_labels(prompt) for prompt in prompts])


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("positions", ["last", "labels", "all"])
def test_patching_from_the_label_reversed_twin(
    model: LensModel, words: Rows, site: Any, positions: Any, request: pytest.FixtureRequest
) -> None:
    clean, corrupted = twin_of(model, words)
    if not can(model, site, request.node.name):
        return
    found = sweep(model, clean, site, positions=positions, replacement=Interchange(corrupted))
    with torch.no_grad():
        _, cache = model.run_with_cache(corrupted.tokens)
    at = {"last": clean.last[:, None], "labels": clean.label_positions, "all": None}[positions]
    rows = torch.arange(5)[:, None]
    for i in (0, len(found.cells) // 2, len(found.cells) - 1):
        layer, head, _ = found.cells[i]
        value = cache[f"blocks.{layer}.{'attn.' if head is not None else ''}hook_{site}"]
        if head is not None:
            value = value[:, head] if site == "pattern" else value[:, :, head]
        value = value if at is None else value[rows, at]
        logits = plain(model, clean, (Patch(site, layer, value, at, head=head),))
        expected = [
            logits[b, clean.label_tokens[g]] - logits[b, clean.label_tokens[1 - g]] for b, g in enumerate(clean.gold)
        ]
        np.testing.assert_allclose(found.values[i], torch.stack(expected).numpy(), atol=1e-4)


def test_positions_one_by_one(gpt2: LensModel, words: Rows) -> None:
    clean, corrupted = twin_of(gpt2, words)
    each = sweep(gpt2, clean, "resid_pre", positions="all", each=True, replacement=Interchange(corrupted), verify=8)
    n_pos = clean.tokens.shape[1]
    assert each.grid().shape == (3, n_pos)
    first = int((clean.tokens != corrupted.tokens).any(0).nonzero()[0])
    np.testing.assert_allclose(each.grid()[:, :first], 0, atol=1e-5)
    assert np.abs(each.grid()[0, first:]).max() > 1e-2
    labels = sweep(gpt2, clean, "resid_pre", positions="labels", each=True, replacement=Interchange(corrupted))
    for i, cell in enumerate(labels.cells):
        for b in range(5):
            j = each.cells.index(cell._replace(position=int(clean.label_positions[b, cell.position])))
            assert each.values[j, b] == pytest.approx(labels.values[i, b], abs=1e-5)
    frame = labels.to_frame()
    assert list(frame.columns) == ["layer", "head", "position", "value", "effect", "effect_low", "effect_high"]
    assert frame["head"].isna().all()


def test_denoising_at_the_last_layer_gives_the_other_run(gpt2: LensModel, words: Rows) -> None:
    """Patching the whole final state makes the corrupted run the clean one, and the other way round."""
    clean, corrupted = twin_of(gpt2, words)
    for run, source in ((clean, corrupted), (corrupted, clean)):
        found = sweep(gpt2, run, "resid_post", replacement=Interchange(source), metric=first_label_logit, layers=[2])
        expected = first_label_logit(answer_logits(gpt2, source), source)
        np.testing.assert_allclose(found.values[0], expected.numpy(), atol=1e-5)
        assert found.metric == "first_label_logit"


def first_label_logit(logits: Tensor, batch: PromptBatch) -> Tensor:
    return logits[:, batch.label_tokens[0]]


def test_a_second_run_without_demonstrations(gpt2: LensModel, words: Rows) -> None:
    """Only patches at label positions need as many demonstrations in it."""
    batch, source = encode(gpt2, sample_prompts(words, 3, shots=2, seed=3)), zero_shot_of(gpt2, words)
    found = sweep(gpt2, batch, "resid_post", replacement=Interchange(source), metric=first_label_logit, layers=[2])
    np.testing.assert_allclose(found.values[0], first_label_logit(answer_logits(gpt2, source), source), atol=1e-5)


def test_mean_and_resample(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 5, shots=2, seed=3))
    reference = encode(gpt2, sample_prompts(words, 8, shots=2, seed=4))
    _, cache = gpt2.run_with_cache(reference.tokens)
    z = cache["blocks.1.attn.hook_z"][:, :, 2]
    rows = torch.arange(8)
    means = {"last": z[rows, reference.last].mean(0), "all": z[reference.is_text].mean(0)}
    means["labels"] = z[rows[:, None], reference.label_positions].flatten(0, 1).mean(0)
    for positions, mean in means.items():
        found = sweep(gpt2, batch, "z", positions=positions, replacement=Mean(reference), layers=[1])  # type: ignore[arg-type]
        at = {"last": batch.last[:, None], "labels": batch.label_positions, "all": None}[positions]
        expected = run_each(gpt2, batch, [(ReplaceHeads({Head(1, 2): mean}, at),)])
        np.testing.assert_allclose(found.values[2], expected.values[0].numpy(), atol=1e-5)
    found = sweep(gpt2, batch, "resid_pre", replacement=Resample(seed=1), metric=first_label_logit, layers=[0])
    assert found.effect.any(axis=1).all()
    same = sweep(gpt2, batch, "resid_pre", replacement=Resample(seed=1), metric=first_label_logit, layers=[0])
    np.testing.assert_array_equal(found.values, same.values)


def test_partners_that_do_not_match_are_named(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=2, seed=3))
    fewer = encode(gpt2, sample_prompts(words, 2, shots=2, seed=3))
    other = encode(gpt2, sample_prompts(words, 3, shots=2, seed=4))
    with pytest.raises(InputError, match="the second run has 2 prompts, the first 3"):
        sweep(gpt2, batch, replacement=Interchange(fewer))
    with pytest.raises(InputError, match="the second run has 0 demonstrations in each prompt, the first 4"):
        sweep(gpt2, batch, positions="labels", replacement=Interchange(zero_shot_of(gpt2, words)))
    with pytest.raises(InputError, match=r"prompt \d has \d+ tokens and its partner \d+"):
        sweep(gpt2, batch, positions="all", replacement=Interchange(other))
    with pytest.raises(InputError, match="one prompt has no other"):
        sweep(gpt2, batch.select([0]), replacement=Resample())
    with pytest.raises(InputError, match="patterns of different prompts have no mean"):
        sweep(gpt2, batch, "pattern", replacement=Mean(other))
    with pytest.raises(InputError, match="layer 7 does not exist"):
        sweep(gpt2, batch, layers=[7], replacement=Zero())
