"""What the study begins with: the facts of a job that the model knows, or one prompt."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from icl_circuits.errors import InputError
from icl_circuits.jobs import FactJob, FactSettings, FactSpec
from icl_circuits.models import LensModel, identity, provenance
from icl_circuits.prompts import Fact, Facts, load_facts, token_batch
from icl_circuits.report import RunRecord
from icl_circuits.store import Store
from icl_circuits.studies.begun import outline_spec
from icl_circuits.studies.steps import Steps
from icl_circuits.subvalues import KnownFacts, known_facts, require_per_type

PROMPT = "prompt"
"""The type of a prompt of the user's own."""
ASKING = "asking for facts"
"""The name of a step."""


DATA_OPTIONS = ("data", "text_column", "answer_column", "type_column", "encoding", "delimiter")
"""What a prompt of one's own does not go with."""


@dataclass(frozen=True)
class JobFacts:
    """The facts of a job, loaded before any model."""

    facts: Facts
    settings: FactSettings
    is_prompt: bool
    """Whether this is one prompt, which need not be known."""


def prepare(job: FactJob) -> JobFacts:
    """The facts of a job, before its model is loaded.

    Raises:
        InputError: a prompt without its answer, an answer without its prompt, options of a data file beside a prompt,
            and whatever `load_facts` raises.
    """
    spec = job.facts
    if spec.prompt is not None:
        other = [name for name in DATA_OPTIONS if getattr(spec, name) != getattr(FactSpec(), name)]
        if other:
            option = "--" + other[0].replace("_", "-")
            raise InputError(f"{option} is of a data file, but --prompt asks for one prompt: give one of them")
    if (spec.prompt is None) != (spec.answer is None):
        missing = "--answer, the word that should follow it" if spec.answer is None else "--prompt, what it follows"
        raise InputError(f"a prompt comes with its answer: give {missing}")
    if spec.prompt is not None and spec.answer is not None:
        for option, text in (("--prompt", spec.prompt), ("--answer", spec.answer)):
            if not text.strip():
                raise InputError(f"{option} is {text!r}: give some words")
        given = load_facts([{"text": spec.prompt, "answer": spec.answer, "type": PROMPT}])
        return JobFacts(Facts("a prompt of one's own", given.facts), job.settings, True)
    facts = load_facts(
        spec.data,
        text_column=spec.text_column,
        answer_column=spec.answer_column,
        type_column=spec.type_column,
        encoding=spec.encoding,
        delimiter=spec.delimiter,
    )
    return JobFacts(facts, job.settings, False)


def check(job: FactJob, prepared: JobFacts, *, store: Store | None = None) -> None:
    """Find prompts and answers that the model cannot read, with its tokenizer and configuration alone.

    Raises:
        InputError: whatever `outline` and `token_batch` raise, or fewer than 1 fact of a type asked for.
    """
    require_per_type(prepared.settings.per_type)
    found = outline_spec(job.model, store)
    if found is not None:
        facts = prepared.facts.facts
        token_batch(found, [fact.text for fact in facts], [f" {fact.answer}" for fact in facts])


def steps(prepared: JobFacts) -> tuple[str, ...]:
    """The steps of `begin`."""
    return () if prepared.is_prompt else (ASKING,)


@dataclass(frozen=True)
class FactsBegun:
    """What the study starts from: the model and the facts that it knows."""

    model: LensModel
    known: KnownFacts
    data: str
    settings: FactSettings
    provenance: dict[str, Any]
    is_prompt: bool
    """Whether this is one prompt of the user's own."""
    step: Steps
    """Computes the steps of the study, or takes them from the store."""

    def shown_answer(self, row: int) -> str:
        """A prompt's answer, and the token that stands for it where it is not the whole answer."""
        answer, token = self.known.facts[row].answer, self.model.tokenizer.decode([int(self.known.batch.target[row])])
        return answer if token.strip() == answer.strip() else f"{answer} (its first token, {token!r}, is scored)"

    @property
    def type_of(self) -> Int[np.ndarray, " prompt"]:
        """Each prompt's type, as a place in `known.types`."""
        return np.array([self.known.types.index(fact.type) for fact in self.known.facts])

    @property
    def described(self) -> str:
        """What was run, in a sentence or two."""
        if self.is_prompt:
            return f"Prompt: {self.known.facts[0].text!r}, answer {self.shown_answer(0)}."
        asked = ", ".join(f"{name} {known} of {tried}" for name, tried, known in self.known.asked)
        return (
            f"Data: {self.data}, {len(self.known.facts)} prompts, at most {self.settings.per_type} of a type. Seed: "
            f"{self.settings.seed}. Facts that the model knows: {asked}. An answer stands for its first token."
        )

    @property
    def record(self) -> RunRecord:
        """What the folder says of the run."""
        settings = asdict(self.settings)
        summary = {
            "provenance": self.provenance,
            "settings": settings,
            "facts": {name: {"tried": tried, "known": known} for name, tried, known in self.known.asked},
            "prompts": [fact._asdict() for fact in self.known.facts],
        }
        title = f"What writes the answers to facts in {self.provenance['name']}"
        return RunRecord(
            title, self.described, self.provenance, settings, summary, {"type_of": self.type_of}, self.step.costs
        )


def begin(model: LensModel, prepared: JobFacts, *, store: Store | None = None) -> FactsBegun:
    """Ask the model for the facts, and keep those that it knows. The store keeps the steps, if there is one.

    Raises:
        InputError: whatever `known_facts` raises.
    """
    step = Steps((identity(model), prepared), model, prepared.facts.name, store)
    settings, facts = prepared.settings, prepared.facts
    if prepared.is_prompt:
        fact: Fact = facts.facts[0]
        batch = token_batch(model, [fact.text], [f" {fact.answer}"])
        known = KnownFacts(batch, facts.facts, ())  # a prompt is not asked whether it is known
    else:
        known = step(ASKING, lambda: known_facts(model, facts, per_type=settings.per_type, seed=settings.seed))
    where = provenance(model) | {"data": facts.name, "seed": settings.seed}
    return FactsBegun(model, known, facts.name, settings, where, prepared.is_prompt, step)
