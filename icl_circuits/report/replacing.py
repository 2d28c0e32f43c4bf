"""A new report takes the place of an old one: whole, or not at all, and next to what else the folder holds.

The old files move into a workplace, the new ones out of it. A journal says how far that got, so that `restore` can
put everything back, whenever the process was ended.
"""

import json
import shutil
from contextlib import suppress
from os.path import lexists
from pathlib import Path

from icl_circuits.errors import InputError
from icl_circuits.report.manifest import is_unchanged, read_manifest

NEW, OLD, JOURNAL = "new", "old", "journal.json"
"""What a workplace holds: the new report, the files that it replaces, and how far that got."""


def replace(work: Path, out: Path, *, force: bool) -> None:
    """Put the report in `work / "new"`, which has a manifest, into the folder `out`.

    Args:
        work: the workplace, on the same disk as `out`.
        out: may hold other files, which stay where they are.
        force: take the place of the report that `out` holds.

    Raises:
        InputError: a file that is not of the old report has the name of a new one; the new report is kept beside.
    """
    if not lexists(out) or (out.is_dir() and not any(out.iterdir())):
        with suppress(OSError):  # it came about a moment ago
            (work / NEW).rename(out)
            return
    before, after = (read_manifest(folder) for folder in (out, work / NEW))
    own = before.files if force and before is not None else {}
    old = [name for name, digest in own.items() if is_unchanged(out, name, digest)]
    new = dict(after.files) if after is not None else {}
    taken = _taken(out, new, old)
    if taken is not None:
        kept = _keep(work, out)
        raise InputError(
            f"{str(taken)!r} is not of what is replaced here, and is left as it is: what was made is in {str(kept)!r}"
        )
    begun = work / f"{JOURNAL}.begun"
    begun.write_text(json.dumps(new), encoding="utf-8")
    begun.rename(work / JOURNAL)
    for name in old:
        _move(out / name, work / OLD / name)
    _remove_empty(out, old)
    for name in new:
        _move(work / NEW / name, out / name)
    (work / JOURNAL).unlink()  # from here on the new report stands


def restore(work: Path, out: Path) -> None:
    """Put back what a `replace` that was ended had moved, and remove what the workplace holds.

    Raises:
        InputError: something else has taken the place of a file of the old report, which stays in the workplace.
    """
    if (work / JOURNAL).exists():
        new = json.loads((work / JOURNAL).read_text(encoding="utf-8"))
        for name, digest in new.items():
            if not lexists(work / NEW / name) and is_unchanged(out, name, digest):
                _move(out / name, work / NEW / name)
        _remove_empty(out, list(new))
        for path in [path for path in (work / OLD).rglob("*") if not path.is_dir()]:
            place = out / path.relative_to(work / OLD)
            if lexists(place):
                raise InputError(
                    f"a command was killed while it replaced {str(out)!r}, and {str(place)!r} has come about since: "
                    f"the file of the old report is {str(path)!r}; move one of the two"
                )
            _move(path, place)
        (work / JOURNAL).unlink()
    for folder in (NEW, OLD):
        shutil.rmtree(work / folder, ignore_errors=True)


def _taken(out: Path, new: dict[str, str], old: list[str]) -> Path | None:
    """What stands where a new file is to be, and is none of the `old` ones."""
    if lexists(out) and not out.is_dir():
        return out
    for name in new:
        above = [parent for parent in (out / name).parents if out in parent.parents and lexists(parent)]
        blocked = [parent for parent in above if parent.is_symlink() or not parent.is_dir()]
        if blocked or (name not in old and lexists(out / name)):
            return (blocked or [out / name])[0]
    return None


def _keep(work: Path, out: Path) -> Path:
    """The new report under a name of its own beside `out`."""
    number = 2
    while lexists(beside := out.with_name(f"{out.name}-{number}")):
        number += 1
    return (work / NEW).rename(beside)


def _move(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)


def _remove_empty(out: Path, names: list[str]) -> None:
    """Remove the folders inside `out` that held the files `names` and hold nothing more."""
    above = {parent for name in names for parent in (out / name).parents if out in parent.parents}
    for folder in sorted(above, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):
            folder.rmdir()
