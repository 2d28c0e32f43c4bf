"""The residual stream taken apart: its components, what each wrote from which position."""

from icl_circuits.residual.capture import (
    Capture as Capture,
    final_state as final_state,
)
from icl_circuits.residual.components import (
    Bias as Bias,
    Component as Component,
    Edge as Edge,
    Embedding as Embedding,
    Head as Head,
    HeadInput as HeadInput,
    HeadLike as HeadLike,
    Label as Label,
    Last as Last,
    Logits as Logits,
    Mlp as Mlp,
    Neuron as Neuron,
    Node as Node,
    Query as Query,
    Sender as Sender,
    Text as Text,
    all_heads as all_heads,
    all_mlps as all_mlps,
    head_of as head_of,
    heads_of as heads_of,
    layer_of as layer_of,
    require_distinct_heads as require_distinct_heads,
    require_heads as require_heads,
    require_some_heads as require_some_heads,
    write_order as write_order,
)
from icl_circuits.residual.moved import (
    Moved as Moved,
    Moves as Moves,
    by_source as by_source,
)
from icl_circuits.residual.run import (
    Hooked as Hooked,
    answer_logits as answer_logits,
    embedding as embedding,
    hooks_of as hooks_of,
)
from icl_circuits.residual.written import (
    Written as Written,
    components_below as components_below,
)
