"""The study's tables, by their numbers in arXiv 2312.12141, its part of `results.json`, and what a terminal shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.models import LensModel
from icl_circuits.report import with_ci95
from icl_circuits.residual import Neuron
from icl_circuits.stats import Interval, bootstrap_mean, relative_change
from icl_circuits.studies.subvalues.begun import FactsBegun
from icl_circuits.studies.subvalues.run import TOP_FFN, OfManyPrompts, SubvalueFindings
from icl_circuits.subvalues import (
    PREDICTORS,
    TARGET_MEASURES,
    NeuronEffects,
    QueryImportance,
    added_before_softmax,
    neuron_tokens,
    shared_neurons,
)
from icl_circuits.viz import Table

VALUE_LAYERS = 10
"""How many layers of a type tables list."""
SHARED = 5
"""How many of the neurons that come again are read."""


def summary(begun: FactsBegun, findings: SubvalueFindings) -> dict[str, Any]:
    """The study's part of `results.json`; `ci95` over prompts."""
    rows = findings.effects.to_frame()
    found: dict[str, Any] = {
        "effects": [{"zeroed": row["zeroed"], **_measures(row)} for _, row in rows.iterrows()],
        "exact_scores_a_prompt": {
            "ffn": float(findings.ffn.evaluated.mean()),
            "attention": float(findings.attention.evaluated.mean()),
        },
    }
    many = findings.many
    if many is not None:
        frame = many.methods.to_frame()
        p = [np.nan, *many.methods.less_left()[many.methods.least_left]]
        found["methods"] = [
            {"method": row["zeroed"], **_measures(row), "p_leaves_more_than_best": of_row}
            for of_row, (_, row) in zip(p, frame.iterrows(), strict=True)
        ]
        found["agreement"] = with_ci95(overall(many))
    return {"subvalues": found}


def _measures(row: Any) -> dict[str, Any]:
    return with_ci95({measure: Interval.in_row(row, measure) for measure in TARGET_MEASURES})


def overall(many: OfManyPrompts) -> dict[str, Interval]:
    """Rank correlation of each score with the exact effect, a mean over layers and prompts."""
    found = {}
    for predictor in PREDICTORS:
        values = many.alone.rank_correlations(predictor)
        found[predictor] = bootstrap_mean(values[:, np.isfinite(values).all(axis=0)].mean(axis=0))
    return found


def paper_tables(begun: FactsBegun, findings: SubvalueFindings) -> dict[str, pd.DataFrame]:
    """The paper's tables, those that one prompt or many give."""
    effects = findings.effects.to_frame()
    tables: dict[str, pd.DataFrame] = {}
    is_query = effects["zeroed"].str.contains("query")
    tables["table_1_adding_before_softmax"] = adding()
    tables["table_3_sums_of_layers"] = sums_of_layers(begun, findings)
    tables["table_4_value_layers"] = value_layers(begun, findings)
    tables["table_6_query_layers_of_ffn"] = query_layers(begun, findings.query_ffn)
    tables["table_7_query_neurons_zeroed"] = relative(
        findings.effects, effects[is_query | (effects["zeroed"] == "nothing")]
    )
    tables["table_8_shared_neurons"] = sharing(begun, findings)
    tables["table_9_what_shared_neurons_say"] = shared_tokens(begun.model, begun, findings)
    tables["table_13_value_neurons_zeroed"] = relative(findings.effects, effects[~is_query])
    tables["table_14_query_layers_of_attention"] = query_layers(begun, findings.query_attention)
    tables["value_neurons"] = pd.concat([findings.ffn.first(TOP_FFN).to_frame(), findings.attention.to_frame()])
    tables["query_neurons"] = pd.concat(
        [q.to_frame().query("rank < 100").assign(of=q.kind) for q in (findings.query_ffn, findings.query_attention)]
    )
    many = findings.many
    if many is not None:
        tables["table_2_eight_methods"] = many.methods.to_frame().rename(columns={"zeroed": "method"})
        tables["table_5_12_concentration"] = concentrations(findings, many)
        tables["agreement_with_zeroing"] = many.alone.to_frame()
        if many.heads is not None:
            frame = many.heads.to_frame()
            same = frame["heads_of"] == frame["prompts_of"]
            tables["table_10_heads_on_their_own_type"] = frame[same]
            tables["table_11_heads_on_other_types"] = frame[~same]
    return tables


def adding() -> pd.DataFrame:
    """Table 1: four values before the softmax, and what is added to them."""
    import torch

    bs = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rows: list[list[float]] = [[0, 0, 0, 0], [1, 1, 1, 3], [3, 1, 1, 1], [6, 4, 4, 4], [6, 2, 2, 2], [-6, -2, -2, -2]]
    probs = added_before_softmax(bs, torch.tensor(rows, dtype=torch.float32))
    frame = pd.DataFrame(probs.tolist(), columns=[f"prob_{i}" for i in range(1, 5)])
    frame.insert(0, "added", [str([round(value) for value in row]) for row in rows])
    return frame


def sums_of_layers(begun: FactsBegun, findings: SubvalueFindings) -> pd.DataFrame:
    """Table 3: log-probability increase of all attention layers together, and of all FFN layers."""
    rows = []
    for name, chosen in _by_type(begun):
        row: dict[str, object] = {"type": name, "prompts": len(chosen)}
        for part in ("attn", "mlp"):
            total = getattr(findings.increase, part)[chosen].sum(axis=1).astype(float)
            row |= bootstrap_mean(total).columns(part)
        rows.append(row)
    return pd.DataFrame(rows)


