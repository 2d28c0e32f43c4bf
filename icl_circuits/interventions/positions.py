"""Which positions of each prompt: by name, or a tensor of them."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from icl_circuits.errors import InputError, require_one_of
from icl_circuits.prompts import TokenBatch, label_positions_of

Positions = Int[Tensor, "batch chosen"]
"""For each prompt, the positions that an intervention touches (`batch.last[:, None]`, `batch.label_positions`)."""

SrcPositions = Int[Tensor, "batch chosen_src"]
"""The same for the positions that attention reads."""

PositionsName = Literal["last", "labels", "all"]
"""The answer position, every label position, or every position."""


def positions_of(batch: TokenBatch, positions: PositionsName | Positions) -> Positions:
    """The positions of each prompt, `[batch chosen]`, on the batch's device.

    Raises:
        InputError: an unknown name, label positions of prompts without demonstrations, or a tensor of the wrong shape
            or kind of numbers, without positions, with positions that do not exist, or with one twice.
    """
    if isinstance(positions, Tensor):
        require_positions(positions, len(batch), batch.tokens.shape[1], "positions")
        if not positions.shape[1]:
            raise InputError("positions: there are none: give each prompt one or more")
        for row, chosen in enumerate(positions.tolist()):
            if len(set(chosen)) < len(chosen):
                raise InputError(f"positions: prompt {row} has a position twice in {chosen}: give each once")
        return positions.long().to(batch.tokens.device)
    if not isinstance(positions, str):
        raise InputError(
            f"positions are a {type(positions).__name__}: name 'last', 'labels' or 'all', or give a tensor of whole "
            "numbers, a row for each prompt"
        )
    require_one_of(positions, get_args(PositionsName), "positions")
    if positions == "last":
        return batch.last[:, None]
    if positions == "labels":
        at_labels = label_positions_of(batch)
        if not at_labels.shape[1]:
            raise InputError("the prompts have no demonstrations, so no label positions: use 'last' or 'all'")
        return at_labels
    return torch.arange(int(batch.last.max()) + 1, device=batch.tokens.device).repeat(len(batch), 1)


def require_positions(positions: Tensor, batch: int, n_pos: int, name: str) -> None:
    """Raise `InputError` unless `positions` are whole numbers `[batch chosen]` and exist."""
    if positions.dtype == torch.bool or positions.is_floating_point() or positions.is_complex():
        raise InputError(
            f"{name}: positions are {str(positions.dtype).removeprefix('torch.')}: give whole numbers (of a mask, "
            "mask.nonzero())"
        )
    if positions.ndim != 2 or positions.shape[0] != batch:
        raise InputError(f"{name}: positions have shape {list(positions.shape)}, but the batch has {batch} rows")
    if positions.numel() and not (int(positions.min()) >= 0 and int(positions.max()) < n_pos):
        wrong = next(p for p in positions.flatten().tolist() if not 0 <= p < n_pos)
        raise InputError(f"{name}: position {wrong} does not exist: the prompts have positions 0..{n_pos - 1}")


def position_mask(
    batch: int, n_pos: int, positions: Tensor | None, device: torch.device, name: str
) -> Bool[Tensor, "batch pos"]:
    """True at `positions` of each row, `[batch pos]`; everywhere where None."""
    if positions is None:
        return torch.ones(batch, n_pos, dtype=torch.bool, device=device)
    require_positions(positions, batch, n_pos, name)
    return torch.zeros(batch, n_pos, dtype=torch.bool, device=device).scatter(1, positions.long().to(device), True)
