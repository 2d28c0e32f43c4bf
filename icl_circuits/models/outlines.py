"""What is known of a model before its weights are loaded: how it reads text, and its shape."""

import sys
from dataclasses import dataclass
from typing import Any

from icl_circuits.models.build import tokens_read, wants_own_weights
from icl_circuits.models.fidelity import max_positions
from icl_circuits.models.lens import Backend
from icl_circuits.models.load import ModelCard, prepends_bos, require_n_ctx_for, revision_of
from icl_circuits.models.source import read_without_weights, resolve


@dataclass(frozen=True)
class Shape:
    """The part of a model's configuration that its prompts are checked against."""

    model_name: str
    n_ctx: int
    """Tokens that it reads at most. TransformerLens caps some models further, which only the loaded model shows."""
    d_vocab: int
    n_layers: int | None
    """None: the configuration does not say."""
    n_heads: int | None


@dataclass(frozen=True)
class Outline:
    """A model without weights, for `encode` and all that asks about prompts alone."""

    cfg: Shape
    tokenizer: Any
    icl_card: ModelCard


def outline(
    name: str,
    *,
    backend: Backend | None = None,
    revision: str | None = None,
    checkpoint: int | None = None,
    n_ctx: int | None = None,
) -> Outline | None:
    """Read a model's tokenizer and configuration alone, in a second or two; the arguments are those of `load_model`.

    Returns:
        None where that cannot be: TransformerLens keeps the weights of some toy models itself. None, too, where the
        configuration fits no model or not the tokenizer; loading says that.

    Raises:
        InputError: what `load_model` raises of a model before it reads the weights.
    """
    require_n_ctx_for(name, backend, n_ctx)
    revision, source = revision_of(name, revision, checkpoint), resolve(name, checkpoint)
    if not source.is_local and wants_own_weights(name):
        return None
    config, tokenizer = read_without_weights(source, revision)
    text = config.get_text_config()
    of_model = max_positions(text)
    shape = Shape(
        name,
        tokens_read(n_ctx, of_model or sys.maxsize, of_model),
        getattr(text, "vocab_size", sys.maxsize),
        getattr(text, "num_hidden_layers", None),
        getattr(text, "num_attention_heads", None),
    )
    sizes = [size for size in (shape.n_layers, shape.n_heads) if size is not None]
    if shape.d_vocab < len(tokenizer) or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    bos = prepends_bos(tokenizer)
    return Outline(shape, tokenizer, ModelCard(name, revision, backend or "hooked", None, "", bos))
