"""What every study begins with: the prompts of a job, and the heads that they select."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from icl_circuits.errors import InputError
from icl_circuits.heads import (
    Rounding,
    Scores,
    of_given_heads,
    require_selectable,
    rounding,
    score_every_head,
    select,
)
from icl_circuits.jobs import DataSpec, Job, ModelSpec, Settings
from icl_circuits.models import LensModel, Outline, files_of, identity, outline, provenance, require_device
from icl_circuits.patching import KEPT_TOKENS
from icl_circuits.prompts import LabelScore, Prompt, PromptBatch, Rows, encode, load_rows, sample_prompts, shown
from icl_circuits.report import RunRecord
from icl_circuits.residual import Head
from icl_circuits.store import Store
from icl_circuits.studies.loading import load_spec
from icl_circuits.studies.steps import Steps

EVALUATION_SEED = 1_000_003
"""Added to the seed for the evaluation prompts, so that neighbouring seeds share none."""
DETAILED = 256
"""How many prompts are taken, at most, where many numbers of each are kept or few would do."""
DETAILS = (
    " Two towers are measured on the first {0} test prompts. Mitigations are chosen on the first {0} selection prompts."
)
SCORES, TO_FLOAT32 = "scores of every head", "difference to float32"
"""The names of steps."""


@dataclass(frozen=True)
class JobPrompts:
    """The prompts of a job, sampled before any model is loaded."""

    settings: Settings
    data: str
    """The name of the rows."""
    selection: tuple[Prompt, ...]
    evaluation: tuple[Prompt, ...]
    """Made of other texts than `selection`."""
    label_score: LabelScore
    exact: ModelSpec | None = None
    """Of a job in half precision: the model in float32, to state the difference."""


def sample_job(rows: Rows, settings: Settings, label_score: LabelScore = "first") -> JobPrompts:
    """Sample prompts to select on from one half of the texts, and prompts to test on from the other.

    Raises:
        InputError: no head asked for, and whatever `sample_prompts` raises (a half may have too few texts of a class).
    """
    if settings.heads < 1:
        raise InputError(f"cannot select {settings.heads} heads: ask for at least 1", about="heads")
    for_selection, for_evaluation = rows.split(settings.seed)
    _require_texts(rows, {"select": for_selection, "test": for_evaluation}, settings.shots)
    options: dict[str, Any] = {"labels": settings.labels, "shots": settings.shots}
    return JobPrompts(
        settings,
        rows.name,
        sample_prompts(for_selection, settings.prompts, seed=settings.seed, **options),
        sample_prompts(for_evaluation, settings.prompts, seed=settings.seed + EVALUATION_SEED, **options),
        label_score,
    )


def _require_texts(rows: Rows, halves: Mapping[str, Rows], shots: int) -> None:
    """Raise `InputError` that says what is in the half, where a class has too few texts in it for a prompt."""
    for purpose, half in halves.items():
        for name, texts in half.by_class().items():
            if len(texts) < shots + 1:
                raise InputError(
                    f"data {rows.name!r}: class {shown(name)} has {len(rows.by_class()[name])} different texts, "
                    f"{len(texts)} of them in the half to {purpose} on, but {shots} shots and a query need {shots + 1} "
                    "there: lower --shots or add rows"
                )


def load_data(spec: DataSpec) -> Rows:
    """The texts and classes of a job.

    Raises:
        InputError: whatever `load_rows` raises.
    """
    return load_rows(
        spec.data,
        text_column=spec.text_column,
        label_column=spec.label_column,
        encoding=spec.encoding,
        delimiter=spec.delimiter,
    )


def check(job: Job, prompts: JobPrompts, *, store: Store | None = None) -> None:
    """Find what cannot be done with the model's tokenizer and configuration alone, before its weights are loaded.

    Raises:
        InputError: labels that no token tells apart, a prompt longer than the model reads, more heads than half of the
            model's, no such device, and whatever else `outline` and `encode` raise.
    """
    found = outline_spec(job.model, store)
    if found is None:
        return
    check_prompts(found, prompts)
    if found.cfg.n_layers and found.cfg.n_heads:
        require_selectable(found, prompts.settings.heads)


def check_prompts(model: Outline, prompts: JobPrompts) -> None:
    """Try whether a model can read the prompts of a job. Raises whatever `encode` raises."""
    encode(model, prompts.selection, separator=prompts.settings.separator)
    encode(model, prompts.evaluation, separator=prompts.settings.separator, label_score=prompts.label_score)


def outline_spec(spec: ModelSpec, store: Store | None = None) -> Outline | None:
    """The outline of a job's model, if it can be had without weights. The store remembers it.

    Raises:
        InputError: no such device, and whatever `outline` raises.
    """
    if spec.device is not None:
        require_device(spec.device)
    files = files_of(spec.model, spec.checkpoint)
    return _outline(spec, store, None if files is None else tuple(files))


@lru_cache(maxsize=1)
def _outline(spec: ModelSpec, store: Store | None, files: tuple[tuple[str, int, int], ...] | None) -> Outline | None:
    """The outline of a model whose files are these, kept for the next job of a grid."""
    return outline(
        spec.model,
        backend=spec.backend,
        revision=spec.revision,
        checkpoint=spec.checkpoint,
        n_ctx=spec.n_ctx,
        store=store,
    )


def prepare(job: Job) -> JobPrompts:
    """The prompts of a job, before its model is loaded.

    Raises:
        InputError: whatever `load_data` and `sample_job` raise.
    """
    prompts = sample_job(load_data(job.data), job.settings, job.data.label_score)
    is_half = job.model.dtype in ("bfloat16", "float16")
    return replace(prompts, exact=replace(job.model, dtype="float32") if is_half else None)


def steps(prompts: JobPrompts) -> tuple[str, ...]:
    """The steps of `begin`."""
    return (SCORES,) if prompts.exact is None else (SCORES, TO_FLOAT32)


@dataclass(frozen=True)
class Begun:
    """What studies of in-context heads start from: the model, the selected heads, and the prompts to test on."""

    model: LensModel
    prompts: JobPrompts
    scores: Scores
    evaluation: PromptBatch
    provenance: dict[str, Any]
    step: Steps
    """Computes the steps of studies, or takes them from the store."""
    rounding: Rounding | None = None
    """How far answers in half precision are from those in float32; None: not in half precision."""

    @property
    def settings(self) -> Settings:
        """Of the job."""
        return self.prompts.settings

    @property
    def heads(self) -> tuple[Head, ...]:
        """The selected heads, best first."""
        return self.scores.selected.of()

    @property
    def detailed(self) -> PromptBatch:
        """The evaluation prompts of which many numbers each are kept: so few that they never fill memory."""
        return self.evaluation.first(DETAILED)

    @property
    def described(self) -> str:
        """What was run, in a few sentences."""
        settings = self.settings
        scored = " (scored whole)" if self.evaluation.scored_whole else ""
        return (
            f"Data: {self.prompts.data}, labels {', '.join(settings.labels)}{scored}, {settings.shots} demonstrations "
            f"of each. {settings.prompts} prompts select {len(self.heads)} heads. {settings.prompts} others, of other "
            f"texts, test them. Seed: {settings.seed}."
            + (DETAILS.format(DETAILED) if settings.prompts > DETAILED else "")
            + (f" {self.rounding}" if self.rounding else "")
        )

    @property
    def record(self) -> RunRecord:
        """What the folder of any study says of the run."""
        selected, settings = self.scores.selected, asdict(self.settings)
        summary = {
            "provenance": self.provenance,
            "settings": settings,
            "heads": [vars(head) for head in selected.heads],
            "heads_scanned": len(self.scores.effects.heads),
            "prompts": {"selection": _as_json(self.scores.batch), "evaluation": _as_json(self.evaluation)},
        }
        title = f"In-context heads of {self.provenance['name']}"
        return RunRecord(
            title, self.described, self.provenance, settings, summary, {"selected": selected}, self.step.costs
        )


def begin(model: LensModel, prompts: JobPrompts, *, store: Store | None = None, given: Sequence[Head] = ()) -> Begun:
    """Encode the prompts, and select the heads on those of the selection.

    Args:
        model: the model.
        prompts: of a job.
        store: keeps the steps of the run, and has those of earlier ones; None: every step is computed.
        given: heads to take in place of those that the prompts select.

    Raises:
        InputError: whatever encoding and `score_heads` raise.
    """
    settings, separator = prompts.settings, prompts.settings.separator
    evaluation = encode(model, prompts.evaluation, separator=separator, label_score=prompts.label_score)
    template = f"<text> : <label>{separator}<text> : <label>{separator}... <query> :"
    where = provenance(model) | {"data": prompts.data, "seed": settings.seed, "template": template}
    where["label_score"] = prompts.label_score
    selection = encode(model, prompts.selection, separator=separator)
    if not given:
        require_selectable(model, settings.heads)
    of_model = identity(model)
    shares_runs = evaluation.tokens.numel() <= KEPT_TOKENS
    step = Steps((of_model, prompts), model, prompts.data, store, shares_runs=shares_runs)
    every = step(
        SCORES,
        lambda: score_every_head(model, selection),
        on=(of_model, prompts.selection, separator),
    )
    if given:
        scores = of_given_heads(selection, *every, given)
    else:
        scores = select(selection, *every, n_heads=settings.heads, rule=settings.select)
    exact, difference = prompts.exact, None
    if exact is not None:
        difference = step(TO_FLOAT32, lambda: rounding(model, load_spec(exact), evaluation))
    return Begun(model, prompts, scores, evaluation, where, step, difference)


def _as_json(batch: PromptBatch) -> list[dict[str, str]]:
    return [
        {"text": text, "answer": prompt.labels[prompt.gold], "category": prompt.category, "origin": prompt.origin}
        for text, prompt in zip(batch.texts, batch.prompts, strict=True)
    ]
