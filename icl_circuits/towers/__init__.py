"""What each in-context head does: OV label features, QK two towers, where features flow, label reversal."""

from icl_circuits.towers.flow import (
    Flow as Flow,
)
from icl_circuits.towers.flow import (
    Probe as Probe,
)
from icl_circuits.towers.flow import (
    knock_out_flow as knock_out_flow,
)
from icl_circuits.towers.flow import (
    probe_flow as probe_flow,
)
from icl_circuits.towers.groups import (
    HeadGroup as HeadGroup,
)
from icl_circuits.towers.groups import (
    Measures as Measures,
)
from icl_circuits.towers.groups import (
    head_measures as head_measures,
)
from icl_circuits.towers.ov import (
    LabelFeatures as LabelFeatures,
)
from icl_circuits.towers.ov import (
    OVCircuits as OVCircuits,
)
from icl_circuits.towers.ov import (
    label_features as label_features,
)
from icl_circuits.towers.ov import (
    ov_circuits as ov_circuits,
)
from icl_circuits.towers.ov import (
    split_change as split_change,
)
from icl_circuits.towers.ov import (
    value_output as value_output,
)
from icl_circuits.towers.ov import (
    value_outputs as value_outputs,
)
from icl_circuits.towers.qk import (
    MetricLearning as MetricLearning,
)
from icl_circuits.towers.qk import (
    QKSpectrum as QKSpectrum,
)
from icl_circuits.towers.qk import (
    TwoTowers as TwoTowers,
)
from icl_circuits.towers.qk import (
    class_auc as class_auc,
)
from icl_circuits.towers.qk import (
    metric_learning as metric_learning,
)
from icl_circuits.towers.qk import (
    qk_spectrum as qk_spectrum,
)
from icl_circuits.towers.qk import (
    two_towers as two_towers,
)
from icl_circuits.towers.reads import (
    TowerReads as TowerReads,
)
from icl_circuits.towers.reads import (
    tower_reads as tower_reads,
)
from icl_circuits.towers.reversed_labels import (
    Reversal as Reversal,
)
from icl_circuits.towers.reversed_labels import (
    reversal as reversal,
)
from icl_circuits.towers.tokens import (
    tower_tokens as tower_tokens,
)
from icl_circuits.towers.tokens import (
    value_tokens as value_tokens,
)
