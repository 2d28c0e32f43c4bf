"""Texts of the small language as tokens: sentences, lists, facts, prompts of demonstrations, repeated words."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from icl_circuits.errors import InputError, require_whole
from icl_circuits.small.language import LABEL, LABELS, MODIFIERS, NEW_LINE, RELATIONS, Choice, Language

SENTENCE = 6
"""Tokens of a sentence, a list or a fact."""
MODIFIERS_OF_CLASS = 4
LABEL_LISTS = 0.1
"""The share of lists that are of labels, so that labels of no prompt are known as words too."""


Form = Literal["line", "running", "bare"]
"""How a demonstration is written: `dog : foo` and a new line, `dog : foo` and a space, or `dog foo` and a space."""


class Demonstrations(NamedTuple):
    """Prompts of demonstrations, all of one form, and what can be known of their labels."""

    tokens: Int[np.ndarray, "prompt pos"]
    labels: Bool[np.ndarray, "prompt pos"]
    """Where a label stands whose class had one before in the prompt, so that it can be known."""


def demonstrations(
    language: Language,
    rng: np.random.Generator,
    choice: Choice,
    shape: tuple[int, int],
    *,
    n_classes: int = 2,
    own: float = 0.0,
    plain: float = 1.0,
    form: Form = "line",
) -> Demonstrations:
    """Prompts `[prompt, demonstration]` of texts and labels.

    A share `own` of the prompts labels each class with one of its own words (`dog : cat`), the same for the whole
    prompt. The others label it with what has nothing to do with it: labels in a share `plain`, else words of classes
    that it may meet, another for each.
    """
    n = shape[0]
    group = choice.groups[rng.integers(len(choice.groups), size=n)]
    classes, others = (_drawn(rng, group, n_classes) for _ in range(2))
    label = np.where(
        rng.random((n, 1)) < plain,
        _drawn(rng, np.tile(choice.labels, (n, 1)), n_classes),
        _words(language, rng, choice, others),
    )
    label = np.where(rng.random((n, 1)) < own, _words(language, rng, choice, classes), label)
    which = rng.integers(n_classes, size=shape)
    label = np.take_along_axis(label, which, axis=1)
    words = _words(language, rng, choice, np.take_along_axis(classes, which, axis=1))
    parts, _ = _form(language, form, words, label)
    before = np.stack([(np.cumsum(which == c, axis=1) - (which == c)) > 0 for c in range(n_classes)])
    known = np.take_along_axis(before, which[None], axis=0)[0]
    known = np.stack([known & (part is label) for part in parts], axis=-1)
    return Demonstrations(np.stack(parts, axis=-1).reshape(n, -1), known.reshape(n, -1))


class Questions(NamedTuple):
    """Prompts that end where a label is due, and the right ones."""

    tokens: Int[np.ndarray, "prompt pos"]
    answers: Int[np.ndarray, " prompt"]


def questions(
    language: Language, rng: np.random.Generator, choice: Choice, n: int, shots: int, form: Form = "line"
) -> Questions:
    """Prompts of two classes, `shots` demonstrations of each in random order, about a word that none of them has.

    Raises:
        InputError: a class with too few words.
    """
    require_whole(shots, 1, f"shots is {shots}: ask for at least 1")
    classes = rng.permuted(choice.pairs[rng.integers(len(choice.pairs), size=n)], axis=1)
    labels = _drawn(rng, np.tile(choice.labels, (n, 1)), 2)
    of_class = choice.words & (np.arange(language.word.shape[1]) < language.size[:, None])
    fewest = int(of_class[choice.pairs].sum(axis=2).min())
    if fewest <= shots:
        raise InputError(f"{shots} shots and a question need {shots + 1} words of a class, but one has {fewest}")
    order = np.where(of_class[classes], rng.random((n, 2, of_class.shape[1])), np.inf).argsort(axis=2)
    words = language.word[classes[..., None], order[..., : shots + 1]]
    which = rng.permuted(np.repeat([[0, 1]], n, axis=0).repeat(shots, axis=1), axis=1)
    place = np.where(which == 0, np.cumsum(which == 0, axis=1), np.cumsum(which, axis=1)) - 1
    asked = rng.integers(2, size=n)
    rows = np.arange(n)
    which, place = np.c_[which, asked], np.c_[place, np.full(n, shots)]
    text = words[rows[:, None], which, place]
    label = labels[rows[:, None], which]
    parts, behind = _form(language, form, text, label)
    return Questions(np.stack(parts, axis=-1).reshape(n, -1)[:, :-behind], labels[rows, asked])


def sentences(language: Language, rng: np.random.Generator, n: int, length: int) -> Int[np.ndarray, "text pos"]:
    """Texts of sentences (`the big dog sees apple .`), lists (`fruit apple pear ... .`) and facts."""
    shape = (n, -(-length // SENTENCE))
    kinds = np.stack([sentence(language, rng, shape), _lists(language, rng, shape), _facts(language, rng, shape)])
    which = rng.choice(3, size=shape, p=(0.4, 0.4, 0.2))
    return np.take_along_axis(kinds, which[None, ..., None], axis=0)[0].reshape(n, -1)[:, :length]


def sentence(language: Language, rng: np.random.Generator, shape: tuple[int, ...]) -> Int[np.ndarray, "*shape 6"]:
    """Sentences `the MODIFIER SUBJECT VERB OBJECT .`: the subject's class and the verb decide the object's class.

    So what comes behind a verb depends on the token before it, which teaches heads to look there.
    """
    subject = rng.integers(len(language.classes), size=shape)
    verb = language.verbs_of[subject, rng.integers(language.verbs_of.shape[1], size=shape)]
    words = [_any_word(language, rng, classes) for classes in (subject, language.object_of[subject, verb])]
    return _sentence(language, rng, words[0], language.verb[verb], words[1])


def facts(language: Language, verb: str) -> Int[np.ndarray, "fact 2"]:
    """Subject and object of every fact with a verb, as tokens."""
    of, to = (language.classes.index(name) for name in RELATIONS[verb])
    size = language.size[of]
    return np.stack([language.word[of, :size], language.word[to, language.facts[verb][:size]]], axis=1)


def tasks(language: Language, rng: np.random.Generator, n: int, length: int) -> Int[np.ndarray, "text pos"]:
    """Facts without their verb, as word pairs: `dog : apple` and a new line, all of one verb in a text.

    Words that are held out of demonstrations are in none.
    """
    held_out = language.word[language.held_out_words]
    rows = []
    for verb in rng.choice(list(RELATIONS), size=n):
        every = facts(language, verb)
        pairs = rng.permutation(every[~np.isin(every, held_out).any(axis=1)])
        signs = np.broadcast_to([language.ids[":"], language.ids[NEW_LINE]], pairs.shape)
        line = np.stack([pairs[:, 0], signs[:, 0], pairs[:, 1], signs[:, 1]], axis=1)
        rows.append(np.resize(line, length))
    return np.stack(rows)


def repeats(language: Language, rng: np.random.Generator, n: int, length: int) -> Int[np.ndarray, "text pos"]:
    """Random words, said again and again in the same order; each text repeats after another number of them."""
    period = rng.integers(4, length // 2 + 1, size=(n, 1))
    words = rng.integers(language.ids[LABELS[0]], len(language.vocabulary), size=(n, length))
    return np.take_along_axis(words, np.arange(length) % period, axis=1)


def _form(
    language: Language, form: Form, words: Int[np.ndarray, "prompt line"], labels: Int[np.ndarray, "prompt line"]
) -> tuple[list[Int[np.ndarray, "prompt line"]], int]:
    """The tokens of each line, and how many of them a prompt leaves out of its last."""
    colon, line = (np.full(words.shape, language.ids[sign]) for sign in (":", NEW_LINE))
    if form == "line":
        return [words, colon, labels, line], 2
    return ([words, colon, labels] if form == "running" else [words, labels]), 1


def _lists(language: Language, rng: np.random.Generator, shape: tuple[int, int]) -> Int[np.ndarray, "text sentence 6"]:
    """`fruit apple pear ... .`; a tenth of the lists are of labels, `label foo bar ... .`."""
    of = rng.integers(len(language.classes), size=shape)
    words = _any_word(language, rng, np.repeat(of[..., None], SENTENCE - 2, axis=-1))
    labels = rng.choice([language.ids[label] for label in LABELS], size=words.shape)
    is_label = rng.random((*shape, 1)) < LABEL_LISTS
    name = np.where(is_label, language.ids[LABEL], language.name[of][..., None])
    return np.concatenate([name, np.where(is_label, labels, words), np.full_like(name, language.ids["."])], axis=-1)


def _facts(language: Language, rng: np.random.Generator, shape: tuple[int, int]) -> Int[np.ndarray, "text sentence 6"]:
    known = [(language.ids[verb], facts(language, verb)) for verb in RELATIONS]
    verbs = np.concatenate([np.full(len(pairs), verb) for verb, pairs in known])
    every = np.concatenate([pairs for _, pairs in known])
    which = rng.integers(len(every), size=shape)
    return _sentence(language, rng, every[which, 0], verbs[which], every[which, 1])


def _sentence(
    language: Language,
    rng: np.random.Generator,
    subject: Int[np.ndarray, "*shape"],
    verb: Int[np.ndarray, "*shape"],
    other: Int[np.ndarray, "*shape"],
) -> Int[np.ndarray, "*shape 6"]:
    the, stop = (np.full(subject.shape, language.ids[sign]) for sign in ("the", "."))
    return np.stack([the, _modifier(language, rng, language.class_of[subject]), subject, verb, other, stop], axis=-1)


def _any_word(
    language: Language, rng: np.random.Generator, classes: Int[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    return language.word[classes, rng.integers(language.size[classes])]


def _modifier(
    language: Language, rng: np.random.Generator, classes: Int[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    """One of the four modifiers that go with each class."""
    place = classes * MODIFIERS_OF_CLASS // 2 + rng.integers(MODIFIERS_OF_CLASS, size=classes.shape)
    return language.modifier[place % len(MODIFIERS)]


def _words(
    language: Language, rng: np.random.Generator, choice: Choice, classes: Int[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    """A word of each class, of those that the choice allows."""
    count = choice.words.sum(axis=1)
    place = np.argsort(~choice.words, axis=1, kind="stable")
    return language.word[classes, place[classes, rng.integers(count[classes])]]


def _drawn(rng: np.random.Generator, of: Int[np.ndarray, "row item"], k: int) -> Int[np.ndarray, "row k"]:
    """`k` different ones of each row."""
    return np.take_along_axis(of, rng.random(of.shape).argsort(axis=1)[:, :k], axis=1)
