"""A two-layer model whose neurons are written by hand, so that every score is known.

A prompt is `<s> CITY in`; the answer is the city's country. Tokens embed as unit vectors. There are no norms and no
positions; queries and keys are zero, so every head attends evenly: a third to each of the three positions.

    L0H0D0, D1  copy `lima`, `oslo` to CITY
    L0N0, N1    read `lima`, `oslo` where they stand, and write 2 to HIDDEN
    L0N2        reads `in`, and writes 1/2 to both of CITY
    L1H1D0, D1  read HIDDEN, 2, from where the city stands, and write 3 times a third of it to `peru`, `norway`
    L1H0D0      reads `<s>`, and writes 3 times a third of 1 against `peru`, 6 times against `norway`
    L1N3, N2    read CITY, 1/3 + 1/2: their activation is 6 times that, less 3; they write 3/2 of it to `peru`, `norway`
    L1N0        reads `in`, and writes 1 1/4 to `red`

So after `<s> lima in` the logits are 0, but for `peru` 2 - 1 + 3, `norway` -2 and `red` 1 1/4.
"""

import warnings

import torch
from planted import word_tokenizer

from icl_circuits.models import LensModel

VOCABULARY = ["<s>", "in", "lima", "oslo", "peru", "norway", "city", "red"]
ANSWERS = ["peru", "norway", "red"]


def planted_neurons() -> LensModel:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    n_tokens = len(VOCABULARY)
    city, hidden, logit = n_tokens, n_tokens + 2, n_tokens + 4
    config = HookedTransformerConfig(
        n_layers=2, d_model=logit + len(ANSWERS), n_ctx=8, d_head=2, n_heads=2, d_mlp=4, d_vocab=n_tokens,
        act_fn="relu", normalization_type=None, model_name="planted neurons", default_prepend_bos=True, device="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # HookedTransformer will go in TransformerLens 4
        model = HookedTransformer(config)
    names = [name for name in model.state_dict() if "mask" not in name and "IGNORE" not in name]
    weights = {name: torch.zeros_like(model.state_dict()[name]) for name in names}
    weights["embed.W_E"][:, :n_tokens] = torch.eye(n_tokens)
    for i, word in enumerate(("lima", "oslo")):
        token, neuron = VOCABULARY.index(word), 3 - i
        weights["blocks.0.attn.W_V"][0, token, i] = 1.0
        weights["blocks.0.attn.W_O"][0, i, city + i] = 1.0
        weights["blocks.0.mlp.W_in"][token, i] = 1.0
        weights["blocks.0.mlp.W_out"][i, hidden + i] = 2.0
        weights["blocks.0.mlp.W_out"][2, city + i] = 0.5
        weights["blocks.1.attn.W_V"][1, hidden + i, i] = 1.0
        weights["blocks.1.attn.W_O"][1, i, logit + i] = 3.0
        weights["blocks.1.attn.W_O"][0, 0, logit + i] = -3.0 * (1 + i)
        weights["blocks.1.mlp.W_in"][city + i, neuron] = 6.0
        weights["blocks.1.mlp.b_in"][neuron] = -3.0
        weights["blocks.1.mlp.W_out"][neuron, logit + i] = 1.5
    weights["blocks.1.attn.W_V"][0, VOCABULARY.index("<s>"), 0] = 1.0
    for layer, neuron in ((0, 2), (1, 0)):
        weights[f"blocks.{layer}.mlp.W_in"][VOCABULARY.index("in"), neuron] = 1.0
    weights["blocks.1.mlp.W_out"][0, logit + 2] = 1.25
    for i, word in enumerate(ANSWERS):
        weights["unembed.W_U"][logit + i, VOCABULARY.index(word)] = 1.0
    model.load_state_dict(weights, strict=False)
    model.tokenizer = word_tokenizer(VOCABULARY)  # set_tokenizer would look for it on disk
    return model.eval().requires_grad_(False)
