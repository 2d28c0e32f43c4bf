"""What each in-context head does: OV label features, QK two towers, where features flow, label reversal."""

from icl_circuits.towers.flow import Flow, Probe, knock_out_flow, probe_flow
from icl_circuits.towers.groups import HeadGroup, Measures, head_measures
from icl_circuits.towers.ov import (
    LabelFeatures,
    OVCircuits,
    label_features,
    ov_circuits,
    split_change,
    value_output,
    value_outputs,
)
from icl_circuits.towers.qk import (
    MetricLearning,
    QKSpectrum,
    TwoTowers,
    class_auc,
    metric_learning,
    qk_spectrum,
    two_towers,
)
from icl_circuits.towers.reads import TowerReads, tower_reads
from icl_circuits.towers.reversal import Reversal, reversal
from icl_circuits.towers.tokens import tower_tokens, value_tokens

__all__ = [
    "Flow",
    "HeadGroup",
    "LabelFeatures",
    "Measures",
    "MetricLearning",
    "OVCircuits",
    "Probe",
    "QKSpectrum",
    "Reversal",
    "TowerReads",
    "TwoTowers",
    "class_auc",
    "head_measures",
    "knock_out_flow",
    "label_features",
    "metric_learning",
    "ov_circuits",
    "probe_flow",
    "qk_spectrum",
    "reversal",
    "split_change",
    "tower_reads",
    "tower_tokens",
    "two_towers",
    "value_output",
    "value_outputs",
    "value_tokens",
]
