"""Figures of arXiv 2402.02872 on what each head does (figure 1, tables 4 to 6), and their captions."""

from collections.abc import Mapping

from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.viz import auc_dots, flow_curves, label_feature_bars, reversal_bars, schematic


def _flow_caption(values: Values) -> str:
    flows = "The figure shows where features flow, layer by layer."
    probes = (
        "give the accuracy of linear probes for the class of a text, between the prompt's own classes. "
        f"The selection prompts train them. {INTERVALS}"
    )
    if "flow" not in values:
        return f"{flows} Its curves {probes}"
    return (
        f"{flows} Curves above give the logit difference when a route is cut in every head from a layer on. "
        f"It is the right label's logit less the best other one's, on {len(values['flow'].base.top1)} test prompts. "
        f"Curves below {probes}"
    )


def _reversal_caption(values: Values) -> str:
    flips = values["reversal"].flips
    return (
        "Bars show how attention and the raw logit minus change when labels are reversed (table 6). "
        "The logit minus is the first label's logit less the second's. Changes are shares of the value before, at the "
        f"positions that hold each label. They are over the {flips.sum()} of {len(flips)} test prompts whose answer "
        "flips: both answers are right. Bars are missing where the value before cannot be told from 0. "
        f"Bars end at 150 %. {INTERVALS}"
    )


FIGURES: Mapping[str, PaperFigure] = {
    "schematic": PaperFigure(
        ("features",),
        lambda v: schematic(),
        "The drawing shows the hypothesis: in-context heads are two towers. In shallow layers the features of each "
        "demonstration's text flow to its label position. Those of the query flow to the last position. "
        "In deep layers attention measures how similar the last position (Q) is to each label position (K). "
        "The heads' values (V) carry the label. The prompt and its numbers are the example of the paper's Figure 1. "
        "All other figures are measured.",
    ),
    "label_features": PaperFigure(
        ("features",),
        lambda v: label_feature_bars(v["features"]),
        "Bars show what in-context heads do at the positions that hold each label (tables 4 and 5). "
        "The first panel shows attention from the last position. The others show the logit minus of the value-output "
        "vectors, weighted by attention and raw. The logit minus is the first label's logit less the second's. "
        f"All are means over positions and test prompts. {INTERVALS}",
    ),
    "class_auc": PaperFigure(
        ("auc", "auc_random"),
        lambda v: auc_dots(v["auc"], v["auc_random"]),
        "Markers show whether a head's attention score measures similarity of class (metric learning). "
        "The AUC is how often it ranks a demonstration of the query's class above another, within prompts. "
        "Chance is 0.5. One marker has the score with its position terms, the other without. "
        f"Grey bars hold 95 % of the means when classes are shuffled. {INTERVALS}",
    ),
    "flow": PaperFigure(("probe",), lambda v: flow_curves(v.get("flow"), v["probe"]), _flow_caption),
    "reversal": PaperFigure(("reversal",), lambda v: reversal_bars(v["reversal"]), _reversal_caption),
}
