"""Messages in the words of the command line: options in place of arguments."""

import re
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from icl_circuits.jobs import job


def with_options(message: str) -> str:
    """A message with options for arguments: `text_column`, `backend='bridge'`, and, where it begins so, `seed is`.

    What stands in quotes is the user's own, and stays.
    """
    names = _names()
    begins = re.compile(rf"^({'|'.join(names)})(?= is )")
    given = re.compile(rf"(?<![\w'-])({'|'.join(names)})=(['\"])([\w.-]+)\2")
    named = re.compile(rf"(?<![\w'./-])({'|'.join(name for name in names if '_' in name)})(?![\w']|\.\w)")
    quoted = re.compile(r"('[^']*')(?=[ ,;:.)]|$)")
    message = begins.sub(lambda found: _option(found[1]), message)
    message = given.sub(lambda found: f"{_option(found[1])} {found[3]}", message)
    parts = quoted.split(message)
    parts[::2] = [named.sub(lambda found: _option(found[1]), part) for part in parts[::2]]
    return "".join(parts)


def error_line(error: Exception) -> str:
    """The message of an error in the words of the command line, with the option to change."""
    line, about = with_options(str(error)), getattr(error, "about", "")
    known = about in _names() and _option(about) not in line
    return f"{line} ({_option(about)})" if known else line


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@cache
def _names() -> tuple[str, ...]:
    """The fields of jobs: arguments in Python, options on the command line."""
    kinds: list[Any] = [kind for kind in vars(job).values() if isinstance(kind, type) and is_dataclass(kind)]
    return tuple(dict.fromkeys(field.name for kind in kinds for field in fields(kind)))
