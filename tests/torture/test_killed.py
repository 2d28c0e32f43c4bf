"""Runs that are killed at random moments and begun again: what comes out is what an undisturbed run gives."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from icl_circuits.models import SMALL

pytestmark = pytest.mark.torture
KILLS = int(os.environ.get("ICL_CIRCUITS_KILLS", "100"))
"""How often runs are killed, over all tests of this file that kill."""
REPORT = ("report", "--model", SMALL, "--heads", "2", "--select", "paper", "--prompts", "6", "--shots", "2")
SECONDS = re.compile(rb'("seconds": )[\d.]+|(<td>)[\d.]+(</td><td>[\d,]+</td><td>[\d,]+</td></tr>)')
"""What a run took, in `results.json` and on the page: the one thing that two runs may differ in."""
GRID = f'run = ["in-context", "circuit"]\nmodel = "{SMALL}"\nseed = [0, 1]\nheads = 2\nprompts = 6\nshots = 2\n'


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "icl_circuits", *words]


def run(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False, timeout=1200
    )


def killed_after(seconds: float, *words: str, cwd: Path) -> bool:
    """Start a command and kill it; whether it had ended by itself."""
    process = subprocess.Popen(command(*words), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert process.wait(timeout=seconds) == 0
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for how long steps took; the manifest's hashes depend on that."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("manifest.json")
    return {name: SECONDS.sub(rb"\1\2-\3", data) for name, data in files.items()}


def begun_files(folder: Path) -> list[Path]:
    """What a run leaves only while it works."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".begun"]


