"""Attention without position: a head's scores where it compares contents alone (arXiv 2402.02872, section 5).

Position enters a score in one of two ways. Rotary models turn queries and keys by their positions; without position
they are compared unturned. Models with learned positions add W_pos to the residual stream; without position, its part
of each query and key, through the norm with its scale frozen, is taken off again. What earlier layers have mixed by
position stays in both.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import Unfit
from icl_circuits.interventions.hooks import Hook, Positions, score_hooks
from icl_circuits.models import (
    Block,
    Head,
    LensModel,
    NotAlgebraError,
    hook_points,
    kv_head,
    read_block,
    require_heads,
)

POS_EMBED = "hook_pos_embed"


def position_sites(model: LensModel, layer: int, n_pos: int) -> tuple[Block, tuple[str, ...]]:
    """The equations of `layer` for up to `n_pos` positions, and the hook points that `positionless` needs besides
    `hook_q` and `hook_k`.

    Raises:
        InputError: the model has no position term that can be taken off.
    """
    name = model.cfg.model_name
    try:
        block = read_block(model, layer, n_pos)
    except NotAlgebraError as error:
        raise Unfit(f"the position terms of {name!r} cannot be told apart: {error}") from None
    if block.rotary is not None:
        return block, ()
    if POS_EMBED not in hook_points(model):
        raise Unfit(f"{name!r} has neither rotary nor learned positions, so there is no position to take off")
    return block, (POS_EMBED, f"blocks.{layer}.hook_resid_pre")


def positionless(
    block: Block,
    name: str,
    x: Float[Tensor, "batch pos head d_head"],
    pos_embed: Float[Tensor, "#batch pos d_model"] | None,
    resid_pre: Float[Tensor, "batch pos d_model"] | None,
) -> Float[Tensor, "batch pos head d_head"]:
    """Queries or keys (`name` is `q` or `k`) without their position; `x` is what `hook_q` or `hook_k` carries.

    `pos_embed` and `resid_pre`, of the same positions, are needed for learned positions alone.
    """
    if pos_embed is not None and resid_pre is not None:
        part = block.ln1.linear(pos_embed, block.ln1.scale(resid_pre))
        x = x - (block.project(name, part) - block.project(name, torch.zeros_like(part)))
    norm = block.norm_q if name == "q" else block.norm_k
    return x if norm is None else norm(x)


@dataclass(frozen=True)
class WithoutPosition:
    """Take position out of the attention scores of `heads`: the recency mitigation of arXiv 2402.02872.

    `strength` 1 replaces the scores, as the paper does; less goes that share of the way. The future stays masked.
    """

    heads: tuple[Head, ...]
    strength: float = 1.0
    positions: Positions | None = None
    """Query positions (rows). Default: all."""

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this.

        Raises:
            InputError: no position to take off, or scores that nothing reads.
        """
        require_heads(model, self.heads)
        blocks: dict[int, Block] = {}
        seen: dict[str, Tensor] = {}
        names: dict[str, None] = {}
        for layer in sorted({head.layer for head in self.heads}):
            blocks[layer], sites = position_sites(model, layer, 1)
            names |= dict.fromkeys((f"blocks.{layer}.attn.hook_q", f"blocks.{layer}.attn.hook_k", *sites))

        def reader(name: str) -> Hook:
            def read(activation: Tensor, hook: object) -> None:
                seen[name] = activation

            return read

        def changed(head: Head, scores: Float[Tensor, "batch pos src_pos"]) -> Float[Tensor, "batch pos src_pos"]:
            block, at = blocks[head.layer], f"blocks.{head.layer}"
            pos_embed, resid_pre = seen.get(POS_EMBED), seen.get(f"{at}.hook_resid_pre")
            q, k = (positionless(block, n, seen[f"{at}.attn.hook_{n}"], pos_embed, resid_pre) for n in ("q", "k"))
            content = block.scores(q[:, :, head.head], k[:, :, kv_head(model, head.head)])
            return torch.lerp(scores, content.to(scores), self.strength)

        score = score_hooks(model, self.heads, changed, self.positions, None)
        return [(name, reader(name)) for name in names] + score
