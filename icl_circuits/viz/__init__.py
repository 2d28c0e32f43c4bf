"""Figures, circuitsvis views and pages: they take results and never compute them."""

from icl_circuits.viz.bias_figures import majority_figure, recency_figure
from icl_circuits.viz.circuit_figure import circuit_curves
from icl_circuits.viz.circuit_svg import PromptRow
from icl_circuits.viz.circuit_view import CircuitView, ShownRun
from icl_circuits.viz.head_figures import accuracy_bars, answer_bars, head_map, layer_bars, position_bars
from icl_circuits.viz.page import MarkedToken, Section, Table, render_page
from icl_circuits.viz.style import save, style
from icl_circuits.viz.sweep_figure import sweep_map
from icl_circuits.viz.tower_figures import auc_dots, flow_curves, label_feature_bars, reversal_bars, schematic
from icl_circuits.viz.views import (
    attention_view,
    circuitsvis_bundle,
    colored_tokens_view,
    script_json,
    topk_tokens_view,
)

__all__ = [
    "CircuitView",
    "MarkedToken",
    "PromptRow",
    "Section",
    "ShownRun",
    "Table",
    "accuracy_bars",
    "answer_bars",
    "attention_view",
    "auc_dots",
    "circuit_curves",
    "circuitsvis_bundle",
    "colored_tokens_view",
    "flow_curves",
    "head_map",
    "label_feature_bars",
    "layer_bars",
    "majority_figure",
    "position_bars",
    "recency_figure",
    "render_page",
    "reversal_bars",
    "save",
    "schematic",
    "script_json",
    "style",
    "sweep_map",
    "topk_tokens_view",
]
