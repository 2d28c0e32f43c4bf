"""A job: the model, the data and the settings of a run, as plain values.

The command line takes its options from these fields: their names, defaults and docstrings stand here and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token


def _words(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """`foo, bar` in one option."""
    return tuple(word.strip() for word in tokens[-1].value.split(","))


def _escaped(_: Any, tokens: Sequence[Token]) -> str:
    r"""Text in which `\n` stands for a new line and `\t` for a tab."""
    return tokens[-1].value.replace("\\n", "\n").replace("\\t", "\t")


def _heads(_: Any, tokens: Sequence[Token]) -> int | tuple[str, ...]:
    """`12`, or `L23H7,L23H1`."""
    value = tokens[-1].value
    return int(value) if value.strip().isdecimal() else _words(_, tokens)


MODEL, DATA, SETTINGS = (Group(name, sort_key=place) for place, name in enumerate(("Model", "Data", "Settings"), 1))
"""The groups of options in help texts."""
Dtype = Literal["float32", "float64", "bfloat16", "float16"]
Words = Annotated[tuple[str, ...], Parameter(converter=_words, n_tokens=1, show_default=",".join)]
Heads = Annotated[int | tuple[str, ...] | None, Parameter(converter=_heads, n_tokens=1, group=SETTINGS)]
Separator = Annotated[
    str,
    Parameter(converter=_escaped, allow_leading_hyphen=True, show_default=lambda _: "one space, as in the paper"),
]
Delimiter = Annotated[str | None, Parameter(converter=_escaped, allow_leading_hyphen=True)]


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how it is loaded."""

    model: str = "smollm2-135m"
    """Hub name, local Hugging Face folder, .gguf file, smollm2-135m, or icl-small."""
    backend: Literal["hooked", "bridge"] | None = None
    """HookedTransformer or TransformerBridge. Default: hooked where installed."""
    revision: str | None = None
    """Hub branch, tag or commit of the model."""
    checkpoint: int | None = None
    """Training step, of a Pythia or Stanford-CRFM model, icl-small, or a folder of checkpoints. Default: the last."""
    dtype: Dtype = "float32"
    """Of the model's weights."""
    device: str | None = None
    """Default: the one TransformerLens chooses."""
    n_ctx: int | None = None
    """Tokens that a HookedTransformer reads at most. Default: the model's, capped by TransformerLens."""


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class DataSpec:
    """Which texts and classes the prompts are made of."""

    data: str = "word-categories"
    """word-categories, a .csv, .tsv or .jsonl file, or hf:NAME/CONFIG@SPLIT of the Hub."""
    text_column: str = "text"
    """Column of the data with the texts."""
    label_column: str = "label"
    """Column of the data with the classes."""
    encoding: str | None = None
    """Of a data file. Default: what its byte order mark says, else utf-8."""
    delimiter: Delimiter = None
    r"""Of a CSV file; \t stands for a tab. Default: a comma, or what its header has instead."""
    label_score: Literal["first", "whole"] = "first"
    """Score labels of several tokens by the first that tells them apart, or whole."""


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True)
class Settings:
    """What is run, besides the model and the data."""

    labels: Words = ("foo", "bar")
    """Label words, comma-separated."""
    shots: int = 4
    """Demonstrations of each label."""
    prompts: int = 64
    """Prompts to select on, and as many to test on."""
    heads: int = 12
    """In-context heads to select, at most."""
    select: Literal["sure", "paper"] = "sure"
    """Select by log-probability lost that can be told from zero, or, as the paper, by accuracy lost."""
    seed: int = 0
    """Seed of every random choice."""
    separator: Separator = " "
    r"""Between demonstrations; \n stands for a new line."""


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class FactSpec:
    """Which facts a model is asked, or which prompt."""

    prompt: str | None = None
    """One prompt of yours, instead of facts; with --answer."""
    answer: str | None = None
    """The word that should follow it, without the space before."""
    data: str = "facts"
    """facts (built in), a .csv, .tsv or .jsonl file, or hf:NAME/CONFIG@SPLIT of the Hub."""
    text_column: str = "text"
    """Column of the data with the beginnings of sentences."""
    answer_column: str = "answer"
    """Column of the data with the words that go on with them."""
    type_column: str = "type"
    """Column of the data with the types of knowledge; not needed."""
    encoding: str | None = None
    """Of a data file. Default: what its byte order mark says, else utf-8."""
    delimiter: Delimiter = None
    r"""Of a CSV file; \t stands for a tab. Default: a comma, or what its header has instead."""


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True)
class FactSettings:
    """What is run on facts."""

    per_type: int = 10
    """Facts of each type, of those that the model knows."""
    seed: int = 0
    """Seed of every random choice."""


