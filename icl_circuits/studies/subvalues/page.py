"""The study's part of a folder: its values, its tables, the page of prompts, and sections that lead to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from icl_circuits.heads import LogProbIncrease
from icl_circuits.report import Part
from icl_circuits.stats import Interval
from icl_circuits.studies.subvalues import sentences
from icl_circuits.studies.subvalues.begun import FactsBegun
from icl_circuits.studies.subvalues.run import (
    ALONE_PER_LAYER,
    BEST,
    FFN_ZEROED,
    OfManyPrompts,
    SubvalueFindings,
    TypeNames,
)
from icl_circuits.studies.subvalues.tables import effects_table, overall, paper_tables, summary
from icl_circuits.subvalues import METHODS, TopNeurons
from icl_circuits.viz import FactView, Section, Table

PAGE = "prompts.html"


def present(begun: FactsBegun, findings: SubvalueFindings) -> Part:
    """What is written of the findings."""
    tables = paper_tables(begun, findings)
    view = fact_view(begun, findings)
    values = {
        "increase": findings.increase,
        "ffn": findings.ffn,
        "attention": findings.attention,
        "query_ffn": findings.query_ffn,
        "query_attention": findings.query_attention,
        "effects": findings.effects,
        "way": findings.way,
        "types": TypeNames(begun.known.types),
    }
    shown = [("What is left of the answers", effects_table(findings.effects))]
    many = findings.many
    if many is not None:
        values |= {
            "methods": many.methods,
            "method_layers": many.method_layers,
            "sums_ffn": many.sums[0],
            "sums_attention": many.sums[1],
            "heads_by_type": many.heads,
            "alone": many.alone,
        }
        shown.append((f"The best {BEST} FFN neurons of each score zeroed", effects_table(many.methods, "score")))
    else:
        shown.append(("What writes the answer", _writers_table(findings)))
    return Part(
        headline=_headline(findings),
        summary=summary(begun, findings),
        values=values,
        tables=tables,
        sections=lambda figures: _sections(begun, findings, tables, figures),
        shown=shown,
        files={PAGE: view.save},
    )


def fact_view(begun: FactsBegun, findings: SubvalueFindings) -> FactView:
    """The page of one prompt of each type, which displays itself in a notebook."""
    title = f"What writes the answer in {begun.provenance['name']}"
    return FactView(title, f"{_headline(findings)} {begun.described}", findings.shown)


def _headline(findings: SubvalueFindings) -> str:
    frame = findings.effects.to_frame().set_index("zeroed")
    n_queries = findings.query_attention.score.shape[1]
    base, values, random, queries, random_queries = frame["prob"]
    return (
        f"Without its value neurons a prompt gives its answer a probability of {values:.2%}, where it was {base:.1%}. "
        f"Without as many random neurons of the same layers it is {random:.1%}. Without its {n_queries} query "
        f"neurons it is {queries:.2%}, and without as many random ones {random_queries:.1%}."
    )


def _n_dimensions(attention: TopNeurons) -> float:
    """In how many dimensions of heads a prompt's attention neurons lie: several source positions may share one."""
    rows = zip(*attention.addresses, strict=True)
    return float(np.mean([len(np.unique(np.stack(row), axis=1).T) for row in rows]))


def _writers_table(findings: SubvalueFindings) -> Table:
    """The best layers, heads and neurons of the one prompt, and what each promotes."""
    rows, counted = [], dict[str, int]()
    for writer in findings.shown[0].writers:
        counted[writer.kind] = counted.get(writer.kind, 0) + 1
        if counted[writer.kind] <= 5:
            rows.append((writer.name, f"{writer.score:.3f}", "  ".join(writer.top[:5])))
    return Table(("writer", "score (nats)", "tokens it raises"), tuple(rows))


def _as_text(frame: pd.DataFrame, named: Sequence[str], measured: Sequence[str], digits: int = 2) -> Table:
    """Some columns of a table, and some intervals, as text."""
    rows = [
        (
            *(str(row[column]) for column in named),
            *(f"{Interval.in_row(row, column):.{digits}f}" for column in measured),
        )
        for _, row in frame.iterrows()
    ]
    return Table((*named, *measured), tuple(rows))


