"""Typed hook functions, the interventions they carry out, and the context in which they apply."""

from icl_circuits.interventions.context import Capture, answer_logits, intervene, mean_z
from icl_circuits.interventions.hooks import (
    Hook,
    Intervention,
    Patch,
    Positions,
    ReplaceHeads,
    ReplaceScores,
    ScaleScores,
    Site,
    SrcPositions,
    ZeroHeads,
)

__all__ = [
    "Capture",
    "Hook",
    "Intervention",
    "Patch",
    "Positions",
    "ReplaceHeads",
    "ReplaceScores",
    "ScaleScores",
    "Site",
    "SrcPositions",
    "ZeroHeads",
    "answer_logits",
    "intervene",
    "mean_z",
]
