"""Where activations can be read and patched, and what TransformerLens calls its hook points there.

No other module of the package writes a hook name.
"""

from typing import Literal, get_args

LayerSite = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
"""A whole layer's state or output: `[batch pos d_model]`."""

HeadSite = Literal["q", "k", "v", "pattern", "z"]
"""One head's part of an activation: `[batch pos head d_head]`, and `[batch head pos src_pos]` for `pattern`."""

Site = LayerSite | HeadSite
"""Where activations can be patched."""

ReadSite = Site | Literal["attn_scores", "mlp_pre", "mlp_post", "pos_embed", "final_normed"]
"""Where activations can be read: also attention scores `[batch head pos src_pos]`, an MLP's neurons before and behind
their activation function `[batch pos d_mlp]` (gated: `mlp_pre` is the gate), the position embedding, and the final
state behind its norm, which the unembedding reads (both `[batch pos d_model]`, of no layer)."""

HEAD_SITES: tuple[HeadSite, ...] = get_args(HeadSite)
LAYER_SITES: tuple[LayerSite, ...] = get_args(LayerSite)
ATTENTION_SITES = ("pattern", "attn_scores")
"""`[batch head pos src_pos]`; the other sites with heads are `[batch pos head d_head]`."""

Place = tuple[ReadSite, int]
"""A site and its layer."""


def hook_name(site: ReadSite, layer: int) -> str:
    """The hook point that carries `site` of `layer`; sites of no layer ignore it."""
    if site in ("pos_embed", "final_normed"):
        return {"pos_embed": "hook_pos_embed", "final_normed": "unembed.hook_in"}[site]
    if site in ("mlp_pre", "mlp_post"):
        return f"blocks.{layer}.mlp.hook_{site.removeprefix('mlp_')}"
    in_attention = site in HEAD_SITES or site == "attn_scores"
    return f"blocks.{layer}.attn.hook_{site}" if in_attention else f"blocks.{layer}.hook_{site}"
