"""Run a job's studies, from plain values to a folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from icl_circuits.errors import InputError, Unfit
from icl_circuits.models import parsed_once
from icl_circuits.progress import run_of, step
from icl_circuits.report import LeftOut, Part, new_folder, write_report
from icl_circuits.store import Store
from icl_circuits.studies.files import figures_of, kinds_of
from icl_circuits.studies.loading import Loaded
from icl_circuits.studies.study import Study, beginning_module, beginning_of

LOADING, WRITING = "loading the model", "writing the report"
"""The names of the first and the last step."""


@dataclass(frozen=True)
class Outcome:
    """What came of the studies."""

    parts: tuple[Part, ...]
    left_out: tuple[LeftOut, ...] = ()
    """The studies that the model or the prompts are not fit for."""


def run_studies(begun: Any, studies: Sequence[Study], *, report: Sequence[Study] | None = None) -> Outcome:
    """Run the studies. One that the model or the prompts are not fit for is left out, and why is said.

    Args:
        begun: what they begin with.
        studies: which.
        report: all studies of the report that these are a part of; default, these are all. Among several, those that
            take long run briefly.

    Raises:
        Unfit: none of the studies can be done.
        InputError: a mistake in what was asked for.
    """
    parts: list[Part] = []
    left_out: list[LeftOut] = []
    for study, body in [(study, study.body()) for study in studies]:
        try:
            run = body.run_briefly if body.run_briefly is not None and len(report or studies) > 1 else body.run
            parts.append(body.present(begun, run(begun)))
        except Unfit as error:
            left_out.append(LeftOut(study.name, str(error)))
    if left_out and not parts:
        raise Unfit(left_out[0].why)
    return Outcome(tuple(parts), tuple(left_out))


def run_job(
    job: Any, studies: Sequence[Study], out: Path, *, force: bool = False, store: Store | None = None
) -> Outcome:
    """Begin a run as its studies do, run them, and write the folder `out`.

    Args:
        job: what to run, as the studies' `begins` asks for it: a `Job`, say.
        studies: which studies, in the order of the page. They begin alike.
        out: appears when everything has ended well.
        force: replace the files there that this function wrote; others stay where they are.
        store: keeps every finished step, and has those of earlier runs; None: every step is computed.

    Raises:
        InputError: bad input of any kind; nothing is written then.
    """
    if len({study.begins for study in studies}) != 1 or not isinstance(job, beginning_of(studies).job):
        named = ", ".join(study.name for study in studies) or "no study"
        raise InputError(f"a {type(job).__name__} cannot run {named}: give studies that begin alike, and their job")
    kinds, figures = kinds_of(studies), figures_of(studies)  # imports every study: its faults show before hours of work
    beginning = beginning_module(studies)
    job = resolved(job, studies)
    prepared = beginning.prepare(job)
    names = (*steps_of(beginning, studies, prepared), WRITING)
    with new_folder(out, "results", force=force) as folder, run_of(names, seconds=_usual(job, store)):
        begun = begin_job(job, beginning, prepared, store)
        outcome = run_studies(begun, studies)
        with step(WRITING):
            record = replace(begun.record, job=_plain(job))
            write_report(record, outcome.parts, outcome.left_out, folder, kinds=kinds, figures=figures)
    return outcome


def resolved(job: Any, studies: Sequence[Study]) -> Any:
    """The job with what it refers to, earlier results say. Raises `InputError` where that cannot be read."""
    return getattr(beginning_module(studies), "resolve", lambda same: same)(job)


def _plain(job: Any) -> dict[str, Any]:
    """A job as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(job), default=str))
    return found


def steps_of(beginning: Any, studies: Sequence[Study], prepared: Any) -> tuple[str, ...]:
    """The names of everything that a run computes, in order, known before it begins."""
    return (LOADING, *named_steps(beginning, prepared), *(name for study in studies for name in study.steps))


def named_steps(beginning: Any, prepared: Any) -> tuple[str, ...]:
    """The names of the steps that a beginning computes, before those of the studies."""
    return tuple(beginning.steps(prepared)) if hasattr(beginning, "steps") else ()


def _usual(job: Any, store: Store | None) -> dict[str, float]:
    """Seconds that steps took when they were computed last, with the same model if it was ever run."""
    every = store.listing() if store is not None else []
    of_model = [listed for listed in every if listed.model == job.model.model]
    return {listed.step: listed.cost.seconds for listed in reversed(of_model or every)}


def begin_job(job: Any, beginning: Any, prepared: Any, store: Store | None) -> Any:
    """What studies take: what can be checked without weights first, then the model.

    Args:
        job: what to run.
        beginning: the module that a `Beginning` names.
        prepared: what its `prepare` gave.
        store: as for `run_job`.

    Raises:
        InputError: bad input of any kind.
    """
    with parsed_once():
        check_job(job, beginning, prepared, store)
        with step(LOADING):
            model = Loaded(job.model, store).model
    return beginning.begin(model, prepared, store=store)


def check_job(job: Any, beginning: Any, prepared: Any, store: Store | None) -> None:
    """Find what the tokenizer and the configuration of a job's model show to be wrong, before weights are loaded.

    Raises:
        InputError: what the beginning's `check` raises, where it has one.
    """
    if hasattr(beginning, "check"):
        beginning.check(job, prepared, store=store)
