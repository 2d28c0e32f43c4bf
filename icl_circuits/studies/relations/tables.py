"""The study's tables, its part of `results.json`, and what a terminal shows."""

from typing import Any

import pandas as pd

from icl_circuits.heads import FamilyEffects
from icl_circuits.relations import HeadProbe, RelationIndex
from icl_circuits.report import with_ci95
from icl_circuits.stats import ALPHA, Interval
from icl_circuits.studies.relations.begun import RelationsBegun
from icl_circuits.studies.relations.run import RelationFindings
from icl_circuits.viz import Table

MEASURES = ("index", "behind", "tenth", "random")
SIGNIFICANT = f"heads_of_p_fdr_{ALPHA}"
"""The column that counts a relation's significant heads."""
LISTED = 10
"""How many heads a relation lists."""


def all_tables(begun: RelationsBegun, findings: RelationFindings) -> dict[str, pd.DataFrame]:
    """All tables, by file name."""
    indices = {
        "dependencies": findings.dependencies, "knowledge": findings.knowledge, "backwards": findings.backwards,
    }  # fmt: skip
    found = {f"relation_index_{name}": index.to_frame() for name, index in indices.items()}
    found |= {f"by_tau_{name}": index.by_tau_frame(LISTED) for name, index in indices.items()}
    found["relations"] = pd.concat([relations(index).assign(of=name) for name, index in indices.items()])
    left_out = {"dependencies": begun.dependencies.left_out, "knowledge": begun.knowledge.left_out}
    if findings.probe is not None:
        left_out["probe: sentences and root words"] = findings.probe.left_out
    rows = [(name, reason, count) for name, reasons in left_out.items() for reason, count in reasons]
    found["left_out"] = pd.DataFrame(rows, columns=["of", "reason", "triplets"])
    if findings.probe is not None:
        found["probe"] = findings.probe.to_frame()
    found["induction_scores"] = findings.induction.to_frame()
    if findings.concepts is not None:
        found["concept_scores"] = findings.concepts.to_frame()
    found["function_vector_heads"] = findings.function_vectors.to_frame()
    found["tasks"] = findings.function_vectors.tasks_frame()
    found["families"] = pd.DataFrame(
        [(name, rank, str(head)) for name, heads in findings.families.items() for rank, head in enumerate(heads)],
        columns=["family", "rank", "head"],
    )
    found["family_overlap"] = findings.overlap.to_frame()
    found["families_zeroed_on_words"] = findings.on_words.to_frame()
    found["families_zeroed_on_tasks"] = findings.on_tasks.to_frame()
    return found


def relations(found: RelationIndex) -> pd.DataFrame:
    """One row a relation: its triplets, its significant heads, and the best of those with ten passing pairs or more."""
    rows = []
    for r, name in enumerate(found.relations):
        row: dict[str, object] = {"relation": name, "triplets": int((found.relation_of == r).sum())}
        row |= {SIGNIFICANT: int((found.p_fdr[r] <= ALPHA).sum()), "best": ""}
        for head in found.top(name, 1):
            at = (r, head.layer, head.head)
            row |= {"best": str(head), "index": found.index[at], "n_passing": int(found.n_passing[at])}
            row |= {measure: getattr(found, measure)[at] for measure in (*MEASURES[1:], "p_fdr")}
        rows.append(row)
    names = ["relation", "triplets", SIGNIFICANT, "best", "index", "n_passing", *MEASURES[1:], "p_fdr"]
    return pd.DataFrame(rows, columns=names)


def summary(findings: RelationFindings) -> dict[str, Any]:
    """The study's part of `results.json`."""
    families = {name: [str(head) for head in heads] for name, heads in findings.families.items()}
    return {
        "families": families,
        "overlap": findings.overlap.to_frame().to_dict("records"),
        "zeroed": {
            "in-context prompts": _zeroed(findings.on_words),
            "tasks of word pairs": _zeroed(findings.on_tasks),
        },
    }


def _zeroed(effects: FamilyEffects) -> list[dict[str, Any]]:
    measures = ("top1", "log_prob", "log_prob_drop")
    return [
        {"family": row["family"], "kind": row["kind"], "heads": row["n_heads"]}
        | with_ci95({measure: Interval.in_row(row, measure) for measure in measures})
        for _, row in effects.to_frame().iterrows()
    ]


def relations_table(found: RelationIndex) -> Table:
    """The best head of each relation, as text."""
    head = ("relation", "triplets", "heads", "best", "passes", "index", "behind", "10th", "random", "p")
    cells = []
    for _, row in relations(found).iterrows():
        cell = [row["relation"], str(row["triplets"]), str(row[SIGNIFICANT]), row["best"] or "none"]
        if row["best"]:
            cell += [str(int(row["n_passing"])), *(f"{row[name]:.2f}" for name in MEASURES), f"{row['p_fdr']:.1g}"]
        cells.append((*cell, *[""] * (len(head) - len(cell))))
    return Table(head, tuple(cells))


def probe_table(found: HeadProbe) -> Table:
    """The probe beside its controls, as text."""
    cells = [
        (row["kind"], f"{Interval.in_row(row, 'accuracy'):.2f}", f"{Interval.in_row(row, 'lead'):.2f}")
        for _, row in found.to_frame().iterrows()
    ]
    return Table(("probe", "accuracy", "lead of the first"), tuple(cells))


def overlap_table(findings: RelationFindings) -> Table:
    """What families share, as text."""
    cells = [
        (row["family"], row["other"], f"{row['shared']} of {row['n_family']}, {row['n_other']}",
         f"{row['expected']:.1f}", f"{row['p_holm']:.2g}")
        for _, row in findings.overlap.to_frame().iterrows()
    ]  # fmt: skip
    return Table(("family", "other", "heads in both", "by chance", "p (Holm)"), tuple(cells))


def zeroed_table(effects: FamilyEffects) -> Table:
    """Answers without each family, as text."""
    cells = [
        (row["family"] or "nothing", KINDS_SAID[row["kind"]], str(row["n_heads"]),
         f"{Interval.in_row(row, 'top1'):.2f}", f"{Interval.in_row(row, 'log_prob_drop'):.2f}")
        for _, row in effects.to_frame().iterrows()
    ]  # fmt: skip
    return Table(("family", "zeroed", "heads", "top-1 accuracy", "log-probability lost (nats)"), tuple(cells))


KINDS_SAID = {
    "base": "", "whole": "all", "exclusive": "those in no other", "random_whole": "random, as many as all",
    "random_exclusive": "random, as many as those",
}  # fmt: skip
