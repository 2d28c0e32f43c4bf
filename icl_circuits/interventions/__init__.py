"""Typed hook functions and the interventions they carry out; exact sweeps, path patching, attribution."""

from icl_circuits.interventions.attribution import Agreement, agreement, attribute, attribute_paths
from icl_circuits.interventions.context import Capture, answer_logits, intervene, mean_z
from icl_circuits.interventions.engine import Variant, Variants, plain_metric, run_each
from icl_circuits.interventions.hooks import (
    HeadSite,
    Hook,
    Intervention,
    KnockOut,
    LayerSite,
    Patch,
    Positions,
    ReplaceHeads,
    ReplaceScores,
    ScaleScores,
    Site,
    SrcPositions,
    ZeroHeads,
)
from icl_circuits.interventions.metrics import Metric, MetricName, from_logits, metric_name
from icl_circuits.interventions.paths import Paths, path_patch
from icl_circuits.interventions.position import POS_EMBED, WithoutPosition, position_sites, positionless
from icl_circuits.interventions.replacement import Mean, Replacement, Resample, Run, Zero, values_at
from icl_circuits.interventions.routes import Edge, Embedding, Mlp, Sender
from icl_circuits.interventions.sweep import Cell, Sweep, sweep

__all__ = [
    "POS_EMBED",
    "Agreement",
    "Capture",
    "Cell",
    "Edge",
    "Embedding",
    "HeadSite",
    "Hook",
    "Intervention",
    "KnockOut",
    "LayerSite",
    "Mean",
    "Metric",
    "MetricName",
    "Mlp",
    "Patch",
    "Paths",
    "Positions",
    "ReplaceHeads",
    "ReplaceScores",
    "Replacement",
    "Resample",
    "Run",
    "ScaleScores",
    "Sender",
    "Site",
    "SrcPositions",
    "Sweep",
    "Variant",
    "Variants",
    "WithoutPosition",
    "Zero",
    "ZeroHeads",
    "agreement",
    "answer_logits",
    "attribute",
    "attribute_paths",
    "from_logits",
    "intervene",
    "mean_z",
    "metric_name",
    "path_patch",
    "plain_metric",
    "position_sites",
    "positionless",
    "run_each",
    "sweep",
    "values_at",
]
