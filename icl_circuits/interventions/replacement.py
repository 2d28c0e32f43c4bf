"""What to put in a patched place: zero, a mean, the same place in another run, or in another prompt of this one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions.positions import Positions, PositionsName, positions_of
from icl_circuits.models import HEAD_SITES, LensModel, Place, Site
from icl_circuits.prompts import TokenBatch, label_positions_of
from icl_circuits.residual import Capture, Head, HeadLike, answer_logits, heads_of
from icl_circuits.stats import generator


@dataclass(frozen=True)
class Zero:
    """Zero, the paper's ablation (arXiv 2402.02872)."""


@dataclass(frozen=True)
class Mean:
    """The mean of the place over `reference` prompts, and over the chosen positions in each."""

    reference: TokenBatch


@dataclass(frozen=True)
class Interchange:
    """The same place in a second run: clean into corrupted (denoising), or the other way round (noising).

    `source` is any batch with as many prompts: the label-reversed twin, say. Its answer positions stand for the answer
    positions, its label positions, of which it then needs as many, for the label positions.
    """

    source: TokenBatch


@dataclass(frozen=True)
class Resample:
    """The same place in another prompt of the batch, drawn at random."""

    seed: int = 0


Replacement = Zero | Mean | Interchange | Resample

ValueAt = Callable[[Site, int, int | None], Tensor]
"""The value for a site, layer and head (None for sites without heads): `[width]` or `[batch chosen width]`."""


def source_of(
    batch: TokenBatch, replacement: Interchange | Resample, positions: PositionsName | Positions
) -> TokenBatch:
    """The batch that the values come from, each row the partner of the same row of `batch`.

    Raises:
        InputError: another number of prompts, or of demonstrations where label positions are patched; prompts of other
            lengths where positions are counted from the start; or a single prompt to resample from.
    """
    if isinstance(replacement, Interchange):
        source = replacement.source
        if len(source) != len(batch):
            raise InputError(
                f"the second run has {len(source)} prompts, the first {len(batch)}: give it a partner for each prompt"
            )
        ours, theirs = (label_positions_of(part).shape[1] for part in (batch, source))
        if isinstance(positions, str) and positions == "labels" and ours != theirs:
            raise InputError(
                f"the second run has {theirs} demonstrations in each prompt, the first {ours}, so label positions have "
                "no partners: give it as many, or patch 'last'"
            )
    else:
        if len(batch) < 2:
            raise InputError("one prompt has no other to resample from: give at least 2")
        order = generator(replacement.seed).permutation(len(batch))
        partner = dict(zip(order.tolist(), [*order[1:].tolist(), int(order[0])], strict=True))
        source = batch.select([partner[row] for row in range(len(batch))])
    if positions not in ("last", "labels") and not torch.equal(source.last, batch.last):
        rows = (source.last != batch.last).nonzero()[:, 0].tolist()
        ours, theirs = (int(part.last[rows[0]]) + 1 for part in (batch, source))
        several = f" ({len(rows)} rows differ in length: {_some(rows)})" if len(rows) > 1 else ""
        raise InputError(
            f"prompt {rows[0]} has {ours} tokens and its partner {theirs}{several}, so their positions cannot be "
            "matched one by one: patch 'last' or 'labels', or use prompts of equal lengths"
        )
    return source


def _some(rows: Sequence[int]) -> str:
    """The first few of some rows."""
    return ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")


def values_at(
    model: LensModel,
    batch: TokenBatch,
    replacement: Replacement,
    sites: Sequence[tuple[Site, int]],
    positions: PositionsName | Positions,
) -> ValueAt:
    """The replacement's values for some (site, layer) pairs, from one forward pass of what they come from, if any.

    Raises:
        InputError: what is no replacement or is of no batch, a mean of patterns or of chosen positions, and what
            `source_of` raises.
    """
    _require_replacement(replacement)
    if isinstance(replacement, Zero):
        width = {"pattern": batch.tokens.shape[1]} | dict.fromkeys(("q", "k", "v", "z"), model.cfg.d_head)
        return lambda site, layer, head: torch.zeros(width.get(site, model.cfg.d_model))
    if isinstance(replacement, Mean):
        if any(site == "pattern" for site, _ in sites):
            raise InputError(
                "patterns of different prompts have no mean: replace them by Zero() or by Interchange(...)"
            )
        reference = replacement.reference
        if isinstance(positions, Tensor):
            raise InputError("a mean is over 'last', 'labels' or 'all' positions of the reference prompts: name one")
        return _by_head(_means(model, reference, sites, positions_of(reference, positions)))
    by_count = any(site == "pattern" for site, _ in sites)  # a pattern's columns are positions, too
    source = source_of(batch, replacement, "all" if by_count else positions)
    return _by_head(_captured(model, source, sites, positions_of(source, positions)), batch.tokens.shape[1])


