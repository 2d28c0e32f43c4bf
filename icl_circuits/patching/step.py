"""One layer for many variants of a run at once, at a window of positions, against the base run's keys and values.

Axes: `variant` counts what is patched, `batch` the prompts, `pos` the window's positions. Positions before the window
are those of the base run, which no patch inside the window can change in a causal model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.interventions import Patch
from icl_circuits.models import Block, Norm, Readout, ReadSite, Site
from icl_circuits.patching.windows import Window, of_rows
from icl_circuits.prompts import TokenBatch

ATTENTION_AT_ONCE = 1 << 24
"""How many attention scores are made at once: 64 MB in float32."""
RowPatch = tuple[int, Patch]
"""A patch, and the variant it belongs to."""
RowCut = tuple[int, Bool[Tensor, "batch all_pos src_pos"]]
"""Edges along which no head attends, and the variant they are cut in."""

SeeSite = Callable[[ReadSite, Tensor], Tensor | None]
"""Is shown each activation as its hook point would carry it, with a leading variant axis; what it gives takes its
place. Of attention, `[batch kv_head variant group out_pos src]`, it is shown what `_scores` and `_pattern` give."""


@dataclass(frozen=True)
class BaseRun:
    """What a sweep needs of the unpatched run: residual states, keys and values, and the answer-position logits."""

    batch: TokenBatch
    blocks: tuple[Block, ...]
    readout: Readout
    logits: Float[Tensor, "batch d_vocab"]
    resid_pre: list[Float[Tensor, "batch pos d_model"]] = field(default_factory=list)
    """One for each layer, as the run is made; so are `keys` and `values`."""
    keys: list[Float[Tensor, "batch kv_head pos d_head"]] = field(default_factory=list)
    """As attention compares them: after the rotary embedding."""
    values: list[Float[Tensor, "batch kv_head pos d_head"]] = field(default_factory=list)

    @property
    def at_answer(self) -> Window:
        """The answer position alone."""
        return Window(self.batch.last, 1)

    @property
    def everywhere(self) -> Window:
        """All positions."""
        return Window(torch.zeros_like(self.batch.last), self.batch.tokens.shape[1])

    def text_in(self, window: Window) -> Int[Tensor, " row"] | None:
        """Which positions of the window are the prompts' own, counted over prompts and positions. None: all are.

        The others are padding, which nothing reads.
        """
        is_text = window.positions <= self.batch.last[:, None]
        return None if is_text.all() else is_text.flatten().nonzero()[:, 0]


def advance(
    base: BaseRun,
    layer: int,
    x: Float[Tensor, "variant batch pos d_model"],
    window: Window,
    out: Window,
    patches: Sequence[RowPatch] = (),
    see: SeeSite | None = None,
    cuts: Sequence[RowCut] = (),
    *,
    in_parts: bool = False,
) -> Float[Tensor, "variant batch out_pos d_model"]:
    """The states after `layer`, from the states `x` before it, under the patches of this layer.

    Args:
        base: gives the layer's equations, and keys and values before the window.
        layer: which layer.
        x: the states that enter it, at `window`.
        window: where variants may differ from the base run.
        out: the positions to go on with: `window`, or, in the last layer, the answer position alone.
        patches: what to change, in order.
        see: is shown every activation after its patches.
        cuts: attention edges to cut.
        in_parts: make the attention of some query positions after others where it is large, and show `see` these.
    """
    block = base.blocks[layer]
    in_window = base.text_in(window)
    in_out = in_window if out is window else base.text_in(out)

    def seen(site: ReadSite, activation: Tensor) -> Tensor:
        instead = None if see is None else see(site, activation)
        return activation if instead is None else instead

    def hooked(site: Site, activation: Tensor, at: Window) -> Tensor:
        _write(activation, [(row, patch) for row, patch in patches if patch.site == site], at)
        return seen(site, activation)

    def added(site: Site, activation: Tensor, outlet: Norm | None) -> Tensor:
        """What a sublayer adds to the residual stream, patched where the model's own hook point lies."""
        return hooked(site, activation if outlet is None else outlet(activation), out)

    x = hooked("resid_pre", x, window)
    normed = block.ln1(x).to(block.dtype)
    k, v = (hooked(name, of_rows(normed, in_window, partial(block.project, name)), window) for name in ("k", "v"))
    k = block.turned("k", k, window.positions)
    if out is not window:
        rows, place = torch.arange(x.shape[1], device=x.device)[:, None], out.positions - window.start[:, None]
        x, normed = x[:, rows, place], normed[:, rows, place]
    q = hooked("q", of_rows(normed, in_out, partial(block.project, "q")), out)
    q = block.turned("q", q, out.positions)
    on_pattern = [(row, patch) for row, patch in patches if patch.site == "pattern"]

    def attended(q: Tensor, out: Window) -> Tensor:
        scores = _scores(base, layer, q, k, window, out)
        for row, edges in cuts:
            _cut(scores[:, :, row], edges, window, out)
        pattern = seen("pattern", _pattern(base, layer, seen("attn_scores", scores), window))
        if on_pattern:
            pattern = _patched_pattern(pattern, on_pattern, window, out)
        return _mix(base, layer, v, pattern)

    parts = _query_parts(q, int(window.start.max()) + window.width) if in_parts else [(0, out.width)]
    found = [attended(q[:, :, a:b], Window(out.start + a, b - a)) for a, b in parts]
    z = hooked("z", found[0] if len(found) == 1 else torch.cat(found, 2), out)
    attn_out = added("attn_out", of_rows(z, in_out, block.output), block.attn_outlet)
    mlp, ln2 = block.mlp, block.ln2
    if mlp is None or ln2 is None:
        return hooked("resid_post", x + attn_out, out)
    mlp_in = x if block.parallel else hooked("resid_mid", x + attn_out, out)
    mlp_out = added("mlp_out", of_rows(mlp_in, in_out, lambda rows: mlp(ln2(rows))), block.mlp_outlet)
    resid_post = mlp_in + mlp_out
    return hooked("resid_post", resid_post + attn_out if block.parallel else resid_post, out)


