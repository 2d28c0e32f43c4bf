"""Syntactic dependencies as triplets (arXiv 2402.13055, section 3.1): of a treebank, or of texts that spaCy parses."""

import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_circuits.errors import InputError
from icl_circuits.prompts import is_whole, kind, require_characters, shown
from icl_circuits.relations.corpus import Corpus, RelationText, Span, Triplet, counted, kept, require_span
from icl_circuits.relations.given import corpus_file
from icl_circuits.relations.treebank import Sentence, Word, read_treebank

SENTENCES = "dependencies"
"""The name of the built-in treebank."""
PIPELINE = "en_core_web_sm"
"""spaCy's small English pipeline."""
DEPENDENCIES: Mapping[str, Sequence[str]] = {
    "subj": ("nsubj", "nsubjpass"),
    "obj": ("obj", "dobj"),
    "mod": ("amod", "advmod", "nummod"),
}
"""Which labels make each relation, in Universal Dependencies and in spaCy's English models.

The paper names the relations subject-predicate, predicate-object and modifier-noun/verb, but no labels: these are ours.
Clauses (`csubj`, `advcl`) and nominal modifiers (`nmod`) are left out."""
MODIFIED = ("NOUN", "PROPN", "VERB", "AUX")
"""The parts of speech that a `mod` is kept for; a word without one is taken as it is."""

UNALIGNED = "a sentence whose words are not its text"
OF_ANOTHER = "mod of another word than a noun or verb"
OF_THE_ROOT = "a relation to the root"
ROOT = -1
"""What governs the root word of a sentence."""


@dataclass(frozen=True)
class ParsedSentence:
    """A sentence, its words in order, and which word governs each."""

    text: str
    words: tuple[Span, ...]
    """The characters of each word."""
    heads: tuple[int, ...]
    """The number of the word that governs each, counted from 0; -1 for a root word."""

    def __post_init__(self) -> None:
        where = f"sentence {shown(self.text)}"
        for span in self.words:
            require_span(self.text, span, where)
        if len(self.heads) != len(self.words):
            raise InputError(f"{where} has {len(self.words)} words and {len(self.heads)} heads: give each word a head")
        for number, head in enumerate(self.heads):
            if not is_whole(head) or not ROOT <= head < len(self.words) or head == number:
                raise InputError(
                    f"{where}: the head of word {number} is {shown(head)}: give the number of another word, "
                    f"0..{len(self.words) - 1}, or {ROOT} for a root"
                )


def load_conllu(path: str | Path = SENTENCES, *, labels: Mapping[str, Sequence[str]] = DEPENDENCIES) -> Corpus:
    """Load dependencies from a CoNLL-U file, as Universal Dependencies has them, a text for each sentence.

    The head of a triplet is the governing word, its tail the child. `subj` and `obj` lead from the predicate, `mod`
    from the noun or verb.

    Args:
        path: `dependencies` (built in: sentences of ours), or a file, perhaps packed with gzip.
        labels: the dependency labels of each relation. A label takes its subtypes along (`nsubj` takes `nsubj:pass`).

    Left out and counted: sentences whose words are not their text, and a `mod` of another word than a noun or verb. So
    are a word that the root governs, and heads and tails of the same characters (within one multiword token).

    Raises:
        InputError: no such file, one that is no CoNLL-U, a broken head (naming its line), or none of the labels.
    """
    require_labels_of_relations(labels)
    return corpus_of(*conllu_sentences(path), labels)


def parse_dependencies(
    texts: Sequence[str], *, pipeline: str = PIPELINE, labels: Mapping[str, Sequence[str]] = DEPENDENCIES
) -> Corpus:
    """Parse texts with spaCy, and take the dependencies of each of their sentences as a text of its own.

    Args:
        texts: of one sentence or several each, as the paper's abstracts are.
        pipeline: an installed spaCy pipeline that parses.
        labels: as for `load_conllu`; the default covers spaCy's English labels, too.

    Left out and counted: as for `load_conllu`.

    Raises:
        InputError: no spaCy, no such pipeline or one without a parser, what is no list of texts, or none of the labels.
    """
    require_labels_of_relations(labels)
    return corpus_of(*spacy_sentences(texts, pipeline), labels)


def load_parses(path: str | Path = SENTENCES) -> tuple[ParsedSentence, ...]:
    """Load whole parses, every word with its head, from a CoNLL-U file.

    Args:
        path: `dependencies` (built in: sentences of ours), or a file, perhaps packed with gzip.

    Left out are sentences whose words are not their text; `load_conllu` counts what is lost by that. Words of one
    multiword token that does not spell them have the same characters, all of it.

    Raises:
        InputError: no such file, one that is no CoNLL-U, a broken head (naming its line), or no sentence to use.
    """
    name, sentences = conllu_sentences(path)
    found = parses_of(sentences)
    if not found:
        raise InputError(f"data {shown(name)} has no parsed sentence to use: give sentences whose words are their text")
    return found


