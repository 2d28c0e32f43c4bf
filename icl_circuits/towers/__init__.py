"""What each in-context head does: OV label features, QK two towers, where features flow, label reversal."""

from icl_circuits.towers.flow import (
    Flow as Flow,
    knock_out_flow as knock_out_flow,
)
from icl_circuits.towers.groups import (
    HeadGroup as HeadGroup,
    Measures as Measures,
    head_measures as head_measures,
)
from icl_circuits.towers.neurons import (
    NeuronReads as NeuronReads,
    neuron_reads as neuron_reads,
)
from icl_circuits.towers.ov import (
    LabelFeatures as LabelFeatures,
    label_features as label_features,
    split_change as split_change,
    value_output as value_output,
    value_outputs as value_outputs,
)
from icl_circuits.towers.ov_weights import (
    OVCircuits as OVCircuits,
    ov_circuits as ov_circuits,
)
from icl_circuits.towers.probes import (
    Probe as Probe,
    probe_flow as probe_flow,
)
from icl_circuits.towers.qk import (
    TwoTowers as TwoTowers,
    two_towers as two_towers,
)
from icl_circuits.towers.qk_weights import (
    QKSpectrum as QKSpectrum,
    qk_spectrum as qk_spectrum,
)
from icl_circuits.towers.reads import (
    TowerReads as TowerReads,
    tower_reads as tower_reads,
)
from icl_circuits.towers.reversed_labels import (
    Reversal as Reversal,
    reversal as reversal,
)
from icl_circuits.towers.similarity import (
    MetricLearning as MetricLearning,
    class_auc as class_auc,
    metric_learning as metric_learning,
)
from icl_circuits.towers.tokens import (
    tower_tokens as tower_tokens,
    value_tokens as value_tokens,
)
