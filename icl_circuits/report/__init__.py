"""The studies that the command line runs, and the folders they write."""

from icl_circuits.report.bias_study import bias_study
from icl_circuits.report.circuit_study import circuit_study
from icl_circuits.report.figures import are_figures, write_figures
from icl_circuits.report.folder import Part, new_files, new_folder, run_studies, write
from icl_circuits.report.in_context import head_table, in_context_study
from icl_circuits.report.plan import Plan, Settings, Start, marked_tokens, plan, score_heads, start
from icl_circuits.report.results import Results, load_results, save_results
from icl_circuits.report.tower_study import tower_study

__all__ = [
    "Part",
    "Plan",
    "Results",
    "Settings",
    "Start",
    "are_figures",
    "bias_study",
    "circuit_study",
    "head_table",
    "in_context_study",
    "load_results",
    "marked_tokens",
    "new_files",
    "new_folder",
    "plan",
    "run_studies",
    "save_results",
    "score_heads",
    "start",
    "tower_study",
    "write",
    "write_figures",
]
