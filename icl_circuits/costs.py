"""What steps cost: the time they took, and the prompts that were run through a model in it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one step of a run cost when it was computed."""

    seconds: float
    forwards: int
    """Prompts run through the model: each pass of each, also of a variant that starts in a later layer."""
    bytes: int
    """What the store holds of its result."""


@dataclass(eq=False)
class Tally:
    """Counts while a step is computed."""

    seconds: float = 0.0
    forwards: int = 0


_open: list[Tally] = []


def count_forwards(n: int) -> None:
    """Say that `n` prompts went through a model."""
    for tally in _open:
        tally.forwards += n


@contextmanager
def uncounted() -> Iterator[None]:
    """Count no forwards inside the block: those of checks, which are made once and not in any one step."""
    before = [(tally, tally.forwards) for tally in _open]
    try:
        yield
    finally:
        for tally, forwards in before:
            tally.forwards = forwards


@contextmanager
def tallied() -> Iterator[Tally]:
    """Count what the block costs."""
    tally, started = Tally(), time.perf_counter()
    _open.append(tally)
    try:
        yield tally
    finally:
        _open.remove(tally)
        tally.seconds = round(time.perf_counter() - started, 1)
