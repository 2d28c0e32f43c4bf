"""Identities are compared with the model's own activations, and a model that breaks one is refused by its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from analyses import ANALYSES, Plain, outcome
from architectures import tiny_config
from conftest import loaded, require_backend, save_model, save_tokenizer
from torch import Tensor

import icl_circuits as icl
from icl_circuits import subvalues
from icl_circuits.errors import Unfit
from icl_circuits.interventions.without_position import positionless
from icl_circuits.models import CLAIMS, Identity, LensModel, attached, load_model, read_block, require_identities
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts, token_batch
from icl_circuits.towers.flow import route_edges

ALL: tuple[Identity, ...] = tuple(CLAIMS)


def test_they_hold(model: LensModel, batch: PromptBatch) -> None:
    require_identities(model, batch.tokens, batch.last, *ALL)


def changed(x: Tensor, hook: object) -> Tensor:
    return x * 1.01


@pytest.mark.parametrize(
    ("name", "site", "message"),
    [
        ("heads", "blocks.1.hook_attn_out", "attn_out.*, which fails at layer 1: attn_out is off by"),
        ("heads", "blocks.2.attn.hook_z", ""),
        ("layers", "blocks.2.hook_resid_post", "residual stream.*, which fails at layer 2: resid_post is off by"),
        ("layers", "blocks.1.hook_resid_pre", "fails at layer 1: resid_pre is off by"),
        ("values", "blocks.1.attn.hook_v", ""),
        ("values", "blocks.1.attn.hook_z", "fails at layer 1: z is off by"),
        ("projections", "blocks.0.attn.hook_k", "fails at layer 0: k is off by"),
        ("projections", "blocks.0.attn.hook_v", ""),
        ("value_projection", "blocks.0.attn.hook_v", "fails at layer 0: v is off by"),
        ("value_projection", "blocks.1.attn.hook_q", ""),
        ("scores", "blocks.1.attn.hook_pattern", "fails at layer 1: log-attention is off by"),
        ("neurons", "blocks.1.hook_mlp_out", "mlp_out.*, which fails at layer 1: mlp_out is off by"),
        ("neurons", "blocks.2.mlp.hook_post", ""),
        ("activations", "blocks.1.mlp.hook_pre", "fails at layer 1: mlp_pre is off by"),
        ("activations", "blocks.2.hook_attn_out", ""),
        ("readout", "unembed.hook_out", "fails at the last position: log-probabilities is off by"),
        ("readout", "unembed.hook_in", "fails at the last position: final norm is off by"),
    ],
)
def test_each_is_refused_where_it_fails(gpt2: LensModel, words: Rows, name: Identity, site: str, message: str) -> None:
    """A hook of one per cent breaks an identity, where it lies between its two sides; the others go on holding."""
    batch = encode(gpt2, sample_prompts(words, 2, shots=1))
    require_identities(gpt2, batch.tokens, batch.last, name)
    with attached(gpt2, [(site, changed)]):
        if message:
            longer = encode(gpt2, sample_prompts(words, 2, shots=2))
            with pytest.raises(Unfit, match=f"rests on the identity '{name}'.*{message}"):
                require_identities(gpt2, longer.tokens, longer.last, name)
        else:
            require_identities(gpt2, batch.tokens, batch.last, name)
    require_identities(gpt2, batch.tokens, batch.last, name)


def test_what_hooks_break_is_not_remembered(gpt2: LensModel, words: Rows) -> None:
    """What held without a hook is tried again with it, and what held under a hook is tried again without."""
    batch = encode(gpt2, sample_prompts(words, 2, shots=3))
    icl.log_prob_increase(gpt2, batch)
    with attached(gpt2, [("unembed.hook_out", changed)]), pytest.raises(Unfit, match="'readout'"):
        icl.log_prob_increase(gpt2, batch)
    icl.log_prob_increase(gpt2, batch)


def test_they_are_tried_once_for_each_length(gpt2: LensModel, words: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_circuits.models import identities

    tried: list[int] = []
    monkeypatch.setattr(identities, "_check", lambda model, tokens, row, n_pos, *_: tried.append(n_pos))
    gpt2.icl_identities = {}  # type: ignore[attr-defined]
    for shots in (1, 1, 2, 1):
        batch = encode(gpt2, sample_prompts(words, 2, shots=shots, seed=5))
        require_identities(gpt2, batch.tokens, batch.last, "heads", "layers")
    assert len(tried) == 2
    assert tried[0] < tried[1]
    gpt2.icl_identities = {}  # type: ignore[attr-defined]


def test_ungrouped_key_value_heads_give_the_same_numbers(folders: dict[str, Path], words: Rows) -> None:
    """`set_ungroup_grouped_query_attention(True)` makes hooks show a copy of keys and values for each query head."""
    require_backend("hooked")
    model: Any = loaded(folders["llama"], "hooked")
    batch, heads = encode(model, sample_prompts(words, 3, shots=2)), [icl.Head(1, 3), icl.Head(2, 1)]
    grouped = icl.label_features(model, batch, heads), icl.two_towers(model, batch, heads)
    model.set_ungroup_grouped_query_attention(True)
    ungrouped = icl.label_features(model, batch, heads), icl.two_towers(model, batch, heads)
    torch.testing.assert_close(*(torch.from_numpy(f.logits).nan_to_num() for f, _ in (grouped, ungrouped)))
    torch.testing.assert_close(*(torch.from_numpy(t.score) for _, t in (grouped, ungrouped)))


def test_prompts_longer_than_before_are_tried(tmp_path: Path, words: Rows) -> None:
    """A window that only long prompts cross is found when they come: here the equations are told nothing of it."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    config = transformers.MistralConfig(
        vocab_size=save_tokenizer(tmp_path), sliding_window=12, num_key_value_heads=2, **sizes
    )
    save_model(tmp_path, config)
    model: Any = loaded(tmp_path, "bridge")
    for block in model.blocks:
        block.attn.original_component.sliding_window = None
    short = torch.arange(3, 13)[None]
    require_identities(model, short, torch.tensor([9]), "scores")
    with pytest.raises(Unfit, match="'scores'"):
        require_identities(model, torch.arange(3, 33)[None], torch.tensor([29]), "scores")


