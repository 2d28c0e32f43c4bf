"""A study as a value: what it is called, what it computes, and how that is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from icl_circuits.jobs import Job

if TYPE_CHECKING:
    from icl_circuits.report import PaperFigure, Part


@dataclass(frozen=True)
class Body:
    """What a study does."""

    run: Callable[[Any], Any]
    """Computes findings of what the study begins with.

    Raises `Unfit` for a model or prompts that the study cannot be done on."""
    present: Callable[[Any, Any], "Part"]
    """What is written, given what the study begins with and its findings."""
    kinds: tuple[type, ...] = ()
    """The classes of the result objects that it keeps in files."""
    figures: "Mapping[str, PaperFigure]" = field(default_factory=dict)
    """What is drawn from those, by file name."""
    run_briefly: Callable[[Any], Any] | None = None
    """Like `run`, but in a report of several studies, where it must take little time; None: `run`."""


def body_of(package: str) -> Callable[[], Body]:
    """Imports a study's package when asked.

    It takes `compute`, `KINDS` and perhaps `compute_briefly` of its run, `present` of its page, and its `FIGURES`.
    """
    return partial(_import_body, package)


def _import_body(package: str) -> Body:
    run, page, figures = (import_module(f"{package}.{name}") for name in ("run", "page", "figures"))
    briefly = getattr(run, "compute_briefly", None)
    return Body(run.compute, page.present, run.KINDS, figures.FIGURES, briefly)


@dataclass(frozen=True)
class Beginning:
    """How a run begins, whatever is studied then: what is asked for, and what studies are given."""

    job: type[Any]
    """Its fields are the options of a command. One is `model`, a `ModelSpec`."""
    module: str
    """Imported when a run begins. Its `prepare(job)` reads the data before a model is loaded. Its
    `check(job, prepared, store=store)`, where it has one, raises what the model's tokenizer and configuration show to
    be wrong. Its `steps(prepared)`, where it has one, names the steps before those of the studies. Its
    `begin(model, prepared, store=store)` gives what studies take, whose `record` says what was run.
    Its `resolve(job)`, where it has one, gives the job with what it refers to read.
    Where numbers depend on other models than that of the job, its `models(prepared)` names all of them."""


IN_CONTEXT_PROMPTS = Beginning(Job, "icl_circuits.studies.begun")
"""Prompts of demonstrations, and the in-context heads that they select: studies take a `Begun`."""


@dataclass(frozen=True)
class Study:
    """What can be run. Its body is imported when it is asked for, so that a list of studies costs nothing."""

    name: str
    """As in Python: `in_context`. Its command is `in-context`."""
    help: str
    """What its command does, in a sentence."""
    out: str
    """The folder that its command writes by default."""
    in_report: bool
    """Whether `icl-circuits report` runs it."""
    body: Callable[[], Body]
    """Imports and gives what it does."""
    begins: Beginning = IN_CONTEXT_PROMPTS
    """What it begins with. Studies of one report begin alike."""
    example: str = "--model icl-small"
    """Options to begin with, for the help of its command."""
    steps: tuple[str, ...] = ()
    """The names of its steps, in order, so that a run can say how far it is. Some may not come."""
    alone: Beginning | None = None
    """How its own command begins, where that asks for more than a report does."""

    def run(self, begun: Any) -> Any:
        """What the study finds. Raises `Unfit` for a model or prompts that it cannot be done on."""
        return self.body().run(begun)

    @property
    def command(self) -> str:
        """Its name on the command line."""
        return self.name.replace("_", "-")


def beginning_of(studies: Sequence[Study]) -> Beginning:
    """How a run of these studies begins: a study alone may ask for more than several together."""
    first = studies[0]
    return first.alone if len(studies) == 1 and first.alone is not None else first.begins


def beginning_module(studies: Sequence[Study]) -> Any:
    """The module that begins a run of these studies, imported."""
    return import_module(beginning_of(studies).module)