@Parameter(name="*")
@dataclass(frozen=True)
class FactJob:
    """Everything that decides what a run on facts computes."""

    model: ModelSpec = field(default_factory=ModelSpec)
    facts: FactSpec = field(default_factory=FactSpec)
    settings: FactSettings = field(default_factory=FactSettings)


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class RelationSpec:
    """Which texts with relations, and which tasks. Default: those that a model's folder brings, else built-in ones."""

    dependencies: str | None = None
    """Parsed sentences: a CoNLL-U file, or a .txt file of sentences, a line each, which spaCy parses."""
    triplets: str | None = None
    """Knowledge graphs of texts: a .jsonl file, or a .tsv file of AGENDA."""
    tasks: str | None = None
    """Word pairs of tasks: a file with the columns text, label and task."""
    keep_entities: bool = False
    """Leave the entities of knowledge graphs as they are; default: a capital letter for each, as in the paper."""
    keep_words: bool = False
    """Leave frequent function words in the texts of knowledge graphs; default: take them out, as in the paper."""
    whole_texts: bool = False
    """Leave texts of knowledge graphs whole; default: one sentence a text."""


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True)
class RelationSettings:
    """What is run on texts with relations."""

    texts: int = 200
    """Texts of each kind, at most."""
    tau: float = 2.2
    """How many times attention to a relation's head exceeds that to any other token, at least."""
    attention: Literal["model", "embedding"] = "model"
    """Which attention decides what passes: the model's own, or, as the paper's equation has it, of raw embeddings."""
    ov_input: Literal["embedding", "resid"] = "embedding"
    """What heads' values are taken of: raw embeddings, as in the paper, or normed states."""
    draws: int = 4000
    """Random tokens in each tail's place, for the test."""
    heads: int = 12
    """Heads of each family."""
    prompts: int = 24
    """Prompts to find in-context heads on, and as many to zero families on."""
    shots: int = 4
    """Demonstrations of each label in those."""
    task_prompts: int = 6
    """Prompts of each task, with 8 demonstrations, to find function-vector heads on; a third as many to zero on."""
    seed: int = 0
    """Seed of every random choice."""


@Parameter(name="*")
@dataclass(frozen=True)
class RelationJob:
    """Everything that decides what a run on relations computes."""

    model: ModelSpec = field(default_factory=ModelSpec)
    data: RelationSpec = field(default_factory=RelationSpec)
    settings: RelationSettings = field(default_factory=RelationSettings)


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class Series(ModelSpec):
    """A training run of a model."""

    model: str = "icl-small"
    """icl-small, a folder of checkpoints (step-000100 and so on), or, with --checkpoints, a Hub name."""
    revision: Annotated[str | None, Parameter(parse=False)] = None
    checkpoint: Annotated[int | None, Parameter(parse=False)] = None
    checkpoints: Words = ()
    """Training steps or Hub revisions that name theirs (stage1-step1000-tokens5B). Default: all of a folder."""
    seeds: Words = ()
    """The same model trained from other seeds: folders of checkpoints."""


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class DevelopmentSpec:
    """What checkpoints are measured on. Default: texts that the model's folder brings, else built-in English ones."""

    data: str | None = None
    """Texts and classes of prompts, a .csv, .tsv or .jsonl file."""
    dependencies: str | None = None
    """Parsed sentences, a CoNLL-U file."""
    triplets: str | None = None
    """Knowledge graphs of texts, a .jsonl file, or a .tsv file of AGENDA."""
    tasks: str | None = None
    """Word pairs of tasks, a file with the columns text, label and task."""
    long_texts: str | None = None
    """Texts for loss reduction, a .jsonl file with a field text. Default: sentences of the other texts, joined."""


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True)
class DevelopmentSettings:
    """What is measured at every checkpoint."""

    labels: Words = ("foo", "bar")
    """Label words of prompts, comma-separated."""
    shots: int = 4
    """Demonstrations of each label."""
    prompts: int = 48
    """Prompts of demonstrations."""
    texts: int = 100
    """Texts of each kind, at most."""
    task_prompts: int = 6
    """Prompts of each task, with 8 demonstrations."""
    level_prompts: int = 24
    """Prompts of each task of the three levels, at each number of shots."""
    heads: int = 2
    """Semantic induction heads of each kind to knock out at the last checkpoint."""
    seed: int = 0
    """Seed of every random choice."""


@Parameter(name="*")
@dataclass(frozen=True)
class DevelopmentJob:
    """Everything that decides what is measured of a training run."""

    model: Series = field(default_factory=Series)
    data: DevelopmentSpec = field(default_factory=DevelopmentSpec)
    settings: DevelopmentSettings = field(default_factory=DevelopmentSettings)


@Parameter(name="*")
@dataclass(frozen=True)
class Job:
    """Everything that decides what a run computes."""

    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataSpec = field(default_factory=DataSpec)
    settings: Settings = field(default_factory=Settings)


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True)
class CircuitSettings(Settings):
    """What is run of a circuit."""

    heads: Annotated[int, Parameter(parse=False)] = Settings.heads
    metric: str = "logit_diff"
    """What edges are scored by: logit_diff, between_labels, log_prob, prob or top1."""


@Parameter(name="*")
@dataclass(frozen=True)
class CircuitJob(Job):
    """Everything that decides what a circuit is made of."""

    settings: CircuitSettings = field(default_factory=CircuitSettings)
    heads: Heads = None
    """How many in-context heads to select, or which heads (L23H7,L23H1). Default: 12, or those of --results."""
    results: Annotated[Path | None, Parameter(group=SETTINGS)] = None
    """A folder of earlier results: its model, prompts and heads are taken."""
