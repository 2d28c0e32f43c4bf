"""Messages in the words of the command line: options in place of arguments."""

import re
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from icl_circuits.jobs import job


def with_options(message: str) -> str:
    """A message with `--text-column` for `text_column`, and `--backend bridge` for `backend='bridge'`.

    What stands in quotes is the user's own, and stays.
    """
    names = _names()
    given = re.compile(rf"(?<![\w'-])({'|'.join(names)})=(['\"])([\w.-]+)\2")
    named = re.compile(rf"(?<![\w'./-])({'|'.join(name for name in names if '_' in name)})(?![\w']|\.\w)")
    quoted = re.compile(r"('[^']*')(?=[ ,;:.)]|$)")
    message = given.sub(lambda found: f"{_option(found[1])} {found[3]}", message)
    parts = quoted.split(message)
    parts[::2] = [named.sub(lambda found: _option(found[1]), part) for part in parts[::2]]
    return "".join(parts)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@cache
def _names() -> tuple[str, ...]:
    """The fields of jobs: arguments in Python, options on the command line."""
    kinds: list[Any] = [kind for kind in vars(job).values() if isinstance(kind, type) and is_dataclass(kind)]
    return tuple(dict.fromkeys(field.name for kind in kinds for field in fields(kind)))
