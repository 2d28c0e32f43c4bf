"""OV label features: the label that a head's value-output vectors extract at each position (arXiv 2402.02872).

At source position p a head has the value-output vector `vo_p = v_p W_O`, and adds `alpha_p vo_p` to the answer
position. Projected onto the vocabulary under the final norm's frozen scale, `bs(vo_p)`, it raises some labels and
lowers others. The logit minus of labels a and b, `M(x) = bs(x)[a] - bs(x)[b]`, is linear, so `M(alpha_p vo_p) = alpha_p
M(vo_p)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.display import Displayed, highest
from icl_circuits.models import LensModel, readout, require_identities
from icl_circuits.patching import run_hooked
from icl_circuits.progress import tracked
from icl_circuits.prompts import PromptBatch, TokenBatch, require_labels
from icl_circuits.residual import Capture, Head, HeadLike, Moves, by_source, final_state, require_some_heads
from icl_circuits.stats import bootstrap_mean


@dataclass(frozen=True, repr=False)
class LabelFeatures(Displayed):
    """The attention and value-output label logits of some heads at every source position, a value for each prompt.

    NaN after a prompt's answer position.
    """

    heads: tuple[Head, ...]
    labels: tuple[str, ...]
    attention: Float[np.ndarray, "prompt selected src_pos"]
    """Attention probability `alpha_p` from the answer position."""
    logits: Float[np.ndarray, "prompt selected src_pos label"]
    """`bs(vo_p)` at each label's token, logits: raw, before attention weighs it."""
    label_positions: Int[np.ndarray, "prompt demo"]
    demo_labels: Int[np.ndarray, "prompt demo"]
    gold: Int[np.ndarray, " prompt"]

    def of_heads(self, places: Sequence[int]) -> "LabelFeatures":
        """The same of some heads alone, by their places in `heads`."""
        chosen = list(places)
        heads = tuple(self.heads[place] for place in chosen)
        return replace(self, heads=heads, attention=self.attention[:, chosen], logits=self.logits[:, chosen])

    def logit_minus(self, pair: tuple[int, int] = (0, 1)) -> Float[np.ndarray, "prompt selected src_pos"]:
        """M of the raw value-output vectors for a pair of labels (indices), logits."""
        return self.logits[..., pair[0]] - self.logits[..., pair[1]]

    def weighted_logit_minus(self, pair: tuple[int, int] = (0, 1)) -> Float[np.ndarray, "prompt selected src_pos"]:
        """M of the weighted value-output vectors, `alpha_p M(vo_p)`, logits."""
        return self.attention * self.logit_minus(pair)

    def at_labels(
        self, values: Float[np.ndarray, "prompt selected src_pos"]
    ) -> Float[np.ndarray, "prompt selected demo"]:
        """`values` at the label positions alone."""
        return np.take_along_axis(values, self.label_positions[:, None], axis=2)

    def at_label(
        self, values: Float[np.ndarray, "prompt selected src_pos"], label: int
    ) -> Float[np.ndarray, "prompt selected"]:
        """The mean of `values` over the positions that hold `label`; NaN where a prompt has none."""
        return mean_where(self.at_labels(values), self.demo_labels == label)

    def copying(self) -> Float[np.ndarray, "prompt selected"]:
        """The share of a prompt's label positions whose value-output vector raises their own label above all others.

        1 over the number of labels is what a head has that always raises the same one.
        """
        at_labels, own = self._own()
        others = at_labels.copy()
        np.put_along_axis(others, np.broadcast_to(self.demo_labels[:, None, :, None], (*own.shape, 1)), -np.inf, axis=3)
        return (own > others.max(axis=3)).mean(axis=2)

    def raises_own(self) -> Float[np.ndarray, "prompt selected demo"]:
        """The logit of each label position's own label less the mean of the other labels, raw."""
        at_labels, own = self._own()
        return own - (at_labels.sum(axis=3) - own) / (len(self.labels) - 1)

    def _own(self) -> tuple[Float[np.ndarray, "prompt selected demo label"], Float[np.ndarray, "prompt selected demo"]]:
        """The logits at the label positions, and those of the label that each position holds."""
        at_labels = np.take_along_axis(self.logits, self.label_positions[:, None, :, None], axis=2)
        return at_labels, np.take_along_axis(at_labels, self.demo_labels[:, None, :, None], axis=3)[..., 0]

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("copying", self.copying().mean(axis=0), self.heads.__getitem__)

    def to_frame(self) -> pd.DataFrame:
        """One row a head, label pair and label that positions hold: means per position with 95 % bootstrap intervals.

        `attention` (probability), `weighted_logit_minus` and `logit_minus` (logits): tables 4 and 5 of the paper.
        """
        rows = []
        for a, b in combinations(range(len(self.labels)), 2):
            kinds = {
                "attention": self.attention,
                "weighted_logit_minus": self.weighted_logit_minus((a, b)),
                "logit_minus": self.logit_minus((a, b)),
            }
            for held in range(len(self.labels)):
                groups = {kind: self.at_label(values, held) for kind, values in kinds.items()}
                for place, head in enumerate(self.heads):
                    row: dict[str, object] = {"layer": head.layer, "head": head.head}
                    row |= {"pair": f"{self.labels[a]}-{self.labels[b]}", "positions": self.labels[held]}
                    for kind, values in groups.items():
                        row |= bootstrap_mean(values[:, place][np.isfinite(values[:, place])]).columns(kind)
                    rows.append(row)
        return pd.DataFrame(rows)


