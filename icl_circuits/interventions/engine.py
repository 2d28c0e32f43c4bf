"""The exact sweep engine: many variants of a run for little more than the price of the run.

A patch in layer l at positions from p on changes nothing below l nor before p. So, from one cached base run, each
variant restarts at its lowest patched layer, at its first patched position, against the base run's keys and values;
all variants run together as rows of one batch, each joining it at its layer; in the last layer, and in the unembedding,
only the answer position is computed, and only the label words' columns where the metric needs no others.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions.base_run import run_base, tolerance
from icl_circuits.interventions.context import answer_logits
from icl_circuits.interventions.hooks import Intervention, Patch, ReplaceHeads, Site, ZeroHeads
from icl_circuits.interventions.metrics import FROM_LABELS, Metric, from_label_logits, from_logits, require_metric
from icl_circuits.interventions.step import BaseRun, Window, advance
from icl_circuits.models import LensModel, NotAlgebraError
from icl_circuits.progress import progress
from icl_circuits.prompts import PromptBatch
from icl_circuits.stats import generator

Variant = Sequence[Intervention]
"""Interventions that apply together: what one row of a sweep does to the model."""

PATCHES = (Patch, ZeroHeads, ReplaceHeads)
"""What the engine can carry out."""
PROMPT_TOKENS = 4096
"""Prompts are run in parts of at most this many tokens."""
CPU_POSITIONS = 2048
"""How many rows times positions a CPU takes at once: more only miss its caches."""
LOGITS_AT_ONCE = 1 << 24
"""How many logits are held at once."""


@dataclass(frozen=True)
class Variants:
    """A metric under each of several variants, a value (or several) for each prompt."""

    base: Float[Tensor, "prompt *value"]
    """With nothing changed."""
    values: Float[Tensor, "variant prompt *value"]
    logit_scale: float
    """The largest absolute logit at the answer positions, with nothing changed: what exactness is relative to."""
    fallback: str | None = None
    """Why the engine could not be used, so that each variant took a forward pass of its own; None: it was used."""
    max_error: float | None = None
    """The largest difference from `run_with_hooks` in the logits of the variants that were checked; None: none were."""


@torch.no_grad()
def run_each(
    model: LensModel,
    batch: PromptBatch,
    variants: Sequence[Variant],
    metric: Metric = "logit_diff",
    *,
    budget: int | None = None,
    verify: int = 0,
    seed: int = 0,
    description: str = "variants",
) -> Variants:
    """Measure `metric` under each variant, exactly as `with intervene(model, *variant)` would, only faster.

    Variants made of `Patch`, `ZeroHeads` and `ReplaceHeads` run in the engine. Where one holds anything else, the model
    has hooks on it, or the engine's equations do not give the model's own activations, each variant takes a forward
    pass of its own, and a warning says why.

    Args:
        model: the model.
        batch: the prompts. Positions and values in the variants count its rows.
        variants: what to change, each a sequence of interventions that apply together; an empty one changes nothing.
        metric: a name, or a function of the answer-position logits `[prompt d_vocab]` and their prompts, which may be
            a part of the batch.
        budget: bytes that a chunk of variants may take; default a quarter of what is free. On a GPU that runs out of
            memory all the same, chunks are halved until they fit.
        verify: how many variants, drawn at random, to check against the plain computation.
        seed: of that draw.
        description: of the progress bar.

    Returns:
        The metric with nothing changed `[prompt]` and under each variant `[variant prompt]`, on the CPU.

    Raises:
        InputError: a head, layer, position or shape that does not fit; NaN logits; a checked variant that differs from
            the plain computation by more than 1e-4 of the logit scale (1e-9 in float64, 5e-2 in half precision).
    """
    require_metric(metric)
    if not len(batch):
        raise InputError("there are no prompts to run: the batch is empty")
    if not 0 <= verify <= len(variants):
        raise InputError(f"verify is {verify}: give how many of the {len(variants)} variants to check")
    patches, why_not = _as_patches(model, batch, variants)
    if why_not is None:
        try:
            found = _run_each_in_engine(model, batch, patches, metric, budget, description)
        except NotAlgebraError as error:
            why_not = str(error)
    if why_not is not None:
        name, n_variants = model.cfg.model_name, len(variants)
        warnings.warn(f"{name!r} takes a forward pass for each of {n_variants} variants: {why_not}", stacklevel=2)
        return _run_each_plainly(model, batch, variants, metric, why_not, description)
    if not verify:
        return found
    return replace(found, max_error=_checked(model, batch, patches, found.logit_scale, verify, seed))


def _run_each_in_engine(
    model: LensModel,
    batch: PromptBatch,
    variants: Sequence[tuple[Patch, ...]],
    metric: Metric,
    budget: int | None,
    description: str,
) -> Variants:
    work: list[tuple[PromptBatch, Sequence[tuple[Patch, ...]], Chunk | None]] = []
    for start, stop in batch.parts(PROMPT_TOKENS):
        prompts = batch.select(range(start, stop))
        cut = _of_prompts(variants, start, stop) if len(prompts) < len(batch) else variants
        work += [(prompts, cut, chunk) for chunk in (None, *plan(model, prompts, cut, budget))]
    bases, values, scale = [], [], 0.0
    for prompts, cut, chunk in progress(work, description):
        if chunk is None:
            base = run_base(model, prompts)
            bases.append(from_logits(metric, base.logits, prompts).cpu())
            values.append(bases[-1].expand(len(variants), *bases[-1].shape).clone())
            scale = max(scale, float(base.logits.abs().max()))
        else:
            for rows, found in run_chunk(base, cut, chunk, metric):
                values[-1][list(rows)] = found
    return Variants(torch.cat(bases), torch.cat(values, 1), scale)


def _of_prompts(variants: Sequence[tuple[Patch, ...]], start: int, stop: int) -> list[tuple[Patch, ...]]:
    """The variants for some of the prompts. Patches that share a tensor of positions go on sharing one."""
    cut: dict[int, Tensor | None] = {}
    for variant in variants:
        for patch in variant:
            if id(patch.positions) not in cut:
                cut[id(patch.positions)] = None if patch.positions is None else patch.positions[start:stop]
    return [
        tuple(replace(patch.of_prompts(start, stop), positions=cut[id(patch.positions)]) for patch in variant)
        for variant in variants
    ]


def _run_each_plainly(
    model: LensModel, batch: PromptBatch, variants: Sequence[Variant], metric: Metric, why: str, description: str
) -> Variants:
    logits = torch.cat([answer_logits(model, batch.select(range(*part))) for part in batch.parts(PROMPT_TOKENS)])
    base = from_logits(metric, logits, batch).cpu()
    values = [plain_metric(model, batch, variant, metric) for variant in progress(variants, description)]
    stacked = torch.stack(values) if values else base[None][:0]
    return Variants(base, stacked, float(logits.abs().max()), fallback=why)


def plain_metric(
    model: LensModel, batch: PromptBatch, variant: Variant, metric: Metric
) -> Float[Tensor, "prompt *value"]:
    """The metric under one variant by a forward pass with hooks: what the engine must reproduce."""
    patches = [patch for part in variant if isinstance(part, PATCHES) for patch in part.patches(model)]
    if any(not isinstance(part, PATCHES) for part in variant):  # positions of other interventions cannot be cut
        return from_logits(metric, answer_logits(model, batch, *variant), batch).cpu()
    values = []
    for start, stop in batch.parts(PROMPT_TOKENS):
        prompts = batch.select(range(start, stop))
        logits = answer_logits(model, prompts, *(patch.of_prompts(start, stop) for patch in patches))
        values.append(from_logits(metric, logits, prompts).cpu())
    return torch.cat(values)


def _checked(
    model: LensModel, batch: PromptBatch, variants: Sequence[tuple[Patch, ...]], scale: float, n: int, seed: int
) -> float:
    """The largest difference from `run_with_hooks` in the answer-position logits of `n` of the variants."""
    chosen = generator(seed).choice(len(variants), size=n, replace=False).tolist()
    ours = _run_each_in_engine(model, batch, [variants[row] for row in chosen], _logits, None, "checking").values
    limit = tolerance(model.unembed.W_U.dtype) * scale
    worst = 0.0
    for row, logits in zip(chosen, ours, strict=True):
        error = float((plain_metric(model, batch, variants[row], _logits) - logits).abs().max())
        if not error <= limit:
            raise InputError(
                f"the logits of variant {row} differ from run_with_hooks by {error:.2g}, more than {limit:.2g}: this "
                "model cannot be swept exactly; run its variants one by one with intervene, and report it"
            )
        worst = max(worst, error)
    return worst


def _logits(logits: Tensor, batch: PromptBatch) -> Tensor:
    return logits


def _as_patches(
    model: LensModel, batch: PromptBatch, variants: Sequence[Variant]
) -> tuple[list[tuple[Patch, ...]], str | None]:
    """The variants as patches, each place set by its last one; or why some cannot be."""
    found = []
    for variant in variants:
        places: dict[tuple[object, ...], Patch] = {}
        for part in variant:
            if not isinstance(part, PATCHES):
                return [], f"{type(part).__name__} is no patch"
            for patch in part.patches(model):
                patch.require_fit(model, batch.tokens.shape)
                place = patch.site, patch.layer, patch.head, id(patch.positions)
                places.pop(place, None)  # the last one counts, and comes last
                places[place] = patch
        found.append(tuple(places.values()))
    return found, None


# --- chunks: variants that run together -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Variants that run together, lowest first layer first, in windows of one width that end at the answer position."""

    rows: tuple[int, ...]
    first_layers: tuple[int, ...]
    width: int


