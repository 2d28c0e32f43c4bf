"""Models without equations take the plain path, with a warning that says why; the others are exact."""

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import tiny_config
from conftest import loaded, require_backend, save_model, save_tokenizer
from test_engine import SITES, logits_of, plain

from icl_circuits.interventions import Patch
from icl_circuits.models import HEAD_SITES, LensModel, has_mlp, is_parallel, n_kv_heads
from icl_circuits.models.lens import hooked_transformer_class
from icl_circuits.patching import run_each
from icl_circuits.prompts import Rows, TokenBatch, encode, sample_prompts

ROTARY: dict[str, Any] = {"positional_embedding_type": "rotary", "rotary_dim": 8}
LOCAL: dict[str, Any] = {"use_local_attn": True, "attn_types": ["local", "global", "local"]}
RMS: dict[str, Any] = {"normalization_type": "RMS", "final_rms": True}
GATED: dict[str, Any] = {"act_fn": "silu", "gated_mlp": True}

EXACT: dict[str, dict[str, Any]] = {
    "plain": {},
    "attention alone": {"attn_only": True},
    "no norms": {"normalization_type": None},
    "folded layer norms": {"normalization_type": "LNPre"},
    "folded RMS norms": {"normalization_type": "RMSPre"},
    "post-norms": {**RMS, "use_normalization_before_and_after": True},
    "soft caps": {"attn_scores_soft_cap": 2.0, "output_logits_soft_cap": 3.0},
    "narrow heads": {"d_head": 5},
    "wide heads": {"d_head": 16},
    "rotary": ROTARY,
    "rotary, adjacent pairs of a part": {**ROTARY, "rotary_dim": 4, "rotary_adjacent_pairs": True},
    "rotary, local base": {**ROTARY, **LOCAL, "window_size": 6, "rotary_base_local": 100},
    "rotary by parts": {**ROTARY, "use_NTK_by_parts_rope": True, "NTK_original_ctx_len": 8},
    "YaRN": {**ROTARY, "use_yarn_rope": True},
    "grouped queries": {"n_key_value_heads": 2},
    "one key-value head": {"n_key_value_heads": 1},
    "grouped queries, hooks ungrouped": {"n_key_value_heads": 2, "ungroup_grouped_query_attention": True},
    "solu_ln": {"act_fn": "solu_ln"},
    "relu": {"act_fn": "relu"},
    "gated": GATED,
    "gated, tanh-GELU": {"gated_mlp": True},
    "experts": {**GATED, "num_experts": 4, "experts_per_token": 2},
    "a window shorter than the prompts": {**LOCAL, "window_size": 6},
    "a window longer than the prompts": {**LOCAL, "window_size": 200},
    "no attention scale": {"use_attn_scale": False},
    "attention scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "another attention scale": {"attn_scale": 0.7},
    "parallel": {"parallel_attn_mlp": True},
    "norms of queries and keys": {**RMS, "use_qk_norm": True},
    "results by head": {"use_attn_result": True},
    "split inputs": {"use_split_qkv_input": True},
    "MLP input hooked": {"use_hook_mlp_in": True},
    "another vocabulary out": {"d_vocab_out": 30},
    "a norm behind the embedding": {"post_embedding_ln": True},
    "one layer": {"n_layers": 1},
}
"""Fields of a HookedTransformer's configuration that the engine has equations for."""

PLAIN: dict[str, tuple[dict[str, Any], str]] = {
    "ALiBi": ({"positional_embedding_type": "alibi"}, "its position embedding is 'alibi'"),
    "shortformer": ({"positional_embedding_type": "shortformer"}, "its position embedding is 'shortformer'"),
    "attention sinks": ({"use_attention_sinks": True}, "it has attention sinks"),
    "clipped": ({"clip_qkv": 0.5}, "it has queries, keys and values that are clipped"),
    "clipped by patches alone": ({"clip_qkv": 50.0}, "it has queries, keys and values that are clipped"),
    "dynamic angles": ({**ROTARY, "use_dynamic_ntk_rope": True}, "it has rotary angles that depend on the length"),
    "two kinds of norm": ({"normalization_type": "LN", "final_rms": True}, "the engine's equations miss its logits"),
}
"""Those that it has none for, and what the warning says."""

RANDOM: dict[str, list[Any]] = {
    "normalization_type": ["LN", "LNPre", "RMS", "RMSPre"],
    "final_rms": [False, True],
    "attn_scores_soft_cap": [-1.0, 2.0],
    "output_logits_soft_cap": [-1.0, 3.0],
    "d_head": [8, 16],
    "n_heads": [4, 2, 6],
    "positional_embedding_type": ["standard", "rotary", "rotary", "alibi"],
    "rotary_dim": [4, 8],
    "rotary_adjacent_pairs": [False, True],
    "n_key_value_heads": [None, 2],
    "ungroup_grouped_query_attention": [False, False, True],
    "act_fn": ["gelu", "gelu_new", "relu", "silu", "solu_ln", "gelu_fast"],
    "gated_mlp": [False, True],
    "parallel_attn_mlp": [False, False, True],
    "use_attn_scale": [True, False],
    "attn_scale": [-1.0, 0.7],
    "scale_attn_by_inverse_layer_idx": [False, True],
    "use_attn_result": [False, True],
    "use_split_qkv_input": [False, True],
    "use_local_attn": [False, True],
    "window_size": [5, 100],
    "use_attention_sinks": [False, False, False, True],
    "tie_word_embeddings": [False, True],
    "post_embedding_ln": [False, True],
}
"""What a random configuration draws each field from."""


