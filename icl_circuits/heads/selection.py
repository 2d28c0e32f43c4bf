"""Which heads are the in-context heads: the best by both scores, each given to a label (arXiv 2402.02872)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, Unfit, require_one_of
from icl_circuits.heads.causal import HeadEffects
from icl_circuits.heads.increase import LogProbIncrease
from icl_circuits.residual import Head
from icl_circuits.stats import ALPHA, bootstrap_means

Rule = Literal["sure", "paper"]
"""How heads are selected. `sure`: by effects that can be told from zero. `paper`: by accuracy lost, as in the paper."""


@dataclass(frozen=True)
class InContextHead:
    """A selected head, the label it serves, and the scores that selected it."""

    layer: int
    head: int
    label: str
    """Zeroing the head costs prompts with this gold label the most: `foo` makes it a foohead."""
    log_prob_increase: float
    """Static score, nats: mean over the selection prompts."""
    accuracy_drop: float
    """Share of the selection prompts no longer answered right, top-1."""
    log_prob_drop: float
    """Causal score, nats: mean log-probability of the right label lost."""
    log_prob_drop_low: float
    log_prob_drop_high: float
    """The ends of its 95 % bootstrap interval over prompts."""
    p_increase: float
    """That the head adds nothing, corrected for all heads (`LogProbIncrease.p_corrected`)."""
    p_drop: float
    """That nothing is lost without it, corrected for all scored heads (`HeadEffects.p_corrected`)."""

    @property
    def component(self) -> Head:
        """The head itself."""
        return Head(self.layer, self.head)


@dataclass(frozen=True, repr=False)
class InContextHeads(Displayed):
    """The selected heads, best first."""

    heads: tuple[InContextHead, ...]
    labels: tuple[str, ...]

    def of(self, label: str | None = None) -> tuple[Head, ...]:
        """The heads of one label (its fooheads, say), or all."""
        return tuple(head.component for head in self.heads if label in (None, head.label))

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"best first: {', '.join(map(str, self.of()))}"

    def to_frame(self) -> pd.DataFrame:
        """One row a head, best first."""
        return pd.DataFrame([vars(head) for head in self.heads])


def select_heads(
    increase: LogProbIncrease,
    effects: HeadEffects,
    gold: Int[np.ndarray, " prompt"],
    labels: tuple[str, ...],
    *,
    n_heads: int = 12,
    rule: Rule = "sure",
    top_n: int | None = None,
    combine: Literal["union", "intersection"] = "union",
) -> InContextHeads:
    """Keep the `n_heads` of best mean rank by both scores, each given to a label.

    The static score ranks by mean log-probability increase. Only heads in `effects` can be selected. A head belongs
    to the label whose prompts lose most log-probability when it is zeroed.

    By the rule `sure`, the causal score is the mean log-probability lost. Only heads are selected one of whose scores
    can be told from zero, so they may be fewer than `n_heads`. One is enough: other heads may make up for what a head
    adds, so that nothing is lost without it.

    By the rule `paper`, the causal score is the accuracy lost, ties by log-probability. The best `top_n` by each score
    are listed first. The paper lists 10 by each and arrives at 12 heads (`top_n=10, n_heads=12`). How it combines the
    lists is not known, so it is a parameter.

    Args:
        increase: static scores of all heads on the selection prompts.
        effects: causal scores, of all heads or of a preselection, on the same prompts.
        gold: index of each prompt's right label.
        labels: the label words.
        n_heads: how many heads to keep, at most.
        rule: `sure` or `paper`.
        top_n: of the paper's rule: how many to list by each score; default `n_heads`.
        combine: of the paper's rule: `union` or `intersection` of the two lists.

    Raises:
        InputError: fewer than one head asked for, more than were scored, or an empty intersection.
        Unfit: no head's scores can be told from zero.
    """
    require_one_of(rule, ("sure", "paper"), "rule")
    if not 1 <= n_heads <= len(effects.heads):
        raise InputError(
            f"cannot select {n_heads} heads: ask for 1 to {len(effects.heads)}, the number of scored heads"
        )
    at = tuple(np.array(effects.heads).T)
    static, p_increase, p_drop = increase.head_means()[at], increase.p_corrected[at], effects.p_corrected
    log_prob_drop = bootstrap_means(effects.log_prob_drop.astype(float))
    static_rank = _ranks(static)
    if rule == "sure":
        causal_rank = _ranks(log_prob_drop.mean)
        kept = (p_increase < ALPHA) | (p_drop < ALPHA)
        _require_some(kept, effects)
    else:
        causal_rank = _ranks(effects.accuracy_drop, log_prob_drop.mean)
        depth = n_heads if top_n is None else top_n
        lists = static_rank < depth, causal_rank < depth
        kept = lists[0] | lists[1] if combine == "union" else lists[0] & lists[1]
        if not kept.any():
            raise InputError(f"no head is among the best {depth} by both scores: raise top_n, or use combine='union'")
    mean_rank = (static_rank + causal_rank) / 2
    best = [int(i) for i in np.lexsort((static_rank, mean_rank)) if kept[i]][:n_heads]
    by_label = _by_label(effects, gold, len(labels))
    return InContextHeads(
        tuple(
            InContextHead(
                layer=effects.heads[i].layer,
                head=effects.heads[i].head,
                label=labels[int(np.argmax(by_label[i]))],
                log_prob_increase=float(static[i]),
                accuracy_drop=float(effects.accuracy_drop[i]),
                **log_prob_drop.of(i).columns("log_prob_drop"),
                p_increase=float(p_increase[i]),
                p_drop=float(p_drop[i]),
            )
            for i in best
        ),
        labels,
    )


def _require_some(significant: Bool[np.ndarray, " head"], effects: HeadEffects) -> None:
    """Raise `Unfit` where no head's scores can be told from zero."""
    n_heads, n_prompts = effects.log_prob_drop.shape
    if not significant.any():
        raise Unfit(
            f"no head of {n_heads} adds log-probability, or costs any when zeroed, that {n_prompts} prompts tell from "
            f"zero (false-discovery rate {ALPHA:.0%}): use more prompts, or the paper's rule "
            "(--select paper)"
        )


def _by_label(effects: HeadEffects, gold: Int[np.ndarray, " prompt"], n_labels: int) -> Float[np.ndarray, "head label"]:
    """Mean log-probability drop of each head on the prompts of each gold label; none such: minus infinity."""
    drops = effects.log_prob_drop
    columns = [drops[:, gold == label] for label in range(n_labels)]
    return np.stack([c.mean(axis=1) if c.shape[1] else np.full(len(drops), -np.inf) for c in columns], axis=1)


def _ranks(
    score: Float[np.ndarray, " head"], tie: Float[np.ndarray, " head"] | None = None
) -> Int[np.ndarray, " head"]:
    """Rank 0 for the highest score, ties broken by `tie`."""
    keys = (-score,) if tie is None else (-tie, -score)
    ranks = np.empty(len(score), dtype=np.int64)
    ranks[np.lexsort(keys)] = np.arange(len(score))
    return ranks
