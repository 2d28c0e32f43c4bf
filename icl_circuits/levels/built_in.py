"""The eight tasks of Ren et al. (arXiv 2402.13055, table 1): pairs of words by their categories or relation."""

import importlib.resources
from collections.abc import Mapping, Sequence
from itertools import product

from icl_circuits.errors import InputError
from icl_circuits.levels.task import LevelTask
from icl_circuits.prompts import Rows, Task, load_rows, load_tasks

CATEGORIES = ("fruit", "month", "furniture", "profession", "animal")
"""The categories that the tasks need words of."""


def level_tasks(words: Rows | None = None, relations: Sequence[Task] | None = None) -> tuple[LevelTask, ...]:
    """The eight tasks of arXiv 2402.13055, table 1, in its order; the word lists are ours, since theirs are not known.

    Four classify pairs by the categories of both words, in order: binary (`apple, January: 0`, `January, apple: 1`),
    twice, four-class and nine-class. Two words of one category are always different.

    Four justify a relation: `dog, bark: true`. False are pairs of an animal and a month.

    Args:
        words: words of the five `CATEGORIES`. Built in: 20 fruit, 12 months, 16 of each other.
        relations: for each relation, pairs that stand in it. Built in: 60 each of subject and verb, verb and object,
            modifier and noun, part and whole.

    Raises:
        InputError: a category without words, and pairs or words that make no `LevelTask`.
    """
    listed = _built_in_words() if words is None else words.by_class()
    missing = [name for name in CATEGORIES if name not in listed]
    if missing:
        raise InputError(f"there are no words of category {missing[0]!r}: give some of each of {', '.join(CATEGORIES)}")
    by_category = {name: listed[name] for name in CATEGORIES}
    false = _pairs(by_category, "animal", "month")
    return (
        _binary(by_category, "fruit", "month"),
        _binary(by_category, "furniture", "profession"),
        _every_order("four-class", by_category, "fruit", "month"),
        _every_order("nine-class", by_category, "fruit", "animal", "month"),
        *(
            LevelTask(task.name, ("true", "false"), (tuple(f"{a}, {b}" for a, b in task.pairs), tuple(false)), "label")
            for task in (_built_in_relations() if relations is None else relations)
        ),
    )


def _binary(words: Mapping[str, Sequence[str]], one: str, two: str) -> LevelTask:
    texts = (_pairs(words, one, two), _pairs(words, two, one))
    return LevelTask(f"binary {one}-{two}", ("0", "1"), texts, "number")


def _every_order(kind: str, words: Mapping[str, Sequence[str]], *categories: str) -> LevelTask:
    """Category i, then category j, of n: label n i + j."""
    texts = tuple(_pairs(words, one, two) for one, two in product(categories, repeat=2))
    labels = tuple(map(str, range(len(texts))))
    return LevelTask(f"{kind} {'-'.join(categories)}", labels, texts, "number")


def _pairs(words: Mapping[str, Sequence[str]], one: str, two: str) -> tuple[str, ...]:
    return tuple(f"{a}, {b}" for a, b in product(words[one], words[two]) if a != b)


def _built_in_words() -> dict[str, list[str]]:
    with importlib.resources.as_file(importlib.resources.files(__package__) / "words.csv") as path:
        return load_rows(path).by_class()


def _built_in_relations() -> tuple[Task, ...]:
    with importlib.resources.as_file(importlib.resources.files(__package__) / "pairs.csv") as path:
        return load_tasks(path, text_column="head", answer_column="tail", task_column="relation")
