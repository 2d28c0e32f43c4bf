"""How in-context heads are found: a static and a causal score, a selection, and the test of zeroing them together."""

from icl_circuits.heads.answers import Answers, answer, as_answers, score_answers
from icl_circuits.heads.attention import attention_from_last, attention_patterns
from icl_circuits.heads.causal import HeadEffects, zero_each_head
from icl_circuits.heads.groups import Group, GroupEffects, group_intervention, random_heads
from icl_circuits.heads.increase import LogProbIncrease, PositionIncrease, log_prob_increase, position_increase
from icl_circuits.heads.scores import Scores, score_heads
from icl_circuits.heads.selection import InContextHead, InContextHeads, select_heads

__all__ = [
    "Answers",
    "Group",
    "GroupEffects",
    "HeadEffects",
    "InContextHead",
    "InContextHeads",
    "LogProbIncrease",
    "PositionIncrease",
    "Scores",
    "answer",
    "as_answers",
    "attention_from_last",
    "attention_patterns",
    "group_intervention",
    "log_prob_increase",
    "position_increase",
    "random_heads",
    "score_answers",
    "score_heads",
    "select_heads",
    "zero_each_head",
]
