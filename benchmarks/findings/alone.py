"""What the page tells of runs that have one file each: facts, relations, and how in-context learning forms."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from wording import measured, share, table, text

from icl_circuits.stats import ALPHA

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
MODELS = {"SmolLM2": "", "Qwen": "-qwen"}
"""How the names of their runs end."""


def stored_run(name: str) -> Row:
    """A stored run."""
    found: Row = json.loads((RESULTS / f"{name}-0.json").read_text(encoding="utf-8"))
    return found


def runs(kind: str) -> dict[str, Row]:
    """The stored runs of one kind, by model."""
    names = {model: kind + end for model, end in MODELS.items()}
    return {model: stored_run(name) for model, name in names.items() if (RESULTS / f"{name}-0.json").exists()}


def effects() -> str:
    """What is left of the answers without neurons."""
    found = {model: stored["subvalues"]["effects"] for model, stored in runs("facts").items()}
    columns = [{row["zeroed"]: text(measured(row, "prob"), ".4f") for row in rows} for rows in found.values()]
    return table(("zeroed", *found), [(name, *(column[name] for column in columns)) for name in columns[0]])


def methods() -> str:
    """What is left without the best neurons of each score, and whether that is told from the first score's."""
    columns, found = [], runs("facts")
    for stored in found.values():
        beside = {row["method"]: row for row in stored["beside_the_first_score"]}
        columns.append(
            {
                row["method"]: text(measured(row, "reciprocal_rank")) + told_apart(beside.get(row["method"]))
                for row in stored["subvalues"]["methods"]
            }
        )
    return table(("score", *found), [(name, *(column[name] for column in columns)) for name in columns[0]])


def told_apart(beside: Row | None) -> str:
    """A word on a score beside the first."""
    if beside is None:
        return ""
    if beside["p_costs_more"] < ALPHA:
        return ", costs more"
    return ", costs less" if beside["p_costs_less"] < ALPHA else ""


def agreement() -> str:
    """How scores rank neurons, beside the exact loss."""
    rows = []
    for model, stored in runs("facts").items():
        layers = stored["agreement_with_zeroing"]
        last = max(row["layer"] for row in layers)
        for score in ("increase", "attribution"):
            (at_last,) = (row for row in layers if row["layer"] == last and row["score"] == score)
            overall = measured(stored["subvalues"]["agreement"], score)
            said = {"increase": "log-probability increase", "attribution": "attribution patching"}[score]
            rows.append((model, said, text(overall), text(measured(at_last, "rank_correlation"))))
    return table(("model", "score", "all layers", "last layer"), rows)


def heads_of_types() -> str:
    """What the heads of a type of knowledge are worth to it."""
    rows = []
    for model, stored in runs("facts").items():
        of = {(row["heads_of"], row["heads"]): row for row in stored["table_10_heads_on_their_own_type"]}
        for name in dict.fromkeys(name for name, _ in of):
            cells = [text(measured(of[name, heads], "reciprocal_rank"), "+.2f") for heads in ("own", "random")]
            rows.append((model, name, *cells))
    return table(("model", "type", "without its heads", "without random heads"), rows)


def relations() -> str:
    """The best head of each relation."""
    rows = []
    for model, stored in runs("relations").items():
        for row in stored["relations"]:
            if row["of"] == "backwards":
                continue
            counts = str(row["triplets"]), str(row["heads_of_p_fdr_0.05"])
            values = ["" if row[key] is None else f"{row[key]:.2f}" for key in ("index", "behind", "random")]
            rows.append((model, row["relation"], *counts, row["best"] or "none", *values))
    heads = f"heads (p < {ALPHA}, corrected)"
    return table(("model", "relation", "triplets", heads, "best head", "index", "behind", "random words"), rows)


def probe() -> str:
    """Whether all heads together know syntax."""
    rows = [
        (model, row["kind"], share(measured(row, "accuracy")))
        for model, stored in runs("relations").items()
        for row in stored["probe"]
    ]
    return table(("model", "probe", "words given their syntactic head"), rows)


def families() -> str:
    """What is lost without each family of heads."""
    rows = []
    for model, stored in runs("relations").items():
        labels, tasks = (
            lost_of_families(stored["zeroed"][name]) for name in ("in-context prompts", "tasks of word pairs")
        )
        rows += [(model, *of_labels, *of_tasks[1:]) for of_labels, of_tasks in zip(labels, tasks, strict=True)]
    return table(("model", "family", "in-context prompts", "random heads", "tasks", "random heads"), rows)


def emergence() -> str:
    """When everything has risen half way. Of the relations, those that rise in every seed."""
    found = stored_run("forming")["emergence"]
    seeds = max(row["n_seeds"] for row in found)
    rows = [
        (row["curve"], text(measured(row, "step"), ".0f"), f"{row['rise']:.2f}", f"{row['n_seeds']} of {seeds}")
        for row in found
        if row["n_seeds"] == seeds
    ]
    return table(("what rises", "half way at step", "rise", "seeds"), rows)


def jumps() -> str:
    """The two neighbouring checkpoints between which accuracy between the labels rises most, seed by seed."""
    every = stored_run("forming")["checkpoints"]
    rows = []
    for seed in dict.fromkeys(row["run"] for row in every):
        steps = [row for row in every if row["run"] == seed]
        pair = max(pairwise(steps), key=lambda pair: float(pair[1]["between_labels"] - pair[0]["between_labels"]))
        rows.append((str(seed), *(f"{text(measured(row, 'between_labels'))} at step {row['step']}" for row in pair)))
    return table(("seed", "before", "after"), rows)


def together() -> str:
    """Which curves rise together."""
    found = stored_run("forming")["co_timing"]
    sure = [row for row in found if row["p_fdr"] is not None and row["p_fdr"] < ALPHA]
    return f"Of {len(found)} pairs of curves, {len(sure)} rise together more than in random order"


def knock_out() -> str:
    """What is lost without semantic induction heads."""
    return table(("heads of", "zeroed", "random heads"), lost_of_families(stored_run("forming")["knock_out"]))


def lost_of_families(rows: list[Row]) -> list[tuple[str, ...]]:
    """A row a family: what is lost without it, and without random heads."""
    return [
        (name, *(text(measured(of[kind], "log_prob_drop"), ".1f") for kind in ("whole", "random_whole")))
        for name in dict.fromkeys(row["family"] for row in rows if row["family"])
        for of in [{row["kind"]: row for row in rows if row["family"] == name}]
    ]


PARTS: dict[str, Callable[[], str]] = {
    "effects": effects,
    "methods": methods,
    "agreement": agreement,
    "heads of types": heads_of_types,
    "relations": relations,
    "probe": probe,
    "families": families,
    "emergence": emergence,
    "jumps": jumps,
    "together": together,
    "knock-out": knock_out,
}
"""The places in `findings.md`."""
