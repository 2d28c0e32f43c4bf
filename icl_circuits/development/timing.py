"""When each ability and each kind of head emerges in training, in which order, and what moves together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from icl_circuits.development.measuring import Development
from icl_circuits.errors import InputError, require_whole
from icl_circuits.residual import Head
from icl_circuits.stats import false_discovery, generator, mean_of_finite, student_interval

HALF = 0.5
"""How far a curve has risen when we say that it has emerged."""
ROUNDING = 1e-12
"""How far two sums of the same numbers may be apart, relative to them, in another order."""


@dataclass(frozen=True)
class Curve:
    """One number a checkpoint, which rises as something emerges."""

    name: str
    values: Float[np.ndarray, " checkpoint"]
    head: Head | None
    """Whose it is; None: the whole model's."""


def curves(run: Development) -> tuple[Curve, ...]:
    """What rises in a run: the three levels, top-1 accuracy, and the head that is best in each way in the end.

    A head is chosen by its value at the last checkpoint, so its curve there is high by choice; when it rose is not.
    Loss reduction is turned round, so that more is better. A relation index is 0 where no position passes.
    """
    index = np.nan_to_num(run.index)
    of_heads = {f"relation index: {name}": index[:, i] for i, name in enumerate(run.relations)}
    of_heads |= {
        "prefix matching": run.prefix_matching,
        "copying": run.copying,
        "in-context head": run.log_prob_drop,
        "class AUC": run.class_auc,
        "function vector": run.function_vector,
    }
    levels = {
        "loss reduction": -mean_of_finite(run.loss_reduction.T),
        "format compliance": run.format[:, :, -1].mean(axis=(1, 2)),
        "pattern discovery": run.accuracy[:, :, -1].mean(axis=(1, 2)),
        "labels in context": run.top1.mean(axis=1),
        "between labels": run.between_labels.mean(axis=1),
    }
    return (
        *(Curve(name, values, None) for name, values in levels.items()),
        *(_best(name, values) for name, values in of_heads.items()),
    )


def half_rise(steps: Int[np.ndarray, " checkpoint"], values: Float[np.ndarray, " checkpoint"]) -> float:
    """The training step at which a curve is half way from its first value to its highest for the first time.

    Between two checkpoints, the curve is a straight line over log(1 + step). NaN for a curve that never rises, and for
    one that falls: it ends as far below its first value as it ever rises above, or further.
    """
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if len(values) < 2 or values.max() - values[0] <= max(0.0, values[0] - values[-1]):
        return float("nan")
    middle = values[0] + HALF * (values.max() - values[0])
    after = int(np.flatnonzero(values >= middle)[0])
    low, high = np.log1p(steps[after - 1]), np.log1p(steps[after])
    share = (middle - values[after - 1]) / (values[after] - values[after - 1])
    return float(np.expm1(low + share * (high - low)))


def emergence(runs: Sequence[Development]) -> pd.DataFrame:
    """When everything emerges, over the seeds of a model: one row a curve, earliest first.

    `step` is the geometric mean over seeds of the half-rise steps. `step_low` and `step_high` are its 95 % interval
    (Student's t over logarithms; NaN for one seed). `rise` leads from the first value to the highest, a mean over
    seeds. `n_seeds` says in how many seeds the curve rises.

    Raises:
        InputError: no runs, or runs of other relations.
    """
    _require_alike(runs)
    rows = []
    for of_run in zip(*(curves(run) for run in runs), strict=True):
        steps = np.array([half_rise(run.steps, curve.values) for run, curve in zip(runs, of_run, strict=True)])
        logs, n = np.log1p(steps[np.isfinite(steps)]), int(np.isfinite(steps).sum())
        step, low, high = np.expm1(student_interval(logs))
        rise = np.mean([np.nanmax(curve.values) - curve.values[np.isfinite(curve.values)][0] for curve in of_run
                        if np.isfinite(curve.values).any()] or [np.nan])  # fmt: skip
        rows.append(
            {"curve": of_run[0].name, "step": step, "step_low": max(low, 0.0), "step_high": high, "rise": rise,
             "n_seeds": n}
        )  # fmt: skip
    return pd.DataFrame(rows).sort_values("step", kind="stable", ignore_index=True)


