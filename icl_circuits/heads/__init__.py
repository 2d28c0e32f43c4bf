"""Which heads: in-context heads by two scores and a test; induction, concept and function-vector heads; families."""

from icl_circuits.heads.answers import (
    EVERY_RULE as EVERY_RULE,
    Answers as Answers,
    answer as answer,
    as_answers as as_answers,
    require_first as require_first,
)
from icl_circuits.heads.attention import (
    attention_between as attention_between,
    attention_from_last as attention_from_last,
    attention_patterns as attention_patterns,
)
from icl_circuits.heads.causal import (
    HeadEffects as HeadEffects,
    zero_each_head as zero_each_head,
)
from icl_circuits.heads.concepts import (
    ConceptScores as ConceptScores,
    concept_scores as concept_scores,
)
from icl_circuits.heads.families import (
    Overlap as Overlap,
    overlap as overlap,
    top_heads as top_heads,
)
from icl_circuits.heads.function_vectors import (
    FunctionVectorHeads as FunctionVectorHeads,
    function_vector_heads as function_vector_heads,
)
from icl_circuits.heads.groups import (
    Group as Group,
    GroupEffects as GroupEffects,
    group_intervention as group_intervention,
    random_heads as random_heads,
)
from icl_circuits.heads.half import (
    Rounding as Rounding,
    rounding as rounding,
)
from icl_circuits.heads.increase import (
    LogProbIncrease as LogProbIncrease,
    PositionIncrease as PositionIncrease,
    log_prob_increase as log_prob_increase,
    position_increase as position_increase,
    target_log_probs as target_log_probs,
)
from icl_circuits.heads.induction import (
    InductionScores as InductionScores,
    induction_scores as induction_scores,
)
from icl_circuits.heads.scores import (
    Scores as Scores,
    of_given_heads as of_given_heads,
    require_selectable as require_selectable,
    score_every_head as score_every_head,
    score_heads as score_heads,
    select as select,
)
from icl_circuits.heads.selection import (
    InContextHead as InContextHead,
    InContextHeads as InContextHeads,
    Rule as Rule,
    select_heads as select_heads,
)
from icl_circuits.heads.without import (
    FamilyEffects as FamilyEffects,
    FamilyGroup as FamilyGroup,
    FamilyKind as FamilyKind,
    zero_families as zero_families,
)
