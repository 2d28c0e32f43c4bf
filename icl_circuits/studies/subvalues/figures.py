"""Figures of arXiv 2312.12141 (its section 5 and appendices), and their captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.studies.subvalues.run import TOP_FFN
from icl_circuits.subvalues import METHODS, query_only_share
from icl_circuits.viz import (
    agreement_curves,
    increase_map,
    interpolation_curves,
    layer_bars,
    layer_strips,
    method_bars,
    method_layers,
    neuron_layers,
    query_shares,
)

if TYPE_CHECKING:
    import matplotlib.figure

COMPARED = 3
"""The methods whose neurons' layers are drawn."""


def _n_layers(values: Values) -> int:
    return int(values["increase"].attn.shape[1])


def _strips(values: Values, which: str, label: str) -> "matplotlib.figure.Figure":
    found, kinds = values[which], values["type_of"]
    names = values["types"].names
    rows = {
        name: np.stack([found.attn[kinds == i].mean(axis=0), found.mlp[kinds == i].mean(axis=0)])
        for i, name in enumerate(names)
    }
    return layer_strips(rows, label)


FIGURES: Mapping[str, PaperFigure] = {
    "fact_layers": PaperFigure(
        ("increase", "ffn"),
        lambda v: layer_bars(v["increase"]),
        f"Log-probability increase of attention and FFN layers at the last position, means over prompts. {INTERVALS}",
    ),
    "fact_heads": PaperFigure(
        ("increase", "ffn"),
        lambda v: increase_map(v["increase"]),
        "Log-probability increase of every head, means over prompts. Heads below zero are white.",
    ),
    "value_layers": PaperFigure(
        ("increase", "types", "type_of"),
        lambda v: _strips(v, "increase", "log-prob increase"),
        "Log-probability increase of layers, a row for each type of knowledge, scaled to the row's own maximum.",
    ),
    "query_layers_of_ffn": PaperFigure(
        ("query_ffn", "types", "type_of"),
        lambda v: _strips(v, "query_ffn", "query importance"),
        "Query importance of layers for the first FFN value neurons: which layers activate them. A row for each type "
        "of knowledge, scaled to the row's own maximum.",
    ),
    "query_layers_of_attention": PaperFigure(
        ("query_attention", "types", "type_of"),
        lambda v: _strips(v, "query_attention", "query importance"),
        "Query importance of layers for the attention value neurons, at the positions they read. A row for each type "
        "of knowledge, scaled to the row's own maximum.",
    ),
    "neuron_layers": PaperFigure(
        ("ffn", "attention", "increase"),
        lambda v: neuron_layers(v["ffn"].first(TOP_FFN).layer, v["attention"].layer, _n_layers(v)),
        f"Layers of the value neurons: those of the highest log-probability increase in each prompt. {INTERVALS}",
    ),
    "query_or_value": PaperFigure(
        ("ffn", "query_attention", "increase"),
        lambda v: query_shares(query_only_share(v["query_attention"], v["ffn"], _n_layers(v))),
        "Query neurons that are also among the prompt's first 1,000 FFN value neurons, and those that are not, "
        f"by depth. {INTERVALS}",
    ),
    "interpolation": PaperFigure(
        ("way",),
        lambda v: interpolation_curves(v["way"]),
        "The answer on the straight way from the first residual state to the last, the final norm's scale held fixed. "
        f"Log-probability grows early, probability late. {INTERVALS}",
    ),
    "eight_methods": PaperFigure(
        ("methods",),
        lambda v: method_bars(v["methods"]),
        "The answer when each prompt's best FFN neurons by each score are zeroed (table 2). Lower means that the score "
        f"found neurons that matter more. {INTERVALS}",
    ),
    "method_layers": PaperFigure(
        ("method_layers", "increase"),
        lambda v: method_layers(v["method_layers"][:COMPARED], list(METHODS)[:COMPARED], _n_layers(v)),
        f"Layers of the best FFN neurons by three scores. {INTERVALS}",
    ),
    "agreement": PaperFigure(
        ("alone",),
        lambda v: agreement_curves(v["alone"]),
        "Rank correlation, within a layer, of each score with the exact loss of log-probability when one FFN neuron is "
        f"zeroed at the last position. Neurons are drawn at random. {INTERVALS}",
    ),
}
