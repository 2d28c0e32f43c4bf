"""A two-layer attention-only model with a semantic induction head written by hand, so that every index is known.

Tokens embed as unit vectors, each with a 1 in ONE besides. There are no norms and no positions, and nothing reads what
heads write, so raw embeddings and the state of any layer say the same. A head attends to `cat` some times as much as to
any other token, and raises some words' logits from wherever it stands:

          attention to `cat`   raises
    L0H0  3.05 times           `fish` by log 8, `dog` by log 4    (the semantic induction head of `cat` eats `fish`)
    L0H1  3.05 times           `runs` by log 8                    (attends as it does, and raises another word)
    L0H2  3.05 times           nothing
    L1H0  2.05 times           as L0H0                            (attends too little)
    L1H1  evenly               as L0H0                            (does not attend)
    L1H2  a third              as L0H0                            (attends to everything else)
"""

import math
import warnings

import torch
from planted import word_tokenizer

from icl_circuits.models import LensModel

VOCABULARY = ["<s>", "the", "a", "cat", "eats", "fish", "dog", "runs", "mice", "and", "so", "on"]
TIMES = ((3.05, 3.05, 3.05), (2.05, 1.0, 1 / 3))
EATS, RUNS = {"fish": 8.0, "dog": 4.0}, {"runs": 8.0}
RAISES: tuple[tuple[dict[str, float], ...], ...] = ((EATS, RUNS, {}), (EATS, EATS, EATS))
D_HEAD = 4


def planted_relations() -> LensModel:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    n_tokens = len(VOCABULARY)
    one, logit = n_tokens, n_tokens + 1
    config = HookedTransformerConfig(
        n_layers=2, d_model=2 * n_tokens + 1, n_ctx=16, d_head=D_HEAD, n_heads=3, d_vocab=n_tokens, attn_only=True,
        normalization_type=None, model_name="planted relations", default_prepend_bos=True, device="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # HookedTransformer will go in TransformerLens 4
        model = HookedTransformer(config)
    names = [name for name in model.state_dict() if "mask" not in name and "IGNORE" not in name]
    weights = {name: torch.zeros_like(model.state_dict()[name]) for name in names}
    weights["embed.W_E"][:, :n_tokens] = torch.eye(n_tokens)
    weights["embed.W_E"][:, one] = 1.0
    weights["unembed.W_U"][logit:] = torch.eye(n_tokens)
    for layer in range(2):
        for head, (times, raises) in enumerate(zip(TIMES[layer], RAISES[layer], strict=True)):
            weights[f"blocks.{layer}.attn.W_Q"][head, one, 0] = D_HEAD**0.5
            weights[f"blocks.{layer}.attn.W_K"][head, VOCABULARY.index("cat"), 0] = math.log(times)
            weights[f"blocks.{layer}.attn.W_V"][head, one, 0] = 1.0
            for word, ratio in raises.items():
                weights[f"blocks.{layer}.attn.W_O"][head, 0, logit + VOCABULARY.index(word)] = math.log(ratio)
    model.load_state_dict(weights, strict=False)
    model.tokenizer = word_tokenizer(VOCABULARY)  # set_tokenizer would look for it on disk
    return model.eval().requires_grad_(False)
