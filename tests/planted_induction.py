"""A two-layer attention-only model that repeats what came before, written by hand, so that every score is known.

Each token embeds as a unit vector, each position too.

    L0H0  every position copies the token of the one before it to PREVIOUS; the first position its own
    L1H0  attends to where PREVIOUS is the current token, which is behind its previous occurrence, and adds GAIN to the
          logit of the token there                                                  (the induction head)
    L0H1, L1H1  do nothing: they attend evenly

Scores are SHARP apart before the softmax, so attention is exact to e^(-SHARP).
"""

import warnings

import torch
from planted import word_tokenizer

from icl_circuits.models import LensModel

VOCABULARY = ["<s>", *(f"w{i}" for i in range(15))]
N_CTX = 32
GAIN = 4.0
SHARP = 80.0


def planted_induction() -> LensModel:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    n_tokens = len(VOCABULARY)
    position, previous, logit = n_tokens, n_tokens + N_CTX, 2 * n_tokens + N_CTX
    config = HookedTransformerConfig(
        n_layers=2, d_model=3 * n_tokens + N_CTX, n_ctx=N_CTX, d_head=N_CTX, n_heads=2, d_vocab=n_tokens,
        attn_only=True, normalization_type=None, use_attn_scale=False, model_name="planted induction",
        default_prepend_bos=True, device="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # HookedTransformer will go in TransformerLens 4
        model = HookedTransformer(config)
    names = [name for name in model.state_dict() if "mask" not in name and "IGNORE" not in name]
    weights = {name: torch.zeros_like(model.state_dict()[name]) for name in names}
    one_each = torch.eye(n_tokens)
    weights["embed.W_E"][:, :n_tokens] = one_each
    weights["pos_embed.W_pos"][:, position:previous] = torch.eye(N_CTX)
    weights["blocks.0.attn.W_Q"][0, position:previous] = SHARP * torch.eye(N_CTX)
    weights["blocks.0.attn.W_K"][0, position : previous - 1, 1:] = torch.eye(N_CTX - 1)
    weights["blocks.0.attn.W_V"][0, :n_tokens, :n_tokens] = one_each
    weights["blocks.0.attn.W_O"][0, :n_tokens, previous:logit] = one_each
    weights["blocks.1.attn.W_Q"][0, :n_tokens, :n_tokens] = SHARP * one_each
    weights["blocks.1.attn.W_K"][0, previous:logit, :n_tokens] = one_each
    weights["blocks.1.attn.W_V"][0, :n_tokens, :n_tokens] = one_each
    weights["blocks.1.attn.W_O"][0, :n_tokens, logit:] = GAIN * one_each
    weights["unembed.W_U"][logit:] = one_each
    model.load_state_dict(weights, strict=False)
    model.tokenizer = word_tokenizer(VOCABULARY)  # set_tokenizer would look for it on disk
    return model.eval().requires_grad_(False)
