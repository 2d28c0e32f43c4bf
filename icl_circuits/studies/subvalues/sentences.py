"""What each section of the page found, in a sentence of words and figures."""

import numpy as np
import pandas as pd

from icl_circuits.heads import LogProbIncrease
from icl_circuits.residual import Head
from icl_circuits.stats import ALPHA, Interval, bootstrap_mean
from icl_circuits.studies.subvalues.run import OfManyPrompts, SubvalueFindings
from icl_circuits.studies.verdicts import begun_with_capital, counted, largest, verdict
from icl_circuits.subvalues import METHODS, HeadsByType, Interpolation, NeuronEffects, TopNeurons
from icl_circuits.viz import ShownFact


def prompt(shown: ShownFact) -> str:
    """Of the layer, the head and the neuron that write most of the shown prompt's answer."""
    best = {writer.kind: writer for writer in sorted(shown.writers, key=lambda writer: writer.score)}
    said = [
        f"{best[kind].name} ({best[kind].score:.2f} nats)" for kind in ("attn", "mlp", "head", "ffn") if kind in best
    ]
    return f"\u201c{shown.answer.strip()}\u201d gains most from {', '.join(said)}." if said else ""


def zeroed(findings: SubvalueFindings) -> str:
    """Of value neurons and query neurons beside as many random ones; one prompt gives no interval, and no verdict."""
    effects, said = findings.effects, list[str]()
    if len(effects.base) == 1:
        return ""
    for what, own, random in (("Value", 0, 1), ("Query", 2, 3)):
        lost = bootstrap_mean((effects.zeroed[random] - effects.zeroed[own])[:, 1].astype(float))
        found = verdict(
            lost,
            above=f"{what} neurons matter more than random ones",
            below=f"{what} neurons matter less than random ones",
            neither=f"{what} neurons cannot be told from random ones",
        )
        said.append(f"{found} (they hold {lost:.3f} more of the answer's probability).")
    return " ".join(said)


def layers(increase: LogProbIncrease) -> str:
    """Of what all attention layers add, and all FFN layers."""
    sums = [part.sum(axis=1).astype(float) for part in (increase.attn, increase.mlp)]
    attn, mlp = (values[0] if len(values) == 1 else bootstrap_mean(values) for values in sums)
    return f"FFN layers add {mlp:.2f} nats to the answer's log-probability, and attention layers {attn:.2f}."


def heads(increase: LogProbIncrease) -> str:
    """Of how many heads add to the answer, and which adds most."""
    means = increase.head_means()
    layer, head = np.unravel_index(int(means.argmax()), means.shape)
    most = f"{Head(int(layer), int(head))} raises the answer most, by {means.max():.2f} nats"
    if len(increase.heads) == 1:
        return f"{most}."
    found = counted(int(increase.significant.sum()), means.size, "heads")
    return f"{most}; {found} raise it beyond chance (corrected for all heads)."


def neuron_layers(ffn: TopNeurons, attention: TopNeurons) -> str:
    """Of the middle layer of both kinds of value neurons."""
    middle = [int(np.median(found.layer)) for found in (ffn, attention)]
    return f"The middle layer is {middle[0]} of FFN value neurons, and {middle[1]} of attention ones."


def query_layers(findings: SubvalueFindings) -> str:
    """Of how much lower query neurons lie than what they activate."""
    queries, values = (int(np.median(layer)) for layer in (findings.query_attention.layer, findings.attention.layer))
    return f"The middle layer of query neurons is {queries}; of the attention neurons that they activate, {values}."


def best_layers(frame: pd.DataFrame) -> str:
    """Of the best layer of each type of knowledge, from a table of ranks."""
    first = frame[frame["rank"] == 0]
    return f"The layer that scores highest: {', '.join(f'{row.layer} for {row.type}' for row in first.itertuples())}."


