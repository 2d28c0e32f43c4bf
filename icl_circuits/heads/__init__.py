"""How in-context heads are found: a static and a causal score, a selection, and the test of zeroing them together."""

from icl_circuits.heads.answers import (
    Answers as Answers,
    answer as answer,
    as_answers as as_answers,
    require_first as require_first,
    score_answers as score_answers,
)
from icl_circuits.heads.attention import (
    attention_from_last as attention_from_last,
    attention_patterns as attention_patterns,
)
from icl_circuits.heads.causal import (
    HeadEffects as HeadEffects,
    zero_each_head as zero_each_head,
)
from icl_circuits.heads.groups import (
    Group as Group,
    GroupEffects as GroupEffects,
    group_intervention as group_intervention,
    random_heads as random_heads,
)
from icl_circuits.heads.scores import (
    Scores as Scores,
    score_heads as score_heads,
)
from icl_circuits.heads.selection import (
    InContextHead as InContextHead,
    InContextHeads as InContextHeads,
    select_heads as select_heads,
)