def until_done(times: Iterator[float], *words: str, cwd: Path) -> int:
    """Kill a command at such times until it ends by itself, and once more run it to the end."""
    kills = 0
    for seconds in times:
        if killed_after(seconds, *words, cwd=cwd):
            return kills
        kills += 1
    done = run(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return kills


def moments(n: int, longest: float, seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    return (rng.uniform(0.1, longest) for _ in range(n))


@contextmanager
def full_disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own at `folder`."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a report holds, and how long it takes."""
    folder, start = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    done = run(*REPORT, "--out", "out", "--no-store", cwd=folder)
    assert done.returncode == 0, done.stderr
    return contents(folder / "out"), time.monotonic() - start


def test_a_report_that_is_killed_ends_as_any_other(undisturbed: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    kills, round_ = 0, 0
    while kills < KILLS // 2:
        round_ += 1
        store = tmp_path / f"store{round_}"
        words = (*REPORT, "--out", "out", "--force", "--store", str(store))
        kills += until_done(moments(KILLS // 2 - kills, seconds, round_), *words, cwd=tmp_path)
        assert contents(tmp_path / "out") == expected
        assert not begun_files(tmp_path)
        again = run(*words, cwd=tmp_path)
        assert again.stderr.count("taken from the store") > 8
        assert contents(tmp_path / "out") == expected


def test_a_batch_that_is_killed_ends_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(GRID)
    start = time.monotonic()
    assert run("batch", "jobs.toml", "--out", "whole", "--store", "one", cwd=tmp_path).returncode == 0
    seconds = time.monotonic() - start
    words = ("batch", "jobs.toml", "--out", "out", "--force", "--store", "two")
    until_done(moments(KILLS // 4, seconds, 3), *words, cwd=tmp_path)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not begun_files(tmp_path)


SWEEP = """
from pathlib import Path
import icl_circuits as icl
from icl_circuits.models import identity, own_texts
from icl_circuits.store import Store
from icl_circuits.studies import Steps, save_results
model = icl.load_model("icl-small")
words = icl.load_rows(own_texts("icl-small", "words"))
batch = icl.encode(model, icl.sample_prompts(words, 24, labels=("foo", "bar"), shots=3))
steps = Steps(("sweep", identity(model)), store=Store(Path("store")))
found = {site: steps(site, lambda: icl.sweep(model, batch, site).values) for site in ("z", "q", "k", "v")}
save_results(found, "found.safetensors")
"""
FOUND = "found.safetensors"


def test_two_runs_into_one_folder_do_not_meet(undisturbed: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    words = (*REPORT, "--out", "out", "--force", "--store", "store")
    processes = [
        subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes in ([0, 0], [0, 2]), said
    assert codes == [0, 0] or any("another run is writing" in line for line in said)
    assert contents(tmp_path / "out") == undisturbed[0]
    assert not begun_files(tmp_path)


def test_two_runs_share_one_store(undisturbed: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            command(*REPORT, "--out", out, "--store", "store"), cwd=tmp_path, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        for out in ("one", "two")
    ]  # fmt: skip
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sum(text.count("taken from the store") for text in said) >= 8
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == undisturbed[0]
    assert not list((tmp_path / "store" / "locks").iterdir())


def test_a_store_that_is_damaged_anywhere_is_computed_again(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    words = (*REPORT, "--out", "out", "--force", "--store", "store")
    assert run(*words, cwd=tmp_path).returncode == 0
    rng, files = random.Random(5), sorted((tmp_path / "store").rglob("*.step"))
    for place, file in enumerate(files):
        data = bytearray(file.read_bytes())
        if place % 2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        file.write_bytes(data)
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is damaged") == len(files)
    assert contents(tmp_path / "out") == undisturbed[0]


def test_a_full_disk_for_the_store_does_not_end_a_run(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    with full_disk(tmp_path / "disk", "100k") as disk:
        done = run(*REPORT, "--out", "out", "--store", str(disk / "store"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "cannot be kept" in done.stderr
        assert contents(tmp_path / "out") == undisturbed[0]
        assert not begun_files(disk)


def test_a_full_disk_for_the_folder_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "300k") as disk:
        done = run(*REPORT, "--out", str(disk / "out"), "--store", "store", cwd=tmp_path)
        assert done.returncode == 2
        assert "No space left on device; name a folder on another disk" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(disk.iterdir())
    again = run(*REPORT, "--out", "out", "--store", "store", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stderr.count("taken from the store") > 8  # only the writing is done again


def test_a_full_disk_for_temporary_files_is_said_or_does_not_matter(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    with full_disk(tmp_path / "disk", "4k") as disk:
        (disk / "filler").write_bytes(b"\0" * 4096)
        done = run(*REPORT, "--out", "out", "--store", "store", cwd=tmp_path, TMPDIR=str(disk))
    assert "Traceback" not in done.stderr
    assert done.returncode == 2 or contents(tmp_path / "out") == undisturbed[0]


def test_a_sweep_that_is_killed_ends_as_any_other(tmp_path: Path) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)

    def sweep(folder: str, longest: float | None = None) -> bool:
        (tmp_path / folder).mkdir(exist_ok=True)
        process = subprocess.Popen([sys.executable, script], cwd=tmp_path / folder, stderr=subprocess.DEVNULL)
        try:
            assert process.wait(timeout=longest) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        return True

    start = time.monotonic()
    sweep("whole")
    for seconds in moments(KILLS // 4, time.monotonic() - start, 7):
        if sweep("killed", seconds):
            break
    sweep("killed")
    assert (tmp_path / "killed" / FOUND).read_bytes() == (tmp_path / "whole" / FOUND).read_bytes()
    assert not begun_files(tmp_path)


def test_a_batch_has_the_numbers_of_its_commands(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(GRID)
    assert run("batch", "jobs.toml", "--store", "store", cwd=tmp_path).returncode == 0
    table = json.loads((tmp_path / "icl-batch" / "results.json").read_text())
    words = ("in-context", *REPORT[1:], "--seed", "1")
    assert run(*words, "--store", "store", cwd=tmp_path).returncode == 0
    alone = json.loads((tmp_path / "icl-in-context" / "results.json").read_text())
    (found,) = [one["numbers"] for one in table if "in-context" in one["job"] and "seed=1" in one["job"]]
    for kind in ("base", "heads_zeroed", "random_zeroed"):
        assert np.isclose(found[f"accuracy.{kind}.top1"], alone["accuracy"][kind]["top1"], rtol=0)
    shutil.rmtree(tmp_path / "store")
