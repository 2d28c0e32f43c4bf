"""The study's tables: every edge, the test of the heads, and its part of `results.json`."""

from typing import Any

import pandas as pd

from icl_circuits.circuits import CircuitTest
from icl_circuits.report import with_ci95
from icl_circuits.stats import Interval
from icl_circuits.studies.circuit.run import CircuitFindings


def summary(findings: CircuitFindings) -> dict[str, Any]:
    """The study's part of `results.json`, in the metric's unit; `ci95` over prompts."""
    circuit = findings.circuit
    found = {"metric": circuit.metric, "n_edges": len(circuit.edges), "n_prompts": len(circuit.base)}
    return {"circuit": found | ({} if findings.test is None else _alone(findings.test))}


def _alone(test: CircuitTest) -> dict[str, Any]:
    sizes = [
        {"curve": row["curve"], "size": row["size"]}
        | with_ci95({"metric": Interval.in_row(row, test.metric), "share": Interval.in_row(row, "share")})
        for _, row in test.to_frame().iterrows()
    ]
    return {"whole_model": float(test.whole.mean()), "no_heads": float(test.empty.mean()), "heads_alone": sizes}


def edge_tables(findings: CircuitFindings) -> dict[str, pd.DataFrame]:
    """Every edge, strongest first, and the curves of the heads alone and left out."""
    alone = {} if findings.test is None else {"heads_alone": findings.test.to_frame()}
    return {"edges": edges(findings)} | alone


def edges(findings: CircuitFindings) -> pd.DataFrame:
    """One row an edge, strongest first: its score with its interval, and `reversed`, with the labels reversed."""
    ends = ["sender", "receiver", "input"]
    twin = findings.reversed.to_frame()[[*ends, "score"]].rename(columns={"score": "reversed"})
    return findings.circuit.to_frame().merge(twin, on=ends, how="left")
