"""GGUF files, parsed once: transformers parses one again for its configuration, its tokenizer and its weights."""

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest import mock

import numpy as np


@contextmanager
def parsed_once() -> Iterator[None]:
    """Parse each GGUF file once inside the block, and make each table of its tensors' names once.

    A block inside such a block shares what the outer one parsed. Without the gguf package this does nothing.
    """
    with ExitStack() as stack:
        if importlib.util.find_spec("gguf"):
            import gguf
            from transformers import modeling_gguf_pytorch_utils as of_transformers

            if not hasattr(gguf.GGUFReader, "cache_info"):
                read, names = cache(_quick(gguf.GGUFReader)), cache(gguf.get_tensor_name_map)
                load = _once(of_transformers.load_gguf_checkpoint)
                stack.enter_context(mock.patch.object(gguf, "GGUFReader", read))
                stack.enter_context(mock.patch.object(gguf, "get_tensor_name_map", names))
                stack.enter_context(mock.patch.object(of_transformers, "load_gguf_checkpoint", load))
        yield


def _quick(reader: Any) -> Any:
    """The reader, on a plain view of the mapped file: each slice of a memory map itself costs a call of Python's."""
    mapped = np.memmap

    def read(path: str) -> Any:
        with mock.patch.object(np, "memmap", lambda *args, **options: np.asarray(mapped(*args, **options))):
            return reader(path)

    return read


def _once(load: Any) -> Any:
    """Transformers's loader, its Python values of a file's fields made once unless tensors are asked for."""
    known = cache(load)

    def load_once(path: str, return_tensors: bool = False, **options: Any) -> Any:
        if return_tensors:
            return load(path, return_tensors, **options)
        return {part: dict(fields) for part, fields in known(path).items()}  # callers change their configuration

    return load_once
