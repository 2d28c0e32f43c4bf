"""The facts about a model are the same from both classes, and the identities that the scores rest on hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, loaded, require_backend

from icl_circuits.errors import InputError
from icl_circuits.models import (
    LensModel,
    attention_weights,
    backend_of,
    hook_point,
    is_parallel,
    kv_head,
    mlp_weights,
    read_block,
    readout,
    require_live_scores,
)
from icl_circuits.prompts import PromptBatch
from icl_circuits.residual import Head, require_heads


def test_readout_makes_the_models_own_logits(model: LensModel, batch: PromptBatch) -> None:
    logits, cache = model.run_with_cache(batch.tokens)
    final = cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]
    torch.testing.assert_close(readout(model).logits(final), logits, atol=1e-5, rtol=0)


def test_frozen_log_probs_are_the_models_where_no_bias_is_dropped(model: LensModel, batch: PromptBatch) -> None:
    logits, cache = model.run_with_cache(batch.tokens)
    out, final = readout(model), cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]
    expected = (logits - out.norm.bias @ out.W_U).log_softmax(-1)
    torch.testing.assert_close(out.log_probs(final, out.norm.scale(final)), expected, atol=2e-5, rtol=0)


def test_projection_is_linear(model: LensModel) -> None:
    """M(alpha vo) = alpha M(vo) with the frozen norm."""
    out = readout(model)
    x, y = torch.randn(2, 3, model.cfg.d_model, generator=torch.Generator().manual_seed(0)).unbind(0)
    scale = torch.full((3, 1), 0.7)
    torch.testing.assert_close(
        out.project(0.3 * x + y, scale), 0.3 * out.project(x, scale) + out.project(y, scale), atol=1e-4, rtol=1e-4
    )


def test_attention_weights_make_q_k_v_and_attn_out(model: LensModel, batch: PromptBatch) -> None:
    _, cache = model.run_with_cache(batch.tokens)
    for layer in range(model.cfg.n_layers):
        w = attention_weights(model, layer)
        block = f"blocks.{layer}"
        read = model.blocks[layer].ln1(cache[f"{block}.hook_resid_pre"])
        kv = [kv_head(model, head) for head in range(model.cfg.n_heads)]
        for name, W, b in (("q", w.W_Q, w.b_Q), ("k", w.W_K, w.b_K), ("v", w.W_V, w.b_V)):
            expected = cache[f"{block}.attn.hook_{name}"]
            if name != "q":
                expected = expected[:, :, kv]
            found = torch.einsum("bpm,hmd->bphd", read, W) + b
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        head_out = torch.einsum("bphd,hdm->bphm", cache[f"{block}.attn.hook_z"], w.W_O)
        attn_out = cache[f"{block}.hook_attn_out"]
        torch.testing.assert_close(head_out.sum(2) + w.b_O, attn_out, atol=1e-5, rtol=1e-4)


def test_head_output_is_the_sum_over_positions(model: LensModel, batch: PromptBatch) -> None:
    """sum_p alpha_p vo_p = z_h W_O[h]."""
    _, cache = model.run_with_cache(batch.tokens)
    for layer in range(model.cfg.n_layers):
        pattern, v, z = (cache[f"blocks.{layer}.attn.hook_{site}"] for site in ("pattern", "v", "z"))
        kv = [kv_head(model, head) for head in range(model.cfg.n_heads)]
        torch.testing.assert_close(torch.einsum("bhqk,bkhd->bqhd", pattern, v[:, :, kv]), z, atol=1e-5, rtol=1e-4)


def test_kv_heads(model: LensModel) -> None:
    groups = [kv_head(model, head) for head in range(4)]
    assert groups == ([0, 0, 1, 1] if getattr(model.cfg, "n_key_value_heads", None) == 2 else [0, 1, 2, 3])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_classes_tell_the_same_facts(folders: dict[str, Path], name: str) -> None:
    require_backend("hooked")
    hooked, bridge = (loaded(folders[name], backend) for backend in ("hooked", "bridge"))
    assert (backend_of(hooked), backend_of(bridge)) == ("hooked", "bridge")
    assert is_parallel(hooked) == is_parallel(bridge) == (name in ("neox", "gptj"))
    for layer in range(3):
        for field, value in vars(attention_weights(hooked, layer)).items():
            if field == "outlet":
                continue
            torch.testing.assert_close(getattr(attention_weights(bridge, layer), field), value, msg=field)

    def facts(model: LensModel) -> dict[str, object]:
        out = readout(model)
        return {
            name: value
            for part in (out, out.norm)
            for name, value in vars(part).items()
            if name not in ("norm", "module")
        }

    theirs_by_name = facts(bridge)
    for field, value in facts(hooked).items():
        theirs = theirs_by_name[field]
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(theirs, value, msg=field)
        else:
            assert theirs == pytest.approx(value), field


def test_scores_that_do_nothing_are_refused(folders: dict[str, Path]) -> None:
    """GPT-J on the Bridge shows attention scores that it does not use."""
    with pytest.raises(InputError, match="does not compute with the attention scores"):
        require_live_scores(loaded(folders["gptj"], "bridge"))
    for name in ("gpt2", "llama", "neox", "qwen2"):
        require_live_scores(loaded(folders[name], "bridge"))


def test_missing_places_are_named(gpt2: LensModel) -> None:
    with pytest.raises(InputError, match="no hook point 'blocks.9.hook_resid_pre'"):
        hook_point(gpt2, "blocks.9.hook_resid_pre")
    with pytest.raises(InputError, match="head L0H4 does not exist: .* layers 0..2 with heads 0..3"):
        require_heads(gpt2, (Head(0, 0), Head(0, 4)))
    for wrong in (Head(True, 0), Head(0, 1.0), Head(0, "1")):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="give whole numbers"):
            require_heads(gpt2, (wrong,))
    require_heads(gpt2, (Head(np.int64(1), 3),))  # type: ignore[arg-type]


def test_neurons_add_up_to_the_mlp(model: LensModel, batch: PromptBatch) -> None:
    """What goes into each neuron, by its input weights; and their activations times their output directions."""
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.tokens)
        for layer in range(model.cfg.n_layers):
            weights, norm = mlp_weights(model, layer), read_block(model, layer, batch.tokens.shape[1]).ln2
            assert norm is not None
            resid, attn_out = cache[f"blocks.{layer}.hook_resid_pre"], cache[f"blocks.{layer}.hook_attn_out"]
            normed = norm(resid if is_parallel(model) else resid + attn_out)
            post = cache[f"blocks.{layer}.mlp.hook_post"]
            if weights.W_gate is None:
                torch.testing.assert_close(
                    normed @ weights.W_in + weights.b_in, cache[f"blocks.{layer}.mlp.hook_pre"], atol=1e-5, rtol=0
                )
            else:
                by_hand = torch.nn.functional.silu(normed @ weights.W_gate) * (normed @ weights.W_in) + weights.b_in
                torch.testing.assert_close(by_hand, post, atol=1e-5, rtol=0)
            written = torch.einsum("bpk,km->bpm", post, weights.W_out) + weights.b_out
            torch.testing.assert_close(written, cache[f"blocks.{layer}.hook_mlp_out"], atol=1e-5, rtol=0)


def test_a_model_without_mlps_has_no_neurons(planted: LensModel) -> None:
    with pytest.raises(InputError, match="layer 1 of 'planted' has no MLP"):
        mlp_weights(planted, 1)
