"""What heads copy by their weights alone: copying score and spectrum of each value-output matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from icl_circuits.display import Displayed, highest
from icl_circuits.models import (
    LensModel,
    at_least_float32,
    attention_weights,
    block_norms,
    factored,
    readout,
    require_identities_of_model,
)
from icl_circuits.residual import Head, HeadLike, require_some_heads


@dataclass(frozen=True, repr=False)
class OVCircuits(Displayed):
    """What the value-output matrices of some heads do, from the weights alone."""

    heads: tuple[Head, ...]
    copying_score: Float[np.ndarray, " selected"]
    """`sum Re(eigenvalue) / sum |eigenvalue|` of the full OV circuit `W_E W_V W_O W_U` (norm weights included): 1 for a
    head that raises the tokens it reads, -1 for one that lowers them (Elhage et al. 2021, "A Mathematical Framework for
    Transformer Circuits")."""
    singular_values: Float[np.ndarray, "selected d_head"]
    """Of `W_OV = W_V W_O`, largest first."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("copying_score", self.copying_score, self.heads.__getitem__)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: copying score, the largest singular value, and the effective rank of W_OV."""
        return pd.DataFrame(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.head for head in self.heads],
                "copying_score": self.copying_score,
                "largest_singular_value": self.singular_values[:, 0],
                "effective_rank": [effective_rank(values) for values in self.singular_values],
            }
        )


def effective_rank(singular_values: Float[np.ndarray, " rank"]) -> float:
    """`exp` of the entropy of the singular values' shares (Roy and Vetterli 2007): n for n equal ones, 1 for a single
    one.
    """
    total = singular_values.sum()
    if total <= 0:
        return 0.0
    shares = singular_values[singular_values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


@torch.no_grad()
def ov_circuits(model: LensModel, heads: Sequence[HeadLike]) -> OVCircuits:
    """Copying score and spectrum of each head's value-output matrix.

    A post-norm counts with its weights: its scale, which depends on the prompt, changes no score.

    Raises:
        InputError: a head that does not exist.
        Unfit: an identity fails that the circuit rests on. It is tried on tokens from all over the vocabulary.
    """
    heads = require_some_heads(model, heads)
    require_identities_of_model(model, 16, "value_projection", "values", "heads", "readout")
    out = readout(model)
    W_E = at_least_float32(model.embed.W_E)
    scores, spectra = [], []
    for layer, head in heads:
        weights = attention_weights(model, layer)
        W_V, W_O = at_least_float32(weights.W_V[head]), at_least_float32(weights.W_O[head])
        one = torch.ones(1, device=W_V.device)
        reads = block_norms(model, layer).ln1.linear(W_E, one) @ W_V
        writes = out.project(weights.outlet.linear(W_O, one), one)
        eigenvalues = factored(reads, writes).eigenvalues.cpu()
        total = float(eigenvalues.abs().sum())
        scores.append(float(eigenvalues.real.sum()) / total if total > 0 else 0.0)
        spectra.append(factored(W_V, W_O).S[: W_V.shape[1]].cpu().numpy())
    return OVCircuits(heads, np.array(scores), np.stack(spectra).astype(np.float64))
