"""Figures of arXiv 2402.13055 (its figures 2, 10, 11, 15 and 16), those of head families, and their captions."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.relations import EDGES, RelationIndex
from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.stats import ALPHA, mean_of_finite
from icl_circuits.viz import family_bars, head_panels, overlap_map, ratio_histogram

if TYPE_CHECKING:
    import matplotlib.figure

INDEX = "relation index"
GATE = (
    "The index counts positions where the head attends to a relation's head most, by more than the factor tau. "
    "There it is the share of what the head raises among the text's tokens that is the relation's tail. "
    "Hatching marks heads that pass at no position."
)
BEST = (
    "The index is the share of what the head raises that is the relation's tail. "
    "Hatching marks heads without a triplet."
)


def _index(values: Values, which: str) -> "matplotlib.figure.Figure":
    found: RelationIndex = values[which]
    return head_panels(dict(zip(found.relations, found.index, strict=True)), INDEX)


def _dependencies(values: Values) -> "matplotlib.figure.Figure":
    found: RelationIndex = values["dependencies"]
    panels = dict(zip(found.relations, found.index, strict=True))
    return head_panels({**panels, "copying": mean_of_finite(values["induction"].copying)}, "index, score")


def _taus(values: Values) -> "matplotlib.figure.Figure":
    found: RelationIndex = values["dependencies"]
    panels = {
        f"{relation}, tau = {tau:.3g}": found.by_tau[i, r]
        for r, relation in enumerate(found.relations)
        for i, tau in enumerate(found.taus)
    }
    return head_panels(panels, INDEX, columns=len(found.taus), shared=True)


def _best(values: Values, which: str) -> "matplotlib.figure.Figure":
    found: RelationIndex = values[which]
    counts = found.best_heads().astype(float)
    return head_panels(dict(zip(found.relations, np.where(counts > 0, counts, np.nan), strict=True)), "triplets")


FIGURES: Mapping[str, PaperFigure] = {
    "relation_index_dependencies": PaperFigure(
        ("dependencies", "induction"),
        _dependencies,
        "Maps show the relation index of every head for syntactic dependencies, and the copying score beside them. "
        f"{GATE} Copying is how far a head raises the token that followed the current one before, on random tokens.",
    ),
    "relation_index_knowledge": PaperFigure(
        ("knowledge",),
        partial(_index, which="knowledge"),
        f"Maps show the relation index of every head for relations of knowledge graphs. {GATE}",
    ),
    "relation_index_backwards": PaperFigure(
        ("backwards",),
        partial(_index, which="backwards"),
        f"Maps show the relation index of every head for relations of knowledge graphs, from tail to head. {GATE}",
    ),
    "relation_index_by_tau": PaperFigure(
        ("dependencies",),
        _taus,
        "Maps show the relation index of every head for syntactic dependencies at several thresholds tau. "
        f"{GATE} All maps share one scale. The last threshold is the ratio that 5 % exceed in this model.",
    ),
    "best_heads_dependencies": PaperFigure(
        ("dependencies",),
        partial(_best, which="dependencies"),
        f"Maps show of how many triplets of syntactic dependencies each head has the highest relation index. {BEST}",
    ),
    "best_heads_knowledge": PaperFigure(
        ("knowledge",),
        partial(_best, which="knowledge"),
        f"Maps show of how many triplets of knowledge graphs each head has the highest relation index. {BEST}",
    ),
    "best_heads_backwards": PaperFigure(
        ("backwards",),
        partial(_best, which="backwards"),
        f"Maps show of how many triplets from tail to head each head has the highest relation index. {BEST}",
    ),
    "attention_ratios": PaperFigure(
        ("dependencies",),
        lambda v: ratio_histogram(v["dependencies"].ratios, EDGES, v["dependencies"].tau, v["dependencies"].taus[-1]),
        "Bars show how many times attention to a relation's head exceeds that to any other token. "
        "They count every triplet with every head and position that attends to its head most. "
        "Lines mark the threshold tau and the ratio that 5 % exceed.",
    ),
    "family_overlap": PaperFigure(
        ("overlap",),
        lambda v: overlap_map(v["overlap"]),
        "Cells count the heads that two families share. Numbers in brackets say how many two random families of these "
        "sizes would share. The diagonal counts the heads of each family. "
        f"A star marks p < {ALPHA} (hypergeometric test, Holm-corrected over pairs).",
    ),
    "families_zeroed": PaperFigure(
        ("on_words", "on_tasks"),
        lambda v: family_bars({"in-context prompts": v["on_words"], "tasks of word pairs": v["on_tasks"]}),
        "Bars show how much log-probability the answer loses when a family of heads is zeroed at every position. "
        f"Random heads are of the same layers or the nearest, and in no family. {INTERVALS}",
    ),
}
