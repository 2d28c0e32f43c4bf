"""The study of the majority-label and recency biases and of what mends them (arXiv 2402.02872, tables 7 and 8)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_circuits.biases import MajorityBias, Mitigation, RecencyBias, choose, majority_bias, mitigation, recency_bias
from icl_circuits.errors import Unfit
from icl_circuits.heads import random_heads
from icl_circuits.report.folder import Part
from icl_circuits.report.plan import Start
from icl_circuits.residual import Head, all_heads
from icl_circuits.stats import Interval
from icl_circuits.viz import Section, Table

RANDOM_DRAWS = 5
RECENCY_DRAWS = 2
"""Fewer, since each takes forward passes of its own."""
PAPER_COEFFICIENT = 0.03


@dataclass(frozen=True)
class Findings:
    """Both biases on the evaluation prompts, their mitigations chosen on the selection prompts."""

    sweep: MajorityBias
    """On the selection prompts, every coefficient."""
    majority: MajorityBias
    """On the evaluation prompts: nothing, the paper's coefficient, the chosen one; random heads as controls."""
    recency: RecencyBias | None
    """Nothing, full strength, the chosen one. None where the model's position cannot be taken out."""
    recency_sweep: RecencyBias | None
    """On the selection prompts, every strength."""
    recency_random: tuple[RecencyBias, ...]
    recency_refused: str
    chosen: tuple[float, float]
    """Coefficient and strength."""


def bias_study(start: Start) -> Part:
    """Both biases before and after their mitigations, beside the same with random heads.

    Raises:
        Unfit: fewer than 2 shots.
    """
    model, heads, plan = start.model, start.heads, start.plan
    separator, seed = plan.settings.separator, plan.settings.seed
    draws = [random_heads(all_heads(model), heads, seed=(seed, i)) for i in range(RANDOM_DRAWS)]
    with start.timed("majority-label bias"):
        sweep = majority_bias(model, plan.selection, heads, separator=separator)
        coefficient = sweep.strengths[choose(sweep)]

        coefficients = tuple(dict.fromkeys((0.0, PAPER_COEFFICIENT, coefficient)))
        found = majority_bias(
            model, plan.evaluation, heads, coefficients=coefficients, controls=draws, separator=separator
        )
    recency: RecencyBias | None = None
    recency_sweep: RecencyBias | None = None
    recency_random: tuple[RecencyBias, ...] = ()
    strength, refused = 0.0, ""
    with start.timed("recency bias"):
        try:
            recency_sweep = recency_bias(model, plan.selection, heads, seed=seed, separator=separator)
            strength = recency_sweep.strengths[choose(recency_sweep)]

            def over_orders(chosen: tuple[Head, ...], *strengths: float) -> RecencyBias:
                return recency_bias(model, plan.evaluation, chosen, strengths=strengths, seed=seed, separator=separator)

            recency = over_orders(heads, *dict.fromkeys((0.0, 1.0, strength)))
            recency_random = tuple(over_orders(draw, strength or 1.0) for draw in draws[:RECENCY_DRAWS])
        except Unfit as error:  # a model whose attention cannot be told apart from its positions
            refused = str(error)
    findings = Findings(sweep, found, recency, recency_sweep, recency_random, refused, (coefficient, strength))
    rows = _mitigations(findings, len(plan.evaluation))
    return Part(
        headline=_headline(rows),
        summary={"biases": _summary(findings, rows)},
        values=_values(findings),
        tables=_paper_tables(start, rows),
        sections=lambda folder: _sections(findings, rows, folder),
        shown=(("Biases before and after their mitigations", _short_table(rows)),),
    )


@dataclass(frozen=True)
class Row:
    """One bias by one measure under one mitigation."""

    bias: str
    measure: str
    how: str
    """`chosen` on the selection prompts, the paper's value, or `random` heads."""
    found: Mitigation


MEASURES: dict[str, tuple[tuple[str, Callable[..., np.ndarray] | None], ...]] = {
    "majority": (
        ("accuracy fluctuation, answers apart", None),
        ("accuracy fluctuation, all prompts", MajorityBias.overall_fluctuation),
    ),
    "recency": (
        ("std of accuracy over orders", None),
        ("std of attention over places", RecencyBias.attention_fluctuation),
        ("the same over mean attention", RecencyBias.relative_attention_fluctuation),
    ),
}


def _mitigations(findings: Findings, n_prompts: int) -> list[Row]:
    rows = []
    coefficient, strength = findings.chosen
    for name, base, random, chosen, paper in (
        ("majority", findings.majority, findings.majority.controls, coefficient, PAPER_COEFFICIENT),
        ("recency", findings.recency, findings.recency_random, strength, 1.0),
    ):
        if base is None:
            continue
        for measure, statistic in MEASURES[name]:
            runs = [("chosen", base, base.strengths.index(chosen)), ("paper", base, base.strengths.index(paper))]
            if statistic is None or name == "majority":  # the others are of the heads themselves
                runs += [("random", other, other.strengths.index(chosen or paper)) for other in random]
            rows += [Row(name, measure, how, mitigation(base, run, i, n_prompts, statistic)) for how, run, i in runs]
    return rows