def _sections(
    begun: FactsBegun, findings: SubvalueFindings, tables: dict[str, pd.DataFrame], figures: Path
) -> tuple[Section, ...]:
    found = (
        Section(
            "A prompt, and what writes its answer",
            "The page shows one prompt of each type: its layers, heads and neurons. Open one to read what it promotes.",
            link=PAGE,
            answer=sentences.prompt(findings.shown[0]),
        ),
        Section(
            "Value neurons and query neurons zeroed",
            f"Value neurons write the answer: the first {FFN_ZEROED} FFN neurons and the first "
            f"{findings.attention.score.shape[1]} attention neurons of each prompt, by exact log-probability increase. "
            f"Those lie in {_n_dimensions(findings.attention):.0f} dimensions of heads on average, which go whole. "
            "Query neurons activate the attention value neurons. Each prompt loses its own, at every position. Random "
            "neurons are others. In brackets: 95 % bootstrap intervals over prompts.",
            effects_table(findings.effects),
            answer=sentences.zeroed(findings),
        ),
        Section(
            "Layers",
            "What attention and FFN layers add to the log-probability of the answer at the last position.",
            _as_text(tables["table_3_sums_of_layers"], ("type", "prompts"), ("attn", "mlp")),
            figures / "fact_layers.svg",
            answer=sentences.layers(findings.increase),
        ),
        Section(
            "Heads",
            "The same for every head; white below zero.",
            figure=figures / "fact_heads.svg",
            answer=sentences.heads(findings.increase),
        ),
        Section(
            "Layers of value neurons",
            "How many of each prompt's best neurons lie in each layer. Both lists are exact: no other neuron scores "
            f"more. That took {findings.ffn.evaluated.mean():.0f} exact scores a prompt for FFN neurons and "
            f"{findings.attention.evaluated.mean():.0f} for attention neurons.",
            figure=figures / "neuron_layers.svg",
            answer=sentences.neuron_layers(findings.ffn, findings.attention),
        ),
        Section(
            "Query neurons by depth",
            "Query neurons that write the answer themselves, and those that only activate other neurons.",
            figure=figures / "query_or_value.svg",
            answer=sentences.query_layers(findings),
        ),
        Section(
            "The layers of each type of knowledge",
            "Each row is scaled to its own maximum.",
            figure=figures / "value_layers.svg",
            answer=sentences.best_layers(tables["table_4_value_layers"]),
        ),
        Section(
            "What activates the value neurons",
            "Query importance: the inner product of a value neuron's subkey with what a layer wrote, times the "
            "neuron's score, summed. Norms between are left out, as in the paper.",
            figure=figures / "query_layers_of_attention.svg",
            answer=sentences.best_layers(tables["table_14_query_layers_of_attention"]),
        ),
        Section(
            "Why log-probability",
            "On the straight way from the first state to the last, log-probability grows early and probability late.",
            figure=figures / "interpolation.svg",
            answer=sentences.way(findings.way),
        ),
        Section(
            "Neurons that prompts share",
            "The neurons in most prompts of a type, and the tokens at both ends of their projection. A negative "
            "coefficient promotes the last ones.",
            _words(tables["table_9_what_shared_neurons_say"]),
            answer=sentences.shared(tables["table_9_what_shared_neurons_say"]),
        ),
    )
    return found if findings.many is None else (*found, *_of_many(findings.many, findings.increase, tables, figures))


def _words(frame: pd.DataFrame) -> Table:
    columns = ("type", "kind", "neuron", "prompts", "top", "last")
    return Table(columns, tuple(tuple(str(row[column]) for column in columns) for _, row in frame.iterrows()))


def _of_many(
    many: OfManyPrompts, increase: LogProbIncrease, tables: dict[str, pd.DataFrame], figures: Path
) -> tuple[Section, ...]:
    said = " ".join(f"{name}: {what}." for name, what in METHODS.items())
    found = [
        Section(
            "Eight scores",
            f"The best {BEST} FFN neurons of each prompt by each score are zeroed. {said} {len(many.methods.base)} "
            "prompts.",
            effects_table(many.methods, "score"),
            figures / "eight_methods.svg",
            answer=sentences.methods(many.methods),
        ),
        Section(
            "Layers of the best neurons",
            "By the first three scores.",
            figure=figures / "method_layers.svg",
            answer=sentences.method_layers(many),
        ),
        Section(
            "How much few neurons carry",
            "Sums of exact log-probability increases, nats: of the layers as wholes, of all neurons, of all that score "
            "above zero, and of the first 100 and 200. Scores of neurons do not add up to their layer's.",
            _as_text(
                tables["table_5_12_concentration"],
                ("kind", "prompts"),
                ("layers", "all", "positive", "first_100", "first_200"),
            ),
            answer=sentences.concentration(tables["table_5_12_concentration"]),
        ),
        Section(
            "Scores and effects",
            f"{ALONE_PER_LAYER} random FFN neurons of each layer are zeroed one by one at the last position, exactly. "
            "The score of a neuron sees what it writes, not what later layers make of that. Attribution patching is "
            f"the gradient's guess. {many.alone.lost.shape[1]} prompts.",
            figure=figures / "agreement.svg",
            answer=sentences.agreement({name: found.mean for name, found in overall(many).items()}),
        ),
    ]
    if many.heads is not None:
        own = tables["table_10_heads_on_their_own_type"]
        n_heads, every = len(many.heads.heads[0][0]), increase.heads[0].size
        found.append(
            Section(
                "Heads of one type of knowledge",
                f"{n_heads} of {every} heads are zeroed for each type. They are chosen on half of its prompts, for the "
                "other half. Changes are shares of what the measure was: -0.50 is half. The table has the type's own "
                "prompts; tables/table_11_heads_on_other_types.csv has the others.",
                _as_text(own, ("heads_of", "heads"), ("reciprocal_rank", "prob")),
                answer=sentences.heads_of_types(many.heads),
            )
        )
    return tuple(found)
