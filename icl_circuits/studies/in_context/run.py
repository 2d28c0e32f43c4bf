"""What the study computes: the heads zeroed together, and what they read (arXiv 2402.02872, tables 2 and 3)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from icl_circuits.heads import (
    GroupEffects,
    HeadEffects,
    LogProbIncrease,
    PositionIncrease,
    attention_from_last,
    attention_patterns,
    group_intervention,
    position_increase,
)
from icl_circuits.prompts import encode
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.shown import marked_tokens
from icl_circuits.viz import MarkedToken

RANDOM_DRAWS = 8
"""Of random heads, for the selected heads and for those of each label."""
VIEWED_PROMPTS = 3
KINDS = (LogProbIncrease, HeadEffects, GroupEffects, PositionIncrease)


@dataclass(frozen=True)
class InContextFindings:
    """What the study found, besides the heads themselves."""

    groups: GroupEffects
    positions: PositionIncrease
    attention: Float[np.ndarray, "prompt head pos src_pos"]
    """Attention of the selected heads on the first evaluation prompts."""
    attended: Float[np.ndarray, "prompt layer src_pos any_head"]
    """Attention of every head from the last position of those prompts."""
    tokens: tuple[tuple[MarkedToken, ...], ...]
    """The tokens of those prompts."""


def compute(begun: Begun) -> InContextFindings:
    """Zero the selected heads, each label's alone and random ones, and see what they read."""
    model, heads, settings = begun.model, begun.heads, begun.settings
    groups = begun.step(
        "zeroing groups",
        lambda: group_intervention(
            model, begun.evaluation, begun.scores.selected, n_random=RANDOM_DRAWS, seed=settings.seed
        ),
    )
    few = encode(model, begun.prompts.evaluation[:VIEWED_PROMPTS], separator=settings.separator)
    positions, patterns, attended = begun.step(
        "positions and attention",
        lambda: (
            position_increase(model, begun.evaluation, heads),
            attention_patterns(model, few, heads),
            attention_from_last(model, few),
        ),
    )
    tokens = tuple(marked_tokens(model, few, row) for row in range(len(few)))
    return InContextFindings(groups, positions, patterns, attended, tokens)
