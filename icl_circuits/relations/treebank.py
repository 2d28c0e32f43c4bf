"""Parsed sentences of a CoNLL-U file: each word, its place in the text, and the word that governs it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from icl_circuits.characters import visible
from icl_circuits.errors import InputError, in_one_line
from icl_circuits.prompts import read_text, shown
from icl_circuits.relations.corpus import Span


class Word(NamedTuple):
    """One word of a parsed sentence."""

    span: Span
    label: str
    """Its dependency label, subtype and all."""
    part_of_speech: str
    """The universal one; empty where it is not given."""
    governor: int | None
    """The place of the word that governs it in its sentence; None: the root does."""


class Sentence(NamedTuple):
    """A parsed sentence."""

    text: str
    words: tuple[Word, ...]
    aligned: bool
    """Whether the words stand in the text in their order. Where they do not, all spans are empty."""


class _Surface(NamedTuple):
    """What stands in the text: one word, or several in one (`don't`)."""

    form: str
    words: list[Any]
    spaced: bool


def read_treebank(path: Path) -> Iterator[Sentence]:
    """The sentences of a CoNLL-U file, perhaps packed with gzip.

    The text is that of `# text =`, or is written out of the words. Words are found in it by walking through it in
    their order. The parts of a multiword token have their own characters where they spell it, else all of it. Empty
    nodes (`1.1`) have none, and are passed over.

    Raises:
        InputError: a file that cannot be read, a line that is no CoNLL-U, or a head that is missing, is the word
            itself or does not exist. It names the line.
    """
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*read_text(path).split("\n"), ""], start=1):
        if line.strip():
            block.append((number, line))
        elif block:
            sentence = _sentence(f"file {str(path)!r}", block)
            block = []
            if sentence.words:
                yield sentence


def _sentence(where: str, block: Sequence[tuple[int, str]]) -> Sentence:
    tokens, metadata = _parsed(where, block)
    lines = [number for number, line in block if not line.strip().startswith("#")]
    named = f", sentence {shown(metadata['sent_id'])}" if metadata.get("sent_id") else ""
    places: dict[int, int] = {}
    words = [(number, token) for number, token in zip(lines, tokens, strict=True) if isinstance(token["id"], int)]
    for place, (number, word) in enumerate(words):
        if word["id"] in places:
            raise InputError(
                f"{where}, line {number}{named}: a second word {word['id']}: number the words 1, 2, 3, ..."
            )
        places[word["id"]] = place
    governors = [_governor(word, places, f"{where}, line {number}{named}") for number, word in words]
    surfaces = _surfaces(tokens)
    text = metadata.get("text") or "".join(s.form + " " * s.spaced for s in surfaces).strip()
    spans = _spans(text, surfaces)
    found = (
        Word((0, 0) if spans is None else spans[place], word.get("deprel") or "", _part_of_speech(word), governor)
        for place, ((_, word), governor) in enumerate(zip(words, governors, strict=True))
    )
    return Sentence(text, tuple(found), spans is not None)


def _parsed(where: str, block: Sequence[tuple[int, str]]) -> tuple[list[Any], dict[str, str]]:
    """The tokens of a sentence, and its comments."""
    import conllu

    no_conllu = (conllu.exceptions.ParseException, ValueError)  # of an id with more digits than Python reads
    try:
        parsed = conllu.parse_token_and_metadata("\n".join(line for _, line in block))
    except no_conllu:
        for number, line in block:
            try:
                conllu.parse_token_and_metadata(line)
            except no_conllu as error:
                said = visible(in_one_line(error))
                raise InputError(
                    f"{where}, line {number} is no CoNLL-U ({said}): write ten columns with tabs between"
                ) from None
        raise
    lines = (number for number, line in block if not line.strip().startswith("#"))
    for number, token in zip(lines, parsed, strict=True):
        if token.get("id") is None or not token.get("form"):
            raise InputError(f"{where}, line {number} has no id or no word: write ten columns with tabs between")
    return list(parsed), dict(parsed.metadata)


def _governor(word: Any, places: dict[int, int], where: str) -> int | None:
    head = word.get("head")
    if head == 0:
        return None
    said = f"{where}: the head of word {word['id']} ({shown(word['form'])}) is"
    if head is None:
        raise InputError(f"{said} missing: give the id of a word, or 0")
    if head == word["id"]:
        raise InputError(f"{said} the word itself: give the id of another, or 0")
    if head not in places:
        raise InputError(f"{said} {head}, which is no word of the sentence: give the id of one, or 0")
    return places[head]


def _part_of_speech(word: Any) -> str:
    found = word.get("upos") or ""
    return "" if found == "_" else found


def _surfaces(tokens: Sequence[Any]) -> list[_Surface]:
    """What stands in the text, in its order, and the words in each."""
    found: list[_Surface] = []
    end = 0
    """The last word of the multiword token that was met last."""
    for token in tokens:
        number = token["id"]
        spaced = (token.get("misc") or {}).get("SpaceAfter") != "No"
        if isinstance(number, int):
            if number <= end:
                found[-1].words.append(token)
            else:
                found.append(_Surface(token["form"], [token], spaced))
        elif number[1] == "-":
            end = number[2]
            found.append(_Surface(token["form"], [], spaced))
    return found


def _spans(text: str, surfaces: Sequence[_Surface]) -> list[Span] | None:
    """The characters of each word, or None where the text holds anything else than the words in their order."""
    spans: list[Span] = []
    at = 0
    for surface in surfaces:
        at = _next_character(text, at)
        if not text.startswith(surface.form, at):
            return None
        stop = at + len(surface.form)
        forms = [word["form"] for word in surface.words]
        if "".join(forms) != surface.form:
            spans += [(at, stop)] * len(forms)
        else:
            for form in forms:
                spans.append((at, at + len(form)))
                at += len(form)
        at = stop
    return spans if _next_character(text, at) == len(text) else None


def _next_character(text: str, at: int) -> int:
    """The place of the first character from `at` on that is no space, or the text's end."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at
