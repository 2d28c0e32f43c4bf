"""What a run works on: its settings, its prompts, and the heads that they select."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from icl_circuits.errors import InputError
from icl_circuits.heads import (
    HeadEffects,
    InContextHeads,
    select_heads,
    zero_each_head,
)
from icl_circuits.models import LensModel, provenance
from icl_circuits.prompts import DEFAULT_SEPARATOR, Prompt, PromptBatch, Rows, encode, sample_prompts
from icl_circuits.residual import Head, LogProbIncrease, log_prob_increase
from icl_circuits.viz import MarkedToken

EVALUATION_SEED = 1_000_003
"""Added to the seed for the evaluation prompts, so that neighbouring seeds share none."""


@dataclass(frozen=True)
class Settings:
    """What the main job runs on, besides the model and the rows."""

    labels: tuple[str, ...] = ("foo", "bar")
    shots: int = 4
    """Demonstrations of each label."""
    prompts: int = 64
    """To select on, and as many to test on."""
    heads: int = 12
    """To select."""
    seed: int = 0
    separator: str = DEFAULT_SEPARATOR


@dataclass(frozen=True)
class Plan:
    """The prompts of a run, sampled before any model is loaded."""

    settings: Settings
    data: str
    selection: tuple[Prompt, ...]
    evaluation: tuple[Prompt, ...]
    """Made of other texts than `selection`."""


@dataclass(frozen=True)
class Scores:
    """Both scores of the heads on the selection prompts, and the heads they select."""

    batch: PromptBatch
    increase: LogProbIncrease
    effects: HeadEffects
    selected: InContextHeads


def plan(rows: Rows, settings: Settings) -> Plan:
    """Sample prompts to select on from one half of the texts, and prompts to test on from the other.

    Raises:
        InputError: no head asked for, and whatever `sample_prompts` raises (a half may have too few texts of a class).
    """
    if settings.heads < 1:
        raise InputError(f"cannot select {settings.heads} heads: ask for at least 1")
    for_selection, for_evaluation = rows.split(settings.seed)
    options: dict[str, Any] = {"labels": settings.labels, "shots": settings.shots}
    return Plan(
        settings,
        rows.name,
        sample_prompts(for_selection, settings.prompts, seed=settings.seed, **options),
        sample_prompts(for_evaluation, settings.prompts, seed=settings.seed + EVALUATION_SEED, **options),
    )


def score_heads(model: LensModel, plan: Plan) -> Scores:
    """Score every head statically and causally on the selection prompts, and select.

    Raises:
        InputError: more heads asked for than half of the model's, and whatever encoding and scoring raise.
    """
    settings, n_heads = plan.settings, model.cfg.n_layers * model.cfg.n_heads
    if settings.heads > n_heads // 2:
        raise InputError(
            f"cannot select {settings.heads} heads: {model.cfg.model_name!r} has {n_heads}, and as many others are "
            f"needed for the random control, so select at most {n_heads // 2}"
        )
    batch = encode(model, plan.selection, separator=settings.separator)
    increase = log_prob_increase(model, batch)
    effects = zero_each_head(model, batch)
    selected = select_heads(increase, effects, batch.gold.cpu().numpy(), settings.labels, n_heads=settings.heads)
    return Scores(batch, increase, effects, selected)


@dataclass(frozen=True)
class Start:
    """What every study starts from: the model, the selected heads, and the prompts to test on."""

    model: LensModel
    plan: Plan
    scores: Scores
    evaluation: PromptBatch
    provenance: dict[str, Any]
    seconds: dict[str, float]
    """How long each step took; the studies add theirs."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The selected heads, best first."""
        return self.scores.selected.of()

    @property
    def described(self) -> str:
        """What was run, in a sentence."""
        settings = self.plan.settings
        return (
            f"Data: {self.plan.data}, labels {', '.join(settings.labels)}, {settings.shots} demonstrations of each, "
            f"{settings.prompts} prompts to select {len(self.heads)} heads on and {settings.prompts} others, of "
            f"other texts, to test on, seed {settings.seed}."
        )

    @property
    def about(self) -> dict[str, Any]:
        """What every file of results says of itself."""
        name = self.provenance["name"]
        return {
            "provenance": self.provenance,
            "settings": asdict(self.plan.settings),
            "described": f"Model: {name}. {self.described}",
        }

    @property
    def summary(self) -> dict[str, Any]:
        """What every `results.json` holds."""
        return {
            "provenance": self.provenance,
            "settings": asdict(self.plan.settings),
            "heads": [vars(head) for head in self.scores.selected.heads],
            "heads_scanned": len(self.scores.effects.heads),
            "prompts": {"selection": _prompts(self.scores.batch), "evaluation": _prompts(self.evaluation)},
            "seconds": self.seconds,
        }

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note how long the block takes."""
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 1)


def start(model: LensModel, plan: Plan) -> Start:
    """Select the heads and encode the prompts to test on.

    Raises:
        InputError: whatever `score_heads` and encoding raise.
    """
    settings = plan.settings
    evaluation = encode(model, plan.evaluation, separator=settings.separator)
    begun = time.perf_counter()
    scores = score_heads(model, plan)
    template = f"<text> : <label>{settings.separator}<text> : <label>{settings.separator}... <query> :"
    where = provenance(model) | {"data": plan.data, "seed": settings.seed, "template": template}
    return Start(model, plan, scores, evaluation, where, {"selection": round(time.perf_counter() - begun, 1)})


def _prompts(batch: PromptBatch) -> list[dict[str, str]]:
    return [
        {"text": text, "answer": prompt.labels[prompt.gold], "category": prompt.category, "origin": prompt.origin}
        for text, prompt in zip(batch.texts, batch.prompts, strict=True)
    ]


def marked_tokens(model: LensModel, batch: PromptBatch, row: int) -> tuple[MarkedToken, ...]:
    """One prompt's tokens as text, its label positions and last position marked."""
    last, labels = int(batch.last[row]), set(batch.label_positions[row].tolist())
    return tuple(
        MarkedToken(model.tokenizer.decode([token]), i, "last" if i == last else "label" if i in labels else "plain")
        for i, token in enumerate(batch.tokens[row, : last + 1].tolist())
    )
