"""The one error that bad input raises."""

from collections.abc import Sequence


class InputError(ValueError):
    """Input that cannot be analysed. The message names the input, the problem and the mend.

    The command line prints the message alone and exits with code 2; every other exception is a bug and keeps its
    traceback.
    """


def require_one_of(value: object, choices: Sequence[str], what: str) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{what} {value!r} is unknown: use one of {', '.join(choices)}")
