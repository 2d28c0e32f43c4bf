"""What tells words apart: the tokens that all begin with, and the next one of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile

from icl_circuits.errors import InputError


@dataclass(frozen=True)
class Apart:
    """The first tokens that all words share, which join the prompt, and the next token of each, which is predicted."""

    shared: list[int]
    following: list[int]


def tell_apart(words: Sequence[Sequence[int]], names: Sequence[str], *, about: str = "") -> Apart:
    """Find where words differ.

    Args:
        words: the tokens of each word, as they stand behind their prompt; at least two.
        names: what a message calls each.
        about: the argument that gives them, for `InputError`.

    Raises:
        InputError: two words with the same next token, or one that ends where others go on.
    """
    shared = [column[0] for column in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*words, strict=False))]
    rest = [tuple(word[len(shared) : len(shared) + 1]) for word in words]
    for (i, a), (j, b) in combinations(enumerate(rest), 2):
        if a == b or not a or not b:
            raise InputError(f"no token tells {names[i]} from {names[j]}: choose another word", about=about)
    return Apart(shared, [token for (token,) in rest])
