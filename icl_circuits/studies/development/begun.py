"""What the study begins with: the checkpoints of a training run, and what all of them are measured on."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from icl_circuits.development import Yardsticks
from icl_circuits.errors import InputError
from icl_circuits.jobs import DevelopmentJob, DevelopmentSettings, RelationSpec, Series, Settings
from icl_circuits.levels import CATEGORIES, LevelTask, level_tasks
from icl_circuits.models import (
    LensModel,
    checkpoint_folder,
    checkpoints,
    identity,
    own_texts,
    provenance,
    series_folder,
    tokenizer_sha256,
)
from icl_circuits.prompts import (
    TASKS,
    WORD_CATEGORIES,
    Task,
    encode,
    json_objects,
    load_rows,
    load_tasks,
    path_of,
    shown,
    task_prompts,
)
from icl_circuits.relations import SENTENCES, Corpus, load_conllu, relation_batch
from icl_circuits.report import RunRecord
from icl_circuits.stats import generator
from icl_circuits.store import Store
from icl_circuits.studies.begun import EVALUATION_SEED, JobPrompts, check_prompts, outline_spec, sample_job
from icl_circuits.studies.loading import Loaded
from icl_circuits.studies.relations.begun import TASK_SHOTS, asking, knowledge
from icl_circuits.studies.steps import Steps

LONGEST_NAME = 200
"""Characters of a checkpoint's name."""
SHOTS = (0, 1, 2, 5, 10)
"""Of the three levels."""
WORDS_OF_TEXT = 600
"""How long joined texts are."""
JOINED = 30
"""How many of them."""


class Checkpoint(NamedTuple):
    """One checkpoint of a training run."""

    step: int
    spec: Series
    """How it is loaded."""


@dataclass(frozen=True)
class JobRuns:
    """What a job asks for, read before any model."""

    runs: tuple[tuple[Checkpoint, ...], ...]
    """The checkpoints of each seed."""
    prompts: JobPrompts
    dependencies: Corpus
    knowledge: Corpus
    tasks: tuple[Task, ...]
    asking: dict[str, str]
    """How tasks are asked."""
    level_tasks: tuple[LevelTask, ...]
    texts: tuple[str, ...]
    settings: DevelopmentSettings


def prepare(job: DevelopmentJob) -> JobRuns:
    """The data of a job and the checkpoints that it names, before a model is loaded.

    Raises:
        InputError: a file that cannot be read, a folder without checkpoints, a revision that names no training step.
    """
    settings, data, name = job.settings, job.data, job.model.model
    runs = (name, *job.model.seeds)
    if len(set(runs)) < len(runs):
        raise InputError(f"runs are {shown(list(runs))}: name each once")
    if min(settings.texts, settings.task_prompts, settings.level_prompts, settings.heads) < 1:
        raise InputError("texts, task-prompts, level-prompts and heads: ask for 1 or more of each")
    words = data.data or own_texts(name, "words")
    rows = load_rows(words or WORD_CATEGORIES)
    tasks = load_tasks(data.tasks or own_texts(name, "tasks") or TASKS)
    own = words is not None and set(CATEGORIES) <= {row.label for row in rows.rows}
    dependencies = load_conllu(data.dependencies or own_texts(name, "dependencies") or SENTENCES)
    asked = Settings(
        labels=settings.labels,
        shots=settings.shots,
        prompts=settings.prompts,
        heads=settings.heads,
        seed=settings.seed,
        separator="\n",
    )
    return JobRuns(
        tuple(_checkpoints(replace(job.model, model=run)) for run in runs),
        sample_job(rows, asked),
        dependencies,
        knowledge(name, RelationSpec(triplets=data.triplets)),
        tasks,
        asking(name, data.tasks),
        level_tasks(rows, tasks[:4]) if own else level_tasks(),
        _long_texts(data.long_texts or own_texts(name, "long"), dependencies, settings),
        settings,
    )


def steps(prepared: JobRuns) -> tuple[str, ...]:
    """The steps before the study's last one: the checkpoints."""
    return tuple(step_of(checkpoint) for run in prepared.runs for checkpoint in run)


def step_of(checkpoint: Checkpoint) -> str:
    """The name of the step that measures a checkpoint."""
    return f"checkpoint {checkpoint.step} of {checkpoint.spec.model}"


def models(prepared: JobRuns) -> list[Series]:
    """The models that the numbers of a job depend on."""
    return [checkpoint.spec for run in prepared.runs for checkpoint in run]


def _checkpoints(series: Series) -> tuple[Checkpoint, ...]:
    """The checkpoints of one run, those named or all, in the order of their steps."""
    named = series.checkpoints or tuple(map(str, checkpoints(series.model)))
    found = [_checkpoint(series, name) for name in named]
    if len({step for step, _ in found}) < len(found):
        raise InputError(f"checkpoints are {shown(list(named))}: name each step once")
    return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))


def _checkpoint(series: Series, name: str) -> Checkpoint:
    """A checkpoint by its step, or by a revision that names it. Those of a folder are there."""
    found = re.search(r"step-?(\d+)", name)
    if (not name.isdecimal() and found is None) or len(name) > LONGEST_NAME:
        raise InputError(
            f"checkpoint {shown(name)} names no training step: give a number, or a revision such as step1000"
        )
    step, folder = int(found[1] if found else name), series_folder(series.model)
    if folder is not None:
        checkpoint_folder(series.model, folder, step)
    if folder is not None or name.isdecimal():
        return Checkpoint(step, replace(series, checkpoint=step))
    return Checkpoint(step, replace(series, revision=name))


