"""The group intervention: zero all in-context heads, each label's alone, and random heads (methods 1.5, 1.6)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from icl_circuits.errors import InputError
from icl_circuits.heads.answers import Answers, answer, stack_answers
from icl_circuits.heads.selection import InContextHeads
from icl_circuits.interventions import ZeroHeads
from icl_circuits.models import Head, LensModel, all_heads
from icl_circuits.progress import progress
from icl_circuits.prompts import PromptBatch
from icl_circuits.stats import bootstrap_mean


@dataclass(frozen=True)
class GroupEffects:
    """Answers to the same prompts under each group of zeroed heads (paper 1, tables 2 and 3)."""

    groups: dict[str, Answers]
    """`base`, `all heads`, `foo heads`, `bar heads`, ... : axes prompt. `random heads`: axes draw, prompt."""
    sizes: dict[str, int]
    """How many heads each group zeroes."""
    random_heads: tuple[tuple[Head, ...], ...]
    """The heads of each random draw."""
    gold: Int[np.ndarray, " prompt"]
    labels: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a group and gold label (`all` first): both accuracies with 95 % bootstrap intervals over prompts.

        The random control is averaged over its draws within each prompt first.
        """
        rows = []
        for group, answers in self.groups.items():
            for label, chosen in [
                ("all", slice(None)),
                *((name, self.gold == i) for i, name in enumerate(self.labels)),
            ]:
                row: dict[str, object] = {"zeroed": group, "n_heads": self.sizes[group], "gold": label}
                for rule in ("top1", "between_labels"):
                    right = getattr(answers, rule).astype(float)
                    per_prompt = right if right.ndim == 1 else right.mean(axis=0)
                    interval = bootstrap_mean(per_prompt[chosen])
                    row |= {rule: interval.mean, f"{rule}_low": interval.low, f"{rule}_high": interval.high}
                rows.append(row)
        return pd.DataFrame(rows)


def group_intervention(
    model: LensModel, batch: PromptBatch, selected: InContextHeads, *, n_random: int = 20, seed: int = 0
) -> GroupEffects:
    """Accuracy before and after zeroing the selected heads, each label's heads alone, and random heads.

    Args:
        model: the model.
        batch: prompts, other than those the heads were selected on.
        selected: the in-context heads.
        n_random: draws of random heads, as many as selected and in the same layers.
        seed: of the draws.

    Raises:
        InputError: too few heads are left unselected for a random control.
    """
    draws = tuple(random_heads(all_heads(model), selected.of(), seed=seed + i) for i in range(n_random))
    zeroed = {"all heads": selected.of()} | {
        f"{label} heads": selected.of(label) for label in selected.labels if selected.of(label)
    }
    groups = {"base": answer(model, batch)}
    for name, heads in progress(list(zeroed.items()), "zeroing groups of heads"):
        groups[name] = answer(model, batch, ZeroHeads(heads))
    controls = [answer(model, batch, ZeroHeads(heads)) for heads in progress(draws, "zeroing random heads")]
    groups["random heads"] = stack_answers(controls, "stack")
    sizes = {"base": 0, "random heads": len(selected.heads)} | {name: len(heads) for name, heads in zeroed.items()}
    return GroupEffects(groups, sizes, draws, batch.gold.cpu().numpy(), selected.labels)


def random_heads(heads: tuple[Head, ...], selected: tuple[Head, ...], *, seed: int) -> tuple[Head, ...]:
    """As many unselected heads as `selected`, from the same layers; where a layer has too few, from the nearest ones.

    Raises:
        InputError: fewer unselected heads than selected ones.
    """
    rng = np.random.default_rng(seed)
    free = [head for head in heads if head not in set(selected)]
    if len(free) < len(selected):
        raise InputError(
            f"{len(selected)} of {len(heads)} heads are selected, so no {len(selected)} others are left for the random "
            f"control: select at most {len(heads) // 2}"
        )
    drawn: list[Head] = []
    for wanted in selected:
        candidates = [head for head in free if head not in drawn]
        nearest = min(abs(head.layer - wanted.layer) for head in candidates)
        candidates = [head for head in candidates if abs(head.layer - wanted.layer) == nearest]
        drawn.append(candidates[rng.integers(len(candidates))])
    return tuple(drawn)
