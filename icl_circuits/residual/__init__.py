"""The residual stream taken apart: its components, what each wrote from which position, log-probability increase."""

from icl_circuits.residual.capture import (
    Capture as Capture,
)
from icl_circuits.residual.capture import (
    final_state as final_state,
)
from icl_circuits.residual.components import (
    Bias as Bias,
)
from icl_circuits.residual.components import (
    Component as Component,
)
from icl_circuits.residual.components import (
    Edge as Edge,
)
from icl_circuits.residual.components import (
    Embedding as Embedding,
)
from icl_circuits.residual.components import (
    Head as Head,
)
from icl_circuits.residual.components import (
    HeadInput as HeadInput,
)
from icl_circuits.residual.components import (
    Label as Label,
)
from icl_circuits.residual.components import (
    Last as Last,
)
from icl_circuits.residual.components import (
    Logits as Logits,
)
from icl_circuits.residual.components import (
    Mlp as Mlp,
)
from icl_circuits.residual.components import (
    Neuron as Neuron,
)
from icl_circuits.residual.components import (
    Node as Node,
)
from icl_circuits.residual.components import (
    Query as Query,
)
from icl_circuits.residual.components import (
    Sender as Sender,
)
from icl_circuits.residual.components import (
    Text as Text,
)
from icl_circuits.residual.components import (
    all_heads as all_heads,
)
from icl_circuits.residual.components import (
    all_mlps as all_mlps,
)
from icl_circuits.residual.components import (
    layer_of as layer_of,
)
from icl_circuits.residual.components import (
    require_distinct_heads as require_distinct_heads,
)
from icl_circuits.residual.components import (
    require_heads as require_heads,
)
from icl_circuits.residual.components import (
    require_some_heads as require_some_heads,
)
from icl_circuits.residual.components import (
    write_order as write_order,
)
from icl_circuits.residual.increase import (
    LogProbIncrease as LogProbIncrease,
)
from icl_circuits.residual.increase import (
    PositionIncrease as PositionIncrease,
)
from icl_circuits.residual.increase import (
    log_prob_increase as log_prob_increase,
)
from icl_circuits.residual.increase import (
    position_increase as position_increase,
)
from icl_circuits.residual.moved import (
    Moved as Moved,
)
from icl_circuits.residual.moved import (
    Moves as Moves,
)
from icl_circuits.residual.run import (
    Hooked as Hooked,
)
from icl_circuits.residual.run import (
    answer_logits as answer_logits,
)
from icl_circuits.residual.run import (
    embedding as embedding,
)
from icl_circuits.residual.run import (
    hooks_of as hooks_of,
)
from icl_circuits.residual.written import (
    Written as Written,
)
from icl_circuits.residual.written import (
    components_below as components_below,
)
