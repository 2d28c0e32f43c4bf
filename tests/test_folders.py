"""A command takes the place of nothing that it did not write, and is done whole or not at all, whenever it ends."""

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icl_circuits import InputError
from icl_circuits.report import new_folder
from icl_circuits.report.manifest import read_manifest, write_manifest
from icl_circuits.report.replacing import NEW, replace, restore

OLD = {"results.json": "old numbers", "figures/a.png": "old a", "figures/b.png": "old b"}
NEWER = {"results.json": "new numbers", "figures/a.png": "new a", "tables/t.csv": "new t"}
ODD_KIND = '{"written_by": "icl-circuits", "what": "pages\\nand more", "files": {}}'
OTHERS = {"notes.txt": "mine", "thesis/chapter.tex": "years of work", "figures/mine.png": "mine too"}


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def held(folder: Path) -> dict[str, str]:
    """Every file below, but for manifests."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def write(out: Path, files: dict[str, str], *, force: bool = False, meanwhile: dict[str, str] | None = None) -> None:
    with new_folder(out, "results", force=force) as folder:
        put(folder, files)
        put(out, meanwhile or {})


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder to write, beside which nothing is left."""
    yield tmp_path / "r"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_only_what_was_written_is_replaced(out: Path) -> None:
    write(out, OLD)
    assert held(out) == OLD
    put(out, OTHERS)
    with pytest.raises(InputError, match="exists already: give --force"):
        write(out, NEWER)
    write(out, NEWER, force=True)
    assert held(out) == NEWER | OTHERS
    write(out, {"only.txt": ""}, force=True)
    assert held(out) == {"only.txt": ""} | OTHERS
    assert not (out / "tables").exists()  # held files of the report alone


@pytest.mark.parametrize("name", OLD)
def test_a_report_that_was_changed_is_not_replaced(out: Path, name: str) -> None:
    write(out, OLD)
    (out / name).write_text("with my notes")
    with pytest.raises(InputError, match=f"{name}' was changed since it was written"):
        write(out, NEWER, force=True)
    assert held(out) == OLD | {name: "with my notes"}
    (out / name).unlink()
    write(out, NEWER, force=True)
    assert held(out) == NEWER


def test_what_has_no_manifest_of_its_kind_is_not_replaced(out: Path) -> None:
    put(out, {"results.json": "{}", "thesis.tex": "years of work"})
    for manifest in (None, "", "[]", "{}", '{"files": {"thesis.tex": 1}}', "[" * 100_000, '{"files": []}', ODD_KIND):
        if manifest is not None:
            (out / "manifest.json").write_text(manifest)
        with pytest.raises(InputError, match="was not written by this command"):
            write(out, NEWER, force=True)
    shutil.rmtree(out)
    write(out, OLD)
    with pytest.raises(InputError, match="holds results, not figures"), new_folder(out, "figures", force=True):
        pass
    assert held(out) == OLD


def test_a_manifest_cannot_lead_out_of_its_folder(out: Path) -> None:
    (out.parent / "outside").write_text("mine")
    write(out, OLD)
    manifest = json.loads((out / "manifest.json").read_text())
    digest = read_manifest(out).files["results.json"]  # type: ignore[union-attr]
    (out.parent / "outside").write_text("old numbers")
    for name in ("../outside", str(out.parent / "outside"), "a/../../outside", "x" * 300, "\0", "\ud800"):
        manifest["files"] = {name: digest, **manifest["files"]}
    (out / "manifest.json").write_text(json.dumps(manifest))
    write(out, NEWER, force=True)
    assert held(out.parent) == {"outside": "old numbers"} | {f"r/{name}": text for name, text in NEWER.items()}


def test_links_are_left_alone(out: Path, tmp_path: Path) -> None:
    write(out, OLD)
    put(tmp_path / "elsewhere", {"a.png": "old a", "b.png": "old b"})
    shutil.rmtree(out / "figures")
    (out / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="was changed since it was written"):
        write(out, NEWER, force=True)
    assert held(tmp_path / "elsewhere") == {"a.png": "old a", "b.png": "old b"}
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path / "link", NEWER)


@pytest.mark.parametrize("force", [False, True])
def test_what_appears_meanwhile_stays(out: Path, force: bool) -> None:
    if force:
        write(out, OLD)
    write(out, NEWER, force=force, meanwhile=OTHERS)
    assert held(out) == NEWER | OTHERS


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("mine", [{"tables/t.csv": "mine"}, {"tables": "a file"}, {"results.json": "changed"}])
def test_what_appears_in_its_place_stays_and_so_does_the_work(out: Path, force: bool, mine: dict[str, str]) -> None:
    if force:
        write(out, OLD)
    with pytest.raises(InputError, match=r"is left as it is: what was made is in '.*r-2'"):
        write(out, NEWER, force=force, meanwhile=mine)
    assert held(out) == (OLD if force else {}) | mine
    assert held(out.with_name("r-2")) == NEWER


