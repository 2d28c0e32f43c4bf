"""Figures of arXiv 2402.02872 on what each head does (figure 1, tables 4 to 6), and their captions."""

from collections.abc import Mapping

from icl_circuits.report import INTERVALS, PaperFigure, Values
from icl_circuits.viz import auc_dots, flow_curves, label_feature_bars, reversal_bars, schematic


def _flow_caption(values: Values) -> str:
    probes = (
        "accuracy of linear probes for the class of a text, between the prompt's own classes, trained on the "
        f"selection prompts. {INTERVALS}"
    )
    if "flow" not in values:
        return f"Where features flow: {probes}"
    return (
        "Where features flow. Above: the logit difference between the right label and the best other one when a "
        f"route is cut in every head from a layer on, on {len(values['flow'].base.top1)} test prompts. Below: "
        f"{probes}"
    )


def _reversal_caption(values: Values) -> str:
    flips = values["reversal"].flips
    return (
        "Labels reversed (table 6): relative change of attention and of the raw logit minus at the positions "
        f"that hold each label, over the {flips.sum()} of {len(flips)} test prompts that are answered right both "
        "ways, so that their answer flips. Bars are missing where the value before cannot be told from 0, and "
        f"cut at 150 %. {INTERVALS}"
    )


FIGURES: Mapping[str, PaperFigure] = {
    "schematic": PaperFigure(
        ("features",),
        lambda v: schematic(),
        "The hypothesis: in-context heads as two towers. In shallow layers the features of each demonstration's "
        "text flow to its label position, and those of the query to the last position. In deep layers the "
        "attention of in-context heads measures how similar the last position (Q) is to each label position (K), "
        "and their values (V) carry the label. The prompt and its numbers are the example of the paper's Figure "
        "1; other figures of these results are measured.",
    ),
    "label_features": PaperFigure(
        ("features",),
        lambda v: label_feature_bars(v["features"]),
        "In-context heads at the positions that hold each label (tables 4 and 5): attention from the last "
        "position, and the logit minus (first label less second) of the value-output vectors, weighted by "
        f"attention and raw. Means over positions and test prompts. {INTERVALS}",
    ),
    "class_auc": PaperFigure(
        ("auc", "auc_random"),
        lambda v: auc_dots(v["auc"], v["auc_random"]),
        "Metric learning: how often a head's attention score ranks a demonstration of the query's class above "
        "one of another class, within prompts (0.5 is chance), with its position terms and without. Grey: where "
        f"95 % of the means lie when classes are shuffled. {INTERVALS}",
    ),
    "flow": PaperFigure(("probe",), lambda v: flow_curves(v.get("flow"), v["probe"]), _flow_caption),
    "reversal": PaperFigure(("reversal",), lambda v: reversal_bars(v["reversal"]), _reversal_caption),
}
