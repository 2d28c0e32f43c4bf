"""Figures of arXiv 2402.13055 (its figures 2, 10, 11, 15 and 16), those of head families, and their captions."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from icl_circuits.relations import EDGES, RelationIndex
from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.stats import mean_of_finite
from icl_circuits.viz import family_bars, head_panels, overlap_map, ratio_histogram

if TYPE_CHECKING:
    import matplotlib.figure

INDEX = "relation index"
GATE = (
    "Relation index: where a head attends to a relation's head, what share of what it raises among the text's tokens "
    "is the relation's tail. Hatched: no position passes."
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
        f"{GATE} Syntactic dependencies, and beside them the copying score on repeated random tokens.",
    ),
    "relation_index_knowledge": PaperFigure(
        ("knowledge",), partial(_index, which="knowledge"), f"{GATE} Relations of knowledge graphs."
    ),
    "relation_index_backwards": PaperFigure(
        ("backwards",),
        partial(_index, which="backwards"),
        f"{GATE} Relations of knowledge graphs from tail to head.",
    ),
    "relation_index_by_tau": PaperFigure(
        ("dependencies",),
        _taus,
        f"{GATE} By threshold, one scale for all; the last is the ratio that 5 % exceed in this model.",
    ),
    "best_heads_dependencies": PaperFigure(
        ("dependencies",),
        partial(_best, which="dependencies"),
        "Of how many triplets each head has the highest relation index. Hatched: of none.",
    ),
    "best_heads_knowledge": PaperFigure(
        ("knowledge",),
        partial(_best, which="knowledge"),
        "Of how many triplets each head has the highest relation index. Hatched: of none.",
    ),
    "best_heads_backwards": PaperFigure(
        ("backwards",),
        partial(_best, which="backwards"),
        "Of how many triplets from tail to head each head has the highest relation index. Hatched: of none.",
    ),
    "attention_ratios": PaperFigure(
        ("dependencies",),
        lambda v: ratio_histogram(v["dependencies"].ratios, EDGES, v["dependencies"].tau, v["dependencies"].taus[-1]),
        "How many times attention to a relation's head exceeds that to the next token, wherever it is the most.",
    ),
    "family_overlap": PaperFigure(
        ("overlap",),
        lambda v: overlap_map(v["overlap"]),
        "Heads that two families share; in brackets, how many two random families of these sizes would. On the "
        "diagonal: heads of a family. Star: p < 0.05 (hypergeometric, Holm-corrected over pairs).",
    ),
    "families_zeroed": PaperFigure(
        ("on_words", "on_tasks"),
        lambda v: family_bars({"in-context prompts": v["on_words"], "tasks of word pairs": v["on_tasks"]}),
        f"What is lost of log p(answer) without each family of heads. {INTERVALS}",
    ),
}
