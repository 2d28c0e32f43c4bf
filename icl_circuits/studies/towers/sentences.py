"""What each section of the page found, in a sentence of words and figures."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from icl_circuits.residual import Head
from icl_circuits.stats import ALPHA, Interval, bootstrap_mean
from icl_circuits.studies.towers.run import TowerFindings
from icl_circuits.studies.verdicts import begun_with_capital, counted, largest, verdict
from icl_circuits.towers import Flow, HeadGroup, Measures, NeuronReads, Probe, TowerReads

ARRIVED = 0.9
"""What has arrived: this share of what the uncut model does."""


def finding(findings: TowerFindings) -> str:
    """Whether attention is metric learning, beside shuffled classes and random heads."""
    return f"Two towers: {metric_learning(findings)}"


def metric_learning(findings: TowerFindings) -> str:
    """Of the class AUC beside that of shuffled classes."""
    auc, shuffled = _auc(findings.own), _shuffled(findings.own)
    if auc.low > shuffled.high:
        said = "the scores tell demonstrations of the query's class from others"
    elif auc.high < shuffled.low:
        said = "the scores prefer demonstrations of the other class"
    else:
        said = "no sign of metric learning here"
    p_corrected = findings.own.learned.p_corrected
    alone = counted(int((p_corrected < ALPHA).sum()), len(p_corrected), "heads")
    return (
        f"class AUC {auc:.2f} against {shuffled:.2f} of shuffled classes: {said}. Taken alone, {alone} rank the "
        f"query's class first (p < {ALPHA}, corrected for the best of all of them)."
    )


def hypothesis(findings: TowerFindings, rows: Sequence[Measures]) -> str:
    """Of how many heads do both of what the hypothesis says."""
    ranking = [float(np.asarray(row["qk_auc_p"])) < ALPHA for row in rows]
    chance = 1 / len(findings.own.features.labels)
    copying = [float(np.asarray(row["ov_copying"])) > chance for row in rows]
    n, both = len(rows), int(np.sum(np.logical_and(ranking, copying)))
    return begun_with_capital(
        f"{counted(both, n, 'heads')} do both. {sum(ranking)} rank the query's class first (p < {ALPHA}, corrected "
        f"for the best of all). The values of {sum(copying)} raise their own label at more positions than chance."
    )


def beside_random(findings: TowerFindings) -> str:
    """Of the selected heads less random ones, on the same prompts."""
    gap = _mean_of_finite(
        np.nanmean(findings.own.learned.auc, axis=1) - np.nanmean(findings.random.learned.auc, axis=1)
    )
    said = verdict(
        gap,
        above="the selected heads rank the query's class better than random heads of the same layers",
        below="random heads of the same layers rank the query's class better",
        neither="no difference from random heads of the same layers that can be told",
    )
    return f"A class AUC of {_auc(findings.own).mean:.2f} beside {_auc(findings.random).mean:.2f}, {gap:+.2f}: {said}."


def values(means: Mapping[str, Measures]) -> str:
    """Of what the values raise."""
    own, random, contrast = (
        _interval(means[name][what])
        for name, what in (
            ("in_context_heads", "ov_copying"), ("random_heads", "ov_copying"), ("in_context_heads", "ov_contrast"),
        )
    )  # fmt: skip
    said = verdict(
        contrast,
        above="the heads write the label that they read",
        below="the heads write against the label that they read",
        neither="no sign that the heads write the label that they read",
    )
    return (
        f"The weighted logit minus differs by {contrast:+.2f} logits between positions of both labels: {said}. Values "
        f"raise their own label most at {own.mean:.0%} of label positions; those of random heads at {random.mean:.0%}."
    )


def reads(found: TowerReads | None) -> str:
    """Of what adds most to the class gap."""
    if found is None:
        return "Not measured."
    frame = found.to_frame()
    best = frame.sort_values("class_gap").groupby(["layer", "head", "side"]).tail(1)
    said = []
    for side in ("query", "key"):
        here = best[best["side"] == side]
        name = here["component"].mode().iloc[0]
        n = int((here["component"] == name).sum())
        said.append(f"in the {side} tower {name} adds most in {counted(n, len(here), 'heads')}")
    return begun_with_capital(f"{said[0]}, {said[1]}.")


def neurons(found: NeuronReads) -> str:
    """Of the neurons that hold on other prompts than they were chosen on."""
    frame = found.to_frame().groupby(["layer", "head", "side"]).head(3)
    n = int((frame["class_gap_low"] > 0).sum())
    return begun_with_capital(
        f"{counted(n, len(frame), 'neurons')} shown add to the class gap on other prompts (interval above 0)."
    )


def ranks(findings: TowerFindings) -> str:
    """Of copying by the weights alone."""
    names = [str(head) for head in findings.own.heads]
    scores = findings.circuits.copying_score
    name, highest = largest(names, scores)
    return (
        f"By their weights alone, {counted(int((scores > 0).sum()), len(scores), 'heads')} copy more than they "
        f"suppress; the highest copying score is {highest:.2f}, of {name}."
    )


def flow(found: Flow | None, probe: Probe) -> str:
    """Of the layers by which things have arrived."""
    probed = probe.to_frame()
    best = probed[probed["probe"] == probe.probed[0]].sort_values("accuracy").iloc[-1]
    said = (
        f"probes read a text's class at its label best at layer {best['layer']} "
        f"({Interval.in_row(best, 'accuracy'):.2f}, shuffled {best['shuffled']:.2f})"
    )
    if found is None:
        return begun_with_capital(said) + "."
    when = {route: _arrived(found, place) for place, route in enumerate(found.routes)}
    texts, query, labels = (when[route] for route in ("text -> label", "query -> last", "labels -> last"))
    return (
        f"Nine tenths of the logit difference no longer hang on texts from layer {texts} on. For the query this holds "
        f"from layer {query} on, for labels from layer {labels} on. {begun_with_capital(said)}."
    )


def _arrived(found: Flow, route: int) -> str:
    """The first layer from which on a route can be cut for a tenth of the logit difference at most."""
    base = found.base.logit_diff.mean()
    kept = found.cut.logit_diff[route].mean(axis=1) >= ARRIVED * base
    from_here = [bool(kept[place:].all()) for place in range(len(kept))]
    return str(found.layers[from_here.index(True)]) if base > 0 and any(from_here) else "(none)"


def words(head: Head, tokens: pd.DataFrame) -> str:
    """Of the tokens that a head's value raises most at the label position that it attends to most."""
    values = tokens[tokens["kind"] == "value"]
    row = values.iloc[int(values["attention"].astype(float).argmax())]
    first = ", ".join(f"\u201c{word}\u201d" for word in str(row["top"]).split()[:3])
    return f"At \u201c{str(row['token']).strip()}\u201d, the values of {head} raise {first}."


