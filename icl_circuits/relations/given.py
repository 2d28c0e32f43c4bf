"""The file of a corpus as people name it: a built-in one, or a path."""

import importlib.resources
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from icl_circuits.errors import InputError
from icl_circuits.prompts import kind, path_of, shown


@contextmanager
def corpus_file(data: object, built_in: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """What a corpus is called, and its file, which is there within the block.

    Args:
        data: a built-in name, or a path.
        built_in: the file of this room behind each name.

    Raises:
        InputError: neither, or no such file.
    """
    names = " or ".join(map(repr, built_in))
    if not isinstance(data, str | Path):
        raise InputError(f"data is {kind(data)}: give a file's path, or {names} (built in)")
    name = str(data)
    if name in built_in:
        with importlib.resources.as_file(importlib.resources.files(__package__) / built_in[name]) as path:
            yield name, path
        return
    if "://" in name:
        raise InputError(f"data {shown(name)} is a web address: download it, and give the file")
    path = path_of(data)
    if not name or not path.exists():
        raise InputError(f"file {shown(name)} does not exist: check the path, or use {names} (built in)")
    yield name, path