@torch.no_grad()
def mean_z(model: LensModel, batch: TokenBatch, heads: Sequence[HeadLike]) -> dict[Head, Float[Tensor, " d_head"]]:
    """The mean of each head's z over all positions of all prompts: mean ablation is `ReplaceHeads(mean_z(...))`."""
    heads = heads_of(heads)
    means = _means(model, batch, [("z", head.layer) for head in heads], positions_of(batch, "all"))
    return {head: means["z", head.layer][head.head] for head in heads}


def _means(
    model: LensModel, batch: TokenBatch, sites: Sequence[tuple[Site, int]], positions: Positions
) -> dict[Place, Float[Tensor, "*rest"]]:
    """The mean of each place over the positions of all prompts, none counted behind its prompt's last."""
    sums: dict[Place, Tensor] = {}
    for start, stop in batch.parts():
        part, at = batch.select(range(start, stop)), positions[start:stop]
        counted = at <= part.last[:, None]
        capture = Capture(sites, at)
        answer_logits(model, part, capture)
        for place in capture.found:
            sums[place] = sums.get(place, 0) + capture.at(*place)[counted].sum(0)
    n_counted = int((positions <= batch.last[:, None]).sum())
    return {place: total / n_counted for place, total in sums.items()}


def _require_replacement(replacement: object) -> None:
    if not isinstance(replacement, Replacement):
        raise InputError(f"replacement is {_given(replacement)}: {_to_write(replacement)}")
    batch = {Mean: "reference", Interchange: "source"}.get(type(replacement))
    if batch and not isinstance(getattr(replacement, batch), TokenBatch):
        given = type(getattr(replacement, batch)).__name__
        raise InputError(f"{type(replacement).__name__} is of a {given}: give the prompts, a TokenBatch")


def _given(replacement: object) -> str:
    if isinstance(replacement, str):
        return repr(replacement)
    return f"the class {replacement.__name__}" if isinstance(replacement, type) else f"a {type(replacement).__name__}"


def _to_write(replacement: object) -> str:
    """What stands for a replacement that is none."""
    written = {"zero": "Zero()", "mean": "Mean(batch)", "interchange": "Interchange(batch)", "resample": "Resample()"}
    name = replacement.__name__ if isinstance(replacement, type) else replacement
    if isinstance(name, str) and name.lower() in written:
        return f"write {written[name.lower()]}"
    if isinstance(replacement, TokenBatch):
        return "write Interchange(batch) for the same place in these prompts, Mean(batch) for the mean over them"
    return f"write {', '.join(written.values())}, where batch holds other prompts"


def _captured(
    model: LensModel, batch: TokenBatch, sites: Sequence[tuple[Site, int]], positions: Positions
) -> dict[Place, Float[Tensor, "batch chosen *rest"]]:
    found: dict[Place, list[Tensor]] = {}
    for start, stop in batch.parts():
        capture = Capture(sites, positions[start:stop])
        answer_logits(model, batch.select(range(start, stop)), capture)
        for place, value in capture.found.items():
            found.setdefault(place, []).append(value)
    return {place: torch.cat(parts) for place, parts in found.items()}


def _by_head(found: Mapping[Place, Tensor], n_src: int = 0) -> ValueAt:
    def value(site: Site, layer: int, head: int | None) -> Tensor:
        value = found[site, layer]
        if site not in HEAD_SITES:
            return value
        value = value[..., head, :]
        if site != "pattern":
            return value
        return torch.nn.functional.pad(value, (0, max(0, n_src - value.shape[-1])))[..., :n_src]

    return value
