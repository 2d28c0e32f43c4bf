"""The study's part of a folder: its values, its tables and its sections."""

from collections.abc import Iterator
from pathlib import Path

from icl_circuits.report import Part
from icl_circuits.stats import ALPHA
from icl_circuits.studies.relations import sentences
from icl_circuits.studies.relations.begun import RelationsBegun
from icl_circuits.studies.relations.run import DEPENDENCY, KNOWLEDGE, RelationFindings
from icl_circuits.studies.relations.tables import (
    all_tables,
    overlap_table,
    probe_table,
    relations_table,
    summary,
    zeroed_table,
)
from icl_circuits.viz import Section, Table

NO_IN_CONTEXT = (
    " In-context heads are missing: no head's scores can be told from zero on these prompts (--prompts asks for more)."
)


def present(begun: RelationsBegun, findings: RelationFindings) -> Part:
    """What is written of the findings."""
    return Part(
        headline=_headline(findings),
        summary=summary(findings),
        values={
            "probe": findings.probe,
            "dependencies": findings.dependencies,
            "knowledge": findings.knowledge,
            "backwards": findings.backwards,
            "induction": findings.induction,
            "concepts": findings.concepts,
            "function_vectors": findings.function_vectors,
            "overlap": findings.overlap,
            "on_words": findings.on_words,
            "on_tasks": findings.on_tasks,
        },
        tables=all_tables(begun, findings),
        sections=lambda figures: _sections(begun, findings, figures),
        shown=[
            ("Syntactic dependencies", relations_table(findings.dependencies)),
            ("Knowledge graphs", relations_table(findings.knowledge)),
            ("What families of heads share", overlap_table(findings)),
        ],
    )


def _headline(findings: RelationFindings) -> str:
    semantic = {*findings.families.get(DEPENDENCY, ()), *findings.families.get(KNOWLEDGE, ())}
    return (
        f"{len(semantic)} semantic induction heads stand out (dependencies and knowledge graphs). "
        f"{sentences.shared(findings.overlap)}"
    )


def _indices(findings: RelationFindings, figures: Path) -> Iterator[Section]:
    """The relation index, by kind of triplets."""
    said = (
        "The index of a head is a mean over positions where it attends to a relation's head most. There it is the "
        "share of what the head raises among the text's tokens that is the relation's tail. Heads: how many have "
        f"p \u2264 {ALPHA}. Best: of those with ten passing pairs or more. Behind: the index without positions at "
        "which a word of the triplet stands, where copying the current token is enough. 10th, random: the text's 10th "
        "token, and its others, in the tail's place. p: against random tokens, corrected for all heads and relations."
    )
    for title, text, name, found in (
        ("Syntactic dependencies", said, "dependencies", findings.dependencies),
        ("Knowledge graphs", "The same for relations of knowledge graphs.", "knowledge", findings.knowledge),
        ("From tail to head", "The same triplets turned round.", "backwards", findings.backwards),
    ):
        figure = figures / f"relation_index_{name}.svg"
        yield Section(title, text, relations_table(found), figure, answer=sentences.index(found))


def _best_heads(findings: RelationFindings, figures: Path) -> Iterator[Section]:
    """Of how many triplets each head is the best, by kind of triplets."""
    most = "Of how many triplets each head has the highest mean."
    for title, text, name, found in (
        ("Which head is best how often", most, "dependencies", findings.dependencies),
        ("Best heads of knowledge graphs", "The same.", "knowledge", findings.knowledge),
        ("Best heads from tail to head", "The same.", "backwards", findings.backwards),
    ):
        figure = figures / f"best_heads_{name}.svg"
        yield Section(title, text, figure=figure, answer=sentences.best_heads(found))


def _sections(begun: RelationsBegun, findings: RelationFindings, figures: Path) -> tuple[Section, ...]:
    return (
        *_indices(findings, figures),
        *_best_heads(findings, figures),
        Section(
            "The threshold",
            "The paper takes 2.2, which under 5 % of the ratios exceed in its model. The maps depend on it as follows.",
            figure=figures / "relation_index_by_tau.svg",
            answer=sentences.thresholds(findings.dependencies),
        ),
        Section(
            "Ratios",
            "How many times attention to a relation's head exceeds that to any other token, where it is the most.",
            figure=figures / "attention_ratios.svg",
            answer=sentences.ratios(findings.dependencies),
        ),
        *_probe(findings),
        Section(
            "What was left out",
            "Triplets that no token stands for, or that the treatment of the texts takes away.",
            _left_out(begun),
            answer=sentences.left_out(begun.dependencies, begun.knowledge),
        ),
        Section(
            "What families of heads share",
            "The best heads of each family: in-context heads (arXiv 2402.02872), semantic induction heads of both "
            "kinds (arXiv 2402.13055), induction heads by prefix matching (Olsson et al. 2022), function-vector heads "
            "(arXiv 2310.15213), token- and concept-induction heads (arXiv 2504.03022)."
            + ("" if "in-context" in findings.families else NO_IN_CONTEXT),
            overlap_table(findings),
            figures / "family_overlap.svg",
            answer=sentences.shared(findings.overlap),
        ),
        Section(
            "In-context prompts without each family",
            "Zeroed at every position: the whole family, its heads that are in no other, and for both as many random "
            "heads of the same layers that are in none. In brackets: 95 % bootstrap intervals over prompts.",
            zeroed_table(findings.on_words),
            figures / "families_zeroed.svg",
            answer=sentences.zeroed(findings.on_words),
        ),
        Section(
            "Tasks of word pairs without each family",
            "The same on other prompts of the tasks that function-vector heads were found on. Word pairs come again: "
            "this is no test on new words.",
            zeroed_table(findings.on_tasks),
            answer=sentences.zeroed(findings.on_tasks),
        ),
    )


def _probe(findings: RelationFindings) -> tuple[Section, ...]:
    found = findings.probe
    if found is None:
        return (Section("A probe of syntactic heads", "Not done: too few sentences of at most 32 tokens."),)
    return (
        Section(
            "A probe of syntactic heads",
            f"Trained on {found.n_train} sentences, tested on {len(found.n_words)} others. The share of words that get "
            "their syntactic head by a probe of all heads' attention and the words' "
            "embeddings (Clark et al. 2019). Controls: words and distance without attention, words alone, the best "
            "fixed distance, and shuffled heads. In brackets: 95 % bootstrap intervals over test sentences.",
            probe_table(found),
            answer=sentences.probe(found),
        ),
    )


def _left_out(begun: RelationsBegun) -> Table:
    parts = zip(begun.names, (begun.dependencies, begun.knowledge), strict=True)
    rows = [(name, reason, str(count)) for name, batch in parts for reason, count in batch.left_out]
    return Table(("data", "reason", "triplets"), tuple(rows) or (("", "nothing", "0"),))
