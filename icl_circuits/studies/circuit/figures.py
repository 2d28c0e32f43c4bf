"""The figure of what the heads of a circuit do alone, and its caption."""

from collections.abc import Mapping

from icl_circuits.report import INTERVALS, PaperFigure
from icl_circuits.viz import circuit_curves

FIGURES: Mapping[str, PaperFigure] = {
    "circuit_curves": PaperFigure(
        ("circuit_test", "selected"),
        lambda v: circuit_curves(v["circuit_test"], len(v["selected"].heads)),
        lambda v: (
            "Curves show what circuits of growing size do alone, and what the model does without them. "
            "A circuit is faithful where its heads alone, all others at their mean, do as well as the model. "
            "It is complete where the model without its heads does not. Random heads are as many as the circuit's. "
            "MLPs stay as they are. The in-context heads come first. The curves are means over "
            f"{len(v['circuit_test'].whole)} test prompts. {INTERVALS}"
        ),
    ),
}
