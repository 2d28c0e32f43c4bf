"""What every study begins with: the prompts of a job, and the heads that they select."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from icl_circuits.errors import InputError
from icl_circuits.heads import Scores, score_heads
from icl_circuits.jobs import DataSpec, Job, Settings
from icl_circuits.models import LensModel, provenance
from icl_circuits.prompts import LabelScore, Prompt, PromptBatch, Rows, encode, load_rows, sample_prompts
from icl_circuits.report import RunRecord
from icl_circuits.residual import Head

EVALUATION_SEED = 1_000_003
"""Added to the seed for the evaluation prompts, so that neighbouring seeds share none."""


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


def sample_job(rows: Rows, settings: Settings, label_score: LabelScore = "first") -> JobPrompts:
    """Sample prompts to select on from one half of the texts, and prompts to test on from the other.

    Raises:
        InputError: no head asked for, and whatever `sample_prompts` raises (a half may have too few texts of a class).
    """
    if settings.heads < 1:
        raise InputError(f"cannot select {settings.heads} heads: ask for at least 1")
    for_selection, for_evaluation = rows.split(settings.seed)
    options: dict[str, Any] = {"labels": settings.labels, "shots": settings.shots}
    return JobPrompts(
        settings,
        rows.name,
        sample_prompts(for_selection, settings.prompts, seed=settings.seed, **options),
        sample_prompts(for_evaluation, settings.prompts, seed=settings.seed + EVALUATION_SEED, **options),
        label_score,
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


def prepare(job: Job) -> JobPrompts:
    """The prompts of a job, before its model is loaded.

    Raises:
        InputError: whatever `load_data` and `sample_job` raise.
    """
    return sample_job(load_data(job.data), job.settings, job.data.label_score)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What notes how long each step of a run took."""

    seconds: dict[str, float]
    """By step; studies add theirs."""

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note how long the block takes."""
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 1)


@dataclass(frozen=True)
class Begun(Timed):
    """What studies of in-context heads start from: the model, the selected heads, and the prompts to test on."""

    model: LensModel
    prompts: JobPrompts
    scores: Scores
    evaluation: PromptBatch
    provenance: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """Of the job."""
        return self.prompts.settings

    @property
    def heads(self) -> tuple[Head, ...]:
        """The selected heads, best first."""
        return self.scores.selected.of()

    @property
    def described(self) -> str:
        """What was run, in a sentence."""
        settings = self.settings
        scored = " (scored whole)" if self.evaluation.scored_whole else ""
        return (
            f"Data: {self.prompts.data}, labels {', '.join(settings.labels)}{scored}, {settings.shots} demonstrations "
            f"of each, {settings.prompts} prompts to select {len(self.heads)} heads on and {settings.prompts} others, "
            f"of other texts, to test on, seed {settings.seed}."
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
            "seconds": self.seconds,
        }
        title = f"In-context heads of {self.provenance['name']}"
        return RunRecord(title, self.described, self.provenance, settings, summary, {"selected": selected})


def begin(model: LensModel, prompts: JobPrompts) -> Begun:
    """Encode the prompts, and select the heads on those of the selection.

    Raises:
        InputError: whatever encoding and `score_heads` raise.
    """
    settings, separator = prompts.settings, prompts.settings.separator
    evaluation = encode(model, prompts.evaluation, separator=separator, label_score=prompts.label_score)
    template = f"<text> : <label>{separator}<text> : <label>{separator}... <query> :"
    where = provenance(model) | {"data": prompts.data, "seed": settings.seed, "template": template}
    where["label_score"] = prompts.label_score
    started = time.perf_counter()
    scores = score_heads(model, encode(model, prompts.selection, separator=separator), n_heads=settings.heads)
    seconds = {"selection": round(time.perf_counter() - started, 1)}
    return Begun(model, prompts, scores, evaluation, where, seconds=seconds)


def _as_json(batch: PromptBatch) -> list[dict[str, str]]:
    return [
        {"text": text, "answer": prompt.labels[prompt.gold], "category": prompt.category, "origin": prompt.origin}
        for text, prompt in zip(batch.texts, batch.prompts, strict=True)
    ]
