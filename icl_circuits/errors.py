"""The error that bad input raises, and its one kind that a report goes on after."""

from collections.abc import Sequence
from typing import SupportsIndex


class InputError(ValueError):
    """Input that cannot be analysed. The message names the input, the problem and the fix.

    The command line prints the message alone and exits with code 2; every other exception is a bug and keeps its
    traceback. `about` is the argument to change, where the message does not name it: the command line adds its option.
    """

    def __init__(self, message: str = "", *, about: str = "") -> None:
        """Take the message, and perhaps the argument that it is about."""
        super().__init__(message)
        self.about = about


class Unfit(InputError):  # noqa: N818
    """A model or data set that an analysis cannot be done on, however it is asked: no mistake of the user's.

    Several studies in one report go on without the one that raises it, and say what was left out and why.
    """


def require_whole(value: object, least: int, problem: str) -> None:
    """Raise `InputError(problem)` unless `value` is a whole number, `least` or more."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or value.__index__() < least:
        raise InputError(problem)


def require_one_of(value: object, choices: Sequence[str], what: str) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{what} {value!r} is unknown: use one of {', '.join(choices)}")


def in_one_line(error: Exception) -> str:
    """The kind of an error and its words, in one line of at most 160 characters."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= 160 else line[:157] + "..."
