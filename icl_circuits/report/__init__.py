"""How any study's results become a folder: numbers, result objects, figures, tables and a page."""

from icl_circuits.report.figures import (
    INTERVALS as INTERVALS,
    PaperFigure as PaperFigure,
    Values as Values,
    write_figures as write_figures,
)
from icl_circuits.report.folder import (
    new_folder as new_folder,
)
from icl_circuits.report.merging import (
    merged as merged,
    together as together,
)
from icl_circuits.report.part import (
    LeftOut as LeftOut,
    Part as Part,
    RunRecord as RunRecord,
    with_ci95 as with_ci95,
)
from icl_circuits.report.results import (
    DAMAGED as DAMAGED,
    Results as Results,
    from_plain as from_plain,
    read_results as read_results,
    write_results as write_results,
)
from icl_circuits.report.writing import (
    finite as finite,
    write_csv as write_csv,
    write_report as write_report,
)
