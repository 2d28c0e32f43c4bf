"""A task that levels of in-context learning are measured on: texts, each with one of a few labels."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from icl_circuits.errors import InputError, require_one_of
from icl_circuits.prompts import Rows, require_characters, shown

AnswerFormat = Literal["number", "label"]
"""Which next tokens keep to a task's format: any number, or one of its labels."""


@dataclass(frozen=True)
class LevelTask:
    """A classification task, written `apple, January: 0` in prompts."""

    name: str
    labels: tuple[str, ...]
    """What stands behind the colon, without the space before."""
    texts: tuple[tuple[str, ...], ...]
    """The texts of each label, in the order of `labels`; no text twice."""
    format: AnswerFormat

    def __post_init__(self) -> None:
        require_one_of(self.format, get_args(AnswerFormat), f"task {self.name!r}: format")
        if not all(isinstance(label, str) for label in self.labels):
            raise InputError(f"task {self.name!r} has labels {shown(list(self.labels))}: give words")
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise InputError(f"task {self.name!r} has labels {shown(list(self.labels))}: give at least two, each once")
        for label in self.labels:
            require_characters(label, f"task {self.name!r}, label")
            if not label or label != label.strip():
                raise InputError(f"task {self.name!r}: label {shown(label)}: give a word without spaces around it")
            if self.format == "number" and not label.isdecimal():
                raise InputError(f"task {self.name!r}: label {shown(label)} is no number: use format 'label'")
        if len(self.texts) != len(self.labels):
            raise InputError(
                f"task {self.name!r} has {len(self.labels)} labels, but texts of {len(self.texts)}: give each its texts"
            )
        for label, texts in zip(self.labels, self.texts, strict=True):
            if not texts:
                raise InputError(f"task {self.name!r} has no texts for label {shown(label)}: give some words")
        text, times = Counter(chain(*self.texts)).most_common(1)[0]
        if times > 1:
            raise InputError(f"task {self.name!r} has {shown(text)} {times} times: give each text one label")

    @property
    def chance(self) -> float:
        """Accuracy of always giving the same label, where each is right equally often."""
        return 1 / len(self.labels)


def row_task(rows: Rows, labels: Mapping[str, str] | None = None) -> LevelTask:
    """Make a task of any data set. Its format is kept by the label words alone.

    Args:
        rows: as `load_rows` gives them. A text that comes again counts for the first class it came with.
        labels: the label word of each class, in the order wanted; classes left out are not asked for. Default: the
            names of all classes.

    Raises:
        InputError: a class that the data set does not have, and labels that are none for a `LevelTask`.
    """
    if labels is not None and not isinstance(labels, Mapping):
        raise InputError(f"labels are {shown(labels)}: give the label word of each class, as {{'fruit': '0'}}")
    texts = rows.by_class()
    labels = {name: name for name in texts} if labels is None else labels
    unknown = next((name for name in labels if name not in texts), None)
    if unknown is not None:
        raise InputError(f"data {rows.name!r} has no class {shown(unknown)}: its classes are {shown(list(texts))}")
    return LevelTask(rows.name, tuple(labels.values()), tuple(tuple(texts[name]) for name in labels), "label")
