"""The paper's template, `<text> : <label>` and so on to `<query> :`, as text and as tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from icl_circuits.errors import InputError, in_one_line
from icl_circuits.prompts.cells import require_characters, shown
from icl_circuits.prompts.prompt import Prompt


@dataclass(frozen=True)
class Template:
    """How prompts are written for one tokenizer."""

    tokenizer: Any
    bos: list[int]
    labels: tuple[str, ...]
    separator: str
    """Between demonstrations."""
    words: list[list[int]]
    """The tokens of each label in its place, all of those after the `:`: a space may be a token of its own."""


@dataclass(frozen=True)
class Written:
    """One prompt as text and tokens, up to the final `:`."""

    text: str
    tokens: list[int]
    label_starts: list[int]
    """The position of the first token of each demonstration's label."""


def template_of(tokenizer: Any, bos: list[int], labels: Sequence[str], separator: str) -> Template:
    """Find each label's tokens in its place.

    Raises:
        InputError: a tokenizer without character offsets, a separator that is a label, or a label that has no tokens of
            its own behind a `:`.
    """
    require_offsets(tokenizer)
    if not isinstance(separator, str):
        raise InputError(f"separator {separator!r}: give text, such as a space or a new line")
    if separator.strip() in labels:
        raise InputError(f"separator {separator!r} is one of the labels, {', '.join(labels)}: choose another")
    words = []
    for label in labels:
        require_characters(label + separator, f"label {label!r}, separator {separator!r}")
        text = f"x : {label}{separator}x"
        tokens, offsets = tokenized(tokenizer, text)
        word = _label_places(offsets, 4, 4 + len(label))
        if not word or offsets[word[0]][0] < 3 or tokenizer.unk_token_id in [tokens[i] for i in word]:
            raise InputError(
                f"label {label!r} has no tokens of its own for this tokenizer in {text!r}: choose another label or "
                "separator",
                about="labels",
            )
        words.append([tokens[i] for i in word])
    return Template(tokenizer, bos, tuple(labels), separator, words)


def written(template: Template, prompt: Prompt, number: int) -> Written:
    """One prompt in the template.

    Raises:
        InputError: a label that is not the tokens it is elsewhere, or text that the tokenizer drops or does not know,
            naming the prompt.
    """
    text, spans = _text(template, prompt)
    require_characters(text, f"prompt {number}")
    tokens, offsets = tokenized(template.tokenizer, text)
    if not offsets or offsets[-1][1] != len(text):
        raise InputError(f"prompt {number}: the tokenizer drops the end of {text[-20:]!r}: choose other texts")
    require_known(template.tokenizer, text, tokens, offsets, f"prompt {number}")
    starts = []
    for demo, (start, end) in zip(prompt.demos, spans, strict=True):
        places = _label_places(offsets, start, end)
        if [tokens[i] for i in places] != template.words[demo.label]:
            raise InputError(
                f"prompt {number}: in {text[max(0, start - 20) : end + 5]!r} the label "
                f"{template.labels[demo.label]!r} is not the tokens it is elsewhere: choose another label or separator",
                about="labels",
            )
        starts.append(len(template.bos) + places[0])
    return Written(text, template.bos + tokens, starts)


def _text(template: Template, prompt: Prompt) -> tuple[str, list[tuple[int, int]]]:
    """A prompt's text, and the characters of each label in it."""
    text = ""
    spans: list[tuple[int, int]] = []
    for demo in prompt.demos:
        text += f"{demo.text} : "
        spans.append((len(text), len(text) + len(template.labels[demo.label])))
        text += f"{template.labels[demo.label]}{template.separator}"
    return f"{text}{prompt.query} :", spans


@contextmanager
def reading(text: str) -> Iterator[None]:
    """Raise `InputError` where the tokenizer cannot read `text` in the block: it has no token for a word, nor for what
    it does not know.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises Exception itself
        raise InputError(
            f"the tokenizer cannot read {shown(text)} ({in_one_line(error)}): use other words, or this model's own "
            "tokenizer"
        ) from error


def require_offsets(tokenizer: Any) -> None:
    """Raise `InputError` for a tokenizer without character offsets."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"a {type(tokenizer).__name__} does not say which characters its tokens are of: load it with use_fast=True"
        )


def tokenized(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text, without special ones, and which characters each is of, from and to (exclusive).

    Raises:
        InputError: text that the tokenizer cannot read.
    """
    with reading(text):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded.input_ids), list(encoded.offset_mapping)


def require_known(
    tokenizer: Any, text: str, tokens: Sequence[int], offsets: Sequence[tuple[int, int]], where: str
) -> None:
    """Raise `InputError` for a word that the tokenizer reads as an unknown one, all of which are one token to it."""
    for token, (begin, end) in zip(tokens, offsets, strict=True):
        if token == tokenizer.unk_token_id and text[begin:end].strip() != tokenizer.unk_token:
            raise InputError(f"{where}: the tokenizer has no token for {text[begin:end]!r}: use words that it knows")


def _label_places(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """The tokens of the label whose characters are `start` to `end`: those that end behind the `:` before it, one
    character earlier, and begin before its end.
    """
    return [i for i, (begin, stop) in enumerate(offsets) if stop > start - 1 and begin < end]
