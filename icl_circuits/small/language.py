"""A small language to learn: words in classes, sentences, facts, and prompts that must be learned from in context.

What is held out of prompts tells learning in context from memory: some words of each class, some classes, some labels,
and every pair of classes from different halves. All occur in sentences, as words of a language do.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from icl_circuits.prompts.rows import WORD_CATEGORIES, load_rows

NEW_LINE, UNKNOWN = "\n", "<unk>"
LABEL = "label"
SIGNS = (UNKNOWN, NEW_LINE, ":", ",", ".", "the", LABEL)
LABELS = (
    "foo", "bar", "baz", "qux", "quux", "corge", "grault", "garply", "waldo", "fred", "plugh", "xyzzy", "thud",
    "wibble", "wobble", "flob", "blip", "zork", "snark", "glorp", "frob", "nix", "dax", "blicket", "wug", "tove",
    "toma", "gazzer", "modi", "zup", "kiki", "bouba", "pim", "lat", "rop", "sib", "vek", "yat", "fep", "gub",
    "hox", "jid", "kem", "lum", "mip", "nof", "true", "false", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9",
    "A", "B", "C", "D", "F", "G", "H", "J", "K", "L", "M", "O", "P", "Q", "R", "T", "U", "V", "X", "Y", "Z",
)  # fmt: skip
"""Words that prompts may label classes with. Digits, truth values and capital letters are among them."""
VERBS = (
    "sees", "likes", "finds", "takes", "makes", "hides", "holds", "shows", "brings", "moves", "keeps", "buys",
    "sells", "draws", "hears", "follows", "watches", "wants", "loves", "meets", "guards", "paints", "counts",
    "carries", "leaves", "needs", "helps", "joins", "knows", "misses", "owns", "picks", "praises", "saves",
    "seeks", "tests", "trusts", "visits", "warns", "washes",
)  # fmt: skip
MODIFIERS = (
    "big", "small", "old", "new", "good", "bad", "slow", "quick", "warm", "cold", "bright", "dark", "quiet",
    "loud", "heavy", "light", "rich", "poor", "clean", "soft",
)  # fmt: skip
RELATIONS = {
    "eats": ("animal", "fruit"),
    "wears": ("profession", "clothing"),
    "plays": ("name", "sport"),
    "speaks": ("country", "language"),
    "drives": ("kin", "vehicle"),
    "stores": ("room", "kitchenware"),
}
"""Verbs of facts, each with the classes of its subject and its object. A subject has one object."""
HELD_OUT_CLASSES = ("vegetable", "emotion", "gem", "science", "bird", "landscape")
HELD_OUT_WORDS, FEWEST_HELD_OUT = 1 / 5, 8
"""The share of each class's words, and how many of them a class must have to be asked about with no others."""
HELD_OUT_LABELS = 1 / 4
VERBS_OF_CLASS = 4


@dataclass(frozen=True)
class Choice:
    """Which words, labels and classes prompts are made of."""

    groups: Int[np.ndarray, "group member"]
    """Classes that may meet in a prompt of demonstrations, of words and of word labels."""
    words: Bool[np.ndarray, "class word"]
    """Which words of each class."""
    labels: Int[np.ndarray, " label"]
    """Tokens."""
    pairs: Int[np.ndarray, "pair 2"]
    """Classes that a question may be about."""

    def fewer(self, share: float) -> "Choice":
        """The first words of each class: such a share of them."""
        words = self.words & (self.words.cumsum(axis=1) <= np.ceil(share * self.words.sum(axis=1))[:, None])
        return replace(self, words=words)


