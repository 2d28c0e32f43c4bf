"""Identities are compared with the model's own activations, and a model that breaks one is refused by its name."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import loaded, require_backend, save_model, save_tokenizer
from torch import Tensor

import icl_circuits as icl
from icl_circuits.errors import Unfit
from icl_circuits.models import CLAIMS, Identity, LensModel, attached, require_identities
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts

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
        ("scores", "blocks.1.attn.hook_pattern", "fails at layer 1: log-attention is off by"),
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
