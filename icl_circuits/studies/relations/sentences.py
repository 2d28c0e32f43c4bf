"""What each section of the page found, in a sentence of words and figures."""

import numpy as np

from icl_circuits.heads import FamilyEffects, Overlap
from icl_circuits.relations import HeadProbe, RelationBatch, RelationIndex
from icl_circuits.residual import Head
from icl_circuits.stats import ALPHA, Interval, wilson
from icl_circuits.studies.relations.tables import LISTED, relations
from icl_circuits.studies.verdicts import begun_with_capital, counted, verdict, without_family


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


def best_heads(found: RelationIndex) -> str:
    """Of the head that is best most often: chosen on half of the texts, counted on the others, a triplet of each."""
    rows, best = found.best_of_triplets()
    _, first = np.unique(found.text_of[rows], return_index=True)
    if len(first) < 2:
        return "Fewer than two texts have a triplet with an index above zero."
    chosen, others = np.array_split(best[first], 2)
    place, even = int(np.bincount(chosen).argmax()), 1 / found.index[0].size
    share = wilson(others == place)
    said = verdict(
        Interval(*(value - even for value in share)),
        above="more than an even share of",
        below="less than an even share of",
        neither="not to be told from an even share of",
    )
    head = Head(*divmod(place, found.index.shape[2]))
    return (
        f"{head} is best most often in the first half of the texts, a triplet of each. In the other half it is best "
        f"for {int((others == place).sum())} of {len(others)}, a share of {share:.2f}: {said} {even:.2g}."
    )


def left_out(*batches: RelationBatch) -> str:
    """How many triplets nothing could be measured of."""
    n = sum(count for batch in batches for _, count in batch.left_out)
    return begun_with_capital(f"{counted(n, n + sum(map(len, batches)), 'triplets')} were left out.")


def thresholds(found: RelationIndex) -> str:
    """Of how many of each relation's best heads are so again at other thresholds, beside a random order."""
    most = min(LISTED, max(1, found.index[0].size // 4))  # of few heads, ten would be nearly all
    frame = found.by_tau_frame(most)
    frame = frame[(frame["tau"] != found.tau) & (frame["of"] > 0)]
    if not len(frame):
        return f"No position passes tau {found.tau:g}."
    sums = frame.groupby("tau")[["shared", "of", "expected"]].sum()
    kept = [f"{row['shared'] / row['of']:.0%} at {tau:.3g}" for tau, row in sums.iterrows()]
    total = sums.sum()
    return (
        f"Of each relation's best heads at tau {found.tau:g} (at most {most}), these are so again: {', '.join(kept)}. "
        f"In a random order of heads, {total['expected'] / total['of']:.0%} would be."
    )


def ratios(found: RelationIndex) -> str:
    """Of what share of ratios passes the threshold."""
    total, passing = int(found.ratios.sum()), int(found.n_passing.sum())
    if not total:
        return "No head attends to a relation's head most."
    return (
        f"A relation's head is attended to most in {total:,} cases (a triplet, and a head at a position), and "
        f"{passing / total:.1%} pass tau {found.tau:g}. In this model 5% of the ratios exceed {found.taus[-1]:.2g}."
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