def parse_sentences(texts: Sequence[str], *, pipeline: str = PIPELINE) -> tuple[ParsedSentence, ...]:
    """Parse texts with spaCy: every sentence with the heads of its words.

    Args:
        texts: of one sentence or several each.
        pipeline: an installed spaCy pipeline that parses.

    Raises:
        InputError: no spaCy, no such pipeline or one without a parser, or what is no list of texts.
    """
    return parses_of(spacy_sentences(texts, pipeline)[1])


def conllu_sentences(path: str | Path) -> tuple[str, list[Sentence]]:
    """What a CoNLL-U file is called, and its sentences. Raises what `load_conllu` does of files."""
    with corpus_file(path, {SENTENCES: "dependencies.conllu"}) as (name, file):
        return name, list(read_treebank(file))


def parses_of(sentences: Iterable[Sentence]) -> tuple[ParsedSentence, ...]:
    """The parses of the sentences whose words are their text."""
    return tuple(_parse(sentence) for sentence in sentences if sentence.aligned)


def _parse(sentence: Sentence) -> ParsedSentence:
    """The words of a sentence that are more than space, and their heads."""
    kept_words = [i for i, word in enumerate(sentence.words) if sentence.text[slice(*word.span)].strip()]
    number: dict[int | None, int] = {old: new for new, old in enumerate(kept_words)}
    words = [sentence.words[i] for i in kept_words]
    heads = tuple(number.get(word.governor, ROOT) for word in words)
    return ParsedSentence(sentence.text, tuple(word.span for word in words), heads)


def spacy_sentences(texts: Sequence[str], pipeline: str = PIPELINE) -> tuple[str, list[Sentence]]:
    """What texts are called, and their sentences as spaCy parses them. Raises what `parse_dependencies` does."""
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        raise InputError(f"texts are {shown(texts)}: give a list of one text or more")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is {kind(text)}: give a list of texts")
        require_characters(text, f"text {row}")
    parser = _pipeline(pipeline)
    found = [_of_spacy(sentence) for document in parser.pipe(list(texts)) for sentence in document.sents]
    return f"{len(texts)} texts parsed by {pipeline}", found


def require_labels_of_relations(labels: object) -> None:
    """Raise `InputError` unless each relation has a list of labels."""
    if not isinstance(labels, Mapping) or not labels:
        raise InputError(f"labels are {shown(labels)}: give the labels of each relation, as {{'subj': ['nsubj']}}")
    for relation, found in labels.items():
        if isinstance(found, str) or not isinstance(found, Sequence) or not all(isinstance(one, str) for one in found):
            raise InputError(f"labels of {shown(relation)} are {shown(found)}: give a list of them, as ['nsubj']")


def corpus_of(name: str, sentences: Iterable[Sentence], labels: Mapping[str, Sequence[str]] = DEPENDENCIES) -> Corpus:
    """The dependencies of sentences. Left out, counted and raised is what `load_conllu` says."""
    left_out: Counter[str] = Counter()
    texts = []
    for sentence in sentences:
        found = list(_found(sentence, labels, left_out))
        if not sentence.aligned:
            left_out[UNALIGNED] += len(found)
            continue
        triplets = kept((Triplet(relation, head.span, tail.span) for relation, head, tail in found), left_out)
        if triplets:
            texts.append(RelationText(sentence.text, triplets))
    if not texts:
        reasons = f" ({', '.join(left_out)})" if left_out else ""
        raise InputError(
            f"data {shown(name)} has no {' or '.join(labels)} to use{reasons}: give parsed sentences, or other labels"
        )
    return Corpus(name, tuple(texts), counted((), left_out))


def _found(
    sentence: Sentence, labels: Mapping[str, Sequence[str]], left_out: Counter[str]
) -> Iterator[tuple[str, Word, Word]]:
    """Each relation of a sentence, the word that governs it, and its child."""
    for child in sentence.words:
        for relation, wanted in labels.items():
            if child.label not in wanted and child.label.partition(":")[0] not in wanted:
                continue
            if child.governor is None:
                left_out[OF_THE_ROOT] += 1
                continue
            head = sentence.words[child.governor]
            if relation == "mod" and head.part_of_speech and head.part_of_speech not in MODIFIED:
                left_out[OF_ANOTHER] += 1
            else:
                yield relation, head, child


def _pipeline(name: str) -> Any:
    if importlib.util.find_spec("spacy") is None:
        raise InputError("parsing texts needs the spacy package: run `pip install 'icl_circuits[spacy]'`")
    import spacy

    try:
        found = spacy.load(name)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise InputError(
            f"spaCy has no pipeline {shown(name)} ({said}): run `python -m spacy download {name}`, or name another"
        ) from None
    if "parser" not in found.pipe_names:
        raise InputError(f"spaCy's pipeline {shown(name)} has no parser: name one that has, such as en_core_web_sm")
    return found


def _of_spacy(sentence: Any) -> Sentence:
    """A sentence as spaCy parsed it; it knows the characters of its tokens."""
    start, first = sentence.start_char, sentence.start
    words = (
        Word(
            (token.idx - start, token.idx - start + len(token.text)),
            token.dep_,
            token.pos_,
            None if token.head.i == token.i else token.head.i - first,
        )
        for token in sentence
    )
    return Sentence(sentence.text, tuple(words), aligned=True)