def _long_texts(path: str | None, corpus: Corpus, settings: DevelopmentSettings) -> tuple[str, ...]:
    """Texts for loss reduction: those of a file, or the sentences of a corpus in random orders, joined."""
    if path is not None:
        objects = [found for _, found in json_objects(path_of(path))]
        texts = [text for text in (found.get("text") for found in objects) if isinstance(text, str) and text]
        if not texts or len(texts) < len(objects):
            raise InputError(f"file {path!r} has lines without a text: give objects with a field text")
        return tuple(texts[: settings.texts])
    rng, joined = generator(settings.seed, 5), []
    for _ in range(min(JOINED, settings.texts)):
        words: list[str] = []
        while len(words) < WORDS_OF_TEXT:
            for place in rng.permutation(len(corpus.texts)):
                words += corpus.texts[place].text.split()
        joined.append(" ".join(words[:WORDS_OF_TEXT]))
    return tuple(joined)


@dataclass(frozen=True)
class RunBegun:
    """What the study starts from."""

    model: LensModel
    """As it is loaded by its name."""
    runs: tuple[tuple[Checkpoint, ...], ...]
    yardsticks: Yardsticks
    settings: DevelopmentSettings
    provenance: dict[str, Any]
    step: Steps
    """Computes the steps of the study, or takes them from the store."""

    def loaded(self, checkpoint: Checkpoint) -> Loaded:
        """One checkpoint, loaded when it is needed.

        Raises:
            InputError: one with other words than the model has, for which the prompts would be other texts.
        """
        found = Loaded(checkpoint.spec, self.step.store)
        if found.identity["tokenizer"] != tokenizer_sha256(self.model):
            raise InputError(
                f"model {checkpoint.spec.model!r} has another vocabulary than {self.model.cfg.model_name!r}: give "
                "runs of one model"
            )
        return found

    @property
    def described(self) -> str:
        """What was run, in a few sentences."""
        steps = [checkpoint.step for checkpoint in self.runs[0]]
        seeds = f" {len(self.runs)} training runs." if len(self.runs) > 1 else ""
        return (
            f"{len(steps)} checkpoints, training steps {steps[0]} to {steps[-1]}.{seeds} "
            f"{len(self.yardsticks.prompts)} prompts of {self.settings.shots} demonstrations of each label. "
            f"Seed: {self.settings.seed}."
        )

    @property
    def record(self) -> RunRecord:
        """What the folder says of the run."""
        settings = asdict(self.settings)
        summary = {"provenance": self.provenance, "settings": settings}
        title = f"How in-context learning forms in {self.provenance['name']}"
        return RunRecord(title, self.described, self.provenance, settings, summary, {}, self.step.costs)


def check(job: DevelopmentJob, prepared: JobRuns, *, store: Store | None = None) -> None:
    """Find prompts that a checkpoint's tokenizer and configuration show to be wrong, before weights are loaded.

    Raises:
        InputError: whatever `outline` and `encode` raise.
    """
    found = outline_spec(prepared.runs[0][-1].spec, store)
    if found is not None:
        check_prompts(found, prepared.prompts)


def begin(model: LensModel, prepared: JobRuns, *, store: Store | None = None) -> RunBegun:
    """Write everything that checkpoints are measured on, as the model's tokenizer reads it.

    The store keeps the steps, if there is one.

    Raises:
        InputError: data that the model cannot read.
        Unfit: no triplet is left for the model.
    """
    settings, n = prepared.settings, prepared.settings.task_prompts
    n_heads = model.cfg.n_layers * model.cfg.n_heads
    if 3 * settings.heads > n_heads:
        raise InputError(
            f"two kinds of {settings.heads} heads leave too few of the {n_heads} heads of {model.cfg.model_name!r} for "
            f"random ones: ask for at most {n_heads // 3} with --heads"
        )
    drawn: dict[str, Any] = {"n_texts": settings.texts, "seed": settings.seed}
    tasks, mean_tasks = (
        task_prompts(model, prepared.tasks, n, shots=TASK_SHOTS, seed=settings.seed + other, **prepared.asking)
        for other in (0, EVALUATION_SEED)
    )
    yardsticks = Yardsticks(
        tuple(relation_batch(model, corpus, **drawn) for corpus in (prepared.dependencies, prepared.knowledge)),
        encode(model, prepared.prompts.selection, separator="\n"),
        tasks,
        mean_tasks,
        prepared.level_tasks,
        SHOTS,
        settings.level_prompts,
        prepared.texts,
        settings.seed,
    )
    steps = [checkpoint.step for checkpoint in prepared.runs[0]]
    where = provenance(model) | {"data": prepared.prompts.data, "checkpoints": steps, "seed": settings.seed}
    where["runs"] = [run[0].spec.model for run in prepared.runs]
    where["texts"] = [prepared.dependencies.name, prepared.knowledge.name]
    reads = {name: part for name, part in identity(model).items() if name != "weights"}
    step = Steps((reads, replace(prepared, runs=())), model, where["data"], store)
    return RunBegun(model, prepared.runs, yardsticks, settings, where, step)
