"""Failures of other people's code, which meets models that nobody thought of in many ways, as one kind of error."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from icl_circuits.errors import InputError, in_one_line


@contextmanager
def told(problem: str, fix: str = "") -> Iterator[None]:
    """Raise `InputError` for whatever fails in the block, its cause in brackets between `problem` and `fix`.

    Errors that say so themselves pass, and so does want of memory.
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(f"{problem} ({in_one_line(error)}){fix}") from error
