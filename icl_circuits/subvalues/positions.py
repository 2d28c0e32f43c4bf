"""What an attention layer adds from each source position, its heads summed: one subvalue a position.

So the first version of arXiv 2312.12141 splits attention. The vectors of all positions add up to the layer's output
less its bias, which comes from no position.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from icl_circuits.display import Displayed, highest
from icl_circuits.heads import target_log_probs
from icl_circuits.models import LensModel
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual.moved import by_source
from icl_circuits.stats import mean_of_finite
from icl_circuits.subvalues.scores import require_scorable, runs_of
from icl_circuits.subvalues.writers import EVERY


@dataclass(frozen=True, repr=False)
class LayerPositions(Displayed):
    """Log-probability increase of what each attention layer moves from each source position, nats."""

    increase: Float[np.ndarray, "prompt layer src_pos"]
    """NaN after a prompt's answer position."""

    @property
    def headline(self) -> str:
        """Its main number."""
        means = mean_of_finite(self.increase)
        return highest("log_prob_increase", means, lambda layer, position: f"layer {layer}, position {position}")

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt, layer and source position up to the answer position."""
        shown = np.argwhere(~np.isnan(self.increase))
        columns = dict(zip(("prompt", "layer", "src_pos"), shown.T, strict=True))
        return pd.DataFrame({**columns, "log_prob_increase": self.increase[tuple(shown.T)]})


@torch.no_grad()
def layer_positions(model: LensModel, batch: TokenBatch) -> LayerPositions:
    """Score what each attention layer moves to the answer position from each source position, its heads together.

    `position_increase` does the same inside single heads.

    Raises:
        InputError: no prompts.
        Unfit: as for `score_neurons` of attention neurons.
    """
    require_scorable(model, batch, "attention")
    found = []
    for run in runs_of(model, batch, "attention"):
        layers = []
        for layer in range(model.cfg.n_layers):
            writers = run.writers("attention", layer)
            moved = torch.einsum("bns,nd->bsd", writers.coefficients, writers.written(EVERY))
            states = torch.cat([writers.base[:, None], writers.base[:, None] + moved], 1)
            log_probs = target_log_probs(run.out, states, run.scale, run.batch.target)
            layers.append(log_probs[:, 1:] - log_probs[:, :1])
        found.append(torch.stack(layers, 1))
    return LayerPositions(by_source(batch, found))
