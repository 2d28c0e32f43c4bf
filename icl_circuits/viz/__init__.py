"""Figures, circuitsvis views and pages: they take results and never compute them. `live_circuit` runs the model."""

from icl_circuits.viz.bias_figures import (
    majority_figure as majority_figure,
    recency_figure as recency_figure,
)
from icl_circuits.viz.circuit_figure import (
    circuit_curves as circuit_curves,
)
from icl_circuits.viz.circuit_svg import (
    PromptRow as PromptRow,
)
from icl_circuits.viz.circuit_view import (
    CircuitView as CircuitView,
    ShownRun as ShownRun,
)
from icl_circuits.viz.development_figures import (
    co_timing_map as co_timing_map,
    emergence_dots as emergence_dots,
    head_curves as head_curves,
    level_panels as level_panels,
    shot_panels as shot_panels,
)
from icl_circuits.viz.fact_view import (
    FactView as FactView,
    ShownFact as ShownFact,
    ShownWriter as ShownWriter,
    WriterKind as WriterKind,
)
from icl_circuits.viz.head_figures import (
    accuracy_bars as accuracy_bars,
    answer_bars as answer_bars,
    head_map as head_map,
    layer_bars as layer_bars,
    position_bars as position_bars,
)
from icl_circuits.viz.live import (
    live_circuit as live_circuit,
)
from icl_circuits.viz.look import (
    arrows as arrows,
    new_figure as new_figure,
    save as save,
    style as style,
)
from icl_circuits.viz.page import (
    MarkedToken as MarkedToken,
    Section as Section,
    Table as Table,
    render_page as render_page,
)
from icl_circuits.viz.relation_figures import (
    family_bars as family_bars,
    head_panels as head_panels,
    overlap_map as overlap_map,
    ratio_histogram as ratio_histogram,
)
from icl_circuits.viz.subvalue_figures import (
    agreement_curves as agreement_curves,
    increase_map as increase_map,
    interpolation_curves as interpolation_curves,
    layer_strips as layer_strips,
    method_bars as method_bars,
    method_layers as method_layers,
    neuron_layers as neuron_layers,
    query_shares as query_shares,
)
from icl_circuits.viz.sweep_figure import (
    sweep_map as sweep_map,
)
from icl_circuits.viz.tower_figures import (
    auc_dots as auc_dots,
    flow_curves as flow_curves,
    label_feature_bars as label_feature_bars,
    reversal_bars as reversal_bars,
    schematic as schematic,
)
from icl_circuits.viz.views import (
    attention_view as attention_view,
    circuitsvis_bundle as circuitsvis_bundle,
    colored_tokens_view as colored_tokens_view,
    script_json as script_json,
    topk_tokens_view as topk_tokens_view,
)
