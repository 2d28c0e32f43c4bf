"""How in-context heads are found: a static and a causal score, a selection, and the test of zeroing them together."""

from icl_circuits.heads.answers import (
    Answers as Answers,
)
from icl_circuits.heads.answers import (
    answer as answer,
)
from icl_circuits.heads.answers import (
    as_answers as as_answers,
)
from icl_circuits.heads.answers import (
    score_answers as score_answers,
)
from icl_circuits.heads.attention import (
    attention_from_last as attention_from_last,
)
from icl_circuits.heads.attention import (
    attention_patterns as attention_patterns,
)
from icl_circuits.heads.causal import (
    HeadEffects as HeadEffects,
)
from icl_circuits.heads.causal import (
    zero_each_head as zero_each_head,
)
from icl_circuits.heads.groups import (
    Group as Group,
)
from icl_circuits.heads.groups import (
    GroupEffects as GroupEffects,
)
from icl_circuits.heads.groups import (
    group_intervention as group_intervention,
)
from icl_circuits.heads.groups import (
    random_heads as random_heads,
)
from icl_circuits.heads.scores import (
    Scores as Scores,
)
from icl_circuits.heads.scores import (
    score_heads as score_heads,
)
from icl_circuits.heads.selection import (
    InContextHead as InContextHead,
)
from icl_circuits.heads.selection import (
    InContextHeads as InContextHeads,
)
from icl_circuits.heads.selection import (
    select_heads as select_heads,
)
