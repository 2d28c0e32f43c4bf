"""The one error that bad input raises."""


class InputError(ValueError):
    """Input that cannot be analysed. The message names the input, the problem and the mend.

    The command line prints the message alone and exits with code 2; every other exception is a bug and keeps its
    traceback.
    """
