"""Typed hook functions, and the context in which they apply; what is put in a place, and what is measured."""

from icl_circuits.interventions.context import (
    Intervention as Intervention,
)
from icl_circuits.interventions.context import (
    intervene as intervene,
)
from icl_circuits.interventions.context import (
    mean_z as mean_z,
)
from icl_circuits.interventions.metrics import (
    FROM_ANSWERS as FROM_ANSWERS,
)
from icl_circuits.interventions.metrics import (
    SMOOTH as SMOOTH,
)
from icl_circuits.interventions.metrics import (
    Metric as Metric,
)
from icl_circuits.interventions.metrics import (
    MetricName as MetricName,
)
from icl_circuits.interventions.metrics import (
    from_answer_logits as from_answer_logits,
)
from icl_circuits.interventions.metrics import (
    from_logits as from_logits,
)
from icl_circuits.interventions.metrics import (
    metric_name as metric_name,
)
from icl_circuits.interventions.metrics import (
    require_metric as require_metric,
)
from icl_circuits.interventions.patches import (
    Patch as Patch,
)
from icl_circuits.interventions.patches import (
    ReplaceHeads as ReplaceHeads,
)
from icl_circuits.interventions.patches import (
    ZeroHeads as ZeroHeads,
)
from icl_circuits.interventions.positions import (
    Positions as Positions,
)
from icl_circuits.interventions.positions import (
    PositionsName as PositionsName,
)
from icl_circuits.interventions.positions import (
    SrcPositions as SrcPositions,
)
from icl_circuits.interventions.positions import (
    positions_of as positions_of,
)
from icl_circuits.interventions.positions import (
    require_positions as require_positions,
)
from icl_circuits.interventions.replacement import (
    Interchange as Interchange,
)
from icl_circuits.interventions.replacement import (
    Mean as Mean,
)
from icl_circuits.interventions.replacement import (
    Replacement as Replacement,
)
from icl_circuits.interventions.replacement import (
    Resample as Resample,
)
from icl_circuits.interventions.replacement import (
    ValueAt as ValueAt,
)
from icl_circuits.interventions.replacement import (
    Zero as Zero,
)
from icl_circuits.interventions.replacement import (
    source_of as source_of,
)
from icl_circuits.interventions.replacement import (
    values_at as values_at,
)
from icl_circuits.interventions.scores import (
    KnockOut as KnockOut,
)
from icl_circuits.interventions.scores import (
    ReplaceScores as ReplaceScores,
)
from icl_circuits.interventions.scores import (
    ScaleScores as ScaleScores,
)
from icl_circuits.interventions.scores import (
    score_hooks as score_hooks,
)
from icl_circuits.interventions.without_position import (
    WithoutPosition as WithoutPosition,
)
from icl_circuits.interventions.without_position import (
    position_places as position_places,
)
from icl_circuits.interventions.without_position import (
    positionless as positionless,
)