def _summary(findings: Findings, rows: list[Row]) -> dict[str, Any]:
    """Per bias and measure: `before`, `after`, `reduction` (`1 - after / before`), accuracies and their cost,
    `ci95`.
    """
    found: dict[str, Any] = {}
    for row in rows:
        intervals = {k: v for k, v in asdict(row.found).items() if k != "strength"}
        values: dict[str, Any] = {key: value[0] for key, value in intervals.items()}
        values |= {"strength": row.found.strength, "ci95": {k: [v[1], v[2]] for k, v in intervals.items()}}
        bias = found.setdefault(row.bias, {})
        headline = row.measure == MEASURES[row.bias][0][0]
        if row.how == "chosen" and headline:
            bias.update(values, measure=row.measure)
        elif row.how == "random":
            bias.setdefault("random_heads", []).append({"measure": row.measure} | values)
        else:
            bias.setdefault("also", []).append({"measure": row.measure, "how": row.how} | values)
    if findings.recency is None:
        found["recency"] = {"refused": findings.recency_refused}
    return found


def _values(findings: Findings) -> dict[str, Any]:
    return {
        "majority": findings.majority,
        "majority_sweep": findings.sweep,
        "recency": findings.recency,
        "recency_sweep": findings.recency_sweep,
        "chosen": np.array(findings.chosen),
    }


def _paper_tables(start: Start, rows: list[Row]) -> dict[str, pd.DataFrame]:
    """Tables 7 and 8 of arXiv 2402.02872: each bias before and after, and the reduction."""
    tables = {}
    for name, bias in (("table_7", "majority"), ("table_8", "recency")):
        body = [
            {
                "model": start.provenance["name"],
                "data": start.provenance["data"],
                "measure": row.measure,
                "mitigation": row.how,
                "strength": row.found.strength,
                "before": row.found.before.mean,
                "after": row.found.after.mean,
                "reduction": row.found.reduction.mean,
                "reduction_low": row.found.reduction.low,
                "reduction_high": row.found.reduction.high,
                "accuracy_before": row.found.accuracy_before.mean,
                "accuracy_after": row.found.accuracy_after.mean,
            }
            for row in rows
            if row.bias == bias
        ]
        if body:
            tables[name] = pd.DataFrame(body)
    return tables


def _headline(rows: list[Row]) -> str:
    parts = []
    for bias, what in (("majority", "Majority-label bias"), ("recency", "Recency bias")):
        row = next((r for r in rows if r.bias == bias and r.how == "chosen"), None)
        if row is not None:
            parts.append(f"{what} ({row.measure}): {row.found.before.mean:.3f}, mitigated {row.found.after.mean:.3f}.")
    return " ".join(parts)


def _share(interval: Interval) -> str:
    if not np.isfinite(interval.mean):
        return ""
    return f"{interval.mean:+.0%} [{interval.low:+.0%}, {interval.high:+.0%}]"


def _table(rows: list[Row]) -> Table:
    body = [
        (
            row.bias,
            row.measure,
            {"chosen": "chosen", "paper": "as in the paper", "random": "random heads"}[row.how],
            f"{row.found.strength:g}",
            *(f"{i.mean:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in (row.found.before, row.found.after)),
            _share(row.found.reduction),
            f"{row.found.accuracy_before.mean:.2f} -> {row.found.accuracy_after.mean:.2f}",
        )
        for row in rows
    ]
    return Table(("bias", "measure", "mitigation", "strength", "before", "after", "reduction", "accuracy"), tuple(body))


def _short_table(rows: list[Row]) -> Table:
    """The chosen mitigation of each bias, beside the mean of random heads."""
    body = []
    for row in (row for row in rows if row.how == "chosen"):
        found, alike = row.found, [r for r in rows if r.how == "random" and r.measure == row.measure]
        random = [r.found.reduction.mean for r in alike if r.found.strength == found.strength]
        cells = (f"{found.before.mean:.3f}", f"{found.after.mean:.3f}", _share(found.reduction))
        body.append((row.bias, row.measure, *cells, f"{np.mean(random):+.0%}" if random else ""))
    return Table(("bias", "measure", "before", "after", "reduction", "random heads"), tuple(body))


def _sections(findings: Findings, rows: list[Row], figures: Path) -> tuple[Section, ...]:
    majority, recency = ([row for row in rows if row.bias == bias] for bias in ("majority", "recency"))
    explained = (
        "The strength was chosen on the selection prompts for the least fluctuation plus accuracy lost; everything "
        "else is measured on the test prompts. A fluctuation is never negative, so noise alone makes it positive. In "
        "brackets: 95 % bootstrap intervals over prompts."
    )
    sections = [
        Section(
            "Majority-label bias",
            "Demonstrations of one label are removed. Fluctuation: the mean change of accuracy from the balanced "
            "prompts, over all prompts, and over those of each answer apart. The mitigation adds the heads' weighted "
            f"values at minority positions to the final state. {explained}",
            _table(majority),
            figures / "majority.svg",
        )
    ]
    if findings.recency is None:
        sections.append(Section("Recency bias", f"Not measured: {findings.recency_refused}"))
    else:
        sections.append(
            Section(
                "Recency bias",
                "The same demonstrations in several orders. The mitigation takes position out of the heads' "
                f"attention scores. {explained}",
                _table(recency),
                figures / "recency.svg",
            )
        )
    return tuple(sections)
