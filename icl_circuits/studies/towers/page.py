"""The study's part of a folder: its values, its tables, and its sections of the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from icl_circuits.report import Part
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.towers import sentences
from icl_circuits.studies.towers.paper import paper_tables, tokens_table
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
from icl_circuits.studies.verdicts import begun_with_capital
from icl_circuits.towers import Measures, head_measures
from icl_circuits.viz import Section

FLOW_TEXT = (
    "Above: the logit difference when a route is cut from a layer on, in every head. Once a curve is back at the "
    "dotted line, what that route carries has arrived. Below: "
)


def present(begun: Begun, findings: TowerFindings) -> Part:
    """What is written of the findings."""
    own_labels = [head.label for head in begun.scores.selected.heads]
    rows = head_measures(findings.own, own_labels, findings.grouped, findings.circuits)
    means = {"in_context_heads": findings.own.means(), "random_heads": findings.random.means()}
    tables = paper_tables(begun, findings)
    if findings.neurons is not None:
        tables["neuron_reads"] = findings.neurons.to_frame()
    return Part(
        headline=sentences.finding(findings),
        summary=summary(findings, rows, means),
        values=_values(findings),
        tables=tables,
        sections=lambda figures: (
            *_two_towers(begun, findings, rows, means, figures),
            *_inside(begun, findings, figures),
            *_reversal(findings, tables.get("table_6"), figures),
        ),
        shown=(("Two towers", tower_table(begun, rows)), ("Beside random heads", control_table(findings, means))),
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


def _two_towers(
    begun: Begun,
    findings: TowerFindings,
    rows: Sequence[Measures],
    means: Mapping[str, Measures],
    figures: Path,
) -> tuple[Section, ...]:
    """The claim, head by head."""
    first, second, *_ = begun.settings.labels
    return (
        Section(
            "The hypothesis",
            "In-context heads as two towers (Yu and Ananiadou, arXiv 2402.02872). What follows tests each part of it.",
            figure=figures / "schematic.svg",
            answer=sentences.hypothesis(findings, rows),
        ),
        Section(
            "Two towers, head by head",
            "Class AUC: how often the attention score ranks a demonstration of the query's class above another, "
            "within prompts; 0.5 is chance. Logit minus: how much more a vector raises one label than another. "
            f"Example: it raises the logit of {first} by 1.3 and that of {second} by 0.3, so its logit minus is 1.0. "
            "Here it is of attention times value, at positions that hold the head's own label. Copies: the share of "
            "label positions whose value raises their own label most (1 over the number of labels is chance). "
            "Changes: when the labels are reversed, at positions that hold the head's own label. In brackets: 95 % "
            "bootstrap intervals, and for shuffled classes where 95 % of the shuffles lie.",
            tower_table(begun, rows),
            figures / "class_auc.svg",
            answer=begun_with_capital(sentences.metric_learning(findings)),
        ),
        Section(
            "Beside random heads",
            f"The selected heads, and {len(findings.random.heads)} random heads of the same layers: means with 95 % "
            "intervals over prompts.",
            control_table(findings, means),
            answer=sentences.beside_random(findings),
        ),
        Section(
            "What the values carry",
            "Attention from the last position, and the logit minus of the value-output vectors, per label position.",
            figure=figures / "label_features.svg",
            answer=sentences.values(means),
        ),
    )


def _inside(begun: Begun, findings: TowerFindings, figures: Path) -> tuple[Section, ...]:
    """What makes the towers, and what could not be measured of that."""
    refused = (Section("Not measured", " ".join(findings.refused)),) if findings.refused else ()
    return (
        Section(
            "What the towers read",
            "The score is a sum over everything written earlier. These components add most to the score of "
            "same-class demonstrations over that of the others. The query tower reads at the last position, the key "
            "tower at the label.",
            None if findings.reads is None else reads_table(findings.reads),
            answer=sentences.reads(findings.reads),
        ),
        *_neurons(findings),
        Section(
            "Copying and rank",
            "The copying score is of the full OV circuit: 1 copies, -1 suppresses. Beside it stand the effective ranks "
            "of W_OV and W_QK. The last columns have the effective rank of the scores between the features that these "
            "prompts hold, and the first direction's share.",
            rank_table(findings),
            answer=sentences.ranks(findings),
        ),
        Section(
            "Where features flow",
            ("" if findings.flow is None else FLOW_TEXT)
            + "What linear probes, trained on the selection prompts, read in the residual stream.",
            figure=figures / "flow.svg",
            answer=sentences.flow(findings.flow, findings.probe),
        ),
        Section(
            "In words",
            f"{begun.heads[0]} in the first prompt: what its values write, what earlier attention has moved into its "
            "keys and query, as the vocabulary's most and least raised tokens.",
            words_table(findings),
            answer=sentences.words(begun.heads[0], tokens_table(findings.tokens)),
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
            answer=sentences.neurons(findings.neurons),
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
            answer=sentences.reversal(findings),
        ),
    )
