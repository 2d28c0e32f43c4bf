"""The group intervention: zero all in-context heads, each label's alone, and random heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.heads.answers import Answers, answer_each
from icl_circuits.heads.selection import InContextHeads
from icl_circuits.interventions import ZeroHeads
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch, require_labels
from icl_circuits.residual import Head, HeadLike, all_heads, heads_of
from icl_circuits.stats import generator, mean_of


@dataclass(frozen=True, repr=False)
class Group(Displayed):
    """One group of zeroed heads and the answers without them."""

    kind: Literal["base", "all", "label", "random"]
    label: str | None
    """The label whose heads these are, or stand for; None: all labels."""
    draws: tuple[tuple[Head, ...], ...]
    """The heads of each draw; one draw but for `random`."""
    answers: Answers
    """Axes: prompt; for `random`: draw, prompt."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.name} zeroed, {self.answers.headline}"

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt (and draw): as `Answers` has it."""
        return self.answers.to_frame()

    def right(self, rule: Literal["top1", "between_labels"]) -> Shaped[np.ndarray, " prompt"]:
        """Whether each prompt is answered right by a rule; for `random`, in what share of the draws."""
        right: Shaped[np.ndarray, " prompt"] = getattr(self.answers, rule)
        return right.mean(axis=0) if self.kind == "random" else right

    @property
    def n_heads(self) -> int:
        """How many heads are zeroed at once."""
        return len(self.draws[0])

    @property
    def name(self) -> str:
        """What the group zeroes, for people to read."""
        if self.label is not None:
            return f"{self.label}heads" if self.kind == "label" else f"random, as many as {self.label}heads"
        return {"base": "nothing", "all": "in-context heads", "random": "random heads"}[self.kind]


@dataclass(frozen=True, repr=False)
class GroupEffects(Displayed):
    """Answers to the same prompts under each group of zeroed heads (arXiv 2402.02872, tables 2 and 3)."""

    base: Group
    all: Group
    by_label: tuple[Group, ...]
    """A group for each label that has heads."""
    random: Group
    """As many random heads as `all`, of the same layers."""
    random_by_label: tuple[Group, ...]
    """As many random heads as each of `by_label`, of the same layers."""
    gold: Int[np.ndarray, " prompt"]
    labels: tuple[str, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group, nothing zeroed first."""
        apart = zip(self.by_label, self.random_by_label, strict=True)
        return (self.base, self.all, self.random, *(group for pair in apart for group in pair))

    @property
    def headline(self) -> str:
        """Its main number."""
        groups = (self.base, self.all, self.random)
        top1 = ", ".join(f"{group.name} {group.answers.top1.mean():.2f}" for group in groups)
        return f"top1 by what is zeroed: {top1}"

    def to_frame(self) -> pd.DataFrame:
        """One row a group and gold label (None: all prompts): accuracies with 95 % intervals over prompts.

        They are Wilson intervals. Random heads are averaged over their draws within each prompt first, so they have
        bootstrap intervals.
        """
        splits = [
            (None, np.full(len(self.gold), True)),
            *((name, self.gold == i) for i, name in enumerate(self.labels)),
        ]
        rows = []
        for group in self.groups:
            for gold, chosen in splits:
                row: dict[str, object] = {"kind": group.kind, "label": group.label, "zeroed": group.name}
                row |= {"n_heads": group.n_heads, "gold": gold}
                row |= mean_of(group.right("top1")[chosen]).columns("top1")
                row |= mean_of(group.right("between_labels")[chosen]).columns("between_labels")
                rows.append(row)
        words = {column: pd.Series([row[column] for row in rows], dtype=object) for column in ("label", "gold")}
        return pd.DataFrame(rows).assign(**words)  # object columns keep None


def group_intervention(
    model: LensModel, batch: PromptBatch, selected: InContextHeads, *, n_random: int = 20, seed: int = 0
) -> GroupEffects:
    """Accuracy before and after zeroing the selected heads, each label's heads alone, and random heads for each.

    Args:
        model: the model.
        batch: prompts, other than those the heads were selected on.
        selected: the in-context heads.
        n_random: draws of random heads for each group, at least 1, each of as many heads as the group, in the same
            layers. No random head is a selected one.
        seed: of the draws.

    Raises:
        InputError: no draws asked for, too few heads left unselected for them, or prompts that `encode` did not make.
    """
    require_labels(batch, "to group heads by")
    if n_random < 1:
        raise InputError(f"{n_random} draws of random heads make no control: ask for at least 1")
    heads, labels = selected.of(), [label for label in selected.labels if selected.of(label)]
    free = tuple(head for head in all_heads(model) if head not in heads)

    def drawn(like: tuple[Head, ...], *numbers: int) -> tuple[tuple[Head, ...], ...]:
        return tuple(random_heads((*like, *free), like, seed=(seed, i, *numbers)) for i in range(n_random))

    wanted: list[tuple[Literal["all", "label", "random"], str | None, tuple[tuple[Head, ...], ...]]]
    wanted = [("all", None, (heads,)), ("random", None, drawn(heads))]
    for i, label in enumerate(labels):
        wanted += [("label", label, (selected.of(label),)), ("random", label, drawn(selected.of(label), i))]
    variants = [(ZeroHeads(draw),) for _, _, draws in wanted for draw in draws]
    base, zeroed = answer_each(model, batch, variants, "zeroing groups of heads")
    groups, start = [], 0
    for kind, of_label, draws in wanted:
        found = zeroed[start : start + len(draws)] if kind == "random" else zeroed[start]
        groups.append(Group(kind, of_label, draws, found))
        start += len(draws)
    everything, random, *apart = groups
    unchanged, gold = Group("base", None, ((),), base), batch.gold.cpu().numpy()
    return GroupEffects(unchanged, everything, tuple(apart[::2]), random, tuple(apart[1::2]), gold, selected.labels)


def random_heads(heads: Sequence[HeadLike], selected: Sequence[HeadLike], *, seed: tuple[int, ...]) -> tuple[Head, ...]:
    """As many unselected heads as `selected`, from the same layers; where a layer has too few, from the nearest ones.

    Raises:
        InputError: fewer unselected heads than selected ones.
    """
    rng, heads, selected = generator(*seed), heads_of(heads), heads_of(selected)
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
