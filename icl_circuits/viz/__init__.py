"""Figures, circuitsvis views and pages: they take results and never compute them."""

from icl_circuits.viz.figures import accuracy_bars, head_map, layer_bars
from icl_circuits.viz.page import MarkedToken, Section, Table, render_page
from icl_circuits.viz.style import save, style
from icl_circuits.viz.views import attention_view, circuitsvis_bundle, heads_that_fit, script_json

__all__ = [
    "MarkedToken",
    "Section",
    "Table",
    "accuracy_bars",
    "attention_view",
    "circuitsvis_bundle",
    "head_map",
    "heads_that_fit",
    "layer_bars",
    "render_page",
    "save",
    "script_json",
    "style",
]