def test_a_file_that_appears_as_the_folder_stays(out: Path) -> None:
    def appears() -> None:
        with new_folder(out, "results", force=True) as folder:
            put(folder, NEWER)
            out.write_text("mine")

    with pytest.raises(InputError, match="is left as it is"):
        appears()
    assert out.read_text() == "mine"
    assert held(out.with_name("r-2")) == NEWER


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(out: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from icl_circuits.report import new_folder\n"
        "with new_folder(Path(sys.argv[1]), 'results', force=True): print('wrote')"
    )
    with new_folder(out, "results", force=False) as folder:
        put(folder, NEWER)
        with pytest.raises(InputError, match="another run is writing"):
            write(out, OLD, force=True)
        second = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=False)
        assert "another run is writing" in second.stderr
        assert "wrote" not in second.stdout
    assert held(out) == NEWER


def test_an_error_leaves_nothing(out: Path) -> None:
    def fails() -> None:
        with new_folder(out / "deep" / "er", "results", force=False) as folder:
            put(folder, NEWER)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not out.exists()


def test_a_full_disk_is_one_error_and_leaves_the_old_report(out: Path) -> None:
    write(out, OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write .*: File too large"):
            write(out, {"big": "x" * 100_000}, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(InputError, match="cannot write .*: No space left"), new_folder(out, "results", force=True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    stumbled = AttributeError("pos")  # of a writer that stumbles over the disk's error
    stumbled.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(InputError, match="cannot write .*: No space left"), new_folder(out, "results", force=True):
        raise stumbled
    assert held(out) == OLD


@pytest.mark.parametrize(
    "name", ["x" * 256, "a/" * 3000, "nul\0", "loop/r", "~nobody-of-this-name/r", "file/r", "p.html"]
)
def test_odd_names_are_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    given = Path(name) if name.startswith("~") else tmp_path / name
    with pytest.raises(InputError, match="cannot be a folder|cannot write to|names a page"):
        write(given, NEWER)
    assert sorted(tmp_path.iterdir()) == before


# --- ended at any moment ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As kill -9: nothing after it is done."""


@pytest.mark.parametrize("others", [{}, OTHERS])
def test_a_killed_run_is_put_right_by_the_next(
    out: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, str]
) -> None:
    """Killed before each of the steps that move or remove something."""
    write(out, OLD)
    put(out, others)
    steps = {name: getattr(Path, name) for name in ("rename", "unlink", "rmdir", "mkdir", "write_text")}
    after = set()
    for moment in itertools.count():
        work = out.parent / "work"
        put(work / NEW, NEWER)
        write_manifest(work / NEW, "results")
        with monkeypatch.context() as patched:
            left = itertools.count(moment, -1)
            for name, step in steps.items():

                def killed(*given: Any, step: Any = step, left: Any = left, **options: Any) -> Any:
                    if not next(left):
                        raise Killed
                    return step(*given, **options)

                patched.setattr(Path, name, killed)
            try:
                replace(work, out, force=True)
                break
            except Killed:
                pass
        restore(work, out)
        after.add(held(out)["results.json"])
        assert held(out) in (OLD | others, NEWER | others), moment
        if held(out) != OLD | others:
            write(out, OLD, force=True)
        assert read_manifest(out) is not None
        shutil.rmtree(work)
    assert moment > 10
    assert after == {"old numbers"}
    assert held(out) == NEWER | others
    shutil.rmtree(out.parent / "work")


def test_what_takes_the_place_of_a_report_that_was_being_replaced_is_not_lost(out: Path) -> None:
    write(out, OLD)
    work = out.parent / "work"
    put(work / "old", {"results.json": "old numbers"})
    (work / "journal.json").write_text(json.dumps({"results.json": "0"}))
    (out / "results.json").write_text("mine")
    with pytest.raises(InputError, match="was killed while it replaced .*; move one of the two"):
        restore(work, out)
    assert (work / "old" / "results.json").read_text() == "old numbers"
    assert (out / "results.json").read_text() == "mine"
    (out / "results.json").unlink()
    restore(work, out)
    assert held(out) == OLD
    shutil.rmtree(work)


MOMENTS = int(os.environ.get("MOMENTS", "40"))
"""At how many random moments a run is ended."""


@pytest.mark.slow
def test_signals_at_random_moments(out: Path) -> None:
    """Of a run that replaces a report again and again, next to a file of the user's."""
    command = [sys.executable, str(Path(__file__).with_name("stopped.py")), str(out), str(MOMENTS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= MOMENTS  # as many reports were written


COMPUTING = """
import sys, numpy as np
from pathlib import Path
from icl_circuits.report import new_folder
from icl_circuits.stopping import obey_signals
obey_signals()
with new_folder(Path(sys.argv[1]), "results", force=False):
    a = np.ones((6000, 6000))
    print("computing", flush=True)
    a @ a @ a @ a
"""


@pytest.mark.slow
def test_a_signal_ends_a_long_computation(out: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", COMPUTING, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        time.sleep(0.2)
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    assert 0.2 < time.monotonic() - sent < 5  # the other thread ended it
    assert not out.exists()
