"""The study's tables: the paper's, the part of `results.json`, and what a reader sees."""

from typing import Any

import pandas as pd

from icl_circuits.heads import GroupEffects
from icl_circuits.report import with_ci95
from icl_circuits.stats import Interval
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.in_context.run import InContextFindings
from icl_circuits.viz import Table

RULES = ("top1", "between_labels")


def summary(groups: GroupEffects) -> dict[str, Any]:
    """The study's part of `results.json`. Accuracies are shares; `ci95` over prompts."""
    frame = groups.to_frame()

    def accuracy(row: Any) -> dict[str, Any]:
        return with_ci95({rule: Interval.in_row(row, rule) for rule in RULES})

    overall = {row["kind"]: accuracy(row) for _, row in frame[frame["gold"].isna() & frame["label"].isna()].iterrows()}
    return {
        "accuracy": {
            "base": overall["base"],
            "heads_zeroed": overall["all"],
            "random_zeroed": overall["random"] | {"draws": len(groups.random.draws)},
            "by_group": [
                {key: row[key] for key in ("kind", "label", "n_heads", "gold")} | accuracy(row)
                for _, row in frame.iterrows()
            ],
        },
    }


def paper_tables(begun: Begun, groups: GroupEffects) -> dict[str, pd.DataFrame]:
    """Tables 2 and 3 of arXiv 2402.02872: accuracy before and after, and by zeroed group and gold label."""
    frame = groups.to_frame()
    everything = frame[frame["gold"].isna() & frame["label"].isna()].set_index("kind")
    table_2: dict[str, object] = {"model": begun.provenance["name"], "data": begun.provenance["data"]}
    for rule in RULES:
        for kind, name in (("base", "original"), ("all", "heads_zeroed"), ("random", "random_zeroed")):
            table_2[f"{rule}_{name}"] = everything.loc[kind, rule]
    columns = ["zeroed", "n_heads", "gold", "top1", "top1_low", "top1_high", "between_labels"]
    return {"table_2": pd.DataFrame([table_2]), "table_3": frame[frame["gold"].notna()][columns]}


def accuracy_table(groups: GroupEffects) -> Table:
    """Accuracy by group and gold label, as text."""
    rows = [
        (
            row["zeroed"],
            str(row["n_heads"]),
            row["gold"] or "(all)",
            *(f"{Interval.in_row(row, rule):.2f}" for rule in RULES),
        )
        for _, row in groups.to_frame().iterrows()
    ]
    return Table(("zeroed", "heads", "gold label", "top-1", "between labels"), tuple(rows))


def positions_table(begun: Begun, findings: InContextFindings) -> Table:
    """What each head reads and writes at the label positions, by whether they hold the gold label."""
    batch, found = begun.evaluation, findings.positions
    where = batch.label_positions.cpu().numpy()
    is_gold = batch.demo_labels.cpu().numpy() == batch.gold.cpu().numpy()[:, None]
    rows = []
    for place, head in enumerate(found.heads):
        cells = [str(head)]
        for quantity in ("attention", "increase"):
            for kind in (is_gold, ~is_gold):
                cells.append(f"{found.summed(quantity, where, kind)[:, place].mean():.3f}")
        rows.append(tuple(cells))
    columns = ("head", "attention: gold label", "attention: other labels", "increase: gold", "increase: other")
    return Table(columns, tuple(rows))
