"""Texts of the small language as files, for analyses: parsed sentences, triplets of facts, word pairs of facts."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from icl_circuits.models import OWN_FILES, OwnTexts
from icl_circuits.small.language import RELATIONS, Language
from icl_circuits.small.texts import demonstrations, facts, sentence

TEXTS = 150
"""Of each kind."""
LONG_TEXTS, LONG_LINES = 60, 26
"""Long texts, and demonstrations in each."""
GOVERNORS = (3, 3, 4, 0, 4, 4)
"""Which word governs each of `the MODIFIER SUBJECT VERB OBJECT .`, counted from 1; 0: none."""
DEPENDENCY_LABELS = ("det", "amod", "nsubj", "root", "obj", "punct")
PARTS_OF_SPEECH = ("DET", "ADJ", "NOUN", "VERB", "NOUN", "PUNCT")


def write_texts(language: Language, folder: Path, *, seed: int = 0) -> None:
    """Write `dependencies.conllu`, `triplets.jsonl`, `tasks.csv`, `words.csv` and `texts.jsonl` into a folder."""
    rng, said = np.random.default_rng([seed, 3]), language.vocabulary
    parsed = ["\n".join(_conllu([said[token] for token in row])) for row in sentence(language, rng, (TEXTS,)).tolist()]
    pairs = [(*(said[token] for token in pair), verb) for verb in RELATIONS for pair in facts(language, verb).tolist()]
    of_class = zip(language.classes, language.word.tolist(), language.size.tolist(), strict=True)
    words = [(said[token], name) for name, row, size in of_class for token in row[:size]]
    texts: dict[OwnTexts, list[str]] = {
        "dependencies": [f"{lines}\n" for lines in parsed],
        "triplets": [json.dumps(text) for text in _triplets(language, rng)],
        "tasks": ["text,label,task", *(",".join(pair) for pair in pairs)],
        "words": ["text,label", *(",".join(word) for word in words)],
        "long": [json.dumps({"text": text}) for text in _long(language, rng)],
    }
    for kind, lines in texts.items():
        (folder / OWN_FILES[kind]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _long(language: Language, rng: np.random.Generator) -> Iterator[str]:
    """Texts in which what comes late can be known from what came early: demonstrations of two classes."""
    prompts = demonstrations(language, rng, language.choices["as in training"], (LONG_TEXTS, LONG_LINES)).tokens
    for row in prompts.tolist():
        yield " ".join(language.vocabulary[token] for token in row)


def _conllu(words: list[str]) -> Iterator[str]:
    """The lines of a parsed sentence."""
    yield f"# text = {' '.join(words)}"
    for i, word in enumerate(words):
        label, part = DEPENDENCY_LABELS[i], PARTS_OF_SPEECH[i]
        yield f"{i + 1}\t{word}\t_\t{part}\t_\t_\t{GOVERNORS[i]}\t{label}\t_\t_"


def _triplets(language: Language, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Texts of one fact, with a sentence behind it in which its words do not occur."""
    known = [(verb, pair) for verb in RELATIONS for pair in facts(language, verb).tolist()]
    for place in rng.permutation(len(known))[:TEXTS]:
        verb, pair = known[place]
        behind = _without(language, rng, pair)
        subject, other = (language.vocabulary[token] for token in pair)
        text = f"the {subject} {verb} {other} . {' '.join(language.vocabulary[token] for token in behind)}"
        yield {"text": text, "triplets": [{"head": subject, "relation": verb, "tail": other}]}


def _without(language: Language, rng: np.random.Generator, words: list[int]) -> list[int]:
    """A sentence that has none of these words."""
    while True:
        tokens: list[int] = sentence(language, rng, (1,))[0].tolist()
        if not {*tokens} & {*words}:
            return tokens
