"""Models with their training history: a folder of checkpoints, one of which is built in."""

import re
from pathlib import Path
from typing import Literal

from icl_circuits.errors import InputError

SMALL = "icl-small"
"""The small model that comes with the package."""
BUILT_IN = {SMALL: Path(__file__).with_name("icl_small")}
OwnTexts = Literal["words", "dependencies", "triplets", "tasks", "long"]
OWN_FILES: dict[OwnTexts, str] = {
    "words": "words.csv", "dependencies": "dependencies.conllu", "triplets": "triplets.jsonl", "tasks": "tasks.csv",
    "long": "texts.jsonl",
}  # fmt: skip
"""Texts that a series may bring, in the language that it was trained on."""
OWN_QUESTION, OWN_BETWEEN = "{} :", "\n"
"""How that language asks about a word, and what stands behind an answer."""
STEP = re.compile(r"step-?(\d+)")
"""What the folder of a checkpoint is called: `step-001000`, after 1,000 steps."""


def series_folder(name: str) -> Path | None:
    """The folder of checkpoints that `name` is, or None: it is something else."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() and not (folder / "config.json").exists() and _steps(folder) else None
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user: no folder of checkpoints
        return None


def checkpoints(name: str) -> tuple[int, ...]:
    """The training steps that a series of checkpoints on this machine has, in order.

    Args:
        name: `icl-small` (built in), or a folder whose subfolders are called `step-000100` and so on, each of them a
            Hugging Face folder.

    Raises:
        InputError: no such series.
    """
    folder = series_folder(name)
    if folder is None:
        raise InputError(
            f"model {name!r} is no series of checkpoints on this machine: give {SMALL!r}, or a folder of folders "
            "step-000100 and so on; name the steps of a model of the Hub yourself"
        )
    return tuple(sorted(_steps(folder)))


def checkpoint_folder(name: str, folder: Path, checkpoint: int | None) -> Path:
    """The folder of one checkpoint of the series in `folder`; None: the last.

    Raises:
        InputError: no such checkpoint.
    """
    steps = _steps(folder)
    wanted = max(steps) if checkpoint is None else checkpoint
    if wanted not in steps:
        raise InputError(f"model {name!r} has no checkpoint {checkpoint}: it has {', '.join(map(str, sorted(steps)))}")
    return steps[wanted]


def own_texts(name: str, kind: OwnTexts) -> str | None:
    """The path of a file of texts that a series of checkpoints brings, or None: it brings none, or is no series."""
    folder = series_folder(name)
    path = folder and folder / OWN_FILES[kind]
    return str(path) if path and path.is_file() else None


def _steps(folder: Path) -> dict[int, Path]:
    found = ((STEP.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in found if match and (path / "config.json").is_file()}
