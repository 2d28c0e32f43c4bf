"""The paper's tables 1, 4, 5 and 6 (arXiv 2402.02872), and which classes a prompt draws."""

from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.stats import bootstrap_mean
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.towers.run import TowerFindings
from icl_circuits.towers import LabelFeatures, Reversal
from icl_circuits.towers.reversed_labels import QUANTITIES, Reading

Places = Mapping[str, Sequence[int]]
"""Groups of heads by name: their places in the results."""


def paper_tables(begun: Begun, findings: TowerFindings) -> dict[str, pd.DataFrame]:
    """Tables 1, 4, 5 and 6: one row a group of heads (fooheads, barheads) and label positions."""
    own, random, selected = findings.own, findings.random, begun.scores.selected
    places = {
        f"{label}heads": [i for i, head in enumerate(selected.heads) if head.label == label]
        for label in begun.settings.labels
        if selected.of(label)
    }
    everywhere = {"random heads": range(len(random.heads))}
    both = ((own.features, places), (random.features, everywhere))
    tables = {
        "table_1": tokens_table(findings.tokens),
        "class_pairs": _class_pairs(begun, findings),
        "table_4": _features_table(both, LabelFeatures.weighted_logit_minus),
        "table_5": _features_table(both, lambda features: features.attention),
    }
    if own.reversed is not None and random.reversed is not None and own.reversed.flips.any():
        rows = _reversal_rows(own.reversed, places) + _reversal_rows(random.reversed, everywhere)
        tables["table_6"] = pd.DataFrame(rows)
    return tables


def tokens_table(tokens: pd.DataFrame) -> pd.DataFrame:
    """Table 1: what is read and moved at each position, as tokens."""
    shown = tokens.assign(**{end: tokens[end].map(" ".join) for end in ("top", "bottom")})
    return shown[["layer", "head", "position", "token", "kind", "attention", "top", "bottom"]]


def _features_table(
    parts: Sequence[tuple[LabelFeatures, Places]],
    quantity: Callable[[LabelFeatures], Float[np.ndarray, "prompt selected src_pos"]],
) -> pd.DataFrame:
    """Tables 4 and 5: the mean of a quantity at the positions of each label, a row a group of heads."""
    rows = []
    for features, groups in parts:
        values = quantity(features)
        for group, chosen in groups.items():
            row: dict[str, object] = {"heads": group, "n_heads": len(chosen)}
            for i, label in enumerate(features.labels):
                mean = bootstrap_mean(features.at_label(values, i)[:, list(chosen)].mean(axis=1).astype(float))
                row |= mean.columns(f"{label}_positions")
            rows.append(row)
    return pd.DataFrame(rows)


def _reversal_rows(found: Reversal, groups: Places) -> list[dict[str, object]]:
    """Table 6: relative change under reversal of each group at the positions of each label, both readings."""
    rows = []
    for group, chosen in groups.items():
        for label, name in enumerate(found.original.labels):
            for reading in get_args(Reading):
                row: dict[str, object] = {"heads": group, "positions": name, "reading": reading}
                for quantity in QUANTITIES:
                    row |= found.relative_change(quantity, chosen, label, reading).columns(quantity)
                rows.append(row)
    return rows


def _class_pairs(begun: Begun, findings: TowerFindings) -> pd.DataFrame:
    """The mean class AUC of the selected heads by the classes that a prompt draws."""
    drawn = [" / ".join(sorted({demo.category for demo in prompt.demos})) for prompt in begun.detailed.prompts]
    rows = []
    for pair in sorted(set(drawn)):
        auc = findings.own.learned.auc[[name == pair for name in drawn]]
        mean = bootstrap_mean(auc.mean(axis=1))
        rows.append({"classes": pair, "prompts": len(auc), **mean.columns("qk_auc")})
    return pd.DataFrame(rows)
