"""What is known of a model before its weights are loaded: how it reads text, and its shape."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_circuits.models.build import tokens_read, wants_own_weights
from icl_circuits.models.fidelity import max_positions
from icl_circuits.models.lens import Backend
from icl_circuits.models.load import ModelCard, prepends_bos, require_n_ctx_for, revision_of
from icl_circuits.models.source import read_without_weights, resolve
from icl_circuits.models.told_apart import files_of
from icl_circuits.store import Store, code_version, digest

SIZES = ("positions", "vocab_size", "num_hidden_layers", "num_attention_heads")
"""What is read of a configuration."""


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
    store: Store | None = None,
) -> Outline | None:
    """Read a model's tokenizer and configuration alone, in a second or two; the arguments are those of `load_model`.

    A store remembers what was read of a model on this machine, until one of its files has another size or time.

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
    positions, vocabulary, n_layers, n_heads, tokenizer = _read(name, checkpoint, revision, store)
    n_read = tokens_read(n_ctx, positions or sys.maxsize, positions)
    shape = Shape(name, n_read, sys.maxsize if vocabulary is None else vocabulary, n_layers, n_heads)
    sizes = [size for size in (shape.n_layers, shape.n_heads) if size is not None]
    if shape.d_vocab < len(tokenizer) or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    bos = prepends_bos(tokenizer)
    return Outline(shape, tokenizer, ModelCard(name, revision, backend or "hooked", None, "", bos))


def _read(
    name: str, checkpoint: int | None, revision: str | None, store: Store | None
) -> tuple[Any, Any, Any, Any, Any]:
    """The `SIZES` that a configuration says, and the tokenizer, from the store if it remembers them."""
    files = None if store is None or revision else files_of(name, checkpoint)
    key = "" if files is None else digest(("outline", files, code_version()))
    noted = store.remembered(key) if store is not None and key else None
    if isinstance(noted, dict):
        sizes, tokenizer = noted["sizes"], _from_files(noted["tokenizer"])
    else:
        config, tokenizer = read_without_weights(resolve(name, checkpoint), revision)
        text = config.get_text_config()
        sizes = [max_positions(text), *(getattr(text, name, None) for name in SIZES[1:])]
        known = all(size is None or type(size) is int for size in sizes) and _is_sound(tokenizer)
        if store is not None and key and known:
            written = _as_files(tokenizer)
            if _is_same(tokenizer, _from_files(written)) and files_of(name, checkpoint) == files:
                store.remember(key, {"sizes": sizes, "tokenizer": written})
    positions, vocabulary, n_layers, n_heads = sizes
    return positions, vocabulary, n_layers, n_heads, tokenizer


def _as_files(tokenizer: Any) -> dict[str, str]:
    """The files that a tokenizer is saved in, with what they hold."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_text(encoding="utf-8") for path in Path(folder).iterdir() if path.is_file()}


def _from_files(files: dict[str, str]) -> Any:
    """The tokenizer that such files hold."""
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        return PreTrainedTokenizerFast.from_pretrained(folder)


def _is_sound(tokenizer: Any) -> bool:
    """Whether every word has an id of its own: where two share one, tokenizers panic on reading what they wrote."""
    ids = tokenizer.get_vocab().values()
    return len(set(ids)) == len(ids)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two tokenizers read alike: of one class, with the same vocabulary, rules and special tokens."""
    told = ((type(t), t.backend_tokenizer.to_str(), t.special_tokens_map, t.model_max_length) for t in (one, other))
    first, second = told
    return first == second
