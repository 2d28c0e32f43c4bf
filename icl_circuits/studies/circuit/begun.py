"""What a circuit begins with where it is asked for alone: given heads, or the heads and prompts of earlier results."""

from dataclasses import dataclass, replace

from icl_circuits.errors import InputError
from icl_circuits.interventions import require_metric
from icl_circuits.jobs import CircuitJob, CircuitSettings, Job
from icl_circuits.models import LensModel, Outline
from icl_circuits.report import DAMAGED, from_plain
from icl_circuits.residual import Head, heads_of, require_distinct_heads
from icl_circuits.store import Store
from icl_circuits.studies import begun
from icl_circuits.studies.begun import Begun, JobPrompts
from icl_circuits.studies.files import load_results


@dataclass(frozen=True)
class CircuitPrompts(JobPrompts):
    """The prompts of a job, and the heads whose circuit is asked for."""

    given: tuple[Head, ...] = ()
    """Nothing: those that the prompts select."""


def resolve(job: CircuitJob) -> CircuitJob:
    """The job with what `results` stands for: the model, the data, the settings and the heads of an earlier run.

    Raises:
        InputError: nothing there that has heads and prompts, or options beside it that it brings itself.
    """
    if job.results is None:
        return job
    if replace(job, heads=None, results=None) != CircuitJob(settings=CircuitSettings(metric=job.settings.metric)):
        raise InputError(
            f"--results {str(job.results)!r} brings its model, data and settings: leave out other options than --heads "
            "and --metric"
        )
    found = load_results(job.results)
    try:
        earlier = from_plain(found.about["job"], Job)
        selected = tuple(str(head) for head in found.values["selected"].of())
    except DAMAGED as error:
        raise InputError(
            f"--results {str(job.results)!r} holds no in-context heads and prompts: give a folder of icl-circuits "
            "report, in-context, towers, biases or circuit"
        ) from error
    settings = CircuitSettings(**(vars(earlier.settings) | {"metric": job.settings.metric}))
    heads = selected if job.heads is None else selected[: job.heads] if isinstance(job.heads, int) else job.heads
    return CircuitJob(earlier.model, earlier.data, settings, heads)


def prepare(job: CircuitJob) -> CircuitPrompts:
    """The prompts of a job, before its model is loaded.

    Raises:
        InputError: a metric or a head that is none, and whatever `begun.prepare` raises.
    """
    require_metric(job.settings.metric)
    asked = CircuitSettings.heads if job.heads is None else job.heads
    given = () if isinstance(asked, int) else heads_of(asked)
    n_heads = asked if isinstance(asked, int) else len(given)
    prompts = begun.prepare(replace(job, settings=replace(job.settings, heads=n_heads)))
    return CircuitPrompts(**vars(prompts), given=given)


def check(job: CircuitJob, prompts: CircuitPrompts, *, store: Store | None = None) -> None:
    """Find what cannot be done without weights. Raises what `begun.check` raises, and for heads the model lacks."""
    if not prompts.given:
        begun.check(job, prompts, store=store)
        return
    found = begun.outline_spec(job.model, store)
    if found is not None:
        begun.check_prompts(found, prompts)
        _require_in(found, prompts.given)


def steps(prompts: CircuitPrompts) -> tuple[str, ...]:
    """The steps of `begin`."""
    return begun.steps(prompts)


def _require_in(model: Outline, heads: tuple[Head, ...]) -> None:
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    if n_layers is None or n_heads is None:
        return
    for head in heads:
        if head.layer >= n_layers or head.head >= n_heads:
            raise InputError(f"{head} does not exist: the model has layers 0..{n_layers - 1}, heads 0..{n_heads - 1}")


def begin(model: LensModel, prompts: CircuitPrompts, *, store: Store | None = None) -> Begun:
    """Encode the prompts, and take the heads that were given, or select them.

    Args:
        model: the model.
        prompts: of a job.
        store: as for `begun.begin`.

    Raises:
        InputError: a head twice or one that does not exist, and whatever `begun.begin` raises.
    """
    given = require_distinct_heads(model, prompts.given) if prompts.given else ()
    return begun.begin(model, prompts, store=store, given=given)
