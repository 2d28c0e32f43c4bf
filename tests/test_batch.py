"""Grids of jobs: what a file may say, one table, shards, and Ray workers that get lost."""

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import psutil
import pytest

from icl_circuits import cli
from icl_circuits.models import SMALL
from icl_circuits.store import Store
from icl_circuits.studies import IN_CONTEXT_PROMPTS, Study, batch
from icl_circuits.studies.biases import BIASES
from icl_circuits.studies.in_context import IN_CONTEXT

GRID = f"""
run = ["in-context"]
model = "{SMALL}"
heads = 2
select = "paper"
prompts = 6
shots = 2
seed = [0, 1, 2]
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line in the test's folder, and give what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's

    def command(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["icl-circuits", *words])
        with contextlib.suppress(SystemExit):
            cli.main()
        said = capsys.readouterr()
        return said.out + said.err

    return command


@pytest.mark.slow
def test_a_grid_gives_the_numbers_of_its_jobs(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(GRID)
    said = run("batch", "jobs.toml")
    assert "job 3 of 3" in said
    table = pd.read_csv("icl-batch/table.csv", dtype={"seed": str})
    assert set(table["seed"]) == {"0", "1", "2"}
    found = table[table["measure"] == "accuracy.heads_zeroed.top1"].set_index("seed")["value"]
    for seed in ("0", "2"):
        options = f"--model {SMALL} --heads 2 --select paper --prompts 6 --shots 2 --seed {seed}".split()
        run("in-context", *options, "--out", f"alone{seed}", "--no-store")
        alone = json.loads(Path(f"alone{seed}/results.json").read_text())
        assert found[seed] == alone["accuracy"]["heads_zeroed"]["top1"]
    seeds = pd.read_csv("icl-batch/seeds.csv").set_index("measure").loc["accuracy.heads_zeroed.top1"]
    assert seeds["seeds"] == 3
    assert seeds["mean"] == pytest.approx(found.mean())
    half = 4.302652729911275 * found.std(ddof=1) / np.sqrt(3)  # Student's t of 2 degrees of freedom
    assert (seeds["low"], seeds["high"]) == (pytest.approx(found.mean() - half), pytest.approx(found.mean() + half))
    assert "accuracy.heads_zeroed.top1" in Path("icl-batch/report.html").read_text()
    assert run("batch", "jobs.toml", "--force").count("taken from the store") == 3  # the numbers alone


@pytest.mark.slow
def test_shards_meet_in_the_store(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(GRID)
    assert "Shard 2/2: 1 of 3 jobs are in" in run("batch", "jobs.toml", "--store", "store", "--shard", "2/2")
    assert not Path("icl-batch").exists()
    assert "Shard 1/2: 2 of 3 jobs" in run("batch", "jobs.toml", "--store", "store", "--shard", "1/2")
    assert run("batch", "jobs.toml", "--store", "store").count("taken from the store") == 3
    assert len(pd.read_csv("icl-batch/table.csv")["seed"].unique()) == 3


@pytest.mark.slow
def test_several_grids_and_lists_of_labels(run: Callable[..., str], tmp_path: Path) -> None:
    grids = f"""
model = "{SMALL}"
heads = 2
select = "paper"
prompts = 4
shots = 2
run = "in-context"
[[grid]]
labels = [["foo", "bar"], "A,B"]
[[grid]]
checkpoint = [0, 500]
"""
    (tmp_path / "jobs.toml").write_text(grids)
    run("batch", "jobs.toml")
    table = pd.read_csv("icl-batch/table.csv")
    assert set(table["labels"].dropna()) == {"foo,bar", "A,B"}
    assert set(table["checkpoint"].dropna()) == {0, 500}
    assert (pd.read_csv("icl-batch/seeds.csv")["seeds"] == 1).all()


def test_a_job_that_cannot_be_done_is_left_out_by_name(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(GRID.replace("heads = 2", "heads = [2, 12]").replace("[0, 1, 2]", "0"))
    said = run("batch", "jobs.toml")
    assert "Left out: in-context model=icl-small heads=12" in said
    assert "select at most 8" in said
    assert said.index("Left out") < said.index("job 1 of 1: in-context model=icl-small heads=2")  # before any weights
    assert set(pd.read_csv("icl-batch/table.csv")["heads"]) == {2}


@pytest.mark.parametrize("shard", [(), ("--shard", "1/1")])
def test_a_grid_of_impossible_jobs_loads_nothing(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: tuple[str, ...]
) -> None:
    monkeypatch.setattr("icl_circuits.studies.loading.load_model", None)
    (tmp_path / "jobs.toml").write_text(GRID.replace("heads = 2", "heads = 12").replace("[0, 1, 2]", "0"))
    said = refused("batch", "jobs.toml", *shard)
    assert "none of 1 jobs could be done; job 'in-context model=icl-small heads=12" in said
    assert "select at most 8" in said


@pytest.mark.slow
def test_a_circuit_of_given_heads_is_checked_as_its_command_checks_it(run: Callable[..., str], tmp_path: Path) -> None:
    """More heads than could be selected are no mistake where they are given; one that does not exist is."""
    given = ",".join(f"L{layer}H{head}" for layer in (0, 1, 2) for head in range(3))
    (tmp_path / "jobs.toml").write_text(f"""
