"""A two-layer attention-only model whose in-context circuit is written by hand, so that every score is known.

A prompt is `<s> w : foo w : bar ... w :`. Each token embeds as a unit vector, each position too.

    L0H0  every position copies the category of the token two before it   (label positions collect their text)
    L0H1  every position copies the category of the token one before it   (the last `:` collects the query)
    L1H0  from the last `:` attends evenly to `foo` labels whose collected category is the query's, else to `<s>`,
          and adds GAIN to the logit of `foo`                             (the foohead)
    L1H1  the same for `bar`                                              (the barhead)
    L0H2        does nothing
    L1H2        nothing, or, with `recency`, attends to all labels, ever more to later ones, whatever their text, and
                adds twice GAIN to the logit of what it reads

Scores are SHARP apart before the softmax, so attention is exact to e^(-SHARP/2).
"""

import warnings

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from icl_circuits.models import LensModel
from icl_circuits.prompts import Row, Rows

CATEGORIES = {
    "animal": ["cat", "dog", "cow", "pig", "hen", "fox"],
    "colour": ["red", "blue", "pink", "grey", "tan", "gold"],
}
VOCABULARY = ["<s>", ":", "foo", "bar", *CATEGORIES["animal"], *CATEGORIES["colour"]]
N_CTX = 32
GAIN = 4.0
SHARP = 80.0


def planted_rows() -> Rows:
    return Rows("planted", tuple(Row(word, name) for name, words in CATEGORIES.items() for word in words))


def planted_model(recency: float | None = None) -> LensModel:
    """The model; with `recency`, L1H2 scores labels, that much more for each position they stand later."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    n_tokens = len(VOCABULARY)
    token, position = 0, n_tokens
    at_label, at_query, logit = n_tokens + N_CTX, n_tokens + N_CTX + 2, n_tokens + N_CTX + 4
    d_model = n_tokens + N_CTX + 6
    config = HookedTransformerConfig(
        n_layers=2, d_model=d_model, n_ctx=N_CTX, d_head=N_CTX, n_heads=3, d_vocab=n_tokens, attn_only=True,
        normalization_type=None, use_attn_scale=False, model_name="planted", default_prepend_bos=True, device="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # HookedTransformer will go in TransformerLens 4
        model = HookedTransformer(config)
    weights = {name: torch.zeros_like(value) for name, value in model.state_dict().items() if "mask" not in name}
    weights = {name: value for name, value in weights.items() if "IGNORE" not in name}
    weights["embed.W_E"][:, token : token + n_tokens] = torch.eye(n_tokens)
    weights["pos_embed.W_pos"][:, position : position + N_CTX] = torch.eye(N_CTX)
    for head, (distance, slot) in enumerate([(2, at_label), (1, at_query)]):
        for i in range(N_CTX):
            weights["blocks.0.attn.W_Q"][head, position + i, i] = SHARP
            if i + distance < N_CTX:
                weights["blocks.0.attn.W_K"][head, position + i, i + distance] = 1.0
        for c, words in enumerate(CATEGORIES.values()):
            for word in words:
                weights["blocks.0.attn.W_V"][head, token + VOCABULARY.index(word), c] = 1.0
            weights["blocks.0.attn.W_O"][head, c, slot + c] = 1.0
    for head, label in enumerate(["foo", "bar"]):
        label_token = token + VOCABULARY.index(label)
        for c in range(2):
            weights["blocks.1.attn.W_Q"][head, at_query + c, c] = 1.0
            weights["blocks.1.attn.W_K"][head, at_label + c, c] = SHARP
        weights["blocks.1.attn.b_Q"][head, 2] = 1.0
        weights["blocks.1.attn.W_K"][head, label_token, 2] = SHARP
        weights["blocks.1.attn.W_K"][head, token, 2] = 1.5 * SHARP  # <s> is where to look when no label matches
        weights["blocks.1.attn.W_V"][head, label_token, 0] = 1.0
        weights["blocks.1.attn.W_O"][head, 0, logit + head] = GAIN
        weights["unembed.W_U"][logit + head, VOCABULARY.index(label)] = 1.0
    if recency is not None:
        weights["blocks.1.attn.b_Q"][2, 0] = 1.0
        for i, label in enumerate(["foo", "bar"]):
            label_token = token + VOCABULARY.index(label)
            weights["blocks.1.attn.W_K"][2, label_token, 0] = 20 * SHARP
            weights["blocks.1.attn.W_V"][2, label_token, i] = 1.0
            weights["blocks.1.attn.W_O"][2, i, logit + i] = 2 * GAIN
        weights["blocks.1.attn.W_K"][2, position : position + N_CTX, 0] = recency * torch.arange(float(N_CTX))
    model.load_state_dict(weights, strict=False)
    model.tokenizer = word_tokenizer(VOCABULARY)  # set_tokenizer would look for it on disk
    return model.eval().requires_grad_(False)


def word_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A token a word."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<s>", unk_token="<s>"
    )
