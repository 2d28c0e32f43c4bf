"""Effects, not only scores: what the model loses when neurons, or heads, are zeroed for real (arXiv 2312.12141)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError
from icl_circuits.interventions import ZeroNeurons, from_logits
from icl_circuits.models import LensModel, at_least_float32, mlp_weights
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import answer_logits
from icl_circuits.stats import bootstrap_mean, corrected_above_zero, generator
from icl_circuits.subvalues.writers import Addresses, require_neurons, require_prompts

TARGET_MEASURES = ("reciprocal_rank", "prob", "log_prob")


@dataclass(frozen=True, repr=False)
class NeuronEffects(Displayed):
    """How well the answer is predicted with nothing zeroed, and with each group of neurons zeroed."""

    groups: tuple[str, ...]
    base: Float[np.ndarray, "prompt measure"]
    """`reciprocal_rank` (1 over the target's rank in the vocabulary), `prob` and `log_prob` (nats) of the target."""
    zeroed: Float[np.ndarray, "group prompt measure"]

    @property
    def headline(self) -> str:
        """Its main number."""
        at = TARGET_MEASURES.index("log_prob")
        drops = (self.base - self.zeroed).mean(axis=1)[:, at]
        return f"log_prob {self.base[:, at].mean():.3g}, {highest('log_prob_drop', drops, self.groups.__getitem__)}"

    def to_frame(self) -> pd.DataFrame:
        """One row a group, nothing zeroed first: means of the measures with 95 % bootstrap intervals over prompts."""
        rows = []
        for name, values in (("nothing", self.base), *zip(self.groups, self.zeroed, strict=True)):
            row: dict[str, object] = {"zeroed": name}
            for i, measure in enumerate(TARGET_MEASURES):
                row |= bootstrap_mean(values[:, i].astype(float)).columns(measure)
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def least_left(self) -> int:
        """The group without whose neurons least of the answer's probability is left, in the mean over prompts."""
        return int(self._left.mean(axis=1).argmin())

    def less_left(self) -> Float[np.ndarray, "group other"]:
        """p-values that less of the probability is left without one group's neurons than without another's.

        One-sided t-tests prompt by prompt, corrected for all pairs, so the best group may be chosen by looking. NaN for
        a group beside itself, and for a single prompt.
        """
        pairs = ~np.eye(len(self.groups), dtype=bool)
        p = np.full(pairs.shape, np.nan)
        if pairs.any():
            p[pairs] = corrected_above_zero((self._left[None] - self._left[:, None])[pairs])
        return p

    @property
    def _left(self) -> Float[np.ndarray, "group prompt"]:
        return self.zeroed[:, :, TARGET_MEASURES.index("prob")].astype(float)


@torch.no_grad()
def zero_neurons(model: LensModel, batch: TokenBatch, groups: Mapping[str, Sequence[Addresses]]) -> NeuronEffects:
    """Answer `batch` again with each group of neurons set to zero at every position, each prompt without its own.

    An attention neuron goes with all its source positions: the dimension of its head's z is set to zero.

    Args:
        model: the model.
        batch: the prompts.
        groups: by name, neurons of each prompt; several sets of a group go together (attention and FFN neurons).

    Raises:
        InputError: no prompts, neurons of another number of prompts, or that the model does not have.
        Unfit: the model does not show its neurons.
    """
    require_prompts(batch)
    for name, sets in groups.items():
        for one in sets:
            if len(one[0]) != len(batch):
                raise InputError(
                    f"group {name!r} is of {len(one[0])} prompts, but the batch has {len(batch)}: give its own"
                )
            require_neurons(model, one)
    base, zeroed = [], []
    for start, stop in tracked(list(batch.parts()), "zeroing neurons"):
        chunk = batch.select(range(start, stop))
        base.append(target_measures(answer_logits(model, chunk), chunk))
        found = []
        for sets in groups.values():
            mine = [tuple(part[start:stop] for part in one) for one in sets]
            found.append(target_measures(answer_logits(model, chunk, zeroing(model, mine)), chunk))
        zeroed.append(torch.stack(found) if found else base[-1].new_zeros(0, *base[-1].shape))
    return NeuronEffects(tuple(groups), torch.cat(base).cpu().numpy(), torch.cat(zeroed, 1).cpu().numpy())


def target_measures(logits: Float[Tensor, "prompt d_vocab"], batch: TokenBatch) -> Float[Tensor, "prompt measure"]:
    """Reciprocal rank, probability and log-probability (nats) of each prompt's target: a metric with three values."""
    logits = at_least_float32(logits)
    right = logits.gather(1, batch.target[:, None])
    log_prob = from_logits("log_prob", logits, batch)
    return torch.stack([1.0 / (1 + (logits > right).sum(1)), log_prob.exp(), log_prob], 1)


def zeroing(model: LensModel, sets: Sequence[tuple[np.ndarray, ...]]) -> ZeroNeurons:
    """The intervention that zeroes some neurons of each prompt."""
    cfg, device = model.cfg, model.unembed.W_U.device
    ffn: dict[int, Bool[Tensor, "batch d_mlp"]] = {}
    attention: dict[int, Bool[Tensor, "batch head d_head"]] = {}
    for layer, head, neuron in sets:
        prompt = np.broadcast_to(np.arange(len(layer))[:, None], layer.shape)
        for n in np.unique(layer).tolist():
            mine = layer == n
            rows, heads, numbers = (torch.as_tensor(part[mine], device=device) for part in (prompt, head, neuron))
            is_ffn = heads < 0
            if is_ffn.any():
                shape = (len(layer), mlp_weights(model, n).W_out.shape[0])
                ffn.setdefault(n, torch.zeros(shape, dtype=torch.bool, device=device))[
                    rows[is_ffn], numbers[is_ffn]
                ] = True
            if not is_ffn.all():
                shape3 = (len(layer), cfg.n_heads, cfg.d_head)
                mask = attention.setdefault(n, torch.zeros(shape3, dtype=torch.bool, device=device))
                mask[rows[~is_ffn], heads[~is_ffn], numbers[~is_ffn]] = True
    return ZeroNeurons(ffn, attention)


def random_neurons(model: LensModel, like: Addresses, *, seed: int = 0) -> Addresses:
    """As many other neurons, drawn at random, as `like` has in each prompt and layer, of the same kind: the control.

    Those of `like` are not drawn, unless a layer has too few others. An attention neuron is one dimension of a head, as
    `zero_neurons` takes it, so source positions of one dimension count once. Its places repeat what is drawn.

    Raises:
        InputError: a neuron that the model does not have, or a seed that is none.
    """
    require_neurons(model, like)
    layer, head, neuron = like
    rng, d_head = generator(seed), model.cfg.d_head
    drawn_head, drawn = np.array(head), np.array(neuron)
    for row in range(len(layer)):
        for n in np.unique(layer[row]).tolist():
            for is_ffn in (True, False):
                mine = (layer[row] == n) & ((head[row] < 0) == is_ffn)
                if not mine.any():
                    continue
                own = neuron[row, mine] if is_ffn else head[row, mine] * d_head + neuron[row, mine]
                given, again = np.unique(own, return_inverse=True)
                every = mlp_weights(model, n).W_out.shape[0] if is_ffn else model.cfg.n_heads * d_head
                chosen = _others(rng, given, every)[again]
                drawn[row, mine] = chosen if is_ffn else chosen % d_head
                if not is_ffn:
                    drawn_head[row, mine] = chosen // d_head
    return layer, drawn_head, drawn


def _others(rng: np.random.Generator, given: Int[np.ndarray, " some"], every: int) -> Int[np.ndarray, " some"]:
    """As many different numbers below `every`, others than those given as far as there are any."""
    others = rng.permutation(np.setdiff1d(np.arange(every), given))
    return np.concatenate([others, rng.permutation(given)])[: len(given)]