@pytest.mark.parametrize("use_cache", [True, False])
def test_generating_with_a_cache_is_refused_without_position(
    folders: dict[str, Path], words: Rows, use_cache: bool
) -> None:
    """With a key-value cache the hook sees the new keys alone, so what it would compute is something else."""
    require_backend("hooked")
    model: Any = loaded(folders["llama"], "hooked")
    batch = encode(model, sample_prompts(words, 1, shots=1))
    tokens = batch.tokens[:, : int(batch.last[0]) + 1]
    options = {"max_new_tokens": 2, "do_sample": False, "verbose": False, "stop_at_eos": False}
    with icl.intervene(model, icl.WithoutPosition((icl.Head(1, 0),))):
        if use_cache:
            with pytest.raises(icl.InputError, match="use_past_kv_cache=False"):
                model.generate(tokens, use_past_kv_cache=True, **options)
        else:
            model.generate(tokens, use_past_kv_cache=False, **options)


# --- what changes after a check, and what users combine ---------------------------------------------------------------


def test_a_forward_put_in_place_is_seen(tmp_path: Path, words: Rows) -> None:
    """What an adapter does that is switched on in mid-session: another function, or a hook of torch."""
    save_model(tmp_path, tiny_config("LlamaForCausalLM", save_tokenizer(tmp_path)))
    model: Any = loaded(tmp_path, "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=1))
    icl.log_prob_increase(model, batch)
    assert icl.sweep(model, batch, "z", positions="all", replacement=icl.Zero()).fallback is None
    projection = model.blocks[1].attn.o.original_component
    own = type(projection).forward
    projection.forward = lambda x: own(projection, x) + 0.3 * x.flip(-1)
    with pytest.raises(Unfit, match="'heads'.* fails at layer 1"):
        icl.log_prob_increase(model, batch)
    with pytest.warns(UserWarning, match="takes a forward pass for each"):
        icl.sweep(model, batch, "z", positions="all", replacement=icl.Zero())
    del projection.forward
    icl.log_prob_increase(model, batch)
    handle = model.ln_final.original_component.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(Unfit, match="'readout'"):
        icl.log_prob_increase(model, batch)
    handle.remove()
    icl.log_prob_increase(model, batch)


def test_mlps_of_another_forward_have_no_such_neurons(tmp_path: Path, words: Rows) -> None:
    """What comes out of a layer's neurons, and what goes into them, is tried each by itself; attention goes on."""
    save_model(tmp_path, tiny_config("LlamaForCausalLM", save_tokenizer(tmp_path)))
    model: Any = loaded(tmp_path, "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=1))
    subvalues.score_neurons(model, batch)
    mlp = model.blocks[1].mlp
    for part, broken, whole in ((mlp.out, "neurons", "activations"), (mlp.gate, "activations", "neurons")):
        projection = part.original_component
        own = type(projection).forward
        projection.forward = lambda x, own=own, projection=projection: (
            own(projection, x) + 0.3 * own(projection, x.flip(-1))
        )
        require_identities(model, batch.tokens, batch.last, whole)
        with pytest.raises(Unfit, match=f"the identity '{broken}' .* fails at layer 1: mlp_.* is off by"):
            require_identities(model, batch.tokens, batch.last, broken)
        if broken == "neurons":
            for analysis in (subvalues.score_neurons, subvalues.top_neurons):
                with pytest.raises(Unfit, match="'neurons' .*mlp_out.* fails at layer 1"):
                    analysis(model, batch)
            subvalues.score_neurons(model, batch, "attention")
        del projection.forward
    subvalues.score_neurons(model, batch)


def test_interventions_compose(folders: dict[str, Path], words: Rows) -> None:
    """The equations are those of the model, whatever hooks of a batch's shape are on it; other layers stay readable."""
    model = loaded(folders["llama"], "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=2))
    edges = route_edges(batch, "labels -> last")
    without = icl.WithoutPosition((icl.Head(1, 0),))
    together = icl.answer_logits(model, batch, icl.KnockOut((2,), edges), without)
    with icl.intervene(model, icl.KnockOut((2,), edges)), icl.intervene(model, without):
        torch.testing.assert_close(icl.answer_logits(model, batch), together)
        assert np.isfinite(icl.ov_circuits(model, [icl.Head(0, 1)]).copying_score).all()
    with icl.intervene(model, icl.ZeroHeads((icl.Head(2, 0),))):
        below = icl.label_features(model, batch, [icl.Head(0, 1)])
        with pytest.raises(Unfit, match="'values'.* fails at layer 2"):
            icl.label_features(model, batch, [icl.Head(2, 1)])
    alone = icl.label_features(model, batch, [icl.Head(0, 1)])
    np.testing.assert_allclose(below.attention, alone.attention, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("StableLmForCausalLM", {"qk_layernorm": True}),
        ("OPTForCausalLM", {"word_embed_proj_dim": 16}),
        ("MptForCausalLM", {"logit_scale": "inv_sqrt_d_model"}),
        ("MptForCausalLM", {"logit_scale": 0.5}),
        ("Qwen2MoeForCausalLM", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 2}),
    ],
)
def test_unusual_values_end_in_a_number_or_a_name(tmp_path: Path, words: Rows, name: str, more: dict[str, Any]) -> None:
    save_model(tmp_path, tiny_config(name, save_tokenizer(tmp_path), **more))
    model = loaded(tmp_path, "bridge")
    batch = encode(model, sample_prompts(words, 3, shots=2))
    plain = Plain(model, batch)
    for group in ANALYSES:
        outcome(model, batch, plain, group)


def test_content_scores_keep_the_length_of_yarn(tmp_path: Path, words: Rows) -> None:
    """At one position queries and keys compare as contents do: YaRN makes both longer, turned or not."""
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "original_max_position_embeddings": 16}
    save_model(tmp_path, tiny_config("LlamaForCausalLM", save_tokenizer(tmp_path), rope_parameters=rope))
    model = loaded(tmp_path, "bridge")
    block = read_block(model, 0, 8)
    assert block.rotary is not None
    x = torch.randn(1, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    turned = block.turned("q", x, torch.tensor([[5]]))
    still = positionless(block, "q", x, None, None)
    torch.testing.assert_close(still.pow(2).sum(), turned.pow(2).sum())
    assert still.pow(2).sum() > 1.2 * x.pow(2).sum()


def test_prompts_turned_by_other_angles_do_not_run_together(tmp_path: Path, words: Rows) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    config = tiny_config("LlamaForCausalLM", save_tokenizer(tmp_path), rope_parameters=rope)
    config.max_position_embeddings = 64
    save_model(tmp_path, config)
    model: Any = loaded(tmp_path, "bridge")
    model.cfg.n_ctx = 256
    short, long = (encode(model, sample_prompts(words, 1, shots=shots, seed=1)) for shots in (1, 4))
    assert int(short.last) < 64 < int(long.last)
    both = token_batch(model, [short.texts[0], long.texts[0]], [" foo", " bar"], prepend_bos=True)
    with pytest.raises(icl.InputError, match="cannot run together"):
        icl.answer_logits(model, both)
    for one in (short, long):
        icl.answer_logits(model, one)


def test_half_precision_is_not_loose(words: Rows, folders: dict[str, Path]) -> None:
    """A change of a few per cent of a vector's length is no rounding."""
    model = load_model(str(folders["llama"]), backend="bridge", device="cpu", dtype=torch.bfloat16)
    batch = encode(model, sample_prompts(words, 2, shots=2))
    require_identities(model, batch.tokens, batch.last, *ALL)
    with attached(model, [("blocks.1.hook_attn_out", lambda x, hook: x * 1.15)]), pytest.raises(Unfit, match="'heads'"):
        require_identities(model, batch.tokens, batch.last, "heads")
