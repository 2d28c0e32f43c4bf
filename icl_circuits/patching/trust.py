"""How far attribution can be trusted: its guesses beside the exact effects of the same patches."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError
from icl_circuits.patching.cells import Sweep
from icl_circuits.patching.paths import Paths


@dataclass(frozen=True, repr=False)
class Agreement(Displayed):
    """How far an approximation can be trusted: its mean effects against the exact ones, cell by cell."""

    cells: int
    rank_correlation: float
    """Spearman's."""
    sign_errors: float
    """Share of the cells with an effect (beyond rounding, 1e-6 of the logit scale) whose guess has another sign."""
    worst: str
    """The cell where it errs most."""
    worst_error: float
    """How much, in the metric's unit."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{self.cells} cells, rank_correlation {self.rank_correlation:.2f}, worst at {self.worst}"

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame([vars(self)])


def agreement(approximate: Sweep | Paths, exact: Sweep | Paths) -> Agreement:
    """Compare `attribute` with `sweep`, or `attribute_paths` with `path_patch`, on the same prompts.

    Raises:
        InputError: results of different places, prompts or metrics.
    """
    same_prompts = approximate.base.shape == exact.base.shape and np.allclose(
        approximate.base, exact.base, atol=1e-2 * exact.logit_scale
    )
    if _setting(approximate) != _setting(exact) or not same_prompts:
        raise InputError("the results are of other places, prompts or metrics: give both functions the same arguments")
    guess, truth = approximate.effect.mean(axis=1), exact.effect.mean(axis=1)
    some = np.abs(truth) > 1e-6 * exact.logit_scale
    error = np.abs(guess - truth)
    ranks = pd.DataFrame({"guess": guess, "truth": truth}).rank()
    return Agreement(
        cells=len(truth),
        rank_correlation=float(ranks["guess"].corr(ranks["truth"])),
        sign_errors=float((np.sign(guess) != np.sign(truth))[some].mean()) if some.any() else 0.0,
        worst=str((exact.edges if isinstance(exact, Paths) else exact.cells)[int(error.argmax())]),
        worst_error=float(error.max()),
    )


def _setting(result: Sweep | Paths) -> tuple[object, ...]:
    """What two results must share to be compared, besides their prompts."""
    if isinstance(result, Paths):
        return (result.edges, result.setting)
    return (result.cells, result.site, result.metric)
