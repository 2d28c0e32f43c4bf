"""Recency bias: late demonstrations count more (arXiv 2402.02872, table 8).

Position enters queries and keys, so the order of demonstrations moves attention and answers. The mitigation takes
position out of the in-context heads' attention scores (`WithoutPosition`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import EVERY_RULE, Answers, as_answers
from icl_circuits.interventions import WithoutPosition, from_logits
from icl_circuits.models import LensModel
from icl_circuits.patching import keeping_runs, run_hooked
from icl_circuits.progress import tracked
from icl_circuits.prompts import DEFAULT_SEPARATOR, Prompt, PromptBatch, encode, reorder
from icl_circuits.residual import Capture, Head, HeadLike, require_some_heads
from icl_circuits.stats import Counts, generator, weighted_mean, wilson

STRENGTHS = (0.0, 0.5, 1.0)
"""How far scores go towards those without position; 1, the paper's, replaces them."""

Order = tuple[bool, ...]
"""Which places, first to last, hold a demonstration of the query's class."""


@dataclass(frozen=True, repr=False)
class RecencyBias(Displayed):
    """Answers to the same prompts with their demonstrations in several orders, with ever less position in the heads."""

    orders: tuple[Order, ...]
    strengths: tuple[float, ...]
    answers: Answers
    """Axes: order, strength, prompt."""
    heads: tuple[Head, ...]
    attention: Float[np.ndarray, "order strength prompt selected place"]
    """Attention probability of the heads from the answer position to the label at each place."""

    def fluctuation(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """Standard deviation over orders of the top-1 accuracy, at `strengths[strength]`.

        One value for each row of `counts`, how often it takes each prompt; without them one value, of all prompts.
        """
        return self._accuracy(strength, counts).std(axis=0)

    def accuracy(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """Top-1 accuracy at `strengths[strength]`, mean over orders."""
        return self._accuracy(strength, counts).mean(axis=0)

    def attention_fluctuation(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """Standard deviation over places of the attention there, mean over heads.

        Same-class and other-class demonstrations count equally at every place, however the orders fell.
        """
        return np.nanstd(self.attention_by_place(strength, counts), axis=2).mean(axis=1)

    def relative_attention_fluctuation(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """The same relative to each head's mean attention over places: less attention everywhere is not less bias."""
        by_place = self.attention_by_place(strength, counts)
        return (np.nanstd(by_place, axis=2) / np.nanmean(by_place, axis=2)).mean(axis=1)

    def attention_by_place(self, strength: int, counts: Counts = None) -> Float[np.ndarray, "draw selected place"]:
        """Mean attention of each head to each place, half from orders with the query's class there, half without.

        NaN for a place where the orders put one kind alone, as few orders of three and more labels may.
        """
        attention = np.moveaxis(self.attention[:, strength].astype(float), 1, -1)
        by_order = np.moveaxis(weighted_mean(attention, counts), -1, 1)
        same = np.array(self.orders)
        kinds = []
        for holds in (same, ~same):
            count = holds.sum(axis=0)
            total = (by_order * holds[:, None, None]).sum(axis=0)
            kinds.append(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))
        return np.mean(np.stack(kinds), axis=0)

    def _accuracy(self, strength: int, counts: Counts) -> Float[np.ndarray, "order draw"]:
        return weighted_mean(self.answers.top1[:, strength].astype(float), counts)

    @property
    def headline(self) -> str:
        """Its main number."""
        spread = ", ".join(f"{self.fluctuation(i)[0]:.2f} at {value:g}" for i, value in enumerate(self.strengths))
        return f"fluctuation {spread}"

    def to_frame(self) -> pd.DataFrame:
        """One row an order and strength: accuracies with 95 % intervals. In `order`, S is a demonstration of the
        query's class, o another one, first to last.
        """
        rows = []
        for o, order in enumerate(self.orders):
            for s, strength in enumerate(self.strengths):
                row: dict[str, object] = {"order": "".join("S" if same else "o" for same in order)}
                row |= {"strength": strength}
                for rule in ("top1", "between_labels"):
                    row |= wilson(getattr(self.answers, rule)[o, s]).columns(rule)
                rows.append(row)
        return pd.DataFrame(rows)


def arrangements(n_demos: int, n_same: int, n: int, *, seed: int = 0) -> tuple[Order, ...]:
    """Up to `n` orders of `n_demos` demonstrations, `n_same` of them of the query's class: all of them where there are
    no more, else the two extremes (that class first, that class last) and a random sample of the others.

    Raises:
        InputError: fewer than two orders asked for.
        Unfit: fewer than two possible.
    """
    if n < 2:
        raise InputError(f"the number of orders is {n}: recency shows between orders, so ask for at least 2")
    total = comb(n_demos, n_same)
    if total < 2:
        raise Unfit(
            f"{n_demos} demonstrations, {n_same} of the query's class, can stand in {total} order: recency needs 2"
        )
    first, last = tuple(range(n_same)), tuple(range(n_demos - n_same, n_demos))
    if total <= n:
        chosen = list(combinations(range(n_demos), n_same))
    else:
        rng, found = generator(seed), dict.fromkeys((first, last))
        while len(found) < n:
            found.setdefault(tuple(sorted(rng.choice(n_demos, size=n_same, replace=False).tolist())))
        chosen = list(found)
    return tuple(tuple(place in places for place in range(n_demos)) for places in chosen)


def arrange(prompt: Prompt, order: Order) -> Prompt:
    """The prompt with demonstrations of the query's class at the true places; each kind keeps its own order."""
    is_same: Bool[np.ndarray, " demo"] = np.array([demo.label == prompt.gold for demo in prompt.demos])
    kinds = {True: iter(np.flatnonzero(is_same)), False: iter(np.flatnonzero(~is_same))}
    return reorder(prompt, [int(next(kinds[same])) for same in order])


@torch.no_grad()
def recency_bias(
    model: LensModel,
    prompts: Sequence[Prompt],
    heads: Sequence[HeadLike],
    *,
    n_orders: int = 4,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    separator: str = DEFAULT_SEPARATOR,
) -> RecencyBias:
    """Answer `prompts` with their demonstrations in several orders, taking position out of `heads` to several degrees.

    An order says where the demonstrations of the query's class stand, the same for every prompt. Recency shows as what
    the accuracy of an order owes to that. One forward pass an order, and the layers from the lowest of `heads` on for
    each strength above 0.

    Args:
        model: the model.
        prompts: all with as many demonstrations of the query's class.
        heads: the heads that lose position.
        n_orders: how many orders (see `arrangements`).
        strengths: of `WithoutPosition`; 0 leaves the model alone.
        seed: of the orders.
        separator: between demonstrations.

    Raises:
        InputError: prompts that differ in their numbers of demonstrations, fewer than 2 orders asked for, or a head
            that does not exist.
        Unfit: fewer than 2 orders possible; a model without position to take off, or whose attention scores nothing
            reads.
    """
    heads = require_some_heads(model, heads)
    if not prompts or not strengths:
        raise InputError("no prompts to answer, or no strengths to try: give at least one of each")
    kinds = {(len(p.demos), sum(demo.label == p.gold for demo in p.demos)) for p in prompts}
    if len(kinds) > 1:
        raise InputError(
            f"prompts have different numbers of demonstrations and of the query's class ({sorted(kinds)}): test the "
            "recency bias on prompts sampled with the same shots"
        )
    n_demos, n_same = kinds.pop()
    orders = arrangements(n_demos, n_same, n_orders, seed=seed)
    rows, attention = [], []
    for order in tracked(orders, "recency bias"):
        batch = encode(model, [arrange(prompt, order) for prompt in prompts], separator=separator)
        parts = [_at_each_strength(model, chunk, heads, strengths) for chunk in batch.chunks()]
        scores, found = zip(*parts, strict=True)
        rows.append(torch.cat(scores, 1))
        attention.append(torch.cat(found, 1))
    return RecencyBias(
        orders,
        tuple(strengths),
        as_answers(torch.stack(rows)),
        heads,
        torch.stack(attention).cpu().numpy(),
    )


def _at_each_strength(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], strengths: Sequence[float]
) -> tuple[Float[Tensor, "strength batch 4"], Float[Tensor, "strength batch selected place"]]:
    """The scored answers at each strength, and the attention of `heads` to the label at each place."""
    at_labels = batch.label_positions[:, None].expand(-1, len(heads), -1)
    scores, attention = [], []
    with keeping_runs(model):
        for strength in strengths:
            capture = Capture([("pattern", head.layer) for head in heads], batch.last)
            changes = (WithoutPosition(heads, strength),) if strength else ()
            scores.append(from_logits(EVERY_RULE, run_hooked(model, batch, *changes, capture), batch))
            patterns = torch.stack([capture.of(model, "pattern", head) for head in heads], 1)
            attention.append(patterns.gather(2, at_labels))
    return torch.stack(scores), torch.stack(attention)
