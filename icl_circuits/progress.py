"""Progress bars for long steps: shown in a terminal or a notebook, silent in a pipe."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate over `items` behind a bar that names the step; the bar leaves no line when it ends."""
    return tqdm(items, desc=description, leave=False, disable=None)
