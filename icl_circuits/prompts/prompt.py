"""Prompts as text: sampled from rows, and the variants that the analyses compare."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from zlib import crc32

import numpy as np

from icl_circuits.errors import InputError, require_whole
from icl_circuits.prompts.cells import shown
from icl_circuits.prompts.rows import Rows
from icl_circuits.stats import generator

DEFAULT_LABELS = ("foo", "bar")
MOST_PROMPTS = 1_000_000


@dataclass(frozen=True)
class Demo:
    """One demonstration: its text, the class it belongs to, and the index of the label word it is shown with."""

    text: str
    category: str
    label: int


@dataclass(frozen=True)
class Prompt:
    """A few demonstrations and a query (arXiv 2402.02872): `S0 : bar S1 : foo S2 :`.

    `gold` is the index into `labels` of the label word that the demonstrations give to the query's class.
    """

    demos: tuple[Demo, ...]
    query: str
    category: str
    gold: int
    labels: tuple[str, ...]
    origin: str = ""
    """How it came about: data set, seed and number, then the variants made of it."""


def sample_prompts(
    rows: Rows,
    n: int,
    *,
    labels: Sequence[str] = DEFAULT_LABELS,
    shots: int = 4,
    seed: int = 0,
) -> tuple[Prompt, ...]:
    """Sample `n` prompts with `shots` demonstrations of each label, in random order.

    Every prompt draws as many classes as there are labels, gives each class a label at random, and queries one of them.
    Over the prompts each label is the right answer equally often (to within one). No text appears twice in a prompt.

    Args:
        rows: the data set.
        n: how many prompts, a million at most.
        labels: semantically unrelated label words, one for each class of a prompt (the paper uses foo and bar).
        shots: demonstrations of each label; 0 gives zero-shot prompts.
        seed: of every random choice.

    Raises:
        InputError: fewer than two labels, a label twice, fewer classes than labels, or a class with too few texts. A
            negative seed, or no number of prompts that can be kept.
    """
    require_whole(n, 1, f"cannot sample {n} prompts: ask for at least 1")
    if n > MOST_PROMPTS:
        raise InputError(f"cannot sample {n} prompts: ask for at most {MOST_PROMPTS}")
    require_whole(shots, 0, f"shots is {shots}: ask for 0 (zero-shot) or more")
    labels = _label_words(labels)
    texts = rows.by_class()
    if len(texts) < len(labels):
        raise InputError(
            f"data {rows.name!r} has {len(texts)} classes, fewer than the {len(labels)} labels: drop labels",
            about="labels",
        )
    short = {name: len(kept) for name, kept in texts.items() if len(kept) < shots + 1}
    if short:
        name, count = next(iter(short.items()))
        raise InputError(
            f"data {rows.name!r}: class {shown(name)} has {count} different texts here, but {shots} shots and a query "
            f"need {shots + 1}: lower the shots or add rows"
        )
    rng = generator(seed)
    golds = rng.permutation(np.arange(n) % len(labels))
    names = list(texts)
    demo = cache(Demo)  # prompts share them: each of a few kilobytes would hold its own
    prompts = []
    for number, gold in enumerate(golds):
        chosen = [names[i] for i in rng.choice(len(names), size=len(labels), replace=False)]
        demos: list[Demo] = []
        query = ""
        for label, name in enumerate(chosen):
            picks = [texts[name][i] for i in rng.choice(len(texts[name]), size=shots + 1, replace=False)]
            demos += [demo(text, name, label) for text in picks[:shots]]
            if label == gold:
                query = picks[shots]
        order = rng.permutation(len(demos))
        origin = f"{rows.name}, seed {seed}, prompt {number}"
        prompts.append(Prompt(tuple(demos[i] for i in order), query, chosen[gold], int(gold), labels, origin))
    return tuple(prompts)


def _label_words(labels: object) -> tuple[str, ...]:
    """Label words as given, or `InputError`."""
    if not isinstance(labels, Sequence) or isinstance(labels, str) or not all(isinstance(w, str) for w in labels):
        raise InputError(f"labels {shown(labels)}: give a list of words")
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(word and word == word.strip() for word in labels):
        raise InputError(
            f"labels {shown(', '.join(labels))}: give at least two different words, without spaces around them",
            about="labels",
        )
    return tuple(labels)


def reverse_labels(prompt: Prompt) -> Prompt:
    """The label-reversed twin: every label word moves on to the next (foo <-> bar); texts and order stay."""
    k = len(prompt.labels)
    demos = tuple(replace(demo, label=(demo.label + 1) % k) for demo in prompt.demos)
    return replace(prompt, demos=demos, gold=(prompt.gold + 1) % k, origin=f"{prompt.origin}, labels reversed")


def reorder(prompt: Prompt, order: Sequence[int]) -> Prompt:
    """The same demonstrations in another order: `order[i]` is the old place of the new i-th demonstration."""
    if sorted(order) != list(range(len(prompt.demos))):
        raise InputError(f"order {list(order)} is no permutation of the prompt's {len(prompt.demos)} demonstrations")
    demos = tuple(prompt.demos[i] for i in order)
    return replace(prompt, demos=demos, origin=f"{prompt.origin}, order {list(order)}")


def group_by_label(prompt: Prompt) -> Prompt:
    """The order of arXiv 2402.02872: demonstrations of one label stand together, those of the query's class last."""
    order = sorted(
        range(len(prompt.demos)), key=lambda i: (prompt.demos[i].label == prompt.gold, prompt.demos[i].label)
    )
    return reorder(prompt, order)


def imbalance(prompt: Prompt, keep: Sequence[int], *, seed: int = 0) -> Prompt:
    """Keep `keep[label]` demonstrations of each label, for the majority-label bias (arXiv 2402.02872).

    Which ones is random, so that neither early nor late ones go, and nested: what a smaller `keep` keeps, a larger one
    keeps too. The order stays.
    """
    have = [sum(demo.label == label for demo in prompt.demos) for label in range(len(prompt.labels))]
    if len(keep) != len(have) or any(not 0 <= k <= h for k, h in zip(keep, have, strict=False)):
        raise InputError(f"cannot keep {list(keep)} demonstrations a label: the prompt has {have}")
    left = list(keep)
    kept = []
    for i in generator(seed, crc32(repr(prompt.demos).encode())).permutation(len(prompt.demos)):
        if left[prompt.demos[i].label] > 0:
            left[prompt.demos[i].label] -= 1
            kept.append(int(i))
    demos = tuple(prompt.demos[i] for i in sorted(kept))
    return replace(prompt, demos=demos, origin=f"{prompt.origin}, keeping {list(keep)} a label")


def zero_shot(prompt: Prompt) -> Prompt:
    """The query alone."""
    return replace(prompt, demos=(), origin=f"{prompt.origin}, zero-shot")