run = "circuit"
model = "{SMALL}"
prompts = 4
shots = 1
heads = ["{given}", "L0H0,L9H9"]
""")
    said = run("batch", "jobs.toml")
    assert "L9H9 does not exist" in said
    assert "select at most" not in said
    assert set(pd.read_csv("icl-batch/table.csv")["heads"]) == {given}


WRONG = {
    "": "does not say what to run",
    "run = ": "is not TOML",
    'run = "dance"': "runs 'dance': give one of report, in-context",
    'run = "towers"\nmodels = "x"': "--models",
    'run = "towers"\nout = "x"': "has out, which is of the whole batch",
    'run = "towers"\nseed = "x"': "seed",
    'run = "towers"\nseed = []': "names no job",
    'run = "towers"\nseed = [1, 1]': "names one job twice, as 'towers seed=1' and 'towers seed=1'",
    'run = "towers"\n[[grid]]\nseed = 0\n[[grid]]\nshots = 4': "as 'towers seed=0' and 'towers shots=4'",
    'run = "towers"\nseed = true': "seed",
    'run = "towers"\nheads = 4.7': "gives heads the value 4.7",
    'run = "towers"\nseed = false': "gives seed the value False",
    'run = "towers"\nhelp = true': "has help, which is of the whole batch",
    'run = "towers"\nseed = {a = 1}': "gives seed the value",
    'run = "towers"\ngrid = 3': "write [[grid]]",
    'run = "towers"\ndata = "nowhere.csv"': "job 'towers data=nowhere.csv'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_refused_by_name(text: str, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(text)
    assert WRONG[text] in refused("batch", "jobs.toml")


def test_wrong_options_are_refused_by_name(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(GRID)
    assert "jobs file 'none.toml' cannot be read" in refused("batch", "none.toml")
    for shard in ("0/2", "3/2", "1", "a/b"):
        assert f"--shard '{shard}' is no part" in refused("batch", "jobs.toml", "--shard", shard)
    assert "add --engine ray" in refused("batch", "jobs.toml", "--address", "auto")


@pytest.fixture
def two_workers() -> None:
    """A Ray cluster of two workers on this machine."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def workers() -> list[psutil.Process]:
    """The processes in which Ray computes tasks now."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if any("ray::_" in part for part in process.cmdline())]


@pytest.mark.slow
def test_a_cluster_gives_the_same_numbers_though_a_worker_is_lost(
    two_workers: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from icl_circuits.cli import make_app
    from icl_circuits.cli.batches import read_jobs
    from icl_circuits.studies.on_ray import run_on_ray

    (tmp_path / "jobs.toml").write_text(GRID)
    studies = [IN_CONTEXT, BIASES]
    tasks = read_jobs(tmp_path / "jobs.toml", make_app(), {"in-context": studies})
    here = {str(one.task): one for one in batch.run_here(tasks, Store(tmp_path / "here"))}
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            with contextlib.suppress(psutil.Error):  # one that ends while it is looked at
                for process in workers()[:1]:
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
            time.sleep(0.05)

    killer = Thread(target=kill)
    killer.start()
    there = {str(one.task): one for one in run_on_ray(tasks, Store(tmp_path / "there"))}
    assert all(one.task in tasks for one in there.values())
    killer.join(timeout=10)
    assert killed
    assert set(there) == set(here)
    shown = re.findall(r"(\d+) of (\d+) steps: (.*)", capsys.readouterr().err)
    n_steps = len(tasks) * (2 + sum(len(study.steps) for study in studies))  # scores of every head, and numbers
    assert {total for _, total, _ in shown} == {str(n_steps)}
    places = [int(place) for place, *_ in shown]
    assert places == sorted(set(places))
    assert places[-1] == n_steps
    assert n_steps - len(places) <= 1  # a worker may be lost after its step was kept, and before it said so
    for name, one in here.items():
        assert not there[name].why_not
        assert list(there[name].numbers) == list(one.numbers)
        np.testing.assert_array_equal([*there[name].numbers.values()], [*one.numbers.values()])  # to the last bit


def test_a_study_of_ones_own_is_left_out_where_it_is_unfit(tmp_path: Path) -> None:
    from icl_circuits.errors import Unfit
    from icl_circuits.jobs import Job, ModelSpec, Settings
    from icl_circuits.studies import Body

    def unfit(_: object) -> None:
        raise Unfit("this model is not fit")

    study = Study("own", "Own.", "own", False, lambda: Body(unfit, lambda *_: None), IN_CONTEXT_PROMPTS)  # type: ignore[arg-type,return-value]
    job = Job(ModelSpec(SMALL), settings=Settings(prompts=4, heads=2, shots=2))
    done = batch.run_task(batch.Task("own", {}, job, (study,)), Store(tmp_path / "store"))
    assert (done.numbers, done.why_not) == ({}, "this model is not fit")
