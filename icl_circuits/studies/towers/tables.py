"""What the study says of its heads: its part of `results.json`, and the tables that a reader sees."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.report import with_ci95
from icl_circuits.stats import Interval
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.towers.paper import tokens_table
from icl_circuits.studies.towers.run import TowerFindings
from icl_circuits.towers import Measures, NeuronReads, TowerReads
from icl_circuits.viz import Table


def summary(findings: TowerFindings, rows: Sequence[Measures], means: Mapping[str, Measures]) -> dict[str, Any]:
    """The study's part of `results.json`; `ci95` over prompts.

    Args:
        findings: what the study found.
        rows: what each selected head does (`head_measures`).
        means: what the heads of each group do on average (`HeadGroup.means`).
    """
    own, random = findings.own, findings.random
    towers = {
        name: {"n_heads": len(group.heads)} | with_ci95(means[name])
        for name, group in (("in_context_heads", own), ("random_heads", random))
    }
    flipping = None if own.reversed is None else int(own.reversed.flips.sum())
    return {"heads": [with_ci95(row) for row in rows], "towers": towers | {"flipping_pairs": flipping}}


def cell(value: Interval | float | None, form: str = ".2f") -> str:
    """A number, with its interval where it has one; nothing for what was not measured."""
    mean = value.mean if isinstance(value, Interval) else value
    return "" if value is None or mean is None or not np.isfinite(mean) else format(value, form)


def tower_table(begun: Begun, rows: Sequence[Measures]) -> Table:
    """What each selected head does."""
    columns = {
        "class AUC": ("qk_auc", ".2f"),
        "AUC, shuffled": ("qk_auc_shuffled", ".2f"),
        "p, corrected": ("qk_auc_p", ".2g"),
        "logit minus at own label": ("ov_logit_minus", "+.3f"),
        "copies (share)": ("ov_copying", ".2f"),
        "attention change": ("attention_change", "+.0%"),
        "value change": ("value_change", "+.0%"),
    }
    body = [
        (str(head.component), head.label, *(cell(row[key], form) for key, form in columns.values()))
        for head, row in zip(begun.scores.selected.heads, rows, strict=True)
    ]
    return Table(("head", "label", *columns), tuple(body))


def control_table(findings: TowerFindings, means: Mapping[str, Measures]) -> Table:
    """The selected heads together, beside random heads."""
    columns = (("qk_auc", ".2f"), ("ov_copying", ".2f"), ("ov_contrast", "+.3f"))
    named = {
        "in_context_heads": ("in-context heads", findings.own.heads),
        "random_heads": ("random heads", findings.random.heads),
    }
    body = [
        (name, str(len(heads)), *(cell(means[key][column], form) for column, form in columns))
        for key, (name, heads) in named.items()
    ]
    return Table(
        ("group", "heads", "class AUC", "copies (share)", "weighted logit minus, first label less second"), tuple(body)
    )


def group_table(table: pd.DataFrame | None) -> Table | None:
    """Table 6 between holders: what a reversal changes in each group of heads, beside random heads."""
    if table is None:
        return None
    quantities = ("attention", "logit_minus")
    body = [
        (row["heads"], row["positions"], *(cell(Interval.in_row(row, quantity), "+.0%") for quantity in quantities))
        for _, row in table[table["reading"] == "holders"].iterrows()
    ]
    return Table(("heads", "positions", "attention", "raw logit minus"), tuple(body))


def reads_table(reads: TowerReads) -> Table:
    """The three components that add most to each head's class gap, on either side."""
    frame = reads.to_frame()
    rows = []
    for head in reads.heads:
        cells = [str(head)]
        for side in ("query", "key"):
            here = frame[(frame["layer"] == head.layer) & (frame["head"] == head.head) & (frame["side"] == side)]
            best = here.nlargest(3, "class_gap")
            cells.append(", ".join(f"{c} {g:+.2f}" for c, g in zip(best["component"], best["class_gap"], strict=True)))
        rows.append(tuple(cells))
    return Table(("head", "query tower reads (logits)", "key tower reads (logits)"), tuple(rows))


def neuron_reads_table(reads: NeuronReads) -> Table:
    """The three FFN neurons that add most to each head's class gap, on either side."""
    frame = reads.to_frame()
    rows = []
    for head in reads.heads:
        cells = [str(head)]
        for side in ("query", "key"):
            best = frame[(frame["layer"] == head.layer) & (frame["head"] == head.head) & (frame["side"] == side)][:3]
            found = [f"{row['component']} {Interval.in_row(row, 'class_gap'):+.2f}" for _, row in best.iterrows()]
            cells.append(", ".join(found))
        rows.append(tuple(cells))
    return Table(("head", "query tower reads (logits)", "key tower reads (logits)"), tuple(rows))


def rank_table(findings: TowerFindings) -> Table:
    """Copying and ranks of each selected head."""
    spectrum, circuits = findings.spectrum.to_frame(), findings.circuits.to_frame()
    columns = {
        "copying score": circuits["copying_score"],
        "rank W_OV": circuits["effective_rank"],
        "rank W_QK": spectrum["effective_rank"],
        "rank of features": spectrum["effective_rank_of_features"],
        "first direction": spectrum["first_direction_share"],
    }
    body = [
        (str(head), *map(cell, values)) for head, *values in zip(findings.own.heads, *columns.values(), strict=True)
    ]
    return Table(("head", *columns), tuple(body))


def words_table(findings: TowerFindings) -> Table:
    """What the best head reads and moves in the first prompt, as tokens."""
    tokens = tokens_table(findings.tokens).iloc[:, 2:]  # all of one head
    body = [
        tuple(cell(value, ".3f") if isinstance(value, float) else str(value) for value in row)
        for row in tokens.itertuples(index=False)
    ]
    return Table(tuple(tokens.columns), tuple(body))
