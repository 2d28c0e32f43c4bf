"""The relation index: which heads attend to a relation's head and raise its tail (arXiv 2402.13055, equations 2 and 3).

A triplet (s, r, o) of a text passes at a position j from the later one on, in a head, where

    s = argmax_k A_jk    and    A_js / max_{k != s} A_jk > tau

for the head's attention A. There the head raises the tail by its share of what it raises at all: with
`p_t = exp(x_j W_V W_O W_U)_t` over the different tokens t up to j, and `q_t = max(0, p_t - mean p)`,

    a_j = q_o / sum_t q_t.

The relation index is the mean of `a_j` over all triplets of the relation and positions that pass. The softmax's sum
over the vocabulary cancels in `a`, so the logits of the text's own tokens are enough.
"""

from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, require_one_of, require_whole
from icl_circuits.models import Identity, LensModel, require_identities, require_per_head_z
from icl_circuits.relations.align import RelationBatch
from icl_circuits.relations.heads import Attention, OvInput, TextHeads, heads_on_texts
from icl_circuits.relations.indices import EDGES, RelationIndex
from icl_circuits.stats import false_discovery, generator

TAU = 2.2
"""The paper's threshold: under 5 % of the ratios exceeded it in its model."""
TAUS = (2.0, 2.2, 2.5)
"""Those of its figure 15."""
PERCENTILE = 95
"""A threshold for other models: the ratio that 5 % exceed."""
TENTH = 9
"""The place of a text's 10th token, the paper's baseline."""
SHARES_AT_ONCE = 1 << 22
"""How many shares are held at once: 16 MB in float32."""
ROUNDING = 1e-6
"""How far two means of the same shares may be apart, summed in another order in float32."""


def relation_index(
    model: LensModel,
    batch: RelationBatch,
    *,
    tau: float = TAU,
    attention: Attention = "model",
    ov_input: OvInput = "embedding",
    draws: int = 4000,
    seed: int = 0,
) -> RelationIndex:
    """The relation index of every head and relation, with the paper's baseline and a test against random tails.

    The test asks how often random tokens have as high an index. For every triplet a token is drawn from the different
    ones that its text has up to its head and tail. The tail is among them: without it p would be too low by chance. A
    draw is one token a triplet, the same for all heads and positions.

    Args:
        model: any model with per-head z, its weights unprocessed: folded, W_V and W_U hold the norms' weights.
        batch: texts with triplets, from `relation_batch`.
        tau: how many times the attention to the relation's head exceeds that to any other token.
        attention: which attention decides what passes. The paper does not say; its equation has raw embeddings.
        ov_input: what the head's values are taken of. `resid` reads through the final norm, frozen at the position's
            own scale, and leaves biases of values out.
        draws: how many random tokens take each tail's place. p is no less than 1 / (draws + 1), so few heads among many
            cannot be told. Of n heads and relations, n / (50 draws) or more must stand at that floor for a `p_fdr` of
            0.05.
        seed: of the draws.

    Raises:
        InputError: an unknown choice, a tau below 1, or no draws.
        Unfit: a model without per-head z, or one that an identity fails of. The identities are: v is the normed state
            times W_V, z is attention times values, and heads add up to `attn_out`. Norm and unembedding make the
            logits. For `attention="embedding"`, q and k are also the normed state times W_Q and W_K.
    """
    require_one_of(attention, get_args(Attention), "attention")
    require_one_of(ov_input, get_args(OvInput), "ov_input")
    require_whole(draws, 1, f"draws is {draws}: give how many random tails to try, 1 or more")
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not tau >= 1:
        raise InputError(f"tau is {tau}: the largest attention is at least once the next, so give 1 or more")
    require_per_head_z(model)
    needed: list[Identity] = ["value_projection", "values", "heads", "readout"]
    needed += ["projections"] if attention == "embedding" else []
    require_identities(model, batch.batch.tokens, batch.batch.last, *needed)
    tally = _Tally(model, batch, tau, draws, generator(seed))
    for text in heads_on_texts(model, batch.batch, attention, ov_input):
        tally.count(text)
    return tally.result()


