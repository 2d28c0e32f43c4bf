"""Query importance: which layers and FFN neurons activate the value neurons (arXiv 2312.12141, section 3).

A value neuron has a subkey: for an FFN neuron what it reads at the answer position, for an attention neuron the column
of W_V that it reads its source position with. What an earlier layer or neuron wrote there activates it by their inner
product. That is weighted with the value neuron's log-probability increase, and summed over value neurons. Norms and
activation functions between are left out, as in the paper.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import require_one_of, require_whole
from icl_circuits.models import (
    Key,
    LensModel,
    Place,
    ReadSite,
    at_least_float32,
    attention_weights,
    block_norms,
    is_parallel,
    mlp_weights,
    require_identities,
)
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import Capture, answer_logits
from icl_circuits.subvalues.top import TopNeurons, require_values
from icl_circuits.subvalues.writers import Addresses, Kind, n_neurons, require_kinds

Normalise = Literal["none", "total"]
"""Inner products as they are, or as the authors' code has them: with the subkey times the norm's weight, and over the
inner product with the whole state."""
NUMBERS_AT_ONCE = 1 << 26
"""How many activations are held at once: 256 MB in float32."""


@dataclass(frozen=True, repr=False)
class QueryImportance(Displayed):
    """Query importance of layers and FFN neurons for the value neurons of each prompt; nats times an inner product."""

    kind: Kind
    """Of the value neurons."""
    embed: Float[np.ndarray, " prompt"]
    attn: Float[np.ndarray, "prompt layer"]
    """Of attention layers, summed over the value neurons' positions."""
    mlp: Float[np.ndarray, "prompt layer"]
    """Of FFN layers."""
    layer: Int[np.ndarray, "prompt rank"]
    """The layers of the FFN neurons of the highest query importance, best first."""
    neuron: Int[np.ndarray, "prompt rank"]
    score: Float[np.ndarray, "prompt rank"]
    """Their query importance, summed over positions."""
    position: Int[np.ndarray, "prompt rank"]
    """Where each activates the value neurons most."""
    coefficient: Float[np.ndarray, "prompt rank"]
    """Its activation there. Negative: what it promotes is read the other way round."""

    @property
    def addresses(self) -> Addresses:
        """Where the query neurons are, as `zero_neurons` takes them."""
        return self.layer, np.full_like(self.layer, -1), self.neuron

    @property
    def headline(self) -> str:
        """Its main number."""
        best = highest("query_importance", self.score, lambda i, rank: f"L{self.layer[i, rank]}N{self.neuron[i, rank]}")
        return f"{self.kind}, {best}"

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt and rank: the query neuron, where it acts most, and its query importance."""
        prompt, rank = np.indices(self.score.shape)
        columns = {name: getattr(self, name).ravel() for name in ("layer", "neuron", "position", "coefficient")}
        frame = pd.DataFrame({"prompt": prompt.ravel(), "rank": rank.ravel()})
        return frame.assign(**columns, query_importance=self.score.ravel())

    def layers_to_frame(self) -> pd.DataFrame:
        """One row a prompt and layer: `part` is `embed`, `attn` or `mlp`."""
        frames = [pd.DataFrame({"prompt": np.arange(len(self.embed)), "part": "embed", "layer": -1})]
        frames[0]["query_importance"] = self.embed
        for part in ("attn", "mlp"):
            values = getattr(self, part)
            prompt, layer = np.indices(values.shape)
            columns = {"prompt": prompt.ravel(), "part": part, "layer": layer.ravel()}
            frames.append(pd.DataFrame({**columns, "query_importance": values.ravel()}))
        return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def query_importance(
    model: LensModel,
    batch: TokenBatch,
    values: TopNeurons,
    *,
    k: int = 1000,
    key: Key = "gate",
    normalise: Normalise = "none",
) -> QueryImportance:
    """Which layers and FFN neurons activate the value neurons of each prompt.

    For FFN value neurons all that is written to the answer position before them counts. For attention value neurons it
    is what is written to their own source position before them.

    Args:
        model: the model, its weights unprocessed: folded, subkeys hold the norms' weights.
        batch: the prompts.
        values: their value neurons, from `top_neurons` on the same prompts. The paper takes the first 100 FFN neurons
            and the first 200 attention neurons: `values.first(100)`.
        k: how many query neurons to keep of each prompt.
        key: what counts as the subkey of an FFN value neuron.
        normalise: `none`, as in the paper, or `total`, as in the authors' code.

    Raises:
        InputError: no prompts, an unknown key, neurons that are no value neurons of these prompts, or a `k` that is no
            whole number of neurons.
        Unfit: the model has no such neurons, or an identity fails that they rest on. The identities are: neurons add up
            to `mlp_out`, and value neurons read the normed state by their subkeys.
    """
    require_one_of(key, get_args(Key), "key")
    require_one_of(normalise, get_args(Normalise), "normalise")
    require_kinds(model, batch, "ffn", values.kind)
    require_values(model, batch, values)
    if values.kind == "attention":
        require_identities(model, batch.tokens, batch.last, "value_projection")
    elif key != "down_compat":
        require_identities(model, batch.tokens, batch.last, "activations")
    cfg, n_pos = model.cfg, batch.tokens.shape[1]
    require_whole(k, 1, f"k is {k}: give how many query neurons to keep, 1 or more")
    k = min(k, cfg.n_layers * n_neurons(model, "ffn"))
    parts, start = [], 0
    each = cfg.n_layers * (n_neurons(model, "ffn") + 3 * cfg.d_model)
    for chunk in tracked(list(batch.chunks(max(n_pos, NUMBERS_AT_ONCE // each))), f"queries of {values.kind} neurons"):
        reading = _Reading(model, chunk, values, start, key, normalise)
        parts += [reading.of_prompt(i, k) for i in range(len(chunk))]
        start += len(chunk)
    names = ("embed", "attn", "mlp", "layer", "neuron", "score", "position", "coefficient")
    columns = {name: torch.stack([part[name] for part in parts]).cpu().numpy() for name in names}
    return QueryImportance(values.kind, **columns)


class _Reading:
    """What the value neurons of some prompts read, and what was written where they read it."""

    def __init__(
        self, model: LensModel, batch: TokenBatch, values: TopNeurons, start: int, key: Key, normalise: Normalise
    ) -> None:
        self.model, self.values, self.start, self.key, self.normalise = model, values, start, key, normalise
        layers = range(model.cfg.n_layers)
        sites: tuple[ReadSite, ...] = ("resid_pre", "attn_out", "mlp_out", "mlp_post")
        places: list[Place] = [(site, layer) for layer in layers for site in sites]
        at_answer = values.kind == "ffn"
        self.positions = batch.last[:, None] if at_answer else None
        self.is_read = torch.ones_like(batch.is_text[:, :1]) if at_answer else batch.is_text
        self.seen = Capture(places, self.positions)
        answer_logits(model, batch, self.seen)

    def of_prompt(self, i: int, k: int) -> dict[str, Tensor]:
        """The fields of `QueryImportance` for one prompt."""
        model, n_layers = self.model, self.model.cfg.n_layers
        keys = self._keys(i)
        above = keys.flip(0).cumsum(0).flip(0)  # of this layer and those above
        later = torch.cat([above[1:], torch.zeros_like(above[:1])])
        reads_attn = above if self.values.kind == "ffn" and not is_parallel(model) else later
        attn, mlp, sums = [], [], []
        for n in range(n_layers):
            attn.append((self.seen.at("attn_out", n)[i] * reads_attn[n]).sum())
            mlp.append((self.seen.at("mlp_out", n)[i] * later[n]).sum())
            coefficients, along = self._by_neuron(i, n, later[n])
            sums.append((coefficients * along).sum(0))
        score, order = torch.stack(sums).flatten().topk(k)
        layer, neuron = torch.unravel_index(order, (n_layers, len(sums[0])))
        position, coefficient = torch.zeros_like(layer), torch.zeros_like(score)
        for n in layer.unique().tolist():
            mine = layer == n
            coefficients, along = (part[:, neuron[mine]] for part in self._by_neuron(i, n, later[n]))
            best = (coefficients * along).masked_fill(~self.is_read[i][:, None], -torch.inf).argmax(0)
            position[mine], coefficient[mine] = best, coefficients.gather(0, best[None])[0]
        return {
            "embed": (self.seen.at("resid_pre", 0)[i] * above[0]).sum(),
            "attn": torch.stack(attn),
            "mlp": torch.stack(mlp),
            "layer": layer,
            "neuron": neuron,
            "score": score,
            "position": position if self.positions is None else self.positions[i].expand(k),
            "coefficient": coefficient,
        }

    def _by_neuron(
        self, i: int, layer: int, keys: Float[Tensor, "pos d_model"]
    ) -> tuple[Float[Tensor, "pos d_mlp"], Float[Tensor, "pos d_mlp"]]:
        """The coefficients of a layer's FFN neurons at each position, and their subvalues along `keys` there."""
        weights, post = mlp_weights(self.model, layer), self.seen.at("mlp_post", layer)[i]
        along = weights.outlet.pull_back(keys, post.new_ones(1, 1)) @ at_least_float32(weights.W_out).T
        return post / weights.outlet_scale(post), along

    def _keys(self, i: int) -> Float[Tensor, "layer pos d_model"]:
        """The subkeys of the prompt's value neurons, each times its score, summed by layer and position."""
        values, row = self.values, self.start + i
        device = self.seen.at("resid_pre", 0).device
        layers, heads, neurons, sources, scores = (
            torch.as_tensor(getattr(values, name)[row], device=device)
            for name in ("layer", "head", "neuron", "src_pos", "score")
        )
        places = torch.zeros_like(sources) if self.positions is not None else sources
        first = self.seen.at("resid_pre", 0)[i]
        keys = first.new_zeros(self.model.cfg.n_layers, *first.shape)
        for layer in layers.unique().tolist():
            mine = layers == layer
            subkeys = self._subkeys(layer, heads[mine], neurons[mine])
            weight = scores[mine].to(subkeys)
            if self.normalise == "total":
                norms = block_norms(self.model, layer)
                state = self.seen.at("resid_pre", layer)[i]
                if values.kind == "ffn" and not is_parallel(self.model):
                    state = state + self.seen.at("attn_out", layer)[i]
                subkeys = subkeys * (norms.before_mlp if values.kind == "ffn" else norms.ln1).weight
                weight = weight / (state[places[mine]] * subkeys).sum(1)
            keys[layer].index_add_(0, places[mine], weight[:, None] * subkeys)
        return keys

    def _subkeys(
        self, layer: int, heads: Int[Tensor, " some"], neurons: Int[Tensor, " some"]
    ) -> Float[Tensor, "some d_model"]:
        if self.values.kind == "attention":
            return at_least_float32(attention_weights(self.model, layer).W_V)[heads, :, neurons]
        return at_least_float32(mlp_weights(self.model, layer).read_by(self.key)[0]).T[neurons]
