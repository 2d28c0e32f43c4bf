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

from icl_circuits.errors import InputError, Unfit
from icl_circuits.interventions.positions import Positions
from icl_circuits.interventions.scores import score_hooks
from icl_circuits.models import (
    Block,
    HookPair,
    LensModel,
    NotAlgebraError,
    Place,
    hook_name,
    hook_points,
    kv_head,
    read_block,
    require_identities_of_model,
)
from icl_circuits.residual import Capture, Head, HeadLike, require_heads

PROBED_POSITIONS = 64
"""How long a prompt the equations are tried on where no prompts are at hand."""


def position_places(model: LensModel, layer: int, n_pos: int) -> tuple[Block, tuple[Place, ...]]:
    """The equations of `layer` for up to `n_pos` positions, and the places that `positionless` needs besides q and k.

    Raises:
        Unfit: the model has no position term that can be taken off.
    """
    name = model.cfg.model_name
    try:
        block = read_block(model, layer, n_pos)
    except NotAlgebraError as error:
        raise Unfit(f"the position terms of {name!r} cannot be told apart: {error}") from None
    if block.rotary is not None or getattr(model, "rotary_emb", None) is not None:
        return block, ()  # some layers of rotary models (SmolLM3) turn nothing, and compare contents as they are
    if hook_name("pos_embed", 0) not in hook_points(model):
        raise Unfit(f"{name!r} has neither rotary nor learned positions, so there is no position to take off")
    return block, (("pos_embed", 0), ("resid_pre", layer))


def positionless(
    block: Block,
    name: str,
    x: Float[Tensor, "batch pos head d_head"],
    pos_embed: Float[Tensor, "#batch pos d_model"] | None,
    resid_pre: Float[Tensor, "batch pos d_model"] | None,
) -> Float[Tensor, "batch pos head d_head"]:
    """Queries or keys (`name` is `q` or `k`) without their position; `x` is what the hook points of q or k carry.

    `pos_embed` and `resid_pre`, of the same positions, are needed for learned positions alone.
    """
    if pos_embed is not None and resid_pre is not None:
        part = block.ln1.linear(pos_embed, block.ln1.scale(resid_pre))
        x = x - (block.project(name, part) - block.project(name, torch.zeros_like(part)))
    norm = block.norm_q if name == "q" else block.norm_k
    x = x if norm is None else norm(x)
    return x if block.rotary is None else block.rotary.still(x)


@dataclass(frozen=True)
class WithoutPosition:
    """Take position out of the attention scores of `heads`: the recency mitigation of arXiv 2402.02872.

    `strength` 1 replaces the scores, as the paper does; less goes that share of the way. The future stays masked.
    """

    heads: tuple[HeadLike, ...]
    strength: float = 1.0
    positions: Positions | None = None
    """Query positions (rows). Default: all."""

    def hooks(self, model: LensModel) -> list[HookPair]:
        """The hooks on `model` that do this.

        Raises:
            Unfit: no position to take off, scores that nothing reads, or scores that the model makes in another way.
            InputError: a head that does not exist; while the model runs, one that generates with a key-value cache.
        """
        heads = require_heads(model, self.heads)
        blocks: dict[int, Block] = {}
        places: list[Place] = []
        for layer in sorted({head.layer for head in heads}):
            blocks[layer], more = position_places(model, layer, 1)
            places += [("q", layer), ("k", layer), *more]
        require_identities_of_model(model, PROBED_POSITIONS, "scores", "projections")
        seen = Capture(places)

        def changed(head: Head, scores: Float[Tensor, "batch pos src_pos"]) -> Float[Tensor, "batch pos src_pos"]:
            block, found = blocks[head.layer], {place: seen.raw(*place) for place in seen.found}
            if scores.shape[-1] != found["k", head.layer].shape[1]:
                raise InputError(
                    "WithoutPosition compares a query with the keys of all positions, but a key-value cache shows the "
                    "new ones alone: call generate with use_past_kv_cache=False"
                )
            position = found.get(("pos_embed", 0)), found.get(("resid_pre", head.layer))
            q, k = (positionless(block, name, found[name, head.layer], *position) for name in ("q", "k"))
            content = block.scores(q[:, :, head.head], k[:, :, kv_head(model, head.head)])
            return torch.lerp(scores, content.to(scores), self.strength)

        return seen.hooks(model) + score_hooks(model, heads, changed, self.positions, None)