def reversal(findings: TowerFindings) -> str:
    """Of what a reversal changes, at the positions that hold each label."""
    found = findings.own.reversed
    assert found is not None
    if not found.flips.any():
        return "No prompt is answered right both ways, so nothing can be told."
    labels, every = found.original.labels, range(len(findings.own.heads))
    said = []
    for place, label in enumerate(labels):
        attention, value = (
            found.relative_change(quantity, every, place, "holders") for quantity in ("attention", "logit_minus")
        )
        said.append(f"At {label} positions attention changes by {_share(attention)} and values by {_share(value)}.")
    return f"{' '.join(said)} {int(found.flips.sum())} of {len(found.flips)} prompts flip."


def _interval(value: Interval | float | None) -> Interval:
    """A measure that has an interval."""
    assert isinstance(value, Interval)  # as `HeadGroup.means` gives them
    return value


def _share(change: Interval) -> str:
    return f"{change:+.0%}" if np.isfinite(change.mean) else "what cannot be told"


def _auc(group: HeadGroup) -> Interval:
    return _mean_of_finite(np.nanmean(group.learned.auc, axis=1))


def _shuffled(group: HeadGroup) -> Interval:
    """Where the mean over heads lies when classes are shuffled."""
    draws = np.nanmean(group.learned.auc_shuffled, axis=1)
    return Interval(float(draws.mean()), *(float(end) for end in np.quantile(draws, [0.025, 0.975])))


def _mean_of_finite(of_prompts: np.ndarray) -> Interval:
    return bootstrap_mean(of_prompts[np.isfinite(of_prompts)])
