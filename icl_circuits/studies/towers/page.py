"""The study's part of a folder: its values, its tables, and its sections of the page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.report import Part
from icl_circuits.stats import bootstrap_mean
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.towers.paper import paper_tables
from icl_circuits.studies.towers.run import TowerFindings
from icl_circuits.studies.towers.tables import (
    control_table,
    group_table,
    neuron_reads_table,
    rank_table,
    reads_table,
    summary,
    tower_table,
    words_table,
)
from icl_circuits.towers import head_measures
from icl_circuits.viz import Section, Table

FLOW_TEXT = (
    "Above: the logit difference when a route is cut from a layer on, in every head. Once a curve is back at the "
    "dotted line, what that route carries has arrived. Below: "
)


def present(begun: Begun, findings: TowerFindings) -> Part:
    """What is written of the findings."""
    own_labels = [head.label for head in begun.scores.selected.heads]
    rows = head_measures(findings.own, own_labels, findings.grouped, findings.circuits)
    means = {"in_context_heads": findings.own.means(), "random_heads": findings.random.means()}
    heads, controls, tables = tower_table(begun, rows), control_table(findings, means), paper_tables(begun, findings)
    if findings.neurons is not None:
        tables["neuron_reads"] = findings.neurons.to_frame()
    return Part(
        headline=_headline(findings),
        summary=summary(findings, rows, means),
        values=_values(findings),
        tables=tables,
        sections=lambda figures: (
            *_two_towers(begun, heads, controls, figures),
            *_inside(begun, findings, figures),
            *_reversal(findings, tables.get("table_6"), figures),
        ),
        shown=(("Two towers", heads), ("Beside random heads", controls)),
    )


def _values(findings: TowerFindings) -> dict[str, Any]:
    own = findings.own
    return {
        "features": own.features,
        "auc": own.learned,
        "auc_grouped_order": findings.grouped,
        "auc_random": findings.random.learned,
        "QK": findings.spectrum,
        "OV": findings.circuits,
        "probe": findings.probe,
        "flow": findings.flow,
        "reversal": own.reversed if own.reversed is not None and own.reversed.flips.any() else None,
        "neuron_reads": findings.neurons,
        "reads.class_gap": findings.reads and findings.reads.class_gap(),
    }


def _headline(findings: TowerFindings) -> str:
    heads, others = (bootstrap_mean(np.nanmean(group.learned.auc, axis=1)) for group in (findings.own, findings.random))
    return (
        "The attention scores of the selected heads rank demonstrations of the query's class above the others with a "
        f"mean AUC of {heads:.2f}; those of random heads, {others:.2f}."
    )


def _two_towers(begun: Begun, heads: Table, controls: Table, figures: Path) -> tuple[Section, ...]:
    """The claim, head by head."""
    labels = begun.settings.labels
    return (
        Section(
            "The hypothesis",
            "In-context heads as two towers (Yu and Ananiadou, arXiv 2402.02872). What follows tests each part of it.",
            figure=figures / "schematic.svg",
        ),
        Section(
            "Two towers, head by head",
            "Class AUC: how often the attention score ranks a demonstration of the query's class above another, "
            "within prompts; 0.5 is chance. Logit minus: what attention times value writes at positions that hold "
            f"the head's own label, {labels[0]} less {labels[1]} (logits). Copies: the share of label positions "
            "whose value raises their own label most (1 over the number of labels is chance). Changes: when the "
            "labels are reversed, at positions that hold the head's own label. In brackets: 95 % bootstrap "
            "intervals, and for shuffled classes where 95 % of the shuffles lie.",
            heads,
            figures / "class_auc.svg",
        ),
        Section(
            "Beside random heads",
            f"The selected heads, and {controls.rows[1][1]} random heads of the same layers: means "
            "with 95 % intervals over prompts.",
            controls,
        ),
        Section(
            "What the values carry",
            "Attention from the last position, and the logit minus of the value-output vectors, per label position.",
            figure=figures / "label_features.svg",
        ),
    )


def _inside(begun: Begun, findings: TowerFindings, figures: Path) -> tuple[Section, ...]:
    """What makes the towers, and what could not be measured of that."""
    refused = (Section("Not measured", " ".join(findings.refused)),) if findings.refused else ()
    return (
        Section(
            "What the towers read",
            "The score is a sum over everything written earlier. These components add most to the score of "
            "same-class demonstrations over that of the others, read at the last position (query) or at the label "
            "(key).",
            None if findings.reads is None else reads_table(findings.reads),
        ),
        *_neurons(findings),
        Section(
            "Copying and rank",
            "Copying score of the full OV circuit (1 copies, -1 suppresses), effective ranks of W_OV and W_QK, "
            "effective rank of the scores between the features that these prompts hold, and the first direction's "
            "share of them.",
            rank_table(findings),
        ),
        Section(
            "Where features flow",
            ("" if findings.flow is None else FLOW_TEXT)
            + "What linear probes, trained on the selection prompts, read in the residual stream.",
            figure=figures / "flow.svg",
        ),
        Section(
            "In words",
            f"{begun.heads[0]} in the first prompt: what its values write, what earlier attention has moved into its "
            "keys and query, as the vocabulary's most and least raised tokens.",
            words_table(findings),
        ),
        *refused,
    )


def _neurons(findings: TowerFindings) -> tuple[Section, ...]:
    """Which FFN neurons write what the towers read; nothing where the model does not show them."""
    if findings.neurons is None:
        return ()
    return (
        Section(
            "Neurons that write what the towers read",
            "An MLP's part of a score is the sum over its FFN neurons. These add most to the score of same-class "
            "demonstrations over that of the others. They are chosen on selection prompts and measured on "
            f"{findings.neurons.class_gap.shape[3]} test prompts; in brackets 95 % bootstrap intervals.",
            neuron_reads_table(findings.neurons),
        ),
    )


def _reversal(findings: TowerFindings, table_6: pd.DataFrame | None, figures: Path) -> tuple[Section, ...]:
    """Labels exchanged; nothing where there are not two."""
    if findings.own.reversed is None:
        return ()
    flips = findings.own.reversed.flips
    return (
        Section(
            "Label reversal",
            f"{int(flips.sum())} of {len(flips)} prompts are answered right both as they are and with the labels "
            "exchanged, so that their answer flips. What changes in the heads: attention (query-key) or values? "
            "Relative changes, means over each group of heads, at the positions that hold the label.",
            group_table(table_6),
            figures / "reversal.svg" if flips.any() else None,
        ),
    )
