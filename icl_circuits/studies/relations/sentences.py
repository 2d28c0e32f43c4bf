"""What each section of the page found, in a sentence of words and figures."""

import numpy as np

from icl_circuits.heads import FamilyEffects, Overlap
from icl_circuits.relations import HeadProbe, RelationIndex
from icl_circuits.stats import ALPHA, Interval
from icl_circuits.studies.relations.tables import relations
from icl_circuits.studies.verdicts import begun_with_capital, counted, without_family


def index(found: RelationIndex) -> str:
    """Of how many heads raise relations' tails beyond chance, and the best of them."""
    frame = relations(found)
    n_significant = int((found.p_fdr <= ALPHA).any(axis=0).sum())
    heads = counted(n_significant, found.index[0].size, "heads")
    said = f"{heads} raise tails beyond chance (p \u2264 {ALPHA}, corrected)"
    listed = frame[frame["best"] != ""]
    if not len(listed):
        few = "; none of them has ten passing pairs" if n_significant else ""
        return begun_with_capital(f"{said}{few}.")
    best = listed.sort_values("index").iloc[-1]
    return begun_with_capital(
        f"{said}. The highest index is {best['index']:.2f}, of {best['best']} for {best['relation']}, beside "
        f"{best['random']:.2f} of random tokens."
    )


def probe(found: HeadProbe) -> str:
    """Of the probe beside its best control."""
    frame = found.to_frame()
    accuracy = Interval.in_row(frame.iloc[0], "accuracy")
    best = frame.iloc[1:].sort_values("accuracy").iloc[-1]
    return f"The probe finds {accuracy:.2f} of the heads; the best control, {best['kind']}, {best['accuracy']:.2f}."


def shared(found: Overlap) -> str:
    """Of the families that share more heads than by chance."""
    more = [f"{one} and {other}" for (one, other), p in zip(found.pairs, found.p_holm, strict=True) if p < ALPHA]
    if not more:
        return f"No two families share more heads than by chance (p < {ALPHA}, corrected for all pairs)."
    return f"More heads than by chance are shared by {', '.join(more)} (p < {ALPHA}, corrected for all pairs)."


def zeroed(effects: FamilyEffects) -> str:
    """Of the family whose zeroing costs most."""
    kept = [float(np.mean(effects.of(name, "whole").log_prob)) for name in effects.families]
    return without_family(effects, effects.families[int(np.argmin(kept))])
