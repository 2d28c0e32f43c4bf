"""Progress of long steps: a bar in a terminal or notebook, one line in a log."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def tracked(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate over `items` behind a bar that names the step and goes when it ends; elsewhere name the step once."""
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(items, desc=description, leave=False)
    print(f"{description} ...", file=sys.stderr, flush=True)
    return items


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)
