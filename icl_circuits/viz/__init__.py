"""Figures, circuitsvis views and pages: they take results and never compute them."""

from icl_circuits.viz.figures import accuracy_bars, head_map, layer_bars
from icl_circuits.viz.page import Section, Table, render_page
from icl_circuits.viz.style import save, style
from icl_circuits.viz.views import attention_view, circuitsvis_bundle, script_json

__all__ = [
    "Section",
    "Table",
    "accuracy_bars",
    "attention_view",
    "circuitsvis_bundle",
    "head_map",
    "layer_bars",
    "render_page",
    "save",
    "script_json",
    "style",
]