def value_layers(begun: FactsBegun, findings: SubvalueFindings) -> pd.DataFrame:
    """Table 4: the layers of the highest log-probability increase on each type."""
    parts = {"a": findings.increase.attn, "f": findings.increase.mlp}
    return _best_layers(begun, parts, "log_prob_increase")


def query_layers(begun: FactsBegun, query: QueryImportance) -> pd.DataFrame:
    """Tables 6 and 14: the layers of the highest query importance on each type."""
    return _best_layers(begun, {"e": query.embed[:, None], "a": query.attn, "f": query.mlp}, "query_importance")


def _best_layers(begun: FactsBegun, parts: dict[str, Float[np.ndarray, "prompt layer"]], column: str) -> pd.DataFrame:
    """One row a type and rank; `a23` is attention layer 23, `f23` the FFN layer, `e0` the embedding.

    The best are chosen on the prompts that they are measured on, so the first of a list look better than they are.
    """
    rows = []
    for name, chosen in _by_type(begun):
        entries = [(f"{part}{n}", values[chosen, n]) for part, values in parts.items() for n in range(values.shape[1])]
        best = sorted(entries, key=lambda entry: -float(entry[1].mean()))[:VALUE_LAYERS]
        for rank, (layer, values) in enumerate(best):
            row: dict[str, object] = {"type": name, "rank": rank, "layer": layer}
            rows.append(row | bootstrap_mean(values.astype(float)).columns(column))
    return pd.DataFrame(rows)


def relative(effects: NeuronEffects, frame: pd.DataFrame) -> pd.DataFrame:
    """Tables 7 and 13: the measures, and by what share of itself each changes, with 95 % bootstrap intervals."""
    frame = frame.copy()
    for m, measure in enumerate(TARGET_MEASURES[:2]):
        base = effects.base[:, m].astype(float)
        groups = [effects.groups.index(name) for name in frame["zeroed"] if name != "nothing"]
        changes = [relative_change(base, effects.zeroed[group, :, m].astype(float)) for group in groups]
        columns = pd.DataFrame([change.columns(f"{measure}_change") for change in changes])
        columns.index = frame.index[frame["zeroed"] != "nothing"]
        frame = frame.join(columns)
    return frame


def sharing(begun: FactsBegun, findings: SubvalueFindings) -> pd.DataFrame:
    """Table 8: of the first 300 neurons, how many come again in more than half of a type's prompts."""
    rows = []
    for name, chosen in _by_type(begun):
        if len(chosen) > 1:
            counts = {part: len(_shared(findings, part, chosen)) for part in ("value", "query")}
            rows.append({"type": name, "prompts": len(chosen), **counts})
    return pd.DataFrame(rows, columns=["type", "prompts", "value", "query"])


def _shared(findings: SubvalueFindings, part: str, chosen: Sequence[int]) -> pd.DataFrame:
    layer, head, neuron = (findings.ffn if part == "value" else findings.query_attention).addresses
    return shared_neurons((layer[chosen][:, :TOP_FFN], head[chosen][:, :TOP_FFN], neuron[chosen][:, :TOP_FFN]))


def shared_tokens(model: LensModel, begun: FactsBegun, findings: SubvalueFindings) -> pd.DataFrame:
    """Table 9: the neurons that most prompts of a type share, and the tokens that they promote."""
    rows = []
    for name, chosen in _by_type(begun):
        for part in ("value", "query"):
            found = _shared(findings, part, chosen).head(SHARED)
            neurons = [Neuron(int(row["layer"]), int(row["neuron"])) for _, row in found.iterrows()]
            says = neuron_tokens(model, neurons) if neurons else ()
            for neuron, prompts, said in zip(neurons, found["prompts"], says, strict=True):
                words = {"top": " ".join(said.top), "last": " ".join(said.last)}
                rows.append({"type": name, "kind": part, "neuron": str(neuron), "prompts": prompts, **words})
    return pd.DataFrame(rows, columns=["type", "kind", "neuron", "prompts", "top", "last"])


def concentrations(findings: SubvalueFindings, many: OfManyPrompts) -> pd.DataFrame:
    """Tables 5 and 12: sums of scores over all neurons, over those above zero, and over the first of each prompt."""
    rows, chosen = [], list(many.sum_rows)
    for sums, top in zip(many.sums, (findings.ffn, findings.attention), strict=True):
        row: dict[str, object] = {"kind": sums.kind, "prompts": len(sums.all)}
        firsts = {f"first_{k}": top.score[chosen][:, :k].sum(axis=1) for k in (100, 200)}
        for name, values in {"layers": sums.together, "all": sums.all, "positive": sums.positive, **firsts}.items():
            row |= bootstrap_mean(values.astype(float)).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def _by_type(begun: FactsBegun) -> list[tuple[str, list[int]]]:
    return [(name, begun.known.rows_of(name)) for name in begun.known.types]


def effects_table(effects: NeuronEffects, what: str = "zeroed") -> Table:
    """What is left of the answers, as text."""
    cells = []
    for _, row in effects.to_frame().iterrows():
        values = (f"{Interval.in_row(row, measure):.3f}" for measure in TARGET_MEASURES)
        cells.append((row["zeroed"], *values))
    return Table((what, "mean reciprocal rank", "probability", "log-probability (nats)"), tuple(cells))
