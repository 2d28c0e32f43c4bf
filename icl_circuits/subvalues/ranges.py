"""The least and the greatest number in each neuron's projection: of weights alone, so computed once for a model.

With Hoeffding's lemma they bound a score from below: `gap <= t^2 (max u - min u)^2 / 8`.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.models import (
    LensModel,
    at_least_float32,
    attention_weights,
    computation_of,
    mlp_weights,
    readout,
    weight_versions,
)
from icl_circuits.progress import tracked
from icl_circuits.subvalues.exact import projected, rows_at_once
from icl_circuits.subvalues.writers import Kind


@torch.no_grad()
def neuron_ranges(model: LensModel, kind: Kind) -> list[Float[Tensor, " neuron"]]:
    """`max u - min u` of every neuron, layer by layer, u being its projection where coefficient and scale are 1.

    One projection of each neuron, remembered with the model until a weight changes.
    """
    state = kind, computation_of(model), weight_versions(model)
    known: dict[Any, list[Tensor]] = getattr(model, "icl_neuron_ranges", {})
    if state not in known:
        layers = tracked(range(model.cfg.n_layers), f"ranges of {kind} neurons")
        found = [_of_layer(model, kind, layer) for layer in layers]
        known = {key: value for key, value in known.items() if key[1:] == state[1:]} | {state: found}
        cast(Any, model).icl_neuron_ranges = known
    return known[state]


def _of_layer(model: LensModel, kind: Kind, layer: int) -> Float[Tensor, " neuron"]:
    out = readout(model)
    if kind == "ffn":
        mlp = mlp_weights(model, layer)
        directions, outlet = mlp.W_out, mlp.outlet
    else:
        attn = attention_weights(model, layer)
        directions, outlet = attn.W_O.flatten(0, 1), attn.outlet
    one, found = out.W_U.new_ones(1, 1), []
    for part in directions.split(rows_at_once(out)):
        u = projected(out, outlet.linear(at_least_float32(part), one))
        found.append(u.amax(1) - u.amin(1))
    return torch.cat(found)
