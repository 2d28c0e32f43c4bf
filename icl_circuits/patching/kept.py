"""Base runs that are kept for a while, so that analyses of the same prompts share them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from icl_circuits.models import TOKENS_AT_ONCE, LensModel, computation_of, free_bytes, weight_versions
from icl_circuits.patching.step import BaseRun
from icl_circuits.prompts import TokenBatch

Key = tuple[object, ...]
KEPT_TOKENS = 4 * TOKENS_AT_ONCE
"""How many tokens kept runs are of at most, however many prompts there are. Of SmolLM2 they take a gigabyte."""


@contextmanager
def keeping_runs(model: LensModel) -> Iterator[None]:
    """Keep the base runs of `model` inside the block, so that analyses of the same prompts share them.

    They are of `KEPT_TOKENS` at most, and take a quarter of the memory that is free at most. The one used longest ago
    goes first.

    A run is found again by its tokens, and only while the model computes as before and no weight was replaced or
    written to.
    """
    if hasattr(model, "icl_kept_runs"):  # an outer block keeps them
        yield
        return
    cast(Any, model).icl_kept_runs = {}
    try:
        yield
    finally:
        del cast(Any, model).icl_kept_runs


def kept_run(model: LensModel, batch: TokenBatch) -> BaseRun | None:
    """The base run of these prompts, if it is kept."""
    runs: dict[Key, BaseRun] = getattr(model, "icl_kept_runs", {})
    if not runs:
        return None
    key = _key(model, batch)
    if key not in runs:
        return None
    runs[key] = runs.pop(key)
    return replace(runs[key], batch=batch)


def keep_run(model: LensModel, base: BaseRun) -> None:
    """Keep a base run, where that was asked for."""
    runs: dict[Key, BaseRun] | None = getattr(model, "icl_kept_runs", None)
    if runs is None:
        return
    runs[_key(model, base.batch)] = base
    room = free_bytes(base.batch.tokens.device) // 4
    while runs and (_tokens(runs) > KEPT_TOKENS or sum(map(_bytes, runs.values())) > room):
        del runs[next(iter(runs))]


def _key(model: LensModel, batch: TokenBatch) -> Key:
    return computation_of(model), weight_versions(model), *map(tuple, batch.tokens.tolist()), *batch.last.tolist()


def _tokens(runs: dict[Key, BaseRun]) -> int:
    return sum(base.batch.tokens.numel() for base in runs.values())


def _bytes(base: BaseRun) -> int:
    return sum(part.nbytes for part in (base.logits, *base.resid_pre, *base.keys, *base.values))
