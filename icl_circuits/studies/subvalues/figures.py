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

ROWS = "Each row is a type of knowledge, scaled to its own maximum."
QUERIES = (
    "Query importance is the inner product of a neuron's subkey with what a layer wrote, times the neuron's score."
)
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
        "Bars show how much attention and FFN layers add to the log-probability of the answer. "
        f"They are means over prompts, at the last position. {INTERVALS}",
    ),
    "fact_heads": PaperFigure(
        ("increase", "ffn"),
        lambda v: increase_map(v["increase"]),
        "Colours show how much every head adds to the log-probability of the answer, a mean over prompts. "
        "Heads below zero are white.",
    ),
    "value_layers": PaperFigure(
        ("increase", "types", "type_of"),
        lambda v: _strips(v, "increase", "log-prob increase"),
        f"Colours show how much layers add to the log-probability of the answer. {ROWS}",
    ),
    "query_layers_of_ffn": PaperFigure(
        ("query_ffn", "types", "type_of"),
        lambda v: _strips(v, "query_ffn", "query importance"),
        "Colours show which layers activate the first FFN value neurons, those that write the answer. "
        f"{QUERIES} {ROWS}",
    ),
    "query_layers_of_attention": PaperFigure(
        ("query_attention", "types", "type_of"),
        lambda v: _strips(v, "query_attention", "query importance"),
        "Colours show which layers activate the attention value neurons, those of heads that write the answer. "
        f"{QUERIES} It is taken at the positions that the neurons read. {ROWS}",
    ),
    "neuron_layers": PaperFigure(
        ("ffn", "attention", "increase"),
        lambda v: neuron_layers(v["ffn"].first(TOP_FFN).layer, v["attention"].layer, _n_layers(v)),
        "Curves show how many value neurons lie in each layer. Value neurons are those that add most to the "
        f"log-probability of a prompt's answer. {INTERVALS}",
    ),
    "query_or_value": PaperFigure(
        ("ffn", "query_attention", "increase"),
        lambda v: query_shares(query_only_share(v["query_attention"], v["ffn"], _n_layers(v))),
        "Curves show which share of query neurons are value neurons too, by depth. "
        "Query neurons activate the attention value neurons. "
        "Value neurons are here the first 1,000 FFN neurons that write a prompt's answer. "
        f"{INTERVALS}",
    ),
    "interpolation": PaperFigure(
        ("way",),
        lambda v: interpolation_curves(v["way"]),
        "Curves show the answer on the straight way from the first residual state to the last. "
        f"The final norm's scale is held fixed. {INTERVALS}",
    ),
    "eight_methods": PaperFigure(
        ("methods",),
        lambda v: method_bars(v["methods"]),
        "Bars show what is left of the answer when each prompt's best FFN neurons by a score are zeroed (table 2). "
        f"Lower bars mean that the score found neurons that matter more. {INTERVALS}",
    ),
    "method_layers": PaperFigure(
        ("method_layers", "increase"),
        lambda v: method_layers(v["method_layers"][:COMPARED], list(METHODS)[:COMPARED], _n_layers(v)),
        f"Curves show in which layers the best FFN neurons by three scores lie. {INTERVALS}",
    ),
    "agreement": PaperFigure(
        ("alone",),
        lambda v: agreement_curves(v["alone"]),
        "Curves show the rank correlation of each score of FFN neurons with their exact effect, within a layer. "
        "The effect is the log-probability lost when one neuron is zeroed at the last position. "
        f"The neurons are drawn at random. {INTERVALS}",
    ),
}
