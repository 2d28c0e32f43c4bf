"""What the neurons of many prompts have in common: where they lie, how much the best carry, which come again."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.models import LensModel
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.subvalues.query import QueryImportance
from icl_circuits.subvalues.scores import OneLayer, require_scorable, runs_of
from icl_circuits.subvalues.top import TopNeurons
from icl_circuits.subvalues.writers import Addresses, Kind


@dataclass(frozen=True, repr=False)
class Concentration(Displayed):
    """Sums of log-probability increases of neurons, nats, a value for each prompt (arXiv 2312.12141, table 5)."""

    kind: Kind
    all: Float[np.ndarray, " prompt"]
    """Of every neuron."""
    positive: Float[np.ndarray, " prompt"]
    """Of those that raise the answer."""
    together: Float[np.ndarray, " prompt"]
    """What attention layers, or FFN layers, add as wholes: neurons' scores do not add up to it."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.kind}, sums of all {self.all.mean():.3g}, of the positive {self.positive.mean():.3g}"

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt: the three sums."""
        sums = {name: getattr(self, name) for name in ("all", "positive", "together")}
        return pd.DataFrame({"prompt": np.arange(len(self.all)), "kind": self.kind, **sums})


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
    require_scorable(model, batch, kind)
    every, positive = [], []
    for run in runs_of(model, batch, kind):
        sums = torch.zeros(2, len(run.batch), dtype=torch.float64)
        for layer in tracked(range(model.cfg.n_layers), f"scores of {kind} neurons"):
            scores = OneLayer.of(run, kind, layer).exact().flatten(1).cpu().double()
            sums += torch.stack([scores.sum(1), scores.clamp(min=0).sum(1)])
        every.append(sums[0])
        positive.append(sums[1])
    together = layers.sum(axis=1).astype(np.float64)
    return Concentration(kind, torch.cat(every).numpy(), torch.cat(positive).numpy(), together)


def layer_counts(layers: Int[np.ndarray, "prompt rank"], n_layers: int) -> Float[np.ndarray, "layer prompt"]:
    """How many of each prompt's neurons lie in each layer."""
    return np.stack([(layers == layer).sum(axis=1) for layer in range(n_layers)]).astype(float)


def shared_neurons(neurons: Addresses, *, more_than: float = 0.5) -> pd.DataFrame:
    """The neurons that come again in more than that share of the prompts, most frequent first (table 8)."""
    where = ["layer", "head", "neuron"]
    frame = pd.DataFrame(dict(zip(where, (part.ravel() for part in neurons), strict=True)))
    frame["prompt"] = np.indices(neurons[0].shape)[0].ravel()
    counts = frame.drop_duplicates().groupby(where).size().rename("prompts").reset_index()
    counts = counts[counts["prompts"] > more_than * len(neurons[0])]
    return counts.sort_values(["prompts", *where], ascending=[False, True, True, True], ignore_index=True)


def query_only_share(query: QueryImportance, values: TopNeurons, n_layers: int) -> Float[np.ndarray, "layer prompt"]:
    """Of each prompt's query neurons in a layer, the share that is not among its FFN value neurons (figure 8).

    Value neurons write the answer; a neuron in both lists also activates others. NaN where a layer has no query neuron.

    Raises:
        InputError: attention neurons.
    """
    if values.kind != "ffn":
        raise InputError("query neurons are FFN neurons, but the value neurons are attention neurons: give FFN neurons")
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