def mean_where(
    values: Float[np.ndarray, "prompt selected demo"], chosen: Bool[np.ndarray, "prompt demo"]
) -> Float[np.ndarray, "prompt selected"]:
    """The mean over the chosen demonstrations of each prompt; NaN where none is."""
    count = chosen.sum(axis=1)[:, None].astype(float)
    total = np.where(chosen[:, None], values, 0.0).sum(axis=2)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def split_change(
    attention: tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]],
    logit_minus: tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Split the change of the weighted M between two runs into its attention part and its value part, logits.

    `a1 M1 - a0 M0 = (a1 - a0) (M0 + M1) / 2 + (a0 + a1) / 2 (M1 - M0)`: exact, and the same from either run's side.

    Args:
        attention: `alpha_p` in both runs.
        logit_minus: raw `M(vo_p)` in both runs.
    """
    (a0, a1), (m0, m1) = attention, logit_minus
    return (a1 - a0) * (m0 + m1) / 2, (a0 + a1) / 2 * (m1 - m0)


@torch.no_grad()
def label_features(model: LensModel, batch: PromptBatch, heads: Sequence[HeadLike]) -> LabelFeatures:
    """What the value-output vectors of `heads` hold of each label at every source position.

    Raises:
        InputError: a head that does not exist, or prompts that `encode` did not make.
        Unfit: z is not attention times values, heads do not add up to `attn_out`, or norm and unembedding do not make
            the logits.
    """
    require_labels(batch, "whose features these are")
    heads = require_some_heads(model, heads)
    require_identities(model, batch.tokens, batch.last, "values", "heads", "readout", layers=[h.layer for h in heads])
    out = readout(model)
    attention, logits = [], []
    one = torch.ones(1, device=out.W_U.device)
    for chunk in tracked(list(batch.chunks()), "label features"):
        moves, final = Moves(heads, chunk.last), Capture([final_state(model)], chunk.last)
        run_hooked(model, chunk, moves, final)
        scale = out.norm.scale(final.at(*final_state(model)))[:, None]
        alpha, projected = [], []
        for head in heads:
            moved = moves.of(model, head)
            onto_labels = out.norm.linear(moved.W_O, one) @ out.W_U[:, batch.label_tokens]
            projected.append(moved.v @ onto_labels / scale)
            alpha.append(moved.alpha)
        attention.append(torch.stack(alpha, 1))
        logits.append(torch.stack(projected, 1))
    return LabelFeatures(
        heads,
        batch.labels,
        by_source(batch, attention),
        by_source(batch, logits),
        batch.label_positions.cpu().numpy(),
        batch.demo_labels.cpu().numpy(),
        batch.gold.cpu().numpy(),
    )


def value_output(
    model: LensModel, batch: TokenBatch, head: Head
) -> tuple[Float[Tensor, "batch src_pos d_model"], Float[Tensor, "batch src_pos d_model"]]:
    """The raw and the weighted value-output vectors of a head: `vo_p` and `alpha_p vo_p` at every source position.

    The weighted ones add up to the head's output at the answer position. One forward pass of the whole batch.

    Raises:
        InputError: a head that does not exist.
        Unfit: z is not attention times values, or heads do not add up to `attn_out`.
    """
    return value_outputs(model, batch, [head])[0]


@torch.no_grad()
def value_outputs(
    model: LensModel, batch: TokenBatch, heads: Sequence[HeadLike]
) -> list[tuple[Float[Tensor, "batch src_pos d_model"], Float[Tensor, "batch src_pos d_model"]]]:
    """`value_output` of several heads, from one forward pass.

    Raises:
        InputError: a head that does not exist.
        Unfit: z is not attention times values, or heads do not add up to `attn_out`.
    """
    heads = require_some_heads(model, heads)
    require_identities(model, batch.tokens, batch.last, "values", "heads", layers=[h.layer for h in heads])
    moves = Moves(heads, batch.last)
    run_hooked(model, batch, moves)
    moved = [moves.of(model, head) for head in heads]
    return [(each.vectors(), each.weighted()) for each in moved]
