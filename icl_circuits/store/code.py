"""Which code computes: a digest of sources and versions, so that a result of other code is never taken for its own."""

import hashlib
import importlib.metadata
import sys
import uuid
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import icl_circuits

OWN = "icl_circuits"
PACKAGES = (
    "torch", "transformer_lens", "transformers", "tokenizers", "safetensors", "gguf", "numpy", "scipy", "pandas",
    "scikit-learn",
)  # fmt: skip
KINDS = (".py", ".csv", ".jsonl", ".conllu")
"""What decides what is computed: code, and data that comes with it."""


def code_version(module: str = OWN) -> str:
    """A SHA-256 of the sources of a module's package; of icl_circuits, also the versions of what it computes with.

    Code that stands in no file, as in a notebook, is like no other.
    """
    package = module.partition(".")[0]
    if package == OWN:
        return _own_version()
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return uuid.uuid4().hex
    path = Path(file)
    return str(_digest(path.parent.rglob("*") if path.name == "__init__.py" else path.parent.glob("*.py")).hexdigest())


@cache
def _own_version() -> str:
    found = _digest(Path(icl_circuits.__path__[0]).rglob("*"))
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found.update(f"{package}=={importlib.metadata.version(package)}\n".encode())
    return str(found.hexdigest())


def _digest(paths: Iterable[Path]) -> Any:
    found = hashlib.sha256()
    for path in sorted(paths):
        if path.suffix in KINDS and path.is_file():
            found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found