def way(found: Interpolation) -> str:
    """Of where both are half way from their first value to their last; what falls is nowhere half way up."""
    log_prob = found.log_prob.astype(float)
    said = [
        f"{name} {_half_way(values.mean(axis=0))}"
        for name, values in (("log-probability", log_prob), ("probability", np.exp(log_prob)))
    ]
    return begun_with_capital(f"{' and '.join(said)}.")


def shared(frame: pd.DataFrame) -> str:
    """Of the neuron that most prompts share."""
    frame = frame[frame["prompts"] > 1]
    if not len(frame):
        return "No neuron is in most prompts of a type."
    best = frame.sort_values("prompts", kind="stable").iloc[-1]
    return f"{best['neuron']} is in {best['prompts']} prompts of {best['type']}: a {best['kind']} neuron."


def methods(effects: NeuronEffects) -> str:
    """Of the score whose best neurons cost most when they are zeroed, and which others do as well."""
    best, others = effects.least_left, len(effects.groups) - 1
    row, p = effects.to_frame().iloc[1 + best], effects.less_left()[best]
    alike = [name for i, name in enumerate(effects.groups) if i != best and not p[i] < ALPHA]
    said = f"Least is left without the neurons of {row['zeroed']}: a probability of {Interval.in_row(row, 'prob'):.2f}."
    if not alike:
        return f"{said} All other scores leave more (p < {ALPHA}, corrected)."
    if len(alike) == 1:
        return f"{said} What {alike[0]} leaves cannot be told from it."
    few = " and ".join(alike) if len(alike) == 2 else f"{len(alike)} of the {others} other scores"
    return f"{said} What {few} leave cannot be told from it."


def method_layers(many: OfManyPrompts) -> str:
    """Of the middle layers of the first three scores' neurons."""
    said = [
        f"{int(np.median(layer))} by {name}" for name, layer in list(zip(METHODS, many.method_layers, strict=True))[:3]
    ]
    return f"The middle layer is {', '.join(said)}."


def concentration(frame: pd.DataFrame) -> str:
    """Of what share of all that scores above zero the first 200 neurons hold."""
    said = [f"{row['first_200'] / row['positive']:.0%} ({row['kind']})" for _, row in frame.iterrows()]
    return f"Of all scores above zero, the first 200 neurons of a prompt hold {' and '.join(said)}."


def agreement(overall: dict[str, float]) -> str:
    """Of the score that ranks neurons most as zeroing does."""
    overall = {name: value for name, value in overall.items() if np.isfinite(value)}
    if not overall:
        return "No prompt has a rank correlation in every layer."
    name, highest = largest(tuple(overall), tuple(overall.values()))
    said = ", ".join(f"{value:.2f} of {other}" for other, value in overall.items() if other != name)
    return f"The best rank correlation with exact effects is {highest:.2f}, of {name}; the others: {said}."


def heads_of_types(found: HeadsByType) -> str:
    """Of what a type's heads hold of its own answers and of the others', beyond random heads, prompt by prompt."""
    beyond, n_types = (found.random - found.zeroed)[..., 1].astype(float), len(found.types)
    own = beyond[found.type_of, np.arange(len(found.type_of))]
    lost = bootstrap_mean(own)
    said = f"Without a type's heads its answers lose {lost:.3f} of probability beyond what random heads cost"
    if n_types == 1:
        return f"{said}."
    others = (beyond.sum(axis=0) - own) / (n_types - 1)
    more = bootstrap_mean(own - others)
    meant = verdict(
        more,
        above="The heads matter more to their own type",
        below="The heads matter less to their own type",
        neither="No difference between the types can be told",
    )
    return f"{said}. The answers of other types lose {bootstrap_mean(others):.3f}. {meant} ({more:+.3f})."


def _half_way(values: np.ndarray) -> str:
    """At which share of the way a curve first is half way up from its first value to its last."""
    if values[-1] <= values[0]:
        return "does not rise on the way"
    middle = (values[0] + values[-1]) / 2
    return f"is half way up at {np.argmax(values >= middle) / (len(values) - 1):.0%} of the way"
