"""Signals are obeyed at once, wherever they fall: what was begun is undone, then the process ends.

A handler that raised would be ignored inside a destructor, and one alone would wait for a long computation to end.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType

SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE = 0.3
"""Seconds that a computation outside Python is given to come back, before another thread ends the process."""

_begun: list[Callable[[], None]] = []
_unbroken: list[None] = []
_late: list[int] = []
_ending = threading.RLock()


@contextmanager
def undone_if_stopped(undo: Callable[[], None]) -> Iterator[None]:
    """Should a signal end the process inside the block, `undo` is called first, perhaps more than once."""
    _begun.append(undo)
    try:
        yield
    finally:
        _begun.remove(undo)


@contextmanager
def unbroken() -> Iterator[None]:
    """A signal that comes inside the block, which takes no time, is obeyed at its end."""
    _unbroken.append(None)
    try:
        yield
    finally:
        _unbroken.pop()
        if _late:
            _end(_late[0])


@cache
def obey_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end the process, with exit code 128 and their number: 130, 143, 129.

    A signal that the process was started to ignore (`nohup`) stays ignored. For the main thread of a program.
    """
    os.register_at_fork(after_in_child=_begun.clear)  # what a process began, its children do not undo
    obeyed = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, obeyed), daemon=True).start()
    for number in obeyed:
        signal.signal(number, _obey)


def _obey(number: int, _: FrameType | None) -> None:
    if _unbroken:
        _late.append(number)
    else:
        _end(number)


def _watch(reader: int, obeyed: list[signal.Signals]) -> None:
    """End the process where the main thread does not come to it."""
    while (number := os.read(reader, 1)[0]) not in obeyed:
        pass
    time.sleep(PATIENCE)
    _end(number)


def _end(number: int) -> None:
    with _ending:  # the other thread waits here until the process is no more
        for undo in reversed(_begun):
            with suppress(Exception):
                undo()
        os._exit(128 + number)
