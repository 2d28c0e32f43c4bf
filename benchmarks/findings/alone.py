"""What the page tells of runs that have one file each: facts and relations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wording import measured, share, table, text

from icl_circuits.stats import ALPHA

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
MODELS = {"SmolLM2": "", "Qwen": "-qwen"}
"""How the names of their runs end."""


def runs(kind: str) -> dict[str, Row]:
    """The stored runs of one kind, by model."""
    files = {model: RESULTS / f"{kind}{end}-0.json" for model, end in MODELS.items()}
    return {model: json.loads(file.read_text(encoding="utf-8")) for model, file in files.items() if file.exists()}


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
    heads = "heads (p < 0.05, corrected)"
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
        zeroed = stored["zeroed"]
        names = list(dict.fromkeys(row["family"] for row in zeroed["in-context prompts"] if row["family"]))
        for family in names:
            cells = []
            for prompts in ("in-context prompts", "tasks of word pairs"):
                of = {row["kind"]: row for row in zeroed[prompts] if row["family"] == family}
                cells += [text(measured(of[kind], "log_prob_drop"), ".1f") for kind in ("whole", "random_whole")]
            rows.append((model, family, *cells))
    return table(("model", "family", "in-context prompts", "random heads", "tasks", "random heads"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "effects": effects,
    "methods": methods,
    "agreement": agreement,
    "heads of types": heads_of_types,
    "relations": relations,
    "probe": probe,
    "families": families,
}
"""The places in `findings.md`."""
