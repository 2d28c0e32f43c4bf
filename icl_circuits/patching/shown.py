"""Hook functions on the equations: each is shown an activation as the model's own hook point would carry it."""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from icl_circuits.models import (
    ATTENTION_SITES,
    HEAD_SITES,
    LAYER_SITES,
    Hook,
    HookPair,
    LensModel,
    ReadSite,
    hook_name,
    mlp_sites,
    scores_are_live,
)
from icl_circuits.patching.step import SeeSite

LayerHooks = Mapping[ReadSite, Sequence[Hook]]
"""The hook functions on one layer, by site, in their order."""


def by_layer(model: LensModel, pairs: Sequence[HookPair]) -> dict[int, dict[ReadSite, list[Hook]]] | None:
    """The hooks by layer and site, lowest layer first; None where one is on a place that the equations do not show."""
    places = {hook_name(site, layer): (site, layer) for layer in range(model.cfg.n_layers) for site in _sites(model)}
    found: dict[int, dict[ReadSite, list[Hook]]] = {}
    for name, hook in pairs:
        if name not in places:
            return None
        site, layer = places[name]
        found.setdefault(layer, {}).setdefault(site, []).append(hook)
    return dict(sorted(found.items()))


def _sites(model: LensModel) -> list[ReadSite]:
    """What the equations show as the model's hooks do; `resid_mid` is another thing in `TransformerBridge`."""
    absent = {"resid_mid"} | ({"mlp_out"} - set(mlp_sites(model)))
    sites: list[ReadSite] = [site for site in (*LAYER_SITES, *HEAD_SITES) if site not in absent]
    if scores_are_live(model):
        return [*sites, "attn_scores"]
    return [site for site in sites if site != "pattern"]


def through(hooks: LayerHooks) -> SeeSite:
    """Shows each activation of a layer to its hooks, and goes on with what they give. For one variant at a time."""
    return partial(_changed, hooks)


def _changed(hooks: LayerHooks, site: ReadSite, activation: Tensor) -> Tensor:
    in_attention = site in ATTENTION_SITES
    for hook in hooks.get(site, ()):
        own = activation[:, :, 0].flatten(1, 2) if in_attention else activation[0]
        changed = hook(own, hook=None)
        if changed is not None:
            changed = changed.unflatten(1, (activation.shape[1], -1))[:, :, None] if in_attention else changed[None]
            activation = changed.to(activation)
    return activation
