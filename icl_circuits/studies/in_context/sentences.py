"""What each section of the page found, in a sentence of words and figures."""

import numpy as np
from jaxtyping import Bool, Float

from icl_circuits.heads import Group, GroupEffects
from icl_circuits.residual import all_heads
from icl_circuits.stats import ALPHA, Interval, bootstrap, bootstrap_mean, bootstrap_means, weighted_mean
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.in_context.run import InContextFindings
from icl_circuits.studies.verdicts import begun_with_capital, counted, largest, verdict


def finding(begun: Begun, groups: GroupEffects) -> str:
    """The finding of the report: what zeroing the heads costs, and whether random heads cost as much."""
    n_scored, n_heads = len(begun.scores.effects.heads), len(begun.heads)
    base, zeroed, random = (_right(group).mean() for group in (groups.base, groups.all, groups.random))
    beside = verdict(
        _beyond_random(groups),
        above="As many random heads of the same layers cost less",
        below="As many random heads of the same layers cost more",
        neither="As many random heads of the same layers cost no less that can be told",
    )
    return (
        f"Without {n_heads} of its {n_scored} heads, {begun.provenance['name']} names the right label in "
        f"{zeroed:.0%} of prompts in place of {base:.0%}. {beside} ({random:.0%} are left)."
    )


def accuracy(groups: GroupEffects) -> str:
    """Of the groups of heads zeroed at once."""
    lost, beyond = bootstrap_mean(_right(groups.base) - _right(groups.all)), _beyond_random(groups)
    beside = verdict(
        beyond,
        above="As many random heads cost less",
        below="As many random heads cost more",
        neither="As many random heads cost no less that can be told",
    )
    return (
        f"Zeroing the in-context heads costs {lost:.2f} of top-1 accuracy. {beside} (the difference is {beyond:+.2f})."
    )


def by_answer(groups: GroupEffects) -> str:
    """Of the heads of each label, on its own prompts and on the others."""
    said = []
    for group, control in zip(groups.by_label, groups.random_by_label, strict=True):
        own = groups.gold == groups.labels.index(group.label or "")
        more = _difference(_right(control) - _right(group), own)
        sign = verdict(more, above="as their name says", below="against their name", neither="no sign of their label")
        cost = f"{group.name} cost their own prompts {more:+.2f} more than others, beyond as many random heads: {sign}."
        said.append(begun_with_capital(cost))
    return " ".join(said)


def selected(begun: Begun) -> str:
    """Of the heads that were selected."""
    heads, adding = begun.scores.selected.heads, begun.scores.increase.significant
    costing = begun.scores.effects.significant
    best, alone = heads[0], sum(head.p_drop < ALPHA for head in heads)
    return (
        f"{len(heads)} heads were selected. The first, {best.component}, adds {best.log_prob_increase:.2f} nats to the "
        f"right label, and zeroing it alone loses {best.log_prob_drop:.2f} nats. Of {costing.size} heads, "
        f"{adding.sum()} add and {costing.sum()} alone cost something that can be told from zero. Of the "
        f"selected, {alone} cost something."
    )


def every_head(begun: Begun) -> str:
    """Of both scores over all heads."""
    increase, effects = begun.scores.increase.head_means(), begun.scores.effects
    drops = effects.log_prob_drop.mean(axis=1)
    adds, added = largest([str(head) for head in all_heads(begun.model)], increase.ravel())
    loses, lost = largest([str(head) for head in effects.heads], drops)
    chosen = {str(head) for head in begun.heads}
    outside = "" if loses in chosen else ", which was not selected"
    return f"{adds} adds most, {added:+.2f} nats. Most is lost without {loses}, {lost:.2f} nats{outside}."


def layers(begun: Begun) -> str:
    """Of attention beside MLPs."""
    increase = begun.scores.increase
    attn, mlp = (bootstrap_mean(values.sum(axis=1).astype(float)) for values in (increase.attn, increase.mlp))
    names = [f"attention of layer {layer}" for layer in range(increase.attn.shape[1])]
    names += [f"the MLP of layer {layer}" for layer in range(increase.mlp.shape[1])]
    name, value = largest(names, np.concatenate([increase.attn.mean(axis=0), increase.mlp.mean(axis=0)]))
    return (
        f"Layer by layer, attention adds {attn:+.1f} nats in sum and MLPs {mlp:+.1f}. The most is {value:+.1f} nats, "
        f"by {name}."
    )


def reads(begun: Begun, findings: InContextFindings) -> str:
    """Of attention to labels that are right, and to others."""
    where = begun.evaluation.label_positions.cpu().numpy()
    is_gold = begun.evaluation.demo_labels.cpu().numpy() == begun.evaluation.gold.cpu().numpy()[:, None]
    right, other = (findings.positions.summed("attention", where, kind) for kind in (is_gold, ~is_gold))
    gap = bootstrap_means((right - other).T.astype(float))
    n = int((gap.low > 0).sum())
    return begun_with_capital(
        f"{counted(n, len(gap.low), 'heads')} attend more to labels that hold the right answer than to the others "
        f"(on average {right.mean():.2f} beside {other.mean():.2f})."
    )


def prompt(begun: Begun, findings: InContextFindings) -> str:
    """Of the first test prompt."""
    one = begun.evaluation.prompts[0]
    is_right = bool(findings.groups.base.answers.top1[0])
    return f"The right answer is {one.labels[one.gold]}, and the model gives {'it' if is_right else 'another'}."


def adds(findings: InContextFindings) -> str:
    """Of what the first head adds from where in the first prompt."""
    return _strongest(findings, findings.positions.increase[0], "adds most from", "{:+.2f} nats")


def attends(findings: InContextFindings) -> str:
    """Of what the first head attends to in the first prompt."""
    last = len(findings.tokens[0]) - 1
    return _strongest(findings, findings.attention[0][:, last], "attends most to", "attention {:.2f}")


def attended(findings: InContextFindings) -> str:
    """Of what all heads attend to."""
    first = [
        pattern[:, : len(tokens)].argmax(axis=1) == 0
        for pattern, tokens in zip(findings.attended, findings.tokens, strict=True)
    ]
    share = float(np.mean(first))
    return f"In {share:.0%} of heads and prompts, the first token gets most of the attention from the last position."


def _strongest(findings: InContextFindings, of_heads: Float[np.ndarray, "head pos"], does: str, form: str) -> str:
    tokens, head = findings.tokens[0], findings.positions.heads[0]
    values = of_heads[0, : len(tokens)]
    place = int(values.argmax())
    return (
        f"In prompt 0, {head} {does} \u201c{tokens[place].text.strip()}\u201d at position {place}: "
        f"{form.format(values[place])}."
    )


def _right(group: Group) -> Float[np.ndarray, " prompt"]:
    """Top-1 accuracy of each prompt, of random heads the mean over draws."""
    return group.right("top1").astype(float)


def _beyond_random(groups: GroupEffects) -> Interval:
    """How much more accuracy the selected heads cost than random ones, on the same prompts."""
    return bootstrap_mean(_right(groups.random) - _right(groups.all))


def _difference(values: Float[np.ndarray, " prompt"], chosen: Bool[np.ndarray, " prompt"]) -> Interval:
    """The mean over the chosen prompts less that over the others."""
    return bootstrap(
        lambda counts: (
            weighted_mean(values[chosen], counts[:, chosen]) - weighted_mean(values[~chosen], counts[:, ~chosen])
        ),
        len(values),
    )
