"""The study of what each in-context head does: OV label features, QK two towers, flow, reversal (arXiv 2402.02872)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import pandas as pd

from icl_circuits.errors import Unfit
from icl_circuits.heads import random_heads
from icl_circuits.models import Head, all_heads
from icl_circuits.prompts import encode, group_by_label
from icl_circuits.report.folder import Part
from icl_circuits.report.plan import Start
from icl_circuits.stats import bootstrap_mean
from icl_circuits.towers import (
    Flow,
    LabelFeatures,
    MetricLearning,
    OVCircuits,
    Probe,
    QKSpectrum,
    Reversal,
    TowerReads,
    knock_out_flow,
    label_features,
    metric_learning,
    ov_circuits,
    probe_flow,
    qk_spectrum,
    reversal,
    tower_reads,
    tower_tokens,
    two_towers,
)
from icl_circuits.towers.reversal import QUANTITIES, Reading
from icl_circuits.viz import Section, Table

T = TypeVar("T")
RANDOM_DRAWS = 3
FLOW_PROMPTS = 16
TOKENS_SHOWN = 6
FLOW_TEXT = (
    "Above: the logit difference when a route is cut from a layer on, in every head. Once a curve is back at the "
    "dotted line, what that route carries has arrived. Below: "
)


@dataclass(frozen=True)
class Findings:
    """What the study found. `random` marks the same of random heads of the same layers."""

    features: LabelFeatures
    learned: MetricLearning
    learned_grouped: MetricLearning
    """In the paper's order, where demonstrations of the query's class come last."""
    circuits: OVCircuits
    spectrum: QKSpectrum
    reads: TowerReads | None
    flow: Flow | None
    probe: Probe
    reversed: Reversal | None
    """None unless there are two labels."""
    tokens: pd.DataFrame
    """Of the best head in the first prompt."""
    random: tuple[Head, ...]
    random_features: LabelFeatures
    random_learned: MetricLearning
    random_reversed: Reversal | None
    refused: tuple[str, ...]
    """Why `reads` or `flow` is None: a model whose scores are no sums, or whose score hooks change nothing."""


def tower_study(start: Start) -> Part:
    """What the selected heads do on the evaluation prompts, beside random heads of the same layers."""
    model, batch, heads, settings = start.model, start.evaluation, start.heads, start.plan.settings
    draws = [random_heads(all_heads(model), heads, seed=(settings.seed, i)) for i in range(RANDOM_DRAWS)]
    random = tuple(dict.fromkeys(head for draw in draws for head in draw))
    own, others = range(len(heads)), range(len(heads), len(heads) + len(random))
    with start.timed("label features"):
        both = label_features(model, batch, (*heads, *random))
        features, random_features = both.of_heads(own), both.of_heads(others)
        circuits = ov_circuits(model, heads)
    with start.timed("two towers"):
        towers, random_towers = (two_towers(model, batch, chosen) for chosen in (heads, random))
        grouped = encode(model, [group_by_label(prompt) for prompt in batch.prompts], separator=batch.separator)
        learned, random_learned, learned_grouped = (
            metric_learning(found, seed=settings.seed)
            for found in (towers, random_towers, two_towers(model, grouped, heads))
        )
        spectrum = qk_spectrum(model, towers)
    refused: list[str] = []
    with start.timed("what the towers read"):
        reads = _unless_refused(lambda: tower_reads(model, batch, heads), refused)
        tokens = tower_tokens(model, batch, heads[:1], n_tokens=TOKENS_SHOWN)
    with start.timed("flow"):
        few = batch.select(range(min(FLOW_PROMPTS, len(batch))))
        flow = _unless_refused(lambda: knock_out_flow(model, few), refused)
        probe = probe_flow(model, start.scores.batch, batch, seed=settings.seed)
    with start.timed("reversal"):
        pairs = reversal(model, batch, (*heads, *random)) if len(settings.labels) == 2 else None
        reversed_, random_reversed = (pairs and pairs.of_heads(places) for places in (own, others))
    findings = Findings(
        features, learned, learned_grouped, circuits, spectrum, reads, flow, probe, reversed_, tokens,
        random, random_features, random_learned, random_reversed, tuple(refused),
    )  # fmt: skip
    per_head = head_rows(start, findings)
    controls, tables = _controls(findings), paper_tables(start, findings)
    return Part(
        headline=_headline(findings),
        summary={"heads": per_head, "towers": controls},
        values=_values(findings),
        tables=tables,
        sections=lambda folder: _sections(start, findings, per_head, controls, tables, folder),
        shown=(("Two towers", _head_table(start, per_head)), ("Beside random heads", _control_table(controls))),
    )


def _unless_refused(study: Callable[[], T], refused: list[str]) -> T | None:
    """What `study` finds, or None where the model is not of a kind it can be done on; the reason goes to `refused`."""
    try:
        return study()
    except Unfit as error:
        refused.append(str(error))
        return None


def head_rows(start: Start, findings: Findings) -> list[dict[str, Any]]:
    """What `results.json` says of each selected head, in their order; `ci95` over prompts.

    `ov_logit_minus` (logits) is the weighted logit minus, first label less second, at positions that hold the head's
    own label; `attention_change` and `value_change` are what a label reversal does there, relative to before.
    """
    labels, frame = start.plan.settings.labels, findings.learned.to_frame()
    grouped = np.nanmean(findings.learned_grouped.auc, axis=0)
    copying = findings.features.copying().mean(axis=0)
    rows = []
    for place, head in enumerate(start.scores.selected.heads):
        own = labels.index(head.label)
        pair = (0, 1) if len(labels) == 2 else (own, (own + 1) % len(labels))
        at_own = [
            findings.features.at_label(values, own)[:, place].astype(float)
            for values in (
                findings.features.weighted_logit_minus(pair),
                findings.features.logit_minus(pair),
                findings.features.attention,
            )
        ]
        minus, raw, attention = (bootstrap_mean(values) for values in at_own)
        auc = frame.iloc[place]
        row: dict[str, Any] = {"qk_auc": auc["auc"], "qk_auc_shuffled": auc["auc_shuffled"]}
        row |= {"qk_auc_without_position": auc["auc_content"], "qk_auc_grouped_order": grouped[place]}
        row |= {"ov_logit_minus": minus.mean, "ov_logit_minus_raw": raw.mean, "attention": attention.mean}
        row |= {"ov_copying": copying[place], "copying_score": findings.circuits.copying_score[place]}
        row |= {"attention_change": None, "value_change": None}
        ci95: dict[str, Any] = {
            "qk_auc": [auc["auc_low"], auc["auc_high"]],
            "qk_auc_shuffled": [auc["auc_shuffled_low"], auc["auc_shuffled_high"]],
            "ov_logit_minus": [minus.low, minus.high],
        }
        if findings.reversed is not None:
            for name, quantity in (("attention_change", "attention"), ("value_change", "logit_minus")):
                change = findings.reversed.relative_change(quantity, place, own)
                row[name], ci95[name] = change.mean, [change.low, change.high]
        rows.append(row | {"ci95": ci95})
    return rows


def _controls(findings: Findings) -> dict[str, Any]:
    """The selected heads together, and random heads of the same layers: means with 95 % intervals over prompts."""
    found: dict[str, Any] = {}
    for name, features, learned in (
        ("in_context_heads", findings.features, findings.learned),
        ("random_heads", findings.random_features, findings.random_learned),
    ):
        weighted = features.weighted_logit_minus()
        contrast = features.at_label(weighted, 0) - features.at_label(weighted, 1)
        per_prompt = {
            "qk_auc": np.nanmean(learned.auc, axis=1),
            "ov_copying": features.copying().mean(axis=1),
            "ov_contrast": contrast.mean(axis=1).astype(float),
            "attention_to_labels": np.nanmean(features.at_labels(features.attention), axis=(1, 2)).astype(float),
        }
        intervals = {key: bootstrap_mean(values[np.isfinite(values)]) for key, values in per_prompt.items()}
        found[name] = {"n_heads": len(features.heads)} | {key: value.mean for key, value in intervals.items()}
        found[name]["ci95"] = {key: [value.low, value.high] for key, value in intervals.items()}
    found["flipping_pairs"] = None if findings.reversed is None else int(findings.reversed.flips.sum())
    return found


def _values(findings: Findings) -> dict[str, Any]:
    return {
        "features": findings.features,
        "auc": findings.learned,
        "auc_grouped_order": findings.learned_grouped,
        "auc_random": findings.random_learned,
        "QK": findings.spectrum,
        "OV": findings.circuits,
        "probe": findings.probe,
        "flow": findings.flow,
        "reversal": findings.reversed if findings.reversed is not None and findings.reversed.flips.any() else None,
        "reads.class_gap": findings.reads and findings.reads.class_gap(),
    }


# --- the paper's tables -----------------------------------------------------------------------------------------------


def paper_tables(start: Start, findings: Findings) -> dict[str, pd.DataFrame]:
    """Tables 1, 4, 5 and 6 of arXiv 2402.02872: one row a group of heads (fooheads, barheads) and label positions."""
    labels, selected = start.plan.settings.labels, start.scores.selected
    places = {
        f"{label}heads": [i for i, head in enumerate(selected.heads) if head.label == label]
        for label in labels
        if selected.of(label)
    }
    everywhere = {"random heads": list(range(len(findings.random)))}
    parts: list[tuple[LabelFeatures, dict[str, list[int]]]] = [
        (findings.features, places),
        (findings.random_features, everywhere),
    ]
    tables = {"table_1": _joined(findings.tokens), "class_pairs": _class_pairs(start, findings)}
    for name in ("table_4", "table_5"):
        rows = []
        for features, groups in parts:
            values = features.weighted_logit_minus() if name == "table_4" else features.attention
            for group, chosen in groups.items():
                row: dict[str, object] = {"heads": group, "n_heads": len(chosen)}
                for i, label in enumerate(labels):
                    mean = bootstrap_mean(features.at_label(values, i)[:, chosen].mean(axis=1).astype(float))
                    row |= {f"{label}_positions": mean.mean, f"{label}_low": mean.low, f"{label}_high": mean.high}
                rows.append(row)
        tables[name] = pd.DataFrame(rows)
    if findings.reversed is not None and findings.random_reversed is not None and findings.reversed.flips.any():
        own = _reversal_table(findings.reversed, places, labels)
        random = _reversal_table(findings.random_reversed, everywhere, labels)
        tables["table_6"] = pd.concat([own, random], ignore_index=True)
    return tables


def _reversal_table(found: Reversal, places: Mapping[str, Sequence[int]], labels: tuple[str, ...]) -> pd.DataFrame:
    """Relative change under reversal of each group of heads at the positions of each label, both readings."""
    rows = []
    for group, chosen in places.items():
        for label, name in enumerate(labels):
            for reading in get_args(Reading):
                row: dict[str, object] = {"heads": group, "positions": name, "reading": reading}
                for quantity in QUANTITIES:
                    change = found.relative_change(quantity, chosen, label, reading)
                    row |= {quantity: change.mean, f"{quantity}_low": change.low, f"{quantity}_high": change.high}
                rows.append(row)
    return pd.DataFrame(rows)


def _class_pairs(start: Start, findings: Findings) -> pd.DataFrame:
    """The mean class AUC of the selected heads by the classes that a prompt draws."""
    drawn = [" / ".join(sorted({demo.category for demo in prompt.demos})) for prompt in start.evaluation.prompts]
    rows = []
    for pair in sorted(set(drawn)):
        auc = findings.learned.auc[[name == pair for name in drawn]]
        mean = bootstrap_mean(auc.mean(axis=1))
        row = {"classes": pair, "prompts": len(auc), "qk_auc": mean.mean, "low": mean.low, "high": mean.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _joined(tokens: pd.DataFrame) -> pd.DataFrame:
    """Table 1: what is read and moved at each position, as tokens."""
    shown = tokens.assign(**{end: tokens[end].map(" ".join) for end in ("top", "bottom")})
    return shown[["layer", "head", "position", "token", "kind", "attention", "top", "bottom"]]


# --- the page ---------------------------------------------------------------------------------------------------------


def _headline(findings: Findings) -> str:
    heads, others = (bootstrap_mean(np.nanmean(x.auc, axis=1)) for x in (findings.learned, findings.random_learned))
    return (
        "The attention scores of the selected heads rank demonstrations of the query's class above the others with a "
        f"mean AUC of {heads.mean:.2f} [{heads.low:.2f}, {heads.high:.2f}]; those of random heads, {others.mean:.2f} "
        f"[{others.low:.2f}, {others.high:.2f}]."
    )


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None or not np.isfinite(value) else format(value, form)


def _with_interval(row: Mapping[str, Any], key: str, form: str = ".2f") -> str:
    if key not in row["ci95"] or not _number(row[key]):
        return _number(row[key], form)
    low, high = row["ci95"][key]
    return f"{row[key]:{form}} [{low:{form}}, {high:{form}}]"


def _head_table(start: Start, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = {
        "class AUC": ("qk_auc", ".2f"),
        "AUC, shuffled": ("qk_auc_shuffled", ".2f"),
        "logit minus at own label": ("ov_logit_minus", "+.3f"),
        "copies (share)": ("ov_copying", ".2f"),
        "attention change": ("attention_change", "+.0%"),
        "value change": ("value_change", "+.0%"),
    }
    body = [
        (str(head.index), head.label, *(_with_interval(row, key, form) for key, form in columns.values()))
        for head, row in zip(start.scores.selected.heads, rows, strict=True)
    ]
    return Table(("head", "label", *columns), tuple(body))


def _control_table(controls: Mapping[str, Any]) -> Table:
    columns = (("qk_auc", ".2f"), ("ov_copying", ".2f"), ("ov_contrast", "+.3f"))
    rows = []
    for name in ("in_context_heads", "random_heads"):
        cells = (_with_interval(controls[name], key, form) for key, form in columns)
        rows.append((name.replace("_", " "), str(controls[name]["n_heads"]), *cells))
    return Table(
        ("", "heads", "class AUC", "copies (share)", "weighted logit minus, first label less second"), tuple(rows)
    )


def _group_table(table: pd.DataFrame | None) -> Table | None:
    """Table 6 between holders: what a reversal changes in each group of heads, beside random heads."""
    if table is None:
        return None
    rows = []
    for _, row in table[table["reading"] == "holders"].iterrows():
        changes = (row[[quantity, f"{quantity}_low", f"{quantity}_high"]] for quantity in ("attention", "logit_minus"))
        cells = ("" if not np.isfinite(c.iloc[0]) else "{:+.0%} [{:+.0%}, {:+.0%}]".format(*c) for c in changes)
        rows.append((row["heads"], row["positions"], *cells))
    return Table(("heads", "positions", "attention", "raw logit minus"), tuple(rows))


def _reads_table(reads: TowerReads) -> Table:
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


def _sections(
    start: Start,
    findings: Findings,
    rows: Sequence[Mapping[str, Any]],
    controls: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    figures: Path,
) -> tuple[Section, ...]:
    labels = start.plan.settings.labels
    spectrum, circuits = findings.spectrum.to_frame(), findings.circuits.to_frame()
    ranks = [
        (str(head), *(_number(value) for value in values))
        for head, *values in zip(
            start.heads, circuits["copying_score"], circuits["effective_rank"], spectrum["effective_rank"],
            spectrum["effective_rank_of_features"], spectrum["first_direction_share"], strict=True,
        )
    ]  # fmt: skip
    tokens = _joined(findings.tokens)
    sections = [
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
            _head_table(start, rows),
            figures / "class_auc.svg",
        ),
        Section(
            "Beside random heads",
            f"The selected heads, and {controls['random_heads']['n_heads']} random heads of the same layers: means "
            "with 95 % intervals over prompts.",
            _control_table(controls),
        ),
        Section(
            "What the values carry",
            "Attention from the last position, and the logit minus of the value-output vectors, per label position.",
            figure=figures / "label_features.svg",
        ),
        Section(
            "What the towers read",
            "The score is a sum over everything written earlier. These components add most to the score of "
            "same-class demonstrations over that of the others, read at the last position (query) or at the label "
            "(key).",
            None if findings.reads is None else _reads_table(findings.reads),
        ),
        Section(
            "Copying and rank",
            "Copying score of the full OV circuit (1 copies, -1 suppresses), effective ranks of W_OV and W_QK, "
            "effective rank of the scores between the features that these prompts hold, and the first direction's "
            "share of them.",
            Table(
                ("head", "copying score", "rank W_OV", "rank W_QK", "rank of features", "first direction"), tuple(ranks)
            ),
        ),
        Section(
            "Where features flow",
            ("" if findings.flow is None else FLOW_TEXT)
            + "What linear probes, trained on the selection prompts, read in the residual stream.",
            figure=figures / "flow.svg",
        ),
        Section(
            "In words",
            f"{start.heads[0]} in the first prompt: what its values write, what earlier attention has moved into its "
            "keys and query, as the vocabulary's most and least raised tokens.",
            Table(
                tuple(tokens.columns[2:]),
                tuple(
                    tuple(_number(cell, ".3f") if isinstance(cell, float) else str(cell) for cell in row)
                    for row in tokens.iloc[:, 2:].itertuples(index=False)
                ),
            ),
        ),
    ]
    if findings.refused:
        sections.append(Section("Not measured", " ".join(findings.refused)))
    if findings.reversed is not None:
        sections.append(
            Section(
                "Label reversal",
                f"{int(findings.reversed.flips.sum())} of {len(start.evaluation)} prompts are answered right both as "
                "they are and with the labels exchanged, so that their answer flips. What changes in the heads: "
                "attention (query-key) or values? Relative changes, means over each group of heads, at the positions "
                "that hold the label.",
                _group_table(tables.get("table_6")),
                figures / "reversal.svg" if findings.reversed.flips.any() else None,
            )
        )
    return tuple(sections)
