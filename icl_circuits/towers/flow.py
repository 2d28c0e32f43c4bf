"""Where features flow: when each text has reached its label position, and each text the last position.

Attention knock-out, layer by layer (arXiv 2402.02872 says that it happens in shallow layers): cut the edges along which
a text flows directly, from some layer on. What the model loses had not arrived before. What it keeps may have come by
another way. `probes` is the other way to see it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError
from icl_circuits.heads import EVERY_RULE, Answers, as_answers, require_first
from icl_circuits.interventions import KnockOut
from icl_circuits.models import LensModel, require_layer
from icl_circuits.patching import run_each
from icl_circuits.prompts import PromptBatch, require_demonstrations
from icl_circuits.stats import mean_of

ROUTES = ("text -> label", "query -> last", "near -> last", "far -> last", "labels -> last")
"""Each demonstration's text to its own label position; the query's text, the texts of the nearer and of the farther
half of the demonstrations, and all label positions, to the last position."""


@dataclass(frozen=True, repr=False)
class Flow(Displayed):
    """Answers with one route cut in all layers from `layers[i]` up."""

    routes: tuple[str, ...]
    layers: tuple[int, ...]
    base: Answers
    """With nothing cut. Axes: prompt."""
    cut: Answers
    """Axes: route, layer, prompt."""

    @property
    def headline(self) -> str:
        """Its main number."""
        changes = (self.cut.logit_diff - self.base.logit_diff).mean(axis=-1)
        return highest("loss of logit_diff", -changes, lambda i, j: f"{self.routes[i]} from layer {self.layers[j]}")

    def to_frame(self) -> pd.DataFrame:
        """One row a route and layer, with 95 % intervals: accuracy by both rules, the logit difference, and
        its change from the same prompts uncut.

        The last layer of each route, `n_layers`, cuts nothing.
        """
        rows = []
        for i, route in enumerate(self.routes):
            for j, layer in enumerate(self.layers):
                row: dict[str, object] = {"route": route, "from_layer": layer}
                values = {name: getattr(self.cut, name)[i, j] for name in ("top1", "between_labels", "logit_diff")}
                values["logit_diff_change"] = self.cut.logit_diff[i, j] - self.base.logit_diff
                for name, of_prompts in values.items():
                    row |= mean_of(of_prompts).columns(name)
                rows.append(row)
        return pd.DataFrame(rows)


def spread_layers(model: LensModel, layers: Sequence[int] | None) -> list[int]:
    """The layers asked for, in order, else about nine, evenly spread. Raises `InputError` for one that is not there."""
    n_layers = model.cfg.n_layers
    chosen = sorted(set(range(0, n_layers, -(-n_layers // 9)) if layers is None else layers) - {n_layers})
    for layer in chosen:
        require_layer(model, layer)
    return chosen


def route_edges(batch: PromptBatch, route: str) -> Bool[Tensor, "batch pos src_pos"]:
    """The attention edges of a route (see `ROUTES`): true at `[prompt, reading position, read position]`."""
    width = batch.tokens.shape[1]
    segments, n_demos = batch.segments, batch.n_demos
    is_label = torch.zeros_like(batch.is_text).scatter(1, batch.label_positions, True)
    position = torch.arange(width, device=batch.tokens.device)
    is_last = position == batch.last[:, None]
    is_text = (segments >= 0) & ~is_label & ~is_last
    if route == "text -> label":
        own = segments[:, :, None] == segments[:, None, :]
        return is_label[:, :, None] & is_text[:, None, :] & own
    sources = {
        "query -> last": is_text & (segments == n_demos),
        "near -> last": is_text & (segments < n_demos) & (segments >= n_demos // 2),
        "far -> last": is_text & (segments < n_demos // 2),
        "labels -> last": is_label,
    }
    return is_last[:, :, None] & sources[route][:, None, :]


@torch.no_grad()
def knock_out_flow(model: LensModel, batch: PromptBatch, *, layers: Sequence[int] | None = None) -> Flow:
    """Answer `batch` with each route cut from a layer on.

    What is lost when a route is cut from layer l on had not arrived before layer l. What is kept had, or took another
    way.

    Args:
        model: the model.
        batch: prompts with demonstrations.
        layers: first layers to cut from; default about nine, evenly spread. `n_layers` (nothing cut) is added.

    Raises:
        InputError: a layer that does not exist, or labels of several tokens scored whole.
        Unfit: prompts without demonstrations, or attention scores that nothing reads.
    """
    require_demonstrations(batch, "for features to flow from")
    require_first(batch, "attention knock-out")
    n_layers, first = model.cfg.n_layers, spread_layers(model, layers)
    if not first:
        raise InputError(f"no layer to cut from: name some of 0..{n_layers - 1}")
    variants = [
        (KnockOut(tuple(range(layer, n_layers)), edges),)
        for edges in (route_edges(batch, route) for route in ROUTES)
        for layer in first
    ]
    run = run_each(model, batch, variants, EVERY_RULE, description="knocking out attention")
    found = run.values.unflatten(0, (len(ROUTES), len(first)))
    found = torch.cat([found, run.base.expand(len(ROUTES), 1, *run.base.shape)], 1)
    return Flow(ROUTES, (*first, n_layers), as_answers(run.base), as_answers(found))
