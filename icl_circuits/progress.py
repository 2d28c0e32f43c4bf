"""Progress of long work: one bar for a whole run in a terminal or notebook, a plain line for each step in a log."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

LAYOUT = "{desc} {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left"
_run: "_Run | None" = None
"""The run whose steps are shown now."""


@contextmanager
def run_of(steps: Sequence[str], *, seconds: Mapping[str, float] | None = None, unit: str = "step") -> Iterator[None]:
    """Show everything inside as one run.

    Args:
        steps: their names, in order. A step that does not come is passed over; one that is not named is put in.
        seconds: what steps took in earlier runs, to say how much time is left. Others count as their mean.
        unit: what a step is called.
    """
    global _run  # noqa: PLW0603
    outer, mine = _run, _Run(steps, seconds or {}, unit)
    _run = mine
    try:
        yield
    finally:
        mine.close()
        _run = outer
    mine.say_done()


@contextmanager
def step(name: str) -> Iterator[None]:
    """A step of the run. Inside another it is a part of that. Outside a run nothing is shown."""
    if _run is None:
        yield
        return
    with _run.step(name):
        yield


def taken(name: str) -> None:
    """Say that a step need not be computed."""
    line = f"{name}: taken from the store"
    if _run is None:
        say(line)
    else:
        _run.taken(name, line)


def tracked(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate over `items`, and show how far that is.

    In a run it moves the run's bar. Elsewhere it has a bar of its own, or, in a log, a line.
    """
    if _run is not None:
        return _run.tracked(items)
    if _has_bars():
        return tqdm(items, desc=description, leave=False)
    print(f"{description} ...", file=sys.stderr, flush=True)
    return items


def say(line: str) -> None:
    """One line of progress, above the bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def clear() -> None:
    """Take the bar away, until it moves, so that a line can be written in its place."""
    if _run is not None and _run.bar is not None:
        _run.bar.clear()


def _has_bars() -> bool:
    """Whether bars can be drawn: in a terminal, or in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or hasattr(shell, "kernel")


class _Run:
    """The steps of a run: which one is computed, and how much of it is done."""

    def __init__(self, steps: Sequence[str], seconds: Mapping[str, float], unit: str) -> None:
        self.steps, self.unit, self.begun = [*steps], unit, time.monotonic()
        known = [seconds[name] for name in steps if name in seconds]
        self.usual = sum(known) / len(known) if known else 1.0
        self.seconds = [seconds.get(name, self.usual) for name in steps]
        self.place = 0
        """How many steps are behind."""
        self.open: list[str] = []
        """The step that is computed, and its part, of which that is the last."""
        self.left, self.is_tracked = 1.0, False
        """The share of the step that is left, and whether a loop fills it already."""
        total = sum(self.seconds)
        self.bar = tqdm(total=total, bar_format=LAYOUT, smoothing=0, leave=False) if _has_bars() else None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if not self.open:
            self._go_to(name)
        self.open.append(name)
        self._show()
        try:
            yield
        finally:
            self.open.pop()
            if not self.open:
                self._end(worked=True)

    def taken(self, name: str, line: str) -> None:
        if self.open:
            self._show(line)
            return
        self._go_to(name)
        self._show(line)
        self._end(worked=False)

    def tracked(self, items: Sequence[T]) -> Iterator[T]:
        """Each loop fills half of what is left of its step, since nobody knows how many are to come."""
        if self.is_tracked or not self.open:
            yield from items
            return
        self.is_tracked, before = True, self.left
        try:
            for i, item in enumerate(items, start=1):
                yield item
                self.left = before * (1 - i / len(items) / 2)
                self._move()
        finally:
            self.is_tracked = False

    def say_done(self) -> None:
        say(f"{self.place} {self.unit}{'s' if self.place > 1 else ''} in {self._passed()}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _go_to(self, name: str) -> None:
        """Make a step the next one. Those passed over took no time."""
        if name not in self.steps[self.place :]:
            self.steps.insert(self.place, name)
            self.seconds.insert(self.place, self.usual)
        while self.steps[self.place] != name:
            self._end(worked=False)

    def _end(self, *, worked: bool) -> None:
        if self.bar is not None and not worked:
            self.bar.initial += self.seconds[self.place]  # done at once, which says nothing of the pace
        self.place, self.left = self.place + 1, 1.0
        self._move()

    def _move(self) -> None:
        if self.bar is None:
            return
        now = self.seconds[self.place] * (1 - self.left) if self.place < len(self.seconds) else 0
        self.bar.total = sum(self.seconds)
        self.bar.update(sum(self.seconds[: self.place]) + now - self.bar.n)

    def _show(self, line: str = "") -> None:
        named = ": ".join([*self.open, line] if line else self.open)
        where = f"{self.unit} {self.place + 1} of {len(self.steps)}: {named}"
        if self.bar is not None:
            self.bar.set_description(where)
            return
        say(f"[{self._passed()}] {where}")

    def _passed(self) -> str:
        return str(tqdm.format_interval(time.monotonic() - self.begun))
