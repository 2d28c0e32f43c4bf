"""What the neurons of many prompts have in common: where they lie, how much the best carry, which come again."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from icl_circuits.models import LensModel
from icl_circuits.prompts import TokenBatch
from icl_circuits.subvalues.query import QueryImportance
from icl_circuits.subvalues.scores import SCORES_AT_ONCE, score_neurons
from icl_circuits.subvalues.top import TopNeurons
from icl_circuits.subvalues.writers import Kind


@dataclass(frozen=True)
class Concentration:
    """Sums of log-probability increases of neurons, nats, a value for each prompt (arXiv 2312.12141, table 5)."""

    kind: Kind
    all: Float[np.ndarray, " prompt"]
    """Of every neuron."""
    positive: Float[np.ndarray, " prompt"]
    """Of those that raise the answer."""
    together: Float[np.ndarray, " prompt"]
    """What attention layers, or FFN layers, add as wholes: neurons' scores do not add up to it."""


def concentration(
    model: LensModel, batch: TokenBatch, kind: Kind, layers: Float[np.ndarray, "prompt layer"]
) -> Concentration:
    """Score every neuron exactly, and sum.

    Args:
        model: the model.
        batch: the prompts.
        kind: which neurons.
        layers: the log-probability increase of the layers they belong to, `log_prob_increase(...).mlp` or `.attn`.

    Raises:
        InputError: as for `score_neurons`; so of `Unfit`.
    """
    cfg, n_pos = model.cfg, batch.tokens.shape[1]
    each = cfg.n_layers * (cfg.d_mlp if kind == "ffn" else cfg.n_heads * cfg.d_head * n_pos)
    step, sums = max(1, SCORES_AT_ONCE // each), []
    for start in range(0, len(batch), step):
        part = batch.select(range(start, min(start + step, len(batch))))
        score = np.nan_to_num(score_neurons(model, part, kind).score.astype(np.float64)).reshape(len(part), -1)
        sums.append(np.stack([score.sum(axis=1), score.clip(min=0).sum(axis=1)]))
    every, positive = np.concatenate(sums, axis=1)
    return Concentration(kind, every, positive, layers.sum(axis=1).astype(np.float64))


def layer_counts(layers: Int[np.ndarray, "prompt rank"], n_layers: int) -> Float[np.ndarray, "layer prompt"]:
    """How many of each prompt's neurons lie in each layer."""
    return np.stack([(layers == layer).sum(axis=1) for layer in range(n_layers)]).astype(float)


def shared_neurons(
    layer: Int[np.ndarray, "prompt rank"], neuron: Int[np.ndarray, "prompt rank"], *, more_than: float = 0.5
) -> pd.DataFrame:
    """The neurons that come again in more than that share of the prompts, most frequent first (table 8)."""
    frame = pd.DataFrame(
        {"prompt": np.indices(layer.shape)[0].ravel(), "layer": layer.ravel(), "neuron": neuron.ravel()}
    )
    counts = frame.drop_duplicates().groupby(["layer", "neuron"]).size().rename("prompts").reset_index()
    counts = counts[counts["prompts"] > more_than * len(layer)]
    return counts.sort_values(["prompts", "layer", "neuron"], ascending=[False, True, True], ignore_index=True)


def query_only_share(query: QueryImportance, values: TopNeurons, n_layers: int) -> Float[np.ndarray, "layer prompt"]:
    """Of each prompt's query neurons in a layer, the share that is not among its FFN value neurons (figure 8).

    Value neurons write the answer; a neuron in both lists also activates others. NaN where a layer has no query neuron.
    """
    share = np.full((n_layers, len(query.layer)), np.nan)
    for prompt in range(len(query.layer)):
        as_values = set(zip(values.layer[prompt].tolist(), values.neuron[prompt].tolist(), strict=True))
        pairs = zip(query.layer[prompt].tolist(), query.neuron[prompt].tolist(), strict=True)
        only = np.array([pair not in as_values for pair in pairs])
        for layer in range(n_layers):
            here = query.layer[prompt] == layer
            if here.any():
                share[layer, prompt] = only[here].mean()
    return share
