"""Some positions of a batch, and what is computed of some of its rows alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A run of `width` neighbouring positions of each prompt, from `start` on."""

    start: Int[Tensor, " batch"]
    width: int

    @property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """The positions themselves."""
        return self.start[:, None] + torch.arange(self.width, device=self.start.device)

    def of(self, x: Float[Tensor, "batch all_pos *rest"]) -> Float[Tensor, "batch pos *rest"]:
        """The part of `x` in the window."""
        return x[torch.arange(len(x), device=x.device)[:, None], self.positions]

    def locate(
        self, positions: Int[Tensor, "batch chosen"]
    ) -> tuple[Int[Tensor, " found"], Int[Tensor, " found"], Int[Tensor, " found"]]:
        """Which of `positions` lie in the window: prompt, index among the chosen, and place in the window."""
        place = positions.to(self.start.device) - self.start[:, None]
        prompt, chosen = ((place >= 0) & (place < self.width)).nonzero(as_tuple=True)
        return prompt, chosen, place[prompt, chosen]


def of_rows(
    x: Float[Tensor, "variant batch pos *rest"],
    chosen: Int[Tensor, " row"] | None,
    compute: Callable[[Tensor], Tensor],
) -> Float[Tensor, "variant batch pos *out"]:
    """`compute` of the chosen rows, counted over prompts and positions, and 0 at the others. None: of all."""
    rows = x.flatten(1, 2)
    if chosen is None:
        return compute(rows).unflatten(1, x.shape[1:3])
    found = compute(rows.index_select(1, chosen))
    whole = found.new_zeros(*rows.shape[:2], *found.shape[2:])
    return whole.index_copy_(1, chosen, found).unflatten(1, x.shape[1:3])
