"""What each section of the page found, in a sentence of words and figures."""

import numpy as np
import pandas as pd

from icl_circuits.development import Development, curves
from icl_circuits.heads import FamilyEffects
from icl_circuits.stats import ALPHA, Interval
from icl_circuits.studies.verdicts import begun_with_capital, counted, largest, without_family


def levels(frame: pd.DataFrame) -> str:
    """Of labels in context at the first of a run's checkpoints and at the last."""
    first, last = (Interval.in_row(frame.iloc[place], "top1") for place in (0, -1))
    steps = [int(frame.iloc[place]["step"]) for place in (0, -1)]
    return f"Labels in context: accuracy {first:.2f} at step {steps[0]}, and {last:.2f} at step {steps[1]}."


def by_task(run: Development, what: str) -> str:
    """Of the tasks that are best and worst at the last checkpoint, at the most shots."""
    last = getattr(run, what)[-1, :, -1].mean(axis=-1)
    best, highest = largest(run.tasks, last)
    worst, lowest = largest(run.tasks, -last)
    shots = run.shots[-1]
    return f"At the last checkpoint with {shots} shots: {highest:.2f} in {best}, and {-lowest:.2f} in {worst}."


def emerges(found: pd.DataFrame) -> str:
    """Of what rises first, and what last, from a table of `emergence`."""
    found = found[np.isfinite(found["step"])]
    if not len(found):
        return "Nothing rises."
    first, last = found.iloc[0], found.iloc[-1]
    return begun_with_capital(
        f"{first['curve']} rises first, half way at step {first['step']:.0f}, and {last['curve']} last, at step "
        f"{last['step']:.0f}."
    )


def together(pairs: pd.DataFrame) -> str:
    """Of how many pairs of curves rise together beyond chance, from a table of `co_timing`."""
    pairs = pairs[np.isfinite(pairs["p_fdr"])]
    if not len(pairs):
        return "There are too few checkpoints to tell what rises together."
    found = counted(int((pairs["p_fdr"] < ALPHA).sum()), len(pairs), "pairs of curves")
    best = pairs.iloc[0]
    return begun_with_capital(
        f"{found} rise together beyond chance (p < {ALPHA}, corrected for all pairs). The closest are {best['one']} "
        f"and {best['other']} (p = {best['p_fdr']:.2g})."
    )


def relation_heads(run: Development) -> str:
    """Of the head with the highest relation index at the last checkpoint."""
    index = run.index[-1]
    if not np.isfinite(index).any():
        return "At the last checkpoint no relation's head is attended to most."
    relation, layer, head = np.unravel_index(int(np.nanargmax(index)), index.shape)
    found = f"the highest index is {index[relation, layer, head]:.2f}, of L{layer}H{head} for {run.relations[relation]}"
    return f"At the last checkpoint {found}."


def other_heads(run: Development) -> str:
    """Of the best head of each other score at the last checkpoint."""
    others = [curve for curve in curves(run) if curve.head is not None and "relation index" not in curve.name]
    best = [f"{one.name} {one.values[-1]:.2f} ({one.head})" for one in others if np.isfinite(one.values[-1])]
    return f"Best heads at the last checkpoint: {', '.join(best)}."


def without(effects: FamilyEffects | None) -> str:
    """Of what each family of semantic induction heads is needed for, if any head stands out."""
    if effects is None:
        return "No head stands out at the last checkpoint: no relation index is above zero, so none is zeroed."
    return " ".join(without_family(effects, name) for name in effects.families)
