"""How any study's results become a folder: numbers, result objects, figures, tables and a page."""

from icl_circuits.report.figures import INTERVALS, PaperFigure, Values, are_figures, write_figures
from icl_circuits.report.folder import new_folder
from icl_circuits.report.part import Part, RunRecord, with_ci95
from icl_circuits.report.results import Results, load_results, save_results
from icl_circuits.report.writing import write_report

__all__ = [
    "INTERVALS",
    "PaperFigure",
    "Part",
    "Results",
    "RunRecord",
    "Values",
    "are_figures",
    "load_results",
    "new_folder",
    "save_results",
    "with_ci95",
    "write_figures",
    "write_report",
]