class _Tally:
    """Sums over the texts."""

    def __init__(
        self, model: LensModel, batch: RelationBatch, tau: float, draws: int, rng: np.random.Generator
    ) -> None:
        self.batch, self.tau, self.draws, self.rng = batch, tau, draws, rng
        self.shape = (model.cfg.n_layers, model.cfg.n_heads)
        n_heads, n_relations = model.cfg.n_layers * model.cfg.n_heads, len(batch.relations)
        self.null = torch.zeros(n_relations, n_heads, draws, dtype=torch.float64)
        self.others = torch.zeros(n_relations, n_heads, dtype=torch.float64)
        self.drawn: dict[int, dict[tuple[int, int], Tensor]] = {}
        """By text, and by tail and number of tokens up to it: the random tokens, the same in all layers. Triplets of
        one text with one tail are one draw: what they have is not independent."""
        self.passing: list[tuple[Tensor, ...]] = []
        """Of every head and position that attends to a relation's head most: triplet, head, ratio, share, the tenth
        token's, and whether it stands behind the triplet, not at it."""

    def count(self, text: TextHeads) -> None:
        """The triplets of one text in one layer's heads."""
        mine = np.flatnonzero(self.batch.text == text.row)
        device = text.kinds.device
        head, tail = (torch.as_tensor(part[mine], device=device) for part in (self.batch.head_pos, self.batch.tail_pos))
        after = torch.maximum(head, tail)
        n_pos = len(text.kinds)
        behind = torch.arange(n_pos, device=device)[:, None] >= after  # [pos triplet]
        by_head = [((attended[:, None] == head) & behind).nonzero(as_tuple=True) for attended in text.attended]
        which = torch.cat([torch.full_like(place, h) for h, (place, _) in enumerate(by_head)])
        position, triplet = (torch.cat([found[i] for found in by_head]) for i in range(2))
        sums: dict[tuple[int, int], Tensor] = {}
        at_once = max(1, SHARES_AT_ONCE // (int(text.kinds.max()) + 1))
        for start in range(0, max(1, len(which)), at_once):
            part = slice(start, start + at_once)
            self._count_places(text, mine, which[part], position[part], triplet[part], tail, after, sums)
        relation = torch.as_tensor(self.batch.relation[mine], device=device)
        self._draw(text, sums, relation, tail, text.seen[after])

    def _count_places(
        self,
        text: TextHeads,
        mine: Int[np.ndarray, " triplet"],
        which: Int[Tensor, " some"],
        position: Int[Tensor, " some"],
        triplet: Int[Tensor, " some"],
        tail: Int[Tensor, " triplet"],
        after: Int[Tensor, " triplet"],
        sums: dict[tuple[int, int], Float[Tensor, " kind"]],
    ) -> None:
        """Some heads and positions that attend to a triplet's head most; what passes is added to `sums`."""
        share = text.shares(which, position)
        raises = torch.isfinite(share[:, 0])
        share, which, position, triplet = (part[raises] for part in (share, which, position, triplet))
        ratio = text.ratio[which, position]
        tenth = torch.full_like(ratio, torch.nan)
        at = self.batch.n_bos + TENTH
        if len(text.kinds) > at:
            seen = position >= at
            tenth[seen] = share[seen, text.kinds[at]]
        of_tail = share.gather(1, text.kinds[tail][triplet][:, None])[:, 0]
        numbers = torch.as_tensor(mine, device=share.device)[triplet]
        in_model = which + text.layer * self.shape[1]
        self.passing.append((numbers, in_model, ratio, of_tail, tenth, position > after[triplet]))
        passes = ratio > self.tau
        pairs = torch.stack([triplet, which], 1)[passes]
        pairs, place = pairs.unique(dim=0, return_inverse=True)
        summed = share.new_zeros(len(pairs), share.shape[1]).index_add(0, place, share[passes])
        for (t, h), of_pair in zip(pairs.tolist(), summed, strict=True):
            sums[t, h] = sums[t, h] + of_pair if (t, h) in sums else of_pair

    def _draw(
        self,
        text: TextHeads,
        sums: dict[tuple[int, int], Float[Tensor, " kind"]],
        relation: Int[Tensor, " triplet"],
        tail: Int[Tensor, " triplet"],
        n_seen: Int[Tensor, " triplet"],
    ) -> None:
        """Add what random tokens have in each tail's place: `sums` of shares by triplet and head."""
        drawn = self.drawn.setdefault(text.row, {})
        passing: dict[int, list[int]] = {}
        for t, h in sorted(sums):
            passing.setdefault(t, []).append(h)
        for i, (n, own) in enumerate(zip(n_seen.tolist(), text.kinds[tail].tolist(), strict=True)):
            if (own, n) not in drawn:
                drawn[own, n] = torch.as_tensor(self.rng.integers(self.batch.n_bos, n, size=self.draws))
            if i not in passing:
                continue
            others = [kind for kind in range(self.batch.n_bos, n) if kind != own] or [own]
            of_passing = torch.stack([sums[i, h] for h in passing[i]]).cpu()
            heads = [text.layer * self.shape[1] + h for h in passing[i]]
            self.others[relation[i], heads] += of_passing[:, others].mean(1)
            self.null[relation[i], heads] += of_passing[:, drawn[own, n]]
        if text.layer == self.shape[0] - 1:
            del self.drawn[text.row]

    def result(self) -> RelationIndex:
        """The means."""
        parts = zip(*self.passing, strict=True)
        triplet, head, ratio, share, tenth, behind = (torch.cat(part).cpu().numpy() for part in parts)
        relation = self.batch.relation[triplet]
        n_relations, n_heads = self.null.shape[:2]
        passes = ratio > self.tau
        taus = (*TAUS, float(np.percentile(ratio, PERCENTILE, method="inverted_cdf")) if len(ratio) else TAU)
        place = relation * n_heads + head

        def index(values: Float[np.ndarray, " some"], chosen: Bool[np.ndarray, " some"]) -> np.ndarray:
            return _means(values[chosen], place[chosen], n_relations * n_heads).reshape(n_relations, *self.shape)

        n_passing = np.bincount(place[passes], minlength=n_relations * n_heads).reshape(n_relations, n_heads)
        found = index(share, passes)
        null, others = self.null.numpy(), self.others.numpy()
        null /= np.maximum(n_passing, 1)[..., None]
        as_high = (null >= found.reshape(n_relations, n_heads, 1) - ROUNDING).sum(axis=2)
        p = np.where(n_passing > 0, (1 + as_high) / (1 + self.draws), np.nan)
        own = triplet[passes] * n_heads + head[passes]
        by_triplet = _means(share[passes], own, len(self.batch) * n_heads)
        counts, _ = np.histogram(np.clip(ratio, EDGES[0], EDGES[-1]), EDGES)
        return RelationIndex(
            self.batch.relations,
            self.tau,
            found,
            n_passing.reshape(found.shape),
            index(share, passes & behind),
            index(tenth, passes & np.isfinite(tenth)),
            np.where(n_passing > 0, others / np.maximum(n_passing, 1), np.nan).reshape(found.shape),
            p.reshape(found.shape),
            false_discovery(p).reshape(found.shape),
            self.batch.relation,
            self.batch.text,
            by_triplet.reshape(len(self.batch), *self.shape),
            taus,
            np.stack([index(share, ratio > tau) for tau in taus]),
            counts,
        )


def _means(values: Float[np.ndarray, " some"], place: Int[np.ndarray, " some"], n: int) -> Float[np.ndarray, " place"]:
    """The mean of the values at each of `n` places; NaN where there is none."""
    counts, sums = np.bincount(place, minlength=n), np.bincount(place, weights=values, minlength=n)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
