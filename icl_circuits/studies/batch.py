"""A grid of jobs: each is run, its numbers are kept in the store, and all stand in one table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.errors import InputError
from icl_circuits.models import parsed_once
from icl_circuits.progress import run_of, step
from icl_circuits.report import finite, merged, write_csv
from icl_circuits.stats import student_interval
from icl_circuits.store import Store, code_version
from icl_circuits.studies.loading import Loaded
from icl_circuits.studies.running import check_job, named_steps, run_studies
from icl_circuits.studies.steps import Steps
from icl_circuits.studies.study import Study, beginning_module
from icl_circuits.viz import Section, Table, render_page

NOT_MEASURED = ("provenance", "settings", "prompts", "left_out", "heads_scanned", "facts")
"""Parts of `results.json` that say what was run."""
SEED = "seed"


@dataclass(frozen=True)
class Task:
    """One job of a grid, and what is studied of it."""

    command: str
    options: Mapping[str, str]
    """What the grid says of it, for people."""
    job: Any
    studies: tuple[Study, ...]

    def __str__(self) -> str:
        return " ".join([self.command, *(f"{name}={value}" for name, value in self.options.items())])


@dataclass(frozen=True)
class Done:
    """What came of a task."""

    task: Task
    numbers: Mapping[str, float]
    """By the path to them in `results.json`."""
    why_not: str = ""
    """Why there are none."""


def prepare(task: Task) -> Any:
    """The data of a task, before a model is loaded. Raises `InputError` for what cannot be read."""
    return beginning_module(task.studies).prepare(task.job)


def first_steps(task: Task) -> tuple[str, ...]:
    """The names of the steps before those of its studies."""
    return named_steps(beginning_module(task.studies), prepare(task))


def refusals(tasks: Sequence[Task], store: Store) -> list[Done]:
    """The tasks that tokenizers and configurations alone show to be impossible, before any weights are loaded."""
    found = []
    with parsed_once():
        for task in tasks:
            try:
                check_job(task.job, beginning_module(task.studies), prepare(task), store)
            except InputError as error:
                found.append(Done(task, {}, str(error)))
    return found


def begin(task: Task, model: Any, prepared: Any, store: Store) -> Any:
    """What the task's studies take. Raises what the beginning raises."""
    return beginning_module(task.studies).begin(model, prepared, store=store)


def run_task(task: Task, store: Store, loaded: Loaded | None = None) -> Done:
    """Run one task, or take its numbers from the store. What its model or prompts are not fit for is said.

    Args:
        task: which.
        store: keeps the numbers, and the steps that they are made of.
        loaded: the task's model, where it is there already.
    """
    try:
        prepared, loaded = prepare(task), loaded or Loaded(task.job.model, store)
        beginning = beginning_module(task.studies)
        models = getattr(beginning, "models", list)
        others = [Loaded(spec, store).identity for spec in models(prepared)] if models is not list else []
        modules = [
            (beginning.__name__, study.body().run.__module__, study.body().present.__module__) for study in task.studies
        ]
        code = [[code_version(module) for module in of_study] for of_study in modules]
        names = [study.name for study in task.studies]
        steps = Steps((loaded.identity, others, prepared, names, code), data=task.command, store=store)
        return Done(task, steps("numbers", lambda: _numbers(task, loaded, prepared, store)))
    except InputError as error:
        return Done(task, {}, str(error))


def _numbers(task: Task, loaded: Loaded, prepared: Any, store: Store) -> dict[str, float]:
    begun = begin(task, loaded.model, prepared, store)
    outcome = run_studies(begun, task.studies)
    summaries = [begun.record.summary, *(part.summary for part in outcome.parts)]
    found = reduce(lambda a, b: merged(a, b, "results"), summaries)
    return dict(_flat({name: part for name, part in found.items() if name not in NOT_MEASURED}))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested results that stand in no list, each with the path to it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif type(value) in (int, float) or isinstance(value, np.number):
        yield path, float(value)


def run_here(tasks: Sequence[Task], store: Store) -> Iterator[Done]:
    """The tasks one after the other in this process."""
    with run_of([str(task) for task in tasks], unit="job"):
        for task in tasks:
            with step(str(task)):
                done = run_task(task, store)
            yield done


def table(done: Sequence[Done]) -> pd.DataFrame:
    """A row for each job and number, with a column for each option of the grid."""
    return pd.DataFrame(
        {"command": one.task.command, **one.task.options, "measure": measure, "value": value}
        for one in done
        for measure, value in one.numbers.items()
    )


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """The means over seeds of all else, with 95 % intervals of Student's t where there are two seeds or more."""
    if frame.empty:
        return frame
    by = [name for name in frame.columns if name not in (SEED, "value")]
    rows = []
    for key, every in frame.groupby(by, sort=False, dropna=False)["value"]:
        values = every.dropna().to_numpy(float)
        ends = {"seeds": len(values)} | student_interval(values)._asdict()
        rows.append(dict(zip(by, key, strict=True)) | ends)
    return pd.DataFrame(rows)


def write_batch(done: Sequence[Done], folder: Path) -> Table:
    """Write `table.csv`, `seeds.csv`, `results.json` and `report.html`; gives the means over seeds, as they are shown.

    Args:
        done: the tasks, in the order of the table.
        folder: an empty folder.
    """
    every = table(done)
    means = over_seeds(every)
    write_csv(every, folder / "table.csv")
    write_csv(means, folder / "seeds.csv")
    jobs = [{"job": str(one.task), "numbers": dict(one.numbers), "left_out": one.why_not} for one in done]
    (folder / "results.json").write_text(json.dumps(finite(jobs), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shown = Table(tuple(map(str, means.columns)), tuple(tuple(map(_cell, row)) for row in means.to_numpy().tolist()))
    missing = tuple((str(one.task), one.why_not) for one in done if one.why_not)
    sections = [
        Section(
            "Means over seeds",
            "Each number of results.json that stands in no list, by the path to it. Low and high: the ends of a 95 % "
            "interval of Student's t over seeds; with one seed there is none.",
            shown,
            answer=f"{len(means)} numbers, each a mean over {_seeds(means)}.",
        ),
        *([_left_out(missing)] if missing else []),
    ]
    finding = f"{len(done) - len(missing)} of {len(done)} jobs were done."
    page = render_page("A grid of jobs", finding, sections)
    (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    return shown


def _seeds(means: pd.DataFrame) -> str:
    """How many seeds there are, from the fewest to the most."""
    counts = sorted(set(means["seeds"])) if len(means) else [0]
    return (
        f"{counts[0]} seed{'' if counts[0] == 1 else 's'}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    )


def _left_out(missing: tuple[tuple[str, ...], ...]) -> Section:
    n = len(missing)
    answer = f"{n} {'job' if n == 1 else 'jobs'} could not be done."
    return Section("Left out", "", Table(("job", "why"), missing), answer=answer)


def _cell(value: Any) -> str:
    """A number in four figures, however small; nothing for what is not there."""
    if isinstance(value, float):
        return f"{value:.4g}" if np.isfinite(value) else ""
    return str(value)
