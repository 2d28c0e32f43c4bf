"""The studies that the command line runs, and the folders they write."""

from icl_circuits.report.bias_study import bias_study
from icl_circuits.report.circuit_study import circuit_study
from icl_circuits.report.folder import Part, new_files, new_folder, run_studies, write
from icl_circuits.report.in_context import head_table, in_context_study
from icl_circuits.report.plan import Plan, Settings, Start, marked_tokens, plan, score_heads, start
from icl_circuits.report.tower_study import tower_study

__all__ = [
    "Part",
    "Plan",
    "Settings",
    "Start",
    "bias_study",
    "circuit_study",
    "head_table",
    "in_context_study",
    "marked_tokens",
    "new_files",
    "new_folder",
    "plan",
    "run_studies",
    "score_heads",
    "start",
    "tower_study",
    "write",
]
