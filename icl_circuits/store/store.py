"""The store: a folder with one file for each finished step, and a lock for each that is being computed.

A file's name is its key, a digest of everything that the step's numbers depend on, and a digest of its bytes. It is
written beside and renamed, so it is whole or not there, and whoever reads it sees at once whether it is as written.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from icl_circuits.costs import Cost
from icl_circuits.errors import InputError
from icl_circuits.progress import say
from icl_circuits.store.codec import about_of, packed, unpacked

FORMAT = 1
"""Of the files. Those of another are of no use."""
SUFFIX, BEGUN = ".step", ".begun"
DAY, WRITING = 24 * 3600, 3600
"""In seconds: a day, and the longest that a file is being written."""
DIGITS = 16
"""Of the digest of a file's bytes, in its name."""
STEPS, MODELS, LOCKS = "steps", "models", "locks"
VARIABLE = "ICL_CIRCUITS_STORE"
"""Of the environment."""
MARK = "icl-circuits-store"
"""A file that tells a store from any other folder."""


def default_folder() -> Path:
    """The store's folder where none is named: what `ICL_CIRCUITS_STORE` says, else in the user's folder for caches."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else user_cache_path("icl_circuits") / "store"


@dataclass(frozen=True)
class Kept:
    """The result of a step, from the store."""

    value: Any
    cost: Cost
    """What it cost when it was computed."""


@dataclass(frozen=True)
class Listed:
    """A step in the store, for people."""

    step: str
    model: str
    data: str
    cost: Cost
    size: int
    """Bytes of the file."""
    used: float
    """When it was written or last read, in seconds since 1970."""
    path: Path


class Store:
    """Finished steps by key. Several runs may share one, on one machine or on a file system that they share."""

    def __init__(self, folder: Path) -> None:
        """Open the store in `folder`, or make one.

        Raises:
            InputError: `folder` holds other things, is none, or cannot be written.
        """
        named = f"store {str(folder)!r}"
        try:
            self.folder = folder.expanduser().absolute()
            if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / MARK).is_file():
                raise InputError(f"{named} holds other things: name an empty folder, or one that does not exist")
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MARK).touch()  # first, so that a run killed here leaves a store
            for part in (STEPS, MODELS, LOCKS):
                (self.folder / part).mkdir(exist_ok=True)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such user; ValueError: a null byte
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{named} cannot be written ({why}): name another with --store") from error

    def get(self, key: str) -> Kept | None:
        """The step with this key, or None. What is there and of no use is said; a damaged file is removed."""
        for path in self._files(key):
            try:
                data = path.read_bytes()
                if not _is_whole(path, data):
                    warnings.warn(f"{path} in the store is damaged: the step is computed again", stacklevel=2)
                    path.unlink()
                    continue
                about = about_of(BytesIO(data).read)
                if about["format"] != FORMAT:
                    raise ValueError
                kept = Kept(unpacked(data), Cost(**about["cost"]))
                with suppress(OSError):  # another run may have removed it, or the disk may be for reading alone
                    os.utime(path)
                    (self.folder / LOCKS / key).unlink(missing_ok=True)  # left by a run killed after it kept the step
                return kept
            except FileNotFoundError:
                continue
            except OSError as error:
                warnings.warn(f"{path} in the store cannot be read ({error.strerror}): it is passed over", stacklevel=2)
            except Exception:  # whatever a file makes its readers raise that is not theirs
                warnings.warn(f"{path} in the store is of another version: the step is computed again", stacklevel=2)
        return None

    def has(self, key: str) -> bool:
        """Whether there is a file for this step, damaged or not."""
        return bool(self._files(key))

    def put(self, key: str, value: Any, cost: Cost, about: Mapping[str, str]) -> None:
        """Keep a step. A disk without room is said, and the run goes on.

        Raises:
            TypeError: a value that cannot be kept.
        """
        data = packed(value, {**about, "format": FORMAT, "cost": asdict(cost)})
        path = self._path(key, hashlib.sha256(data).hexdigest()[:DIGITS])
        try:
            _write(path, data)
        except OSError as error:
            warnings.warn(
                f"step {about['step']!r} cannot be kept in {str(self.folder)!r} ({error.strerror}): make room there, "
                "or name another store",
                stacklevel=2,
            )

    @contextmanager
    def computing(self, key: str, step: str) -> Iterator[None]:
        """Hold the lock of a step while it is computed. Where another run holds it, wait for that."""
        lock = FileLock(self.folder / LOCKS / key)
        with suppress(OSError, NotImplementedError):  # no room for a lock, or no locks here: two may compute the same
            _acquire(lock, step)
        try:
            yield
        finally:
            if lock.is_locked:
                with suppress(OSError):
                    Path(lock.lock_file).unlink()
                lock.release()

    def remembered(self, key: str) -> Any:
        """What `remember` noted of a model, or None."""
        try:
            noted = json.loads((self.folder / MODELS / key).read_text(encoding="utf-8"))
            return noted["value"] if noted["check"] == _check(noted["value"]) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def remember(self, key: str, value: Any) -> None:
        """Note something of a model, as JSON."""
        with suppress(OSError):
            _write(self.folder / MODELS / key, json.dumps({"value": value, "check": _check(value)}).encode())

    def listing(self) -> list[Listed]:
        """Every step, the one used last first."""
        found = []
        for path in (self.folder / STEPS).glob(f"*/*{SUFFIX}"):
            with suppress(Exception):  # a file that another run removes, or what a damaged one makes readers raise
                with path.open("rb") as file:
                    about, stat = about_of(file.read), path.stat()
                step, model, data = (str(about[name]) for name in ("step", "model", "data"))
                found.append(Listed(step, model, data, Cost(**about["cost"]), stat.st_size, stat.st_mtime, path))
        return sorted(found, key=lambda listed: -listed.used)

    def size(self) -> int:
        """Bytes of all files."""
        found = 0
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # another run removed it
                found += path.stat().st_size if path.is_file() else 0
        return found

    def prune(self, *, unused_days: float | int = 0) -> tuple[int, int]:
        """Remove steps that were not used for some days, and what killed runs left. Gives how many, and bytes.

        Steps that a run computes or writes now are not touched.

        Raises:
            InputError: days below 0.
        """
        if not unused_days >= 0:
            raise InputError(f"--days {unused_days} are no days: give 0 or more")
        now, n, size = time.time(), 0, 0
        for path in [*(self.folder / STEPS).glob("*/*"), *(self.folder / MODELS).iterdir()]:
            with suppress(OSError):
                stat = path.stat()
                if now - stat.st_mtime >= (WRITING if path.suffix == BEGUN else unused_days * DAY):
                    path.unlink()
                    n, size = n + (path.suffix == SUFFIX), size + stat.st_size
        for path in (self.folder / LOCKS).iterdir():
            with suppress(OSError, Timeout), FileLock(path).acquire(timeout=0):
                path.unlink()
        return n, size

    def _files(self, key: str) -> list[Path]:
        return sorted((self.folder / STEPS / key[:2]).glob(f"{key}-*{SUFFIX}"))

    def _path(self, key: str, check: str) -> Path:
        return self.folder / STEPS / key[:2] / f"{key}-{check}{SUFFIX}"


def _write(path: Path, data: bytes) -> None:
    """Write a file beside and rename it. What a killed run left under the same name is written over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_name(f".{path.name.split('-')[0]}{BEGUN}")
    try:
        with begun.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        begun.replace(path)
    except OSError:
        with suppress(OSError):
            begun.unlink()
        raise


def _acquire(lock: FileLock, step: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{step}: another run computes it; waiting")
        lock.acquire()


def _is_whole(path: Path, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest()[:DIGITS] == path.stem.split("-")[1]


def _check(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
