"""Majority-label bias: more demonstrations of a label win it more attention (arXiv 2402.02872, table 7).

Attention at a head sums over label positions, so removing demonstrations of one label lowers that label's share. The
mitigation gives the minority back: the in-context heads' weighted value-output vectors at minority label positions,
times `a_c n_majority / n_minority`, are added to the final state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import EVERY_RULE, Answers, as_answers
from icl_circuits.interventions import from_states
from icl_circuits.models import HookPair, LensModel, hook_name, readout, require_identities, require_identities_of_model
from icl_circuits.patching import run_hooked
from icl_circuits.progress import tracked
from icl_circuits.prompts import DEFAULT_SEPARATOR, Prompt, PromptBatch, encode, imbalance, require_labels
from icl_circuits.residual import (
    Capture,
    Head,
    HeadLike,
    Moves,
    final_state,
    heads_of,
    require_heads,
    require_some_heads,
)
from icl_circuits.stats import Counts, each_once, weighted_mean, wilson

COEFFICIENTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Values of `a_c` that are swept; the paper's is 0.03."""


@dataclass(frozen=True)
class AddWeightedValues:
    """Add `sum_p weight_p alpha_p vo_p` over `heads` to the final state at the answer position.

    `alpha_p vo_p` is what a head moves from position p to the answer position, as the model computes it in this run.
    """

    heads: tuple[HeadLike, ...]
    weights: Float[Tensor, "batch src_pos"]
    last: Int[Tensor, " batch"]
    """The answer positions."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this.

        Raises:
            InputError: a head that does not exist.
            Unfit: z is not attention times values, or heads do not add up to `attn_out`.
        """
        heads = require_heads(model, self.heads)
        require_identities_of_model(model, self.weights.shape[1], "values", "heads")
        moves = Moves(heads, self.last)

        def add(resid_post: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
            if resid_post.shape[:2] != self.weights.shape:
                raise InputError(
                    f"the weights of the added values have shape {list(self.weights.shape)}, but the prompts "
                    f"{list(resid_post.shape[:2])}"
                )
            resid_post = resid_post.clone()
            rows = torch.arange(len(self.last), device=resid_post.device)
            resid_post[rows, self.last] += weighted_sum(model, heads, moves, self.weights).to(resid_post)
            return resid_post

        return [*moves.hooks(model), (hook_name(*final_state(model)), add)]


def weighted_sum(
    model: LensModel, heads: Sequence[Head], moves: Moves, weights: Float[Tensor, "batch src_pos"]
) -> Float[Tensor, "batch d_model"]:
    """`sum_p weight_p alpha_p vo_p` over `heads`, from what they moved in a run."""
    total = weights.new_zeros(len(weights), model.cfg.d_model)
    for head in heads:
        total = total + moves.of(model, head).total(weights)
    return total


def minority_weights(batch: PromptBatch) -> Float[Tensor, "batch src_pos"]:
    """`n_majority / n_minority` at the positions of labels with fewer demonstrations than another; 0 elsewhere."""
    counts = torch.stack([(batch.demo_labels == label).sum(1) for label in range(len(batch.labels))], 1)
    ratio = counts.amax(1, keepdim=True) / counts.clamp(min=1)
    at_demos = torch.where(ratio > 1, ratio, 0.0).gather(1, batch.demo_labels)
    return torch.zeros(batch.tokens.shape, device=batch.tokens.device).scatter(1, batch.label_positions, at_demos)


def add_minority_values(batch: PromptBatch, heads: Sequence[HeadLike], coefficient: float = 0.03) -> AddWeightedValues:
    """Mitigate the majority-label bias in `batch`, as an intervention for `intervene`.

    Adds `a_c (n_majority / n_minority) alpha_p vo_p` of every head at minority label positions to the final state.
    Whether the paper multiplies or replaces the weight, and which label's heads it uses, is not known: here it
    multiplies, with all `heads`. Prompts with equally many demonstrations of each label stay as they are.

    Args:
        batch: the prompts that will be run.
        heads: the in-context heads.
        coefficient: `a_c`; the paper's is 0.03.

    Raises:
        InputError: prompts that `encode` did not make.
    """
    require_labels(batch, "to add the minority's values of")
    return AddWeightedValues(heads_of(heads), coefficient * minority_weights(batch), batch.last)


@dataclass(frozen=True, repr=False)
class MajorityBias(Displayed):
    """Answers to prompts with ever fewer demonstrations of one label, under the mitigation at several coefficients."""

    keeps: tuple[tuple[int, ...], ...]
    """Demonstrations kept of each label; the first are balanced."""
    strengths: tuple[float, ...]
    """The coefficients `a_c`."""
    answers: Answers
    """Axes: condition (`keeps`), strength, prompt."""
    gold: Int[np.ndarray, " prompt"]
    labels: tuple[str, ...]
    controls: "tuple[MajorityBias, ...]" = ()
    """A `MajorityBias` for each set of control heads, from the same forward passes."""

    def fluctuation(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """`mean |Acc_imbalanced - Acc_balanced|` over conditions and answers at `strengths[strength]`, top-1.

        Prompts of each right answer are taken apart, so that what one label wins and another loses does not cancel.
        One value for each row of `counts`, how often it takes each prompt; without them one value, of all prompts.
        """
        counts = each_once(len(self.gold)) if counts is None else counts
        apart = np.stack([self._moved(strength, counts * (self.gold == label)) for label in range(len(self.labels))])
        known = np.isfinite(apart)  # a draw may take no prompt of some answer
        return np.where(known, apart, 0).sum(axis=0) / known.sum(axis=0)

    def overall_fluctuation(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """The same over all prompts together."""
        return self._moved(strength, counts)

    def accuracy(self, strength: int, counts: Counts = None) -> Float[np.ndarray, " draw"]:
        """Top-1 accuracy at `strengths[strength]`, mean over all conditions."""
        return weighted_mean(self._right(strength), counts).mean(axis=0)

    def _moved(self, strength: int, counts: Counts) -> Float[np.ndarray, " draw"]:
        accuracy = weighted_mean(self._right(strength), counts)
        return np.abs(accuracy[1:] - accuracy[0]).mean(axis=0)

    def _right(self, strength: int) -> Float[np.ndarray, "condition prompt"]:
        return self.answers.top1[:, strength].astype(float)

    @property
    def headline(self) -> str:
        """Its main number."""
        spread = ", ".join(f"{self.fluctuation(i)[0]:.2f} at {value:g}" for i, value in enumerate(self.strengths))
        return f"fluctuation {spread}"

    def to_frame(self) -> pd.DataFrame:
        """One row a condition, coefficient and gold label (None: all prompts): accuracies with 95 % intervals."""
        rows = []
        for (c, keep), (s, strength) in (
            ((c, k), (s, v)) for c, k in enumerate(self.keeps) for s, v in enumerate(self.strengths)
        ):
            for gold in (None, *range(len(self.labels))):
                chosen = np.full(len(self.gold), True) if gold is None else self.gold == gold
                row: dict[str, object] = {f"n_{label}": n for label, n in zip(self.labels, keep, strict=True)}
                row |= {"coefficient": strength, "gold": None if gold is None else self.labels[gold]}
                for rule in ("top1", "between_labels"):
                    row |= wilson(getattr(self.answers, rule)[c, s][chosen]).columns(rule)
                rows.append(row)
        return pd.DataFrame(rows).assign(gold=pd.Series([row["gold"] for row in rows], dtype=object))


def imbalances(shots: int, n_labels: int) -> tuple[tuple[int, ...], ...]:
    """Balanced demonstrations, then every condition with 1 to `shots - 1` of one label and `shots` of the others."""
    full = (shots,) * n_labels
    fewer = [(*full[:label], kept, *full[label + 1 :]) for label in range(n_labels) for kept in range(shots - 1, 0, -1)]
    return (full, *fewer)


@torch.no_grad()
def majority_bias(
    model: LensModel,
    prompts: Sequence[Prompt],
    heads: Sequence[HeadLike],
    *,
    coefficients: Sequence[float] = COEFFICIENTS,
    controls: Sequence[Sequence[HeadLike]] = (),
    separator: str = DEFAULT_SEPARATOR,
) -> MajorityBias:
    """Answer `prompts` with demonstrations of one label removed, every ratio the shots allow, at each coefficient.

    One forward pass a condition: the mitigation adds to the final state, so all coefficients share it.

    Args:
        model: the model.
        prompts: balanced prompts with at least 2 demonstrations of each label.
        heads: whose value-output vectors the mitigation adds.
        coefficients: values of `a_c`.
        controls: other sets of heads, random ones for instance, to mitigate with instead.
        separator: between demonstrations.

    Which demonstrations of a label go is random (`imbalance`), so that recency does not pass for majority.

    Raises:
        InputError: a head that does not exist.
        Unfit: unbalanced prompts, or fewer than 2 shots.
    """
    head_sets = [require_some_heads(model, chosen) for chosen in (heads, *controls)]
    every = tuple(dict.fromkeys(head for chosen in head_sets for head in chosen))
    if not prompts or not coefficients:
        raise InputError("no prompts to answer, or no coefficients to try: give at least one of each")
    labels = prompts[0].labels
    counts = {tuple(sum(demo.label == i for demo in p.demos) for i in range(len(labels))) for p in prompts}
    shots = min(min(count) for count in counts)
    if len(counts) > 1 or len(set(next(iter(counts)))) > 1 or shots < 2:
        raise Unfit(
            "the majority-label bias needs balanced prompts with 2 or more demonstrations of each label, but these "
            f"have {', '.join(map(str, sorted(counts)))}: sample them with shots of 2 or more"
        )
    keeps, out = imbalances(shots, len(labels)), readout(model)
    rows = []
    for keep in tracked(keeps, "majority-label bias"):
        batch = encode(model, [imbalance(prompt, keep) for prompt in prompts], separator=separator)
        require_identities(model, batch.tokens, batch.last, "values", "heads", "readout")
        parts = []
        for chunk in batch.chunks():
            moves, final = Moves(every, chunk.last), Capture([final_state(model)], chunk.last)
            run_hooked(model, chunk, moves, final)
            weights, resid = minority_weights(chunk), final.at(*final_state(model))
            added = [weighted_sum(model, chosen, moves, weights) for chosen in head_sets]
            states = torch.stack([resid + c * vector for vector in added for c in coefficients])
            scores = from_states(EVERY_RULE, out, out.norm(states), chunk)
            parts.append(scores.unflatten(0, (len(head_sets), len(coefficients))))
        rows.append(torch.cat(parts, 2))
    gold, found = np.array([prompt.gold for prompt in prompts]), torch.stack(rows, 1)
    own, *others = (MajorityBias(keeps, tuple(coefficients), as_answers(part), gold, labels) for part in found)
    return replace(own, controls=tuple(others))
