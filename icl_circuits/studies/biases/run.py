"""What the study computes: both biases, their mitigations chosen on other prompts, and the same with random heads."""

from dataclasses import dataclass

from icl_circuits.biases import (
    PAPER,
    MajorityBias,
    Measured,
    RecencyBias,
    choose,
    majority_bias,
    measured,
    recency_bias,
)
from icl_circuits.errors import Unfit
from icl_circuits.heads import random_heads, require_first
from icl_circuits.residual import Head, all_heads
from icl_circuits.studies.begun import DETAILED, Begun

RANDOM_DRAWS = 5
RECENCY_DRAWS = 2
"""Fewer, since each takes forward passes of its own."""
KINDS = (MajorityBias, RecencyBias)
Draws = list[tuple[Head, ...]]


@dataclass(frozen=True)
class MajorityFindings:
    """The majority-label bias."""

    chosen: float
    """The coefficient."""
    sweep: MajorityBias
    """On the selection prompts, every coefficient."""
    found: MajorityBias
    """On the evaluation prompts: nothing, the paper's coefficient, the chosen one; random heads as controls."""


@dataclass(frozen=True)
class RecencyFindings:
    """The recency bias."""

    chosen: float
    """The strength."""
    sweep: RecencyBias
    """On the selection prompts, every strength."""
    found: RecencyBias
    """On the evaluation prompts: nothing, full strength, the chosen one."""
    random: tuple[RecencyBias, ...]
    """With random heads."""


@dataclass(frozen=True)
class BiasFindings:
    """Both biases on the evaluation prompts, their mitigations chosen on the selection prompts."""

    majority: MajorityFindings
    recency: RecencyFindings | None
    """None where the model's position cannot be taken out."""
    refused: str
    """Why `recency` is None."""
    measured: tuple[Measured, ...]


def compute(begun: Begun) -> BiasFindings:
    """Both biases before and after their mitigations, beside the same with random heads.

    Raises:
        Unfit: fewer than 2 shots, or labels of several tokens that are scored whole.
    """
    require_first(begun.evaluation, "biases")
    every, seed = all_heads(begun.model), begun.settings.seed
    draws = [random_heads(every, begun.heads, seed=(seed, i)) for i in range(RANDOM_DRAWS)]
    majority = begun.step("majority-label bias", lambda: _majority(begun, draws))
    rows = measured("majority", majority.found, majority.found.controls, majority.chosen)
    recency, refused = begun.step("recency bias", lambda: _recency_or_why_not(begun, draws))
    if recency is not None:
        rows += measured("recency", recency.found, recency.random, recency.chosen)
    return BiasFindings(majority, recency, refused, tuple(rows))


def _majority(begun: Begun, draws: Draws) -> MajorityFindings:
    model, heads, separator = begun.model, begun.heads, begun.settings.separator
    sweep = majority_bias(model, begun.prompts.selection[:DETAILED], heads, separator=separator)
    chosen = sweep.strengths[choose(sweep)]
    found = majority_bias(
        model,
        begun.prompts.evaluation,
        heads,
        coefficients=tuple(dict.fromkeys((0.0, PAPER["majority"], chosen))),
        controls=draws,
        separator=separator,
    )
    return MajorityFindings(chosen, sweep, found)


def _recency_or_why_not(begun: Begun, draws: Draws) -> tuple[RecencyFindings | None, str]:
    try:
        return _recency(begun, draws), ""
    except Unfit as error:  # a model whose attention cannot be told apart from its positions
        return None, str(error)


def _recency(begun: Begun, draws: Draws) -> RecencyFindings:
    prompts, seed, separator = begun.prompts, begun.settings.seed, begun.settings.separator
    sweep = recency_bias(begun.model, prompts.selection[:DETAILED], begun.heads, seed=seed, separator=separator)
    chosen, paper = sweep.strengths[choose(sweep)], PAPER["recency"]

    def over_orders(heads: tuple[Head, ...], *strengths: float) -> RecencyBias:
        return recency_bias(begun.model, prompts.evaluation, heads, strengths=strengths, seed=seed, separator=separator)

    found = over_orders(begun.heads, *dict.fromkeys((0.0, paper, chosen)))
    random = tuple(over_orders(draw, chosen or paper) for draw in draws[:RECENCY_DRAWS])
    return RecencyFindings(chosen, sweep, found, random)
