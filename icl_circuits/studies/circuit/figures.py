"""The figure of what the heads of a circuit do alone, and its caption."""

from collections.abc import Mapping

from icl_circuits.report import INTERVALS, PaperFigure
from icl_circuits.viz import circuit_curves

FIGURES: Mapping[str, PaperFigure] = {
    "circuit_curves": PaperFigure(
        ("circuit_test", "selected"),
        lambda v: circuit_curves(v["circuit_test"], len(v["selected"].heads)),
        lambda v: (
            "Circuits of growing size. Faithfulness: the first heads alone, all others at their mean; beside it, "
            "as many random heads alone. Completeness: the model without the first heads. MLPs stay as they are. "
            f"The in-context heads come first. {len(v['circuit_test'].whole)} test prompts. {INTERVALS}"
        ),
    ),
}
