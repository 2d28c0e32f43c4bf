"""How many directions of W_QK there are, and how many of them the prompts use."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from icl_circuits.display import Displayed, highest
from icl_circuits.models import LensModel, attention_weights, factored
from icl_circuits.residual import Head
from icl_circuits.towers.ov_weights import effective_rank
from icl_circuits.towers.qk import TwoTowers


@dataclass(frozen=True, repr=False)
class QKSpectrum(Displayed):
    """Singular values of W_QK, whole and restricted to the features that the prompts hold, largest first."""

    heads: tuple[Head, ...]
    weights: Float[np.ndarray, "selected d_head"]
    """Of `W_Q W_K^T`."""
    features: Float[np.ndarray, "selected rank"]
    """Of the matrix of content scores between every query and every key of the prompts, keys centred: what is the same
    for all keys moves no attention."""

    @property
    def headline(self) -> str:
        """Its main number."""
        ranks = np.array([effective_rank(values) for values in self.weights])
        return highest("effective_rank", ranks, self.heads.__getitem__)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: the effective rank of W_QK, and of W_QK between the features present."""
        return pd.DataFrame(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.head for head in self.heads],
                "effective_rank": [effective_rank(values) for values in self.weights],
                "effective_rank_of_features": [effective_rank(values) for values in self.features],
                "first_direction_share": [float(v[0] ** 2 / max((v**2).sum(), 1e-30)) for v in self.features],
            }
        )


@torch.no_grad()
def qk_spectrum(model: LensModel, towers: TwoTowers) -> QKSpectrum:
    """How many directions of W_QK the prompts use: its spectrum, and that of the scores between their features."""
    weights, features = [], []
    for place, (layer, head) in enumerate(towers.heads):
        matrices = attention_weights(model, layer)
        weights.append(factored(matrices.W_Q[head], matrices.W_K[head].T).S[: model.cfg.d_head].cpu().numpy())
        query, key = (torch.from_numpy(t[:, place].reshape(-1, model.cfg.d_head)) for t in (towers.query, towers.key))
        features.append(factored(query, (key - key.mean(0)).T).S[: min(len(query), model.cfg.d_head)].numpy())
    return QKSpectrum(towers.heads, np.stack(weights).astype(np.float64), np.stack(features).astype(np.float64))