def co_timing(runs: Sequence[Development], *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Which curves rise together: one row a pair, the strongest first.

    Any two curves that rise have a high rank correlation, whatever they measure. So the test is on their rises, from
    each checkpoint to the next. How often are they as correlated when those of one come in a random order? The
    permutations are the same in all seeds.

    The columns `one` and `other` name the curves. `spearman` is the rank correlation of the curves, a mean over seeds,
    and `together` that of their rises. `p` is of the permutation test, one-sided, and `p_fdr` is corrected for all
    pairs. `lag` says how many doublings of training the second rises later.

    Args:
        runs: of one or more seeds, measured at the same checkpoints.
        draws: permutations. p is no less than 1 / (draws + 1).
        seed: of the permutations.

    Raises:
        InputError: no runs, runs of other relations or other checkpoints, or no draws.
    """
    from scipy.stats import rankdata

    _require_alike(runs)
    require_whole(draws, 1, f"draws is {draws}: ask for 1 or more")
    if any(run.steps.tolist() != runs[0].steps.tolist() for run in runs):
        raise InputError("runs have different checkpoints: measure the same ones of each seed")
    every = [curves(run) for run in runs]
    rng, n = generator(seed), len(runs[0].steps) - 1
    orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(draws))])
    rows = []
    for i, j in combinations(range(len(every[0])), 2):
        pairs = [(of_run[i].values, of_run[j].values) for of_run in every]
        if not all(np.isfinite(values).all() for pair in pairs for values in pair):
            continue
        found, *null = np.mean([_correlation(np.diff(one), np.diff(other)[orders]) for one, other in pairs], axis=0)
        starts = [[half_rise(run.steps, values) for values in pair] for run, pair in zip(runs, pairs, strict=True)]
        later = np.diff(np.log2(1 + np.array(starts)), axis=1)
        row: dict[str, object] = {"one": every[0][i].name, "other": every[0][j].name}
        row["spearman"] = np.mean([_correlation(rankdata(one), rankdata(other)[None])[0] for one, other in pairs])
        row |= {"together": found, "lag": later.mean()}
        row["p"] = (1 + int((np.array(null) >= found - ROUNDING).sum())) / (draws + 1) if np.isfinite(found) else np.nan
        rows.append(row)
    frame = pd.DataFrame(rows, columns=["one", "other", "spearman", "together", "p", "lag"])
    frame.insert(5, "p_fdr", false_discovery(frame["p"].to_numpy(dtype=float)))
    return frame.sort_values(["p", "together"], ascending=[True, False], kind="stable", ignore_index=True)


def alike(runs: Sequence[Development]) -> Sequence[Development]:
    """The runs that were measured at the checkpoints of the first one."""
    return [run for run in runs if run.steps.tolist() == runs[0].steps.tolist()]


def _best(name: str, values: Float[np.ndarray, "checkpoint layer head"]) -> Curve:
    last = np.nan_to_num(values[-1], nan=-np.inf)
    layer, head = np.unravel_index(int(last.argmax()), last.shape)
    return Curve(name, values[:, layer, head], Head(int(layer), int(head)))


def _correlation(one: Float[np.ndarray, " value"], others: Float[np.ndarray, "row value"]) -> Float[np.ndarray, " row"]:
    """Pearson's, with each row; NaN where one does not vary."""
    a, b = one - one.mean(), others - others.mean(axis=1, keepdims=True)
    varies = (abs(a).max() > ROUNDING * abs(one).max()) & (abs(b).max(axis=1) > ROUNDING * abs(others).max(axis=1))
    scale = np.sqrt((a**2).sum() * (b**2).sum(axis=1))
    return np.divide(b @ a, scale, out=np.full(len(b), np.nan), where=varies)


def _require_alike(runs: Sequence[Development]) -> None:
    """Raise `InputError` unless there are runs, all of the same relations and tasks."""
    if not runs:
        raise InputError("there is no run: give one or more")
    if len({(run.relations, run.tasks) for run in runs}) > 1:
        raise InputError("runs were measured on other relations or tasks: measure every seed on the same")
