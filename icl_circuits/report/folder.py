"""A folder that appears whole or not at all, and takes the place of nothing that its command did not write."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from icl_circuits.errors import InputError
from icl_circuits.report.manifest import What, is_unchanged, read_manifest, write_manifest
from icl_circuits.report.replacing import NEW, replace, restore
from icl_circuits.stopping import unbroken, undone_if_stopped

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENAMETOOLONG)
"""What the disk may say in the middle of a run."""


@contextmanager
def new_folder(out: Path, what: What, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `out` whose files move to `out` when the block ends well, and vanish when it does not.

    Only files that a manifest shows to be of an earlier `what`, unchanged, are ever replaced.

    Raises:
        InputError: `out` exists and `force` is not set; it holds other things than an earlier `what`, or that was
            changed; another run writes there; it cannot be written; it is named like a page.
    """
    out = _resolved(out)
    with _workplace(out) as work:
        _require_replaceable(out, what, force)
        (work / NEW).mkdir()
        try:
            yield work / NEW
            write_manifest(work / NEW, what)
            replace(work, out, force=force)
        except Exception as error:
            room = _no_room(error)
            if room is None:
                raise
            raise InputError(f"cannot write {str(out)!r}: {room.strerror}; name a folder on another disk") from error


def _no_room(error: BaseException | None) -> OSError | None:
    """The disk's error, also where what writes a file stumbled over it with an error of its own (PDFs do)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return error
        error = error.__cause__ or error.__context__
    return None


def _resolved(out: Path) -> Path:
    if out.suffix == ".html":
        raise InputError(f"--out {str(out)!r} names a page, but this command writes a folder: leave out .html")
    try:
        found = out.expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            found.lstat()
        return found
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that no disk takes
        raise InputError(f"--out {str(out)!r} cannot be a folder ({error}): name another one") from error


def _require_replaceable(out: Path, what: What, force: bool) -> None:
    named = f"--out {str(out)!r}"
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise InputError(f"{named} is a file: name a folder")
    if out.is_mount() or not os.access(out, os.W_OK | os.X_OK):
        raise InputError(f"{named} cannot be written: name a folder inside it, or another one")
    manifest = read_manifest(out)
    if any(out.iterdir()):
        if manifest is None:
            raise InputError(f"{named} exists and was not written by this command: name another folder")
        if manifest.what != what:
            raise InputError(f"{named} holds {manifest.what}, not {what}: name another folder")
    if not force:
        raise InputError(f"{named} exists already: give --force to replace it, or name another folder")
    for name, digest in manifest.files.items() if manifest is not None else ():
        if os.path.lexists(out / name) and not is_unchanged(out, name, digest):
            raise InputError(f"{str(out / name)!r} was changed since it was written: move it, or name another folder")


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside `out` for one run at a time. What a killed one left there is put right first.

    Raises:
        InputError: the folder beside cannot be written, or another run works there.
    """
    work = out.parent / f".icl-circuits-{hashlib.sha256(os.fsencode(out.name)).hexdigest()[:12]}"
    made = [folder for folder in out.parents if not folder.exists()]
    lock = FileLock(work / "lock", thread_local=False)  # a signal may end the work in another thread
    clear = partial(_clear, lock, work, out, made)
    with undone_if_stopped(clear):
        try:
            _begin(lock, work, out)
            restore(work, out)
            yield work
        finally:
            clear()


def _begin(lock: FileLock, work: Path, out: Path) -> None:
    try:
        with unbroken():
            work.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another run is writing {str(out)!r}: wait for it, or name another folder") from error
    except OSError as error:
        raise InputError(f"cannot write to {str(out.parent)!r}: {error.strerror}") from error


def _clear(lock: FileLock, work: Path, out: Path, made: list[Path]) -> None:
    """End the work: put back what was moved, remove the workplace, and folders made for it that hold nothing."""
    if lock.is_locked:
        restore(work, out)
        shutil.rmtree(work, ignore_errors=True)
    for folder in (work, *made):
        with suppress(OSError):
            folder.rmdir()
    lock.release()
