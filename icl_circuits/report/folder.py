"""A folder that appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from icl_circuits.errors import InputError


def is_report(folder: Path) -> bool:
    """Whether `folder` was written by `write_report`."""
    return (folder / "results.json").is_file()


@contextmanager
def new_folder(out: Path, *, force: bool, ours: Callable[[Path], bool] = is_report) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and is removed when it does not.

    Raises:
        InputError: `out` exists and `force` is not set, `out` is neither empty nor `ours` (by default: a report), or
            its parent cannot be written; `out` is named like a page.
    """
    if out.suffix == ".html":
        raise InputError(f"--out {str(out)!r} names a page, but this command writes a folder: leave out .html")
    out = out.resolve()
    if out.exists():
        if not out.is_dir():
            raise InputError(f"--out {str(out)!r} is a file: name a folder")
        if any(out.iterdir()) and not ours(out):
            raise InputError(f"--out {str(out)!r} exists and was not written by this command: name another folder")
        if not force:
            raise InputError(f"--out {str(out)!r} exists already: give --force to replace it, or name another folder")
    with _workplace(out) as work:
        new, old = work / "new", work / "old"
        new.mkdir()
        try:
            yield new
            if out.exists():
                out.rename(old)
            new.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, removed at the end; so are folders made for it, where `out` did not come about.

    Raises:
        InputError: the folder beside cannot be written.
    """
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write to {str(out.parent)!r}: {error.strerror}") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not out.exists():
            for folder in made:
                folder.rmdir()
