"""What the study begins with: texts with relations, tasks, and in-context prompts, as one model reads them."""

from dataclasses import asdict, dataclass
from typing import Any

from icl_circuits.errors import InputError
from icl_circuits.jobs import RelationJob, RelationSettings, RelationSpec, Settings
from icl_circuits.models import OWN_BETWEEN, OWN_QUESTION, LensModel, TextModel, identity, own_texts, provenance
from icl_circuits.prompts import (
    BETWEEN,
    QUESTION,
    TASKS,
    WORD_CATEGORIES,
    PromptBatch,
    Task,
    TaskPrompts,
    encode,
    load_rows,
    load_tasks,
    path_of,
    read_text,
    task_prompts,
)
from icl_circuits.relations import (
    SENTENCES,
    TRIPLETS,
    Corpus,
    ParsedSentence,
    RelationBatch,
    in_sentences,
    load_triplets,
    relation_batch,
    with_letters,
    without_words,
)
from icl_circuits.relations.dependencies import conllu_sentences, corpus_of, parses_of, spacy_sentences
from icl_circuits.report import RunRecord
from icl_circuits.store import Store
from icl_circuits.studies.begun import EVALUATION_SEED, JobPrompts, check_prompts, outline_spec, sample_job
from icl_circuits.studies.steps import Steps

FAMILIES = 7
"""How many families of heads are compared."""
TASK_SHOTS = 8
"""Demonstrations of a task in a prompt."""


@dataclass(frozen=True)
class JobTexts:
    """The data of a job, loaded before any model."""

    dependencies: Corpus
    parses: tuple[ParsedSentence, ...]
    """The sentences of `dependencies`, every word with its head."""
    knowledge: Corpus
    tasks: tuple[Task, ...]
    asking: dict[str, str]
    """How tasks are asked."""
    words: JobPrompts
    settings: RelationSettings


def prepare(job: RelationJob) -> JobTexts:
    """The data of a job, before its model is loaded.

    Raises:
        InputError: a file that cannot be read, or holds no relations; too few word pairs of a task; and settings that
            `sample_job` refuses.
    """
    settings = job.settings
    if not settings.tau >= 1 or settings.draws < 1:
        raise InputError(f"tau is {settings.tau} and draws are {settings.draws}: give 1 or more of each")
    if settings.texts < 1 or settings.task_prompts < 1:
        raise InputError(
            f"cannot use {settings.texts} texts and {settings.task_prompts} prompts of a task: ask for 1 or more"
        )
    words = Settings(heads=settings.heads, prompts=settings.prompts, shots=settings.shots, seed=settings.seed)
    name = job.model.model
    return JobTexts(
        *_dependencies(job.data.dependencies or own_texts(name, "dependencies") or SENTENCES),
        knowledge(name, job.data),
        load_tasks(job.data.tasks or own_texts(name, "tasks") or TASKS),
        asking(name, job.data.tasks),
        sample_job(load_rows(own_texts(name, "words") or WORD_CATEGORIES), words),
        settings,
    )


def _dependencies(source: str) -> tuple[Corpus, tuple[ParsedSentence, ...]]:
    """Parsed sentences, or sentences to parse: their relations, and their words with their heads."""
    if source.endswith(".txt"):
        lines = [line.strip() for line in read_text(path_of(source)).splitlines()]
        name, sentences = spacy_sentences([line for line in lines if line])
    else:
        name, sentences = conllu_sentences(source)
    return corpus_of(name, sentences), parses_of(sentences)


def asking(model: str, tasks: str | None) -> dict[str, str]:
    """How tasks are asked: as the model's own language does where they are of it, else as the paper does."""
    own = tasks is None and own_texts(model, "tasks") is not None
    question, separator = (OWN_QUESTION, OWN_BETWEEN) if own else (QUESTION, BETWEEN)
    return {"question": question, "separator": separator}


def knowledge(model: str, spec: RelationSpec) -> Corpus:
    """Texts of knowledge graphs, treated as the paper treats them but for what is asked to stay.

    Those that a model's folder brings are left as they are: it knows no others.
    """
    own = own_texts(model, "triplets")
    if spec.triplets is None and own is not None:
        return load_triplets(own)
    corpus = load_triplets(spec.triplets or TRIPLETS)
    corpus = corpus if spec.whole_texts else in_sentences(corpus)
    corpus = corpus if spec.keep_entities else with_letters(corpus)
    return corpus if spec.keep_words else without_words(corpus)