def _query_parts(q: Float[Tensor, "variant batch out_pos head d_head"], n_src: int) -> list[tuple[int, int]]:
    """Bounds of the query positions whose attention is made together: about `ATTENTION_AT_ONCE` numbers."""
    n_variants, n_prompts, n_out, n_heads, _ = q.shape
    size = max(1, ATTENTION_AT_ONCE // (n_variants * n_prompts * n_heads * n_src))
    return [(start, min(start + size, n_out)) for start in range(0, n_out, size)]


def _scores(
    base: BaseRun, layer: int, q: Tensor, k: Tensor, window: Window, out: Window
) -> Float[Tensor, "batch kv_head variant group out_pos src"]:
    """Scores of the out positions with the base run's keys before the window, then with the variants' own in it.

    The last axis has the base run's columns first, as many as the latest window start, then the window's. What a
    position does not see is minus infinity.
    """
    block = base.blocks[layer]
    n_variants, _, n_out = q.shape[:3]
    q = q.unflatten(3, (block.n_kv_heads, -1)).permute(1, 3, 0, 4, 2, 5) / block.scale
    own_keys = k.permute(1, 3, 0, 4, 2)
    if window.width == 1:  # a matrix product of one column each would be many tiny ones
        scores = (q * own_keys.transpose(3, 4)[:, :, :, None]).sum(-1, keepdim=True)
    else:
        scores = (q.flatten(3, 4) @ own_keys).unflatten(3, (-1, n_out))
    cached = int(window.start.max())
    if cached:
        before = q.flatten(2, 4) @ base.keys[layer][:, :, :cached].transpose(2, 3)
        scores = torch.cat([before.unflatten(2, (n_variants, -1, n_out)), scores], -1)
    if block.softcap is not None:
        scores = block.softcap * torch.tanh(scores / block.softcap)
    columns, exists = _columns(window, cached)
    visible = exists[:, None, :] & block.visible(out.positions, columns)
    return scores if visible.all() else scores.masked_fill(~visible[:, None, None, None], float("-inf"))


def _cut(
    scores: Float[Tensor, "batch kv_head group out_pos src"],
    edges: Bool[Tensor, "batch all_pos src_pos"],
    window: Window,
    out: Window,
) -> None:
    """Hide the edges of one variant's scores, in place."""
    columns, _ = _columns(window, scores.shape[-1] - window.width)
    prompts = torch.arange(len(columns), device=columns.device)[:, None, None]
    hidden = edges.to(columns.device)[prompts, out.positions[:, :, None], columns[:, None]]
    scores.masked_fill_(hidden[:, None, None], float("-inf"))


def _pattern(
    base: BaseRun, layer: int, scores: Float[Tensor, "batch kv_head variant group out_pos src"], window: Window
) -> Float[Tensor, "batch kv_head variant group out_pos src"]:
    """Attention, from the scores."""
    block = base.blocks[layer]
    dtype = block.softmax_dtype or torch.promote_types(scores.dtype, torch.float32)
    if scores.dtype == dtype or scores.dtype != torch.float64:
        return scores.softmax(-1, dtype=dtype).to(scores.dtype)
    # The model rounds to less than its dtype: add up in its own order of columns, to round as it does.
    n_src, (columns, exists) = base.batch.tokens.shape[1], _columns(window, scores.shape[-1] - window.width)
    index = torch.where(exists, columns, n_src)[:, None, None, None, None].expand_as(scores)
    in_order = scores.new_full((*scores.shape[:-1], n_src + 1), float("-inf")).scatter(-1, index, scores)
    pattern = F.pad(in_order[..., :n_src].softmax(-1, dtype=dtype).to(scores.dtype), (0, 1))
    return pattern.gather(-1, index)


def _columns(window: Window, cached: int) -> tuple[Int[Tensor, "batch src"], Bool[Tensor, "batch src"]]:
    """The source position of each column of `_scores`, and whether the column is not one that the window replaces."""
    before = torch.arange(cached, device=window.start.device).expand(len(window.start), -1)
    own = window.positions
    return torch.cat([before, own], 1), torch.cat([before < window.start[:, None], torch.ones_like(own).bool()], 1)


def _patched_pattern(pattern: Tensor, patches: Sequence[RowPatch], window: Window, out: Window) -> Tensor:
    """`_pattern` with the rows of some heads replaced by values over all source positions."""
    columns, exists = _columns(window, pattern.shape[-1] - window.width)
    n_pos = int(out.positions.max()) + 1

    def over_columns(patch: Patch) -> Tensor:
        n_chosen = n_pos if patch.positions is None else patch.positions.shape[1]
        value = patch.value if patch.value.ndim == 1 else patch.value[:, :n_chosen]
        value = value.to(pattern).expand(len(columns), n_chosen, -1)
        found = value.gather(2, columns[:, None].expand(-1, n_chosen, -1))
        query = torch.arange(n_chosen, device=value.device) if patch.positions is None else patch.positions
        return torch.where(exists[:, None] & (columns[:, None] <= query.to(columns)[..., None]), found, 0.0)

    by_head = pattern.permute(2, 0, 4, 1, 3, 5).flatten(3, 4)
    _write(by_head, [(row, replace(patch, value=over_columns(patch))) for row, patch in patches], out)
    return by_head.unflatten(3, pattern.shape[1:4:2]).permute(1, 3, 0, 4, 2, 5)


def _mix(
    base: BaseRun,
    layer: int,
    v: Float[Tensor, "variant batch win_pos kv_head d_head"],
    pattern: Float[Tensor, "batch kv_head variant group out_pos src"],
) -> Float[Tensor, "variant batch out_pos head d_head"]:
    """z: the values, weighted by attention."""
    cached = pattern.shape[-1] - v.shape[2]
    own, own_values = pattern[..., cached:], v.permute(1, 3, 0, 2, 4)
    if v.shape[2] == 1:
        z = own * own_values[:, :, :, None]
    else:
        z = (own.flatten(3, 4) @ own_values).unflatten(3, pattern.shape[3:5])
    if cached:
        z = z + (pattern[..., :cached].flatten(2, 4) @ base.values[layer][:, :, :cached]).unflatten(
            2, pattern.shape[2:5]
        )
    return z.permute(2, 0, 4, 1, 3, 5).flatten(3, 4)


def _write(x: Float[Tensor, "variant batch pos *rest"], patches: Sequence[RowPatch], window: Window) -> None:
    """Write the patches' values into `x`, in place and in order; patches of one place after another go together."""
    for _, run in groupby(patches, key=lambda item: id(item[1].positions)):
        group = list(run)
        positions = group[0][1].positions
        if positions is None:
            positions = torch.arange(int(window.positions.max()) + 1).expand(x.shape[1], -1)
        prompt, chosen, place = window.locate(positions)
        if not len(prompt):
            continue
        values = torch.stack(
            [
                patch.value.to(x).expand(len(prompt), -1)
                if patch.value.ndim == 1
                else patch.value.to(x)[prompt, chosen]
                for _, patch in group
            ]
        )
        rows = torch.tensor([row for row, _ in group], device=x.device)[:, None]
        if group[0][1].head is None:
            x[rows, prompt, place] = values
        else:
            heads = torch.tensor([patch.head for _, patch in group], device=x.device)[:, None]
            x[rows, prompt, place, heads] = values