def hooked_model(more: dict[str, Any]) -> LensModel:
    """A random HookedTransformer in float64, where nothing but a wrong equation shows."""
    require_backend("hooked")
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        **(
            {"n_layers": 3, "d_model": 32, "n_ctx": 64, "d_head": 8, "n_heads": 4, "d_mlp": 64, "d_vocab": 50}
            | {"act_fn": "gelu_new", "normalization_type": "LN", "model_name": "odd", "device": "cpu", "seed": 0}
            | {"dtype": torch.float64}
            | more
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model: Any = hooked_transformer_class()(config)  # type: ignore[misc]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(0.25 * noise if parameter.ndim > 1 else parameter + 0.3 * noise)
    found: LensModel = model.to(torch.float64, print_details=False).eval().requires_grad_(False)  # experts were not
    return found


def tokens_alone() -> TokenBatch:
    """Three prompts of a model without tokenizer, of different lengths."""
    tokens = torch.randint(0, 30, (3, 24), generator=torch.Generator().manual_seed(0))
    target, foil = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    return TokenBatch(tokens=tokens, last=torch.tensor([23, 20, 22]), target=target, foil=foil, texts=("",) * 3)


def variants_of(model: LensModel, batch: TokenBatch, site: str) -> list[tuple[Patch, ...]]:
    """A patch of every layer at the last and at some earlier positions; values are large, so that what clips shows."""
    n_pos, head, width = batch.tokens.shape[1], None, model.cfg.d_model
    if site in HEAD_SITES:
        head = (n_kv_heads(model) if site in "kv" else model.cfg.n_heads) - 1
        width = n_pos if site == "pattern" else model.cfg.d_head
    variants = []
    for at in (batch.last[:, None], batch.last[:, None] - torch.tensor([[9, 4]])):
        value = torch.rand(3, at.shape[1], width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        value = value if site == "pattern" else 100 * value
        variants += [(Patch(site, n, value, at, head=head),) for n in range(model.cfg.n_layers)]  # type: ignore[arg-type]
    return variants


def require_exact_or(model: LensModel, batch: TokenBatch, message: str | None) -> None:
    """Every site gives what hooks give, by the engine or, with a warning of `message`, by the plain path."""
    for site in SITES:
        if (site == "resid_mid" and is_parallel(model)) or (site in ("resid_mid", "mlp_out") and not has_mlp(model)):
            continue
        variants = variants_of(model, batch, site)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = run_each(model, batch, variants, logits_of)
        if message is None:
            assert found.fallback is None, site
        else:
            assert message in str(found.fallback), site
            assert any(message in str(warning.message) for warning in warned)
        expected = torch.stack([plain(model, batch, variant) for variant in variants])  # type: ignore[arg-type]
        assert (found.values - expected).abs().max() <= 1e-9 * found.logit_scale, site
        assert (found.values - found.base).abs().max() > 1e-3, site


@pytest.mark.parametrize("name", EXACT)
def test_equations(name: str) -> None:
    require_exact_or(hooked_model(EXACT[name]), tokens_alone(), None)


@pytest.mark.parametrize("name", PLAIN)
def test_no_equations(name: str) -> None:
    more, message = PLAIN[name]
    require_exact_or(hooked_model(more), tokens_alone(), message)


@pytest.mark.parametrize("seed", range(24))
def test_random_configurations(seed: int) -> None:
    """Whatever fields come together, the numbers are those of hooks."""
    draw = random.Random(seed)
    more = {name: draw.choice(values) for name, values in RANDOM.items()}
    if more["positional_embedding_type"] != "rotary":
        more = {name: value for name, value in more.items() if not name.startswith("rotary")}
    model, batch = hooked_model(more | {"attn_types": ["local", "global", "local"]}), tokens_alone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fallback = run_each(model, batch, []).fallback
    require_exact_or(model, batch, fallback)


def test_a_prompt_longer_than_the_table_of_angles() -> None:
    """TransformerLens makes the table for 2048 positions, and longer as prompts come."""
    model = hooked_model({**ROTARY, "n_ctx": 4096, "n_layers": 1})
    tokens = torch.randint(0, 50, (1, 2100), generator=torch.Generator().manual_seed(0))
    last, target = torch.tensor([2099]), torch.tensor([1])
    batch = TokenBatch(tokens=tokens, last=last, target=target, foil=target + 1, texts=("",))
    assert run_each(model, batch, [(Patch("z", 0, torch.zeros(8), last[:, None], head=0),)], verify=1).fallback is None


BRIDGES = {
    "OPTForCausalLM": "its MLP is no module of its own|a hook is on",  # 4.x has its own
    "OpenAIGPTLMHeadModel": "cannot be tried on it .InputError: the hook on",
    "MptForCausalLM": "the engine's equations miss its blocks.0.attn.hook_attn_scores",
    "Llama4ForCausalLM": "the engine's equations miss its blocks.0.attn.hook_z",
}
"""Classes of transformers that the engine has no equations for, and what the warning says."""


@pytest.mark.parametrize("name", BRIDGES)
def test_no_equations_on_the_bridge(tmp_path: Path, words: Rows, name: str) -> None:
    save_model(tmp_path, tiny_config(name, save_tokenizer(tmp_path)))
    model = loaded(tmp_path, "bridge")
    batch = encode(model, sample_prompts(words, 2, shots=1))
    value = torch.rand(2, 1, model.cfg.d_model)
    variants = [(Patch("attn_out", layer, value, batch.last[:, None]),) for layer in range(model.cfg.n_layers)]
    with pytest.warns(UserWarning, match=BRIDGES[name]):
        found = run_each(model, batch, variants, logits_of)
    expected = torch.stack([plain(model, batch, variant) for variant in variants])
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=0)
