"""Variants that run together: which, in what windows, and one pass of them through the layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.costs import count_forwards
from icl_circuits.errors import InputError, require_whole
from icl_circuits.interventions import KnockOut, Metric, Patch, from_states
from icl_circuits.models import LensModel, ReadSite, free_bytes
from icl_circuits.patching.step import BaseRun, advance
from icl_circuits.patching.windows import Window
from icl_circuits.prompts import TokenBatch

Changes = tuple[Patch | KnockOut, ...]
"""What the engine changes in one variant."""
CPU_POSITIONS = 2048
"""How many rows times positions a CPU takes at once: more only miss its caches."""


@dataclass(frozen=True)
class Bundle:
    """Variants that run together, lowest first layer first, in windows of one width that end at the answer position."""

    rows: tuple[int, ...]
    first_layers: tuple[int, ...]
    width: int


def into_bundles(
    model: LensModel, batch: TokenBatch, variants: Sequence[Changes], budget: int | None = None
) -> list[Bundle]:
    """Which variants to run together: of like width, as many as the budget allows. Empty ones are left out."""
    budget = budget_on(batch.tokens.device, budget)
    widths: dict[int, int] = {}  # of each tensor of positions: patches share few

    def width_of(change: Patch | KnockOut) -> int:
        at = change.edges if isinstance(change, KnockOut) else change.positions
        if id(at) not in widths:
            first: Tensor | int = 0
            if isinstance(change, KnockOut):
                reading = change.edges.any(2).to(batch.last.device)
                first = torch.where(reading.any(1), reading.int().argmax(1), batch.last)
            elif change.positions is not None:
                first = change.positions.amin(1).to(batch.last.device)
            widths[id(at)] = max(int((batch.last - first).max()), 0) + 1
        return widths[id(at)]

    todo = sorted(
        (max(width_of(change) for change in variant), min(n for change in variant for n in layers_of(change)), row)
        for row, variant in enumerate(variants)
        if any(layers_of(change) for change in variant)
    )
    bundles: list[list[tuple[int, int, int]]] = []
    for item in todo:
        width = item[0]
        fits = max(1, budget // _row_bytes(model, batch, width))
        if batch.tokens.device.type == "cpu":
            fits = min(fits, max(1, CPU_POSITIONS // (len(batch) * width)))
        if bundles and len(bundles[-1]) < fits and (width <= 1.25 * bundles[-1][0][0] or len(bundles[-1]) < fits // 4):
            bundles[-1].append(item)
        else:
            bundles.append([item])
    return [_bundle(items) for items in bundles]


def layers_of(change: Patch | KnockOut) -> tuple[int, ...]:
    """The layers that a patch or a knock-out changes."""
    return change.layers if isinstance(change, KnockOut) else (change.layer,)


def _bundle(items: Sequence[tuple[int, int, int]]) -> Bundle:
    ordered = sorted(items, key=lambda item: item[1])
    return Bundle(
        tuple(row for _, _, row in ordered),
        tuple(layer for _, layer, _ in ordered),
        max(width for width, _, _ in items),
    )


def _row_bytes(model: LensModel, batch: TokenBatch, width: int) -> int:
    """About how many bytes one variant takes while it passes a layer."""
    cfg, itemsize = model.cfg, model.unembed.W_U.element_size()
    per_position = 8 * cfg.d_model + 3 * (cfg.d_mlp or 0) + 4 * cfg.n_heads * cfg.d_head
    attention = 3 * cfg.n_heads * batch.tokens.shape[1]
    return int(itemsize * len(batch) * width * (per_position + attention))


def budget_on(device: torch.device, budget: int | None) -> int:
    """The budget in bytes: what was asked for, or a quarter of the memory that is free.

    Raises:
        InputError: a budget that is no whole number of bytes, or none at all.
    """
    if budget is not None:
        require_whole(budget, 1, f"the budget is {budget} bytes: give 1 or more, or leave it out")
        return budget
    return free_bytes(device) // 4


SeeRows = Callable[[int, ReadSite, Tensor, Sequence[int], Window], None]
"""Is shown each activation: its layer and site, itself, which variants its rows are, and its positions."""


def run_bundle(
    base: BaseRun, variants: Sequence[Changes], bundle: Bundle, metric: Metric, see: SeeRows | None = None
) -> list[tuple[tuple[int, ...], Float[Tensor, "variant prompt *value"]]]:
    """The metric of the bundle's variants: all of them, or in halves where a GPU runs out of memory."""
    try:
        count_forwards(len(bundle.rows) * len(base.batch))
        return [(bundle.rows, metric_of(base, base.readout.norm(_final_states(base, variants, bundle, see)), metric))]
    except torch.cuda.OutOfMemoryError as error:
        if len(bundle.rows) == 1:
            raise InputError(
                f"one variant of {len(base.batch)} prompts does not fit into the GPU's memory: use fewer prompts"
            ) from error
    torch.cuda.empty_cache()
    middle = len(bundle.rows) // 2
    halves = [
        Bundle(bundle.rows[part], bundle.first_layers[part], bundle.width)
        for part in (slice(middle), slice(middle, None))
    ]
    return [found for half in halves for found in run_bundle(base, variants, half, metric, see)]


def _final_states(
    base: BaseRun, variants: Sequence[Changes], bundle: Bundle, see: SeeRows | None
) -> Float[Tensor, "variant prompt d_model"]:
    """The final residual state at the answer position under each variant of the bundle."""
    answer = base.at_answer
    window = answer if bundle.width == 1 else Window((base.batch.last - bundle.width + 1).clamp(min=0), bundle.width)
    x = window.of(base.resid_pre[0])[None][:0]
    for layer in range(bundle.first_layers[0], len(base.blocks)):
        joining = bundle.first_layers.count(layer)
        if joining:
            entering = window.of(base.resid_pre[layer])
            x = torch.cat([x, entering.expand(joining, *entering.shape)])
        rows = bundle.rows[: len(x)]
        changes = [(i, change) for i, row in enumerate(rows) for change in variants[row] if layer in layers_of(change)]
        patches = [(i, change) for i, change in changes if isinstance(change, Patch)]
        cuts = [(i, change.edges) for i, change in changes if isinstance(change, KnockOut)]
        out = answer if layer == len(base.blocks) - 1 else window

        show = None if see is None else partial(_shown, see, layer, rows, out)
        x = advance(base, layer, x, window, out, patches, show, cuts, in_parts=True)
    return x[:, :, -1]


def _shown(see: SeeRows, layer: int, rows: Sequence[int], out: Window, site: ReadSite, activation: Tensor) -> None:
    see(layer, site, activation, rows, out)


def metric_of(
    base: BaseRun, normed: Float[Tensor, "variant prompt d_model"], metric: Metric
) -> Float[Tensor, "variant prompt *value"]:
    """The metric of final normed states at the answer position, on the CPU."""
    if torch.isnan(normed).any():
        raise InputError(
            "a variant gives NaN states: its values hold NaN, or the dtype is too narrow (try torch.float32)"
        )
    return from_states(metric, base.readout, normed, base.batch).cpu()
