"""What a command wrote into a folder: the names and hashes of its files, so that it replaces these and no others."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

NAME = "manifest.json"
"""Its name in a folder."""
What = Literal["results", "figures", "checkpoints", "batch"]
"""What a folder holds: results of a study or a report, figures alone, checkpoints of a model, or tables of a batch."""


@dataclass(frozen=True)
class Manifest:
    """The files that a command wrote into a folder."""

    what: What
    files: Mapping[str, str]
    """The SHA-256 of each by its path in the folder, with slashes; of the manifest itself too, where it is known."""


def write_manifest(folder: Path, what: What) -> None:
    """Describe every file of `folder` in its manifest."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    about = {"written_by": "icl-circuits", "what": what, "files": {name: sha256(folder / name) for name in names}}
    (folder / NAME).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """What `write_manifest` wrote into `folder`; None where there is no such thing."""
    try:
        about = json.loads((folder / NAME).read_text(encoding="utf-8"))
        files = {str(name): str(digest) for name, digest in about["files"].items() if _is_inside(name)}
        found = Manifest(about["what"], files | {NAME: sha256(folder / NAME)})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    is_ours = about.get("written_by") == "icl-circuits" and found.what in get_args(What)
    return found if is_ours else None


def is_unchanged(folder: Path, name: str, digest: str) -> bool:
    """Whether a file of `folder` is what was written, and lies in the folder itself, not behind a link."""
    path = folder / name
    inside = [path, *(parent for parent in path.parents if folder in parent.parents)]
    try:
        return not any(part.is_symlink() for part in inside) and path.is_file() and sha256(path) == digest
    except (OSError, ValueError):  # a name that no disk takes
        return False


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_inside(name: str) -> bool:
    """Whether `name` is a path that cannot lead out of a folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and bool(path.parts) and ".." not in path.parts
