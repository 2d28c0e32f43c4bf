"""What the study computes: relation indices, the scores of other families of heads, and what families share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from icl_circuits.errors import Unfit
from icl_circuits.heads import (
    ConceptScores,
    FamilyEffects,
    FunctionVectorHeads,
    InContextHeads,
    InductionScores,
    Overlap,
    concept_scores,
    function_vector_heads,
    induction_scores,
    overlap,
    require_selectable,
    score_every_head,
    select,
    top_heads,
    zero_families,
)
from icl_circuits.models import LensModel
from icl_circuits.prompts import TokenBatch, token_batch
from icl_circuits.relations import HeadProbe, RelationIndex, head_probe, relation_index, usable_sentences
from icl_circuits.residual import Head
from icl_circuits.studies.relations.begun import RelationsBegun

KINDS = (RelationIndex, HeadProbe, InductionScores, ConceptScores, FunctionVectorHeads, Overlap, FamilyEffects)
TRAIN, TEST = 200, 100
"""Sentences of the probe, as in the paper."""
FEWEST = 10
"""Sentences to train a probe on."""
RANDOM_DRAWS = 3
"""Of random heads beside each family."""
DEPENDENCY, KNOWLEDGE = "dependency", "knowledge graph"
"""The two kinds of semantic induction heads."""


@dataclass(frozen=True)
class RelationFindings:
    """What the study found."""

    dependencies: RelationIndex
    knowledge: RelationIndex
    backwards: RelationIndex
    probe: HeadProbe | None
    """None: too few sentences, or a model that it cannot be done on."""
    induction: InductionScores
    concepts: ConceptScores | None
    """None: the tokenizer splits too few words."""
    function_vectors: FunctionVectorHeads
    families: Mapping[str, tuple[Head, ...]]
    """The best heads of each family that the model has."""
    overlap: Overlap
    on_words: FamilyEffects
    """In-context prompts without each family."""
    on_tasks: FamilyEffects
    """Prompts of tasks without each family."""


def compute(begun: RelationsBegun) -> RelationFindings:
    """Score every head in every way, take the best of each, and compare and zero them."""
    model, settings = begun.model, begun.settings
    dependencies, knowledge, backwards = begun.step("relation index", lambda: _indices(begun))
    probe = begun.step("probe of syntactic heads", lambda: _probe(begun))
    induction, concepts = begun.step("induction heads", lambda: _induction(begun))
    function_vectors = begun.step(
        "function-vector heads",
        lambda: function_vector_heads(model, begun.tasks.clean, begun.tasks.shuffled, means=begun.mean_tasks.clean),
    )
    scored = begun.step("in-context heads", lambda: _in_context(begun))
    n = settings.heads
    families = {
        "in-context": () if scored is None else scored.of(),
        DEPENDENCY: dependencies.salient(n),
        KNOWLEDGE: knowledge.salient(n),
        "induction": top_heads(induction.prefix_matching.mean(axis=0), n),
        "function vector": top_heads(function_vectors.average, n),
    }
    if concepts is not None:
        families["token induction"] = top_heads(concepts.next_token.mean(axis=0), n)
        families["concept induction"] = top_heads(concepts.last_token.mean(axis=0), n)
    families = {name: heads for name, heads in families.items() if heads}
    shared = overlap(families, model.cfg.n_layers * model.cfg.n_heads)
    options = {"n_random": RANDOM_DRAWS, "seed": settings.seed}
    on_words, on_tasks = begun.step(
        "zeroing families",
        lambda: (
            zero_families(model, begun.evaluation, families, **options),
            zero_families(model, joined(model, begun.other_tasks.clean.values()), families, **options),
        ),
    )
    return RelationFindings(
        dependencies,
        knowledge,
        backwards,
        probe,
        induction,
        concepts,
        function_vectors,
        families,
        shared,
        on_words,
        on_tasks,
    )


def _indices(begun: RelationsBegun) -> tuple[RelationIndex, ...]:
    """Of dependencies, of triplets, and of triplets from tail to head."""
    settings = begun.settings
    return tuple(
        relation_index(
            begun.model,
            batch,
            tau=settings.tau,
            attention=settings.attention,
            ov_input=settings.ov_input,
            draws=settings.draws,
            seed=settings.seed,
        )
        for batch in (begun.dependencies, begun.knowledge, begun.backwards)
    )


def _induction(begun: RelationsBegun) -> tuple[InductionScores, ConceptScores | None]:
    """Scores of induction heads, and of concept induction heads, if the tokenizer splits enough words."""
    induction = induction_scores(begun.model, seed=begun.settings.seed)
    try:
        return induction, concept_scores(begun.model, seed=begun.settings.seed)
    except Unfit:
        return induction, None


def _in_context(begun: RelationsBegun) -> InContextHeads | None:
    """The in-context heads; None where no head's scores can be told from zero."""
    require_selectable(begun.model, begun.settings.heads)
    scores = score_every_head(begun.model, begun.selection)
    try:
        return select(begun.selection, *scores, n_heads=begun.settings.heads).selected
    except Unfit:
        return None


def _probe(begun: RelationsBegun) -> HeadProbe | None:
    """The probe on as many sentences as the paper has, two to train for one to test, or on all that there are."""
    try:
        usable, _ = usable_sentences(begun.model, begun.parses)
        train = min(TRAIN, 2 * len(usable) // 3)
        if train < FEWEST:
            return None
        test = min(TEST, len(usable) - train)
        return head_probe(begun.model, begun.parses, train=train, test=test, seed=begun.settings.seed)
    except Unfit:
        return None


def joined(model: LensModel, batches: Iterable[TokenBatch]) -> TokenBatch:
    """The prompts of several batches, one after the other."""
    rows, targets = [], []
    for batch in batches:
        rows += [row[: last + 1] for row, last in zip(batch.tokens.tolist(), batch.last.tolist(), strict=True)]
        targets += batch.target.tolist()
    return token_batch(model, rows, targets)
