"""A tiny random configuration of every text decoder class that TransformerBridge accepts."""

from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LAYERS = 4
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "n_embd": 32,
    "d_model": 32,
    "word_embed_proj_dim": 32,
    "hidden_size_per_layer_input": 8,
    "num_hidden_layers": LAYERS,
    "n_layer": LAYERS,
    "n_layers": LAYERS,
    "num_layers": LAYERS,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "attention_head_dim": 8,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "max_position_embeddings": 256,
    "n_positions": 256,
    "n_ctx": 256,
    "max_seq_len": 256,
    "sliding_window": 16,
    "attention_window_size": 16,
    "local_attention": 32,
    "query_pre_attn_scalar": 8,
    "rotary_dim": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "experts_per_token": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "mamba_d_state": 8,
    "state_size": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "lru_width": 32,
}
"""Wherever a configuration has one of these names, it takes this value."""

MULTIPLIERS = {
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3], "num_key_value_heads": 2},
    "deepseek_v2": {"num_key_value_heads": 4, "head_dim": 4},
    "deepseek_v3": {"num_key_value_heads": 4, "head_dim": 4},
    "glm4_moe_lite": {"num_key_value_heads": 4, "head_dim": 4},
    "glm_moe_dsa": {"num_key_value_heads": 4, "head_dim": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "youtu": {"num_key_value_heads": 4, "head_dim": 4},
    "zamba2": {"layer_types": ["mamba", "hybrid"] * 2, "hybrid_layer_ids": [1, 3]},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "granite": MULTIPLIERS,
    "granitemoe": MULTIPLIERS,
}
"""What a model type needs besides, or what makes it itself."""


def decoder_classes() -> list[str]:
    """The text decoder classes of the installed transformers that TransformerBridge accepts."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    both = set(_types()) & set(SUPPORTED_ARCHITECTURES)
    return sorted(name for name in both if not name.endswith("ForConditionalGeneration"))  # these see images too


def _types() -> dict[str, str]:
    """The model type of each class."""
    found: dict[str, str] = {}
    ordered = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items(), key=lambda pair: not pair[0].endswith("_text"))
    for model_type, names in ordered:
        for name in [names] if isinstance(names, str) else names:
            found.setdefault(name, model_type)
    return found


def tiny_config(name: str, vocabulary: int, **more: Any) -> Any:
    """A configuration of class `name`, small in every direction."""
    model_type = _types()[name]
    config_class = getattr(transformers, CONFIG_MAPPING_NAMES[model_type])
    try:
        default = config_class().to_dict()
    except Exception:
        default = {}
    own = OWN.get(model_type, {})
    sizes = {
        key: value
        for key, value in SIZES.items()
        if key in default or key in getattr(config_class, "attribute_map", {})
    }
    return config_class(**(sizes | {"vocab_size": vocabulary} | own | more))
