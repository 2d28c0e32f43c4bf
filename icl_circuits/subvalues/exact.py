"""Log-probability increase of neurons, exactly: with the bound that makes it lazy, and the series that makes it cheap.

A neuron adds `t u` to the logits before the softmax: `t` is its coefficient over the norms' scales, `u` its direction's
projection onto the vocabulary. With p the softmax of the state that it is added to, and w the target,

    Imp = t u_w - log E_p[exp(t u)] = t (u_w - E_p[u]) - gap,    gap = log E_p[exp(t (u - E_p[u]))] >= 0 (Jensen).

The first term is linear in the direction: one product with all neurons of a layer gives it. It bounds Imp from above.
The gap takes the vocabulary. It is a function of `t` alone once the moments of u under p are known (about the middle of
its range, in half ranges, so that no power is more than 1), and its series is cut where what is left out is proven to
be less than 1e-7 nats. (The score: arXiv 2312.12141, section 3.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.models import LOGITS_AT_ONCE, Readout

TERMS = 8
"""Of the series."""
REACH = 0.6
"""Up to this |t| (max u - min u) / 2 it is used: it leaves out less than REACH^9 exp(2 REACH) / 9! < 1e-7 nats."""
ROWS = 16
"""So many neurons are summed over the vocabulary at once, few enough for a processor's cache."""


@dataclass(frozen=True)
class Added:
    """States that vectors are added to, one a row, and the tokens that are scored."""

    out: Readout
    states: Float[Tensor, "row d_model"]
    scale: Float[Tensor, "row 1"]
    """The final norm's, frozen."""
    target: Int[Tensor, " row"]
    log_probs: Float[Tensor, "row d_vocab"]
    """Of the states."""

    @classmethod
    def to(
        cls,
        out: Readout,
        states: Float[Tensor, "row d_model"],
        scale: Float[Tensor, "row 1"],
        target: Int[Tensor, " row"],
    ) -> "Added":
        """Reads the states out."""
        return cls(out, states, scale, target, out.log_probs(states, scale))

    def of(self, rows: Int[Tensor, " some"]) -> "Added":
        """Some rows, in that order."""
        return Added(self.out, self.states[rows], self.scale[rows], self.target[rows], self.log_probs[rows])

    @property
    def base(self) -> Float[Tensor, " row"]:
        """Log-probability of the target with nothing added, nats."""
        return self.log_probs.gather(1, self.target[:, None])[:, 0]

    def slopes(self) -> Float[Tensor, "row d_model"]:
        """The directions g with `v . g = u_w - E_p[u]`, where v projects to u at a final scale of 1.

        Under a cap of the logits, the slope of what it leaves of u.
        """
        weights = -self.log_probs.exp()
        weights.scatter_add_(1, self.target[:, None], torch.ones_like(self.scale))
        if self.out.softcap is not None:
            weights *= 1 - torch.tanh(self._logits() / self.out.softcap) ** 2
        return self.out.norm.pull_back(weights @ self.out.W_U.T, torch.ones_like(self.scale))

    def _logits(self) -> Float[Tensor, "row d_vocab"]:
        """Of the states, before any cap."""
        return self.out.project(self.states, self.scale) + self.out.b_U

    def exact(
        self, u: Float[Tensor, "row d_vocab"], t: Float[Tensor, " row"], first: Float[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """The scores of one vector a row, given the first order of each."""
        if self.out.softcap is not None:  # logits are no sum, so neither bound nor series covers them
            logits = self._logits() + t[:, None] * u
            logits = self.out.softcap * torch.tanh(logits / self.out.softcap)
            return logits.log_softmax(1).gather(1, self.target[:, None])[:, 0] - self.base
        return first - gaps(u, t, self.log_probs)


def projected(out: Readout, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """Each vector's projection onto the vocabulary, the final scale being 1."""
    return out.project(vectors, vectors.new_ones(1, 1))


def gaps(
    u: Float[Tensor, "row d_vocab"], t: Float[Tensor, " row"], log_probs: Float[Tensor, "row d_vocab"]
) -> Float[Tensor, " row"]:
    """`log E_p[exp(t (u - E_p[u]))]` row by row, summed over the whole vocabulary."""
    parts = zip(u.split(ROWS), t.split(ROWS), log_probs.split(ROWS), strict=True)
    return torch.cat([_gaps_of_few(*part) for part in parts]) if len(u) else t.clone()


def _gaps_of_few(
    u: Float[Tensor, "row d_vocab"], t: Float[Tensor, " row"], log_probs: Float[Tensor, "row d_vocab"]
) -> Float[Tensor, " row"]:
    probs = log_probs.exp()
    x = (u - (probs * u).sum(1, keepdim=True)).mul_(t[:, None])
    if x.amax() > 50:  # where exp would overflow
        return (log_probs + x).logsumexp(1)
    return torch.log1p((probs * x.expm1_()).sum(1).clamp(min=0.0))


def all_gaps(
    u: Float[Tensor, "neuron d_vocab"],
    t: Float[Tensor, "batch neuron source"],
    probs: Float[Tensor, "batch d_vocab"],
) -> tuple[Float[Tensor, "batch neuron source"], Bool[Tensor, "batch neuron source"]]:
    """The gaps by the series, and where it is not enough: there `gaps` is needed."""
    low, high = u.amin(1), u.amax(1)  # three times as fast as `aminmax` is along rows
    middle, half = ((low + high) / 2)[:, None], ((high - low) / 2).clamp(min=torch.finfo(u.dtype).tiny)[:, None]
    parts = zip(u.split(ROWS), middle.split(ROWS), half.split(ROWS), strict=True)
    means = torch.cat([_means_of_powers((part - mid) / by, probs) for part, mid, by in parts], dim=2)
    x, term, total = t * half, torch.ones_like(t), torch.zeros_like(t)
    for n, mean in enumerate(means[..., None], 1):
        term = term * x / n
        total += term * mean
    return (torch.log1p(total) - x * means[0, ..., None]).clamp(min=0.0), x.abs() > REACH


def _means_of_powers(
    y: Float[Tensor, "neuron d_vocab"], probs: Float[Tensor, "batch d_vocab"]
) -> Float[Tensor, "power batch neuron"]:
    """The means of y, y^2, .. y^TERMS."""
    power, means = y.clone(), []
    for _ in range(TERMS):
        means.append(probs @ power.T)
        power *= y
    return torch.stack(means)


def rows_at_once(out: Readout) -> int:
    """How many projections are held at once."""
    return max(1, LOGITS_AT_ONCE // out.W_U.shape[1])
