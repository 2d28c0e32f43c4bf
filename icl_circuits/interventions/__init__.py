"""Typed hook functions, and the context in which they apply; what is put in a place, and what is measured."""

from icl_circuits.interventions.context import (
    Intervention as Intervention,
    intervene as intervene,
)
from icl_circuits.interventions.metrics import (
    FROM_ANSWERS as FROM_ANSWERS,
    SMOOTH as SMOOTH,
    Metric as Metric,
    MetricName as MetricName,
    from_answer_logits as from_answer_logits,
    from_logits as from_logits,
    from_states as from_states,
    metric_name as metric_name,
    of_base_run as of_base_run,
    require_metric as require_metric,
)
from icl_circuits.interventions.neurons import (
    ZeroNeurons as ZeroNeurons,
)
from icl_circuits.interventions.patches import (
    Patch as Patch,
    ReplaceHeads as ReplaceHeads,
    ZeroHeads as ZeroHeads,
)
from icl_circuits.interventions.positions import (
    Positions as Positions,
    PositionsName as PositionsName,
    SrcPositions as SrcPositions,
    positions_of as positions_of,
    require_positions as require_positions,
)
from icl_circuits.interventions.replacement import (
    Interchange as Interchange,
    Mean as Mean,
    Replacement as Replacement,
    Resample as Resample,
    ValueAt as ValueAt,
    Zero as Zero,
    mean_z as mean_z,
    source_of as source_of,
    values_at as values_at,
)
from icl_circuits.interventions.scores import (
    KnockOut as KnockOut,
    ReplaceScores as ReplaceScores,
    ScaleScores as ScaleScores,
    score_hooks as score_hooks,
)
from icl_circuits.interventions.without_position import (
    WithoutPosition as WithoutPosition,
    position_places as position_places,
    positionless as positionless,
)