def plan(
    model: LensModel, batch: PromptBatch, variants: Sequence[tuple[Patch, ...]], budget: int | None = None
) -> list[Chunk]:
    """Which variants to run together: of like width, as many as the budget allows. Empty ones are left out."""
    budget = free_bytes(batch.tokens.device) // 4 if budget is None else budget
    widths: dict[int, int] = {}  # of each tensor of positions: patches share few

    def width_of(patch: Patch) -> int:
        if id(patch.positions) not in widths:
            first = 0 if patch.positions is None else patch.positions.amin(1).to(batch.last.device)
            widths[id(patch.positions)] = max(int((batch.last - first).max()), 0) + 1
        return widths[id(patch.positions)]

    todo = sorted(
        (max(width_of(patch) for patch in variant), min(patch.layer for patch in variant), row)
        for row, variant in enumerate(variants)
        if variant
    )
    chunks: list[list[tuple[int, int, int]]] = []
    for item in todo:
        width = item[0]
        fits = max(1, budget // _row_bytes(model, batch, width))
        if batch.tokens.device.type == "cpu":
            fits = min(fits, max(1, CPU_POSITIONS // (len(batch) * width)))
        if chunks and len(chunks[-1]) < fits and (width <= 1.25 * chunks[-1][0][0] or len(chunks[-1]) < fits // 4):
            chunks[-1].append(item)
        else:
            chunks.append([item])
    return [_chunk(items) for items in chunks]


def _chunk(items: Sequence[tuple[int, int, int]]) -> Chunk:
    ordered = sorted(items, key=lambda item: item[1])
    return Chunk(
        tuple(row for _, _, row in ordered),
        tuple(layer for _, layer, _ in ordered),
        max(width for width, _, _ in items),
    )


def _row_bytes(model: LensModel, batch: PromptBatch, width: int) -> int:
    """About how many bytes one variant takes while it passes a layer."""
    cfg, itemsize = model.cfg, model.unembed.W_U.element_size()
    per_position = 8 * cfg.d_model + 3 * (cfg.d_mlp or 0) + 4 * cfg.n_heads * cfg.d_head
    attention = 3 * cfg.n_heads * batch.tokens.shape[1]
    return int(itemsize * len(batch) * width * (per_position + attention))


def free_bytes(device: torch.device) -> int:
    """How much memory is free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


SeeRows = Callable[[int, Site, Tensor, Sequence[int], Window], None]
"""Is shown each activation: its layer and site, itself, which variants its rows are, and its positions."""


def run_chunk(
    base: BaseRun, variants: Sequence[tuple[Patch, ...]], chunk: Chunk, metric: Metric, see: SeeRows | None = None
) -> list[tuple[tuple[int, ...], Float[Tensor, "variant prompt *value"]]]:
    """The metric of the chunk's variants: all of them, or in halves where a GPU runs out of memory."""
    try:
        return [(chunk.rows, measured(base, base.readout.norm(_final_states(base, variants, chunk, see)), metric))]
    except torch.cuda.OutOfMemoryError as error:
        if len(chunk.rows) == 1:
            raise InputError(
                f"one variant of {len(base.batch)} prompts does not fit into the GPU's memory: use fewer prompts"
            ) from error
    torch.cuda.empty_cache()
    middle = len(chunk.rows) // 2
    halves = [
        Chunk(chunk.rows[part], chunk.first_layers[part], chunk.width) for part in (slice(middle), slice(middle, None))
    ]
    return [found for half in halves for found in run_chunk(base, variants, half, metric, see)]


def _final_states(
    base: BaseRun, variants: Sequence[tuple[Patch, ...]], chunk: Chunk, see: SeeRows | None
) -> Float[Tensor, "variant prompt d_model"]:
    """The final residual state at the answer position under each variant of the chunk."""
    answer = base.at_answer
    window = answer if chunk.width == 1 else Window((base.batch.last - chunk.width + 1).clamp(min=0), chunk.width)
    x = window.of(base.resid_pre[0])[None][:0]
    for layer in range(chunk.first_layers[0], len(base.blocks)):
        joining = chunk.first_layers.count(layer)
        if joining:
            entering = window.of(base.resid_pre[layer])
            x = torch.cat([x, entering.expand(joining, *entering.shape)])
        rows = chunk.rows[: len(x)]
        patches = [(i, patch) for i, row in enumerate(rows) for patch in variants[row] if patch.layer == layer]
        out = answer if layer == len(base.blocks) - 1 else window

        show = None if see is None else partial(_shown, see, layer, rows, out)
        x = advance(base, layer, x, window, out, patches, show)
    return x[:, :, -1]


def _shown(see: SeeRows, layer: int, rows: Sequence[int], out: Window, site: Site, activation: Tensor) -> None:
    see(layer, site, activation, rows, out)


def measured(
    base: BaseRun, normed: Float[Tensor, "variant prompt d_model"], metric: Metric
) -> Float[Tensor, "variant prompt *value"]:
    """The metric of final normed states at the answer position, on the CPU."""
    batch, unembed = base.batch, base.readout.unembed
    if torch.isnan(normed).any():
        raise InputError(
            "a variant gives NaN states: its values hold NaN, or the dtype is too narrow (try torch.float32)"
        )
    if metric in FROM_LABELS:
        label_logits = unembed(normed, batch.label_tokens)
        return from_label_logits(metric, label_logits, batch.gold.expand(len(normed), -1)).cpu()
    step = max(1, LOGITS_AT_ONCE // (len(batch) * base.readout.W_U.shape[1]))
    values = [
        from_logits(metric, logits, batch).cpu()
        for start in range(0, len(normed), step)
        for logits in unembed(normed[start : start + step])
    ]
    return torch.stack(values)
