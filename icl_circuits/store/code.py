"""Which code computes: a digest of sources and versions, so that a result of other code is never taken for its own."""

import hashlib
import importlib.metadata
import sys
from functools import cache
from pathlib import Path

import icl_circuits

PACKAGES = ("torch", "transformer_lens", "transformers", "numpy", "scipy", "pandas", "scikit-learn")


@cache
def code_version(module: str = "icl_circuits") -> str:
    """A SHA-256 of the sources of a package, those of icl_circuits, and the versions of what they compute with.

    Args:
        module: the name of a module; the sources of its whole package count.
    """
    found = hashlib.sha256()
    for name in dict.fromkeys(("icl_circuits", module.split(".", maxsplit=1)[0])):
        for path in _sources(name):
            found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for package in PACKAGES:
        found.update(f"{package}=={importlib.metadata.version(package)}\n".encode())
    return found.hexdigest()


def _sources(package: str) -> list[Path]:
    if package == "icl_circuits":
        return sorted(Path(icl_circuits.__path__[0]).rglob("*.py"))
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return []
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