@dataclass(frozen=True)
class RelationsBegun:
    """What the study starts from."""

    model: LensModel
    dependencies: RelationBatch
    parses: tuple[ParsedSentence, ...]
    knowledge: RelationBatch
    backwards: RelationBatch
    """Of knowledge, from tail to head."""
    tasks: TaskPrompts
    """Prompts of tasks to find function-vector heads on."""
    mean_tasks: TaskPrompts
    """Others, to take the means of heads over."""
    other_tasks: TaskPrompts
    """Others of the same word pairs, to zero families on."""
    selection: PromptBatch
    """In-context prompts to select heads on."""
    evaluation: PromptBatch
    """Those of other words, to zero families on."""
    names: tuple[str, str]
    """Of both corpora."""
    settings: RelationSettings
    provenance: dict[str, Any]
    step: Steps
    """Computes the steps of the study, or takes them from the store."""

    @property
    def described(self) -> str:
        """What was run, in a few sentences."""
        parts = [
            f"{name}: {len(batch)} triplets of {len(batch.batch)} texts"
            for name, batch in zip(self.names, (self.dependencies, self.knowledge), strict=True)
        ]
        return f"Data: {'. '.join(parts)}. Tau: {self.settings.tau}. Seed: {self.settings.seed}."

    @property
    def record(self) -> RunRecord:
        """What the folder says of the run."""
        settings = asdict(self.settings)
        summary = {"provenance": self.provenance, "settings": settings}
        title = f"Semantic induction heads and head families of {self.provenance['name']}"
        return RunRecord(title, self.described, self.provenance, settings, summary, {}, self.step.costs)


def check(job: RelationJob, prepared: JobTexts, *, store: Store | None = None) -> None:
    """Find what cannot be done with the model's tokenizer and configuration alone, before its weights are loaded.

    Raises:
        InputError: prompts that the model cannot read, or more heads than leave random ones.
    """
    found = outline_spec(job.model, store)
    if found is None:
        return
    check_prompts(found, prepared.words)
    if found.cfg.n_layers and found.cfg.n_heads:
        _require_random_heads(found, job.settings.heads)


def _require_random_heads(model: TextModel, n_heads: int) -> None:
    n_all = model.cfg.n_layers * model.cfg.n_heads
    if (FAMILIES + 1) * n_heads > n_all:
        raise InputError(
            f"{FAMILIES} families of {n_heads} heads may leave too few of the {n_all} heads of "
            f"{model.cfg.model_name!r} for random ones: ask for at most {max(1, n_all // (FAMILIES + 1))}",
            about="heads",
        )


def begin(model: LensModel, prepared: JobTexts, *, store: Store | None = None) -> RelationsBegun:
    """Find the tokens of all triplets, and write the prompts. The store keeps the steps, if there is one.

    Raises:
        InputError: data that the model cannot read, or more heads than leave random ones.
        Unfit: no triplet is left for the model.
    """
    settings, knowledge = prepared.settings, prepared.knowledge
    drawn: dict[str, Any] = {"n_texts": settings.texts, "seed": settings.seed}
    _require_random_heads(model, settings.heads)
    n = settings.task_prompts
    tasks, mean_tasks, other_tasks = (
        task_prompts(model, prepared.tasks, few, shots=TASK_SHOTS, seed=settings.seed + other, **prepared.asking)
        for few, other in ((n, 0), (n, 2 * EVALUATION_SEED), (max(1, n // 3), EVALUATION_SEED))
    )
    where = provenance(model) | {"data": f"{prepared.dependencies.name}, {knowledge.name}", "seed": settings.seed}
    return RelationsBegun(
        model,
        relation_batch(model, prepared.dependencies, **drawn),
        prepared.parses,
        relation_batch(model, knowledge, **drawn),
        relation_batch(model, knowledge.reversed(), **drawn),
        tasks,
        mean_tasks,
        other_tasks,
        encode(model, prepared.words.selection),
        encode(model, prepared.words.evaluation),
        (prepared.dependencies.name, knowledge.name),
        settings,
        where,
        Steps((identity(model), prepared), model, where["data"], store),
    )