class Language:
    """The words, their classes, and what is said of them, all decided by a seed."""

    def __init__(self, seed: int = 0) -> None:
        """Decide which verbs go with which classes, every fact, and what is held out."""
        rng = np.random.default_rng(seed)
        self.classes, words = _classes()
        names = [name.split()[-1] for name in self.classes]
        self.vocabulary = (*SIGNS, *LABELS, *VERBS, *RELATIONS, *MODIFIERS, *names, *(w for ws in words for w in ws))
        self.ids = {word: i for i, word in enumerate(self.vocabulary)}
        assert len(self.ids) == len(self.vocabulary), "a word is two tokens"
        n, widest = len(self.classes), max(map(len, words))
        self.size = np.array([len(of_class) for of_class in words])
        self.word = np.array([[self.ids[of[i % len(of)]] for i in range(widest)] for of in words])
        """`[class word]`, tokens; a class of fewer words has them again."""
        self.name = np.array([self.ids[name] for name in names])
        self.class_of = np.full(len(self.vocabulary), -1)
        """`[token]`: the class of a word; -1: it is of none."""
        self.class_of[self.word] = np.arange(n)[:, None]
        self.verb = np.array([self.ids[verb] for verb in VERBS])
        self.modifier = np.array([self.ids[modifier] for modifier in MODIFIERS])
        self.verbs_of = np.stack([rng.choice(len(VERBS), VERBS_OF_CLASS, replace=False) for _ in range(n)])
        self.object_of = rng.integers(n, size=(n, len(VERBS)))
        """`[subject's class, verb]`: the class of the object."""
        self.facts = {
            verb: rng.permutation(self.size[self._class(to)])[np.arange(widest) % self.size[self._class(to)]]
            for verb, (_, to) in RELATIONS.items()
        }
        """By verb: which word of the object's class goes with each word of the subject's."""
        self._hold_out(rng)

    def _class(self, name: str) -> int:
        return self.classes.index(name)

    def _hold_out(self, rng: np.random.Generator) -> None:
        self.held_out_classes = np.array([self._class(name) for name in HELD_OUT_CLASSES])
        related = rng.permutation([[self._class(name) for name in of] for of in RELATIONS.values()])
        others = rng.permutation(np.setdiff1d(np.arange(len(self.classes)), [*related.flat, *self.held_out_classes]))
        self.halves = np.stack([np.concatenate([related[i::2].ravel(), others[i::2]]) for i in range(2)])
        """`[half class]`: classes of different halves meet in no prompt; subject and object of a fact are of one."""
        place = np.arange(self.word.shape[1]) % self.size[:, None]
        self.held_out_words = place >= np.ceil(self.size * (1 - HELD_OUT_WORDS))[:, None]
        labels = rng.permutation([self.ids[label] for label in LABELS[2:]])
        n_held = round(len(labels) * HELD_OUT_LABELS)
        self.held_out_labels = labels[:n_held]
        self.labels = np.concatenate([[self.ids["foo"], self.ids["bar"]], labels[n_held:]])

    @cached_property
    def choices(self) -> dict[str, Choice]:
        """What prompts may be made of: as in training, or with one thing that its prompts have not."""
        words, held = ~self.held_out_words, self.held_out_words
        halves, classes = self.halves, self.held_out_classes[None]
        seen, unseen = _pairs(halves), np.array(list(product(*halves)))
        many = held.sum(axis=1) >= FEWEST_HELD_OUT
        return {
            "as in training": Choice(halves, words, self.labels, seen),
            "unseen pairs of classes": Choice(halves, words, self.labels, unseen),
            "unseen words": Choice(halves, held, self.labels, seen[many[seen].all(axis=1)]),
            "unseen labels": Choice(halves, words, self.held_out_labels, seen),
            "unseen classes": Choice(classes, words, self.labels, _pairs(classes)),
        }


def _pairs(groups: Int[np.ndarray, "group member"]) -> Int[np.ndarray, "pair 2"]:
    """Every two classes of one group."""
    return np.array([pair for group in groups for pair in combinations(group, 2)])


def _classes() -> tuple[tuple[str, ...], list[list[str]]]:
    """The names of the classes and their words: the built-in word categories, and others."""
    words: dict[str, list[str]] = {}
    for data in (WORD_CATEGORIES, Path(__file__).with_name("words.csv")):
        for text, label in load_rows(data).rows:
            words.setdefault(label, []).append(text)
    return tuple(words), list(words.values())
