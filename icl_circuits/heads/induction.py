"""Induction heads: on random tokens that come twice, what heads attend to and copy (Olsson et al. 2022)."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import Unfit, require_whole
from icl_circuits.heads.attention import attention_between
from icl_circuits.models import LensModel, attention_weights, readout, require_identities
from icl_circuits.progress import tracked
from icl_circuits.prompts import TokenBatch, bos_of, token_batch
from icl_circuits.residual import Capture, Head, answer_logits, final_state
from icl_circuits.stats import bootstrap_mean, generator

NOTHING = 1e-6
"""A head that raises all tokens by less, of a probability of 1, raises none."""


@dataclass(frozen=True, repr=False)
class InductionScores(Displayed):
    """Both scores of every head, for each sequence of random tokens, a mean over the positions of its second half."""

    tokens: Int[np.ndarray, "sequence pos"]
    """Perhaps a BOS token, then `length` different tokens, twice."""
    prefix_matching: Float[np.ndarray, "sequence layer head"]
    """Attention to the token behind the previous occurrence of the current one, a share."""
    copying: Float[np.ndarray, "sequence layer head"]
    """How far the head raises that token among the sequence's, a share; NaN where it raises none anywhere."""
    chance: float
    """Copying by a head that raises tokens at random: 1 in `length`."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("prefix_matching", self.prefix_matching.mean(axis=0), Head)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: layer, head, both scores, means over sequences with 95 % bootstrap intervals, and chance.

        Sequences in which a head raises no token are left out of its mean.
        """
        return head_frame(prefix_matching=self.prefix_matching, copying=self.copying).assign(chance=self.chance)


def induction_scores(model: LensModel, *, n_sequences: int = 16, length: int = 32, seed: int = 0) -> InductionScores:
    """Score every head on random tokens repeated once, at each position of the second half.

    `prefix_matching` is the attention to the token behind the previous occurrence of the current one (Olsson et al.
    2022, "In-context Learning and Induction Heads").

    `copying` says how far the head's own output there raises that token. `l` are the logits of `z W_O` on the tokens of
    the sequence, through the final norm at its own scale and the unembedding. With `p = softmax(l)` and
    `q = max(0, p - mean p)` it is `q` of that token over the sum of `q` (Ren et al. 2024, arXiv 2402.13055, equation
    3). Positions where it is next to 0 are left out.

    Args:
        model: the model.
        n_sequences: how many sequences.
        length: how many different tokens each has, none of them special; 3 or more.
        seed: of the draw.

    Raises:
        InputError: no sequences, one too short or too long for the model, or a model without tokenizer.
        Unfit: too small a vocabulary. A model whose z is not attention times values, or whose heads do not add up to
            `attn_out`. One whose logits norm and unembedding do not make.
    """
    require_whole(n_sequences, 1, f"n_sequences is {n_sequences}: ask for at least 1")
    require_whole(
        length, 3, f"length is {length}: ask for at least 3 tokens, so that what is next is not what was last"
    )
    batch = _random_sequences(model, n_sequences, length, seed)
    n_pos = batch.tokens.shape[1]
    second = torch.arange(n_pos - length, n_pos, device=batch.tokens.device).repeat(n_sequences, 1)
    attention = attention_between(model, batch, second, (second - length + 1)[..., None])[:, 0]
    return InductionScores(batch.tokens.cpu().numpy(), attention, _copying(model, batch, second), 1 / length)


def head_frame(**scores: Float[np.ndarray, "sequence layer head"]) -> pd.DataFrame:
    """One row a head: layer, head, and each score's mean over sequences with its 95 % bootstrap interval.

    Sequences without a score (NaN) are left out.
    """
    _, n_layers, n_heads = next(iter(scores.values())).shape
    rows = []
    for layer, head in np.ndindex(n_layers, n_heads):
        row: dict[str, float] = {"layer": layer, "head": head}
        for name, values in scores.items():
            found = values[:, layer, head].astype(float)
            row |= bootstrap_mean(found[~np.isnan(found)]).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def _random_sequences(model: LensModel, n_sequences: int, length: int, seed: int) -> TokenBatch:
    """Random tokens twice, each once in a half; behind the last comes the first again, which counts as the answer."""
    bos, ordinary = bos_of(model, None), _ordinary_tokens(model)
    if len(ordinary) < length:
        raise Unfit(
            f"{model.cfg.model_name!r} has {len(ordinary)} ordinary tokens, too few for {length} different ones: ask "
            "for a smaller length"
        )
    rng = generator(seed)
    halves = [rng.choice(ordinary, size=length, replace=False).tolist() for _ in range(n_sequences)]
    return token_batch(model, [[*bos, *half, *half] for half in halves], [half[0] for half in halves])


def _ordinary_tokens(model: LensModel) -> list[int]:
    """The tokens that are no special ones, such as the end of a text, and that the tokenizer knows."""
    tokenizer = cast(Any, model.tokenizer)
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", ())}
    return [token for token in range(min(len(tokenizer), model.cfg.d_vocab)) if token not in special]


@torch.no_grad()
def _copying(
    model: LensModel, batch: TokenBatch, second: Int[Tensor, "batch chosen"]
) -> Float[np.ndarray, "sequence layer head"]:
    """The copying score of every head, the mean over the positions `second`, which hold the sequence's tokens."""
    require_identities(model, batch.tokens, batch.last, "heads", "readout")
    out, layers = readout(model), range(model.cfg.n_layers)
    length = second.shape[1]
    following = torch.arange(1, length + 1, device=second.device) % length  # which of the tokens comes next
    found = []
    for start, stop in tracked(list(batch.parts(1024)), "copying scores"):
        places = second[start:stop]
        capture = Capture([*(("z", layer) for layer in layers), final_state(model)], places)
        chunk = batch.select(range(start, stop))
        answer_logits(model, chunk, capture)
        scale = out.norm.scale(capture.at(*final_state(model)))
        W_U = out.W_U.T[chunk.tokens.gather(1, places)]
        by_layer = []
        for layer in layers:
            written, _ = attention_weights(model, layer).added(capture.at("z", layer))
            logits = torch.einsum("bphm,btm->bpht", out.norm.linear(written, scale[..., None]), W_U)
            by_layer.append(_share_of(logits, following).nanmean(1))
        found.append(torch.stack(by_layer, 1))
    return torch.cat(found).cpu().numpy()


def _share_of(
    logits: Float[Tensor, "batch pos head token"], following: Int[Tensor, " pos"]
) -> Float[Tensor, "batch pos head"]:
    """Of what a head raises above the mean, the share that one token has, another at each position; NaN: of nothing."""
    p = logits.softmax(-1)
    q = (p - p.mean(-1, keepdim=True)).clamp(min=0)
    share = q.gather(-1, following[None, :, None, None].expand(*q.shape[:-1], 1))[..., 0]
    total = q.sum(-1)
    return torch.where(total > NOTHING, share / total, torch.nan)
