"""Seconds and memory of a piece of work."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    _wait()
    start = time.perf_counter()
    result = run()
    _wait()
    return time.perf_counter() - start, result


def best_of_some(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the best of up to five runs, none being begun when 10 s are over, and the result."""
    best, result = timed(run)
    total = best
    for _ in range(4):
        if total < 10:
            again, _ = timed(run)
            best, total = min(best, again), total + again
    return best, result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def with_peak(run: Callable[[], Any]) -> tuple[float, Any, int]:
    """Seconds, the result, and the peak of memory above what was in use before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds, result = timed(run)
        return seconds, result, torch.cuda.max_memory_allocated() - before
    process, stop = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    peak = [before]

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        seconds, result = timed(run)
    finally:
        stop.set()
        thread.join()
    return seconds, result, peak[0] - before
