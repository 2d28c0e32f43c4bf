"""What a study gives to be written: its part of a folder, whatever it studies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from icl_circuits.costs import Cost
from icl_circuits.stats import Interval
from icl_circuits.viz import Section, Table


@dataclass(frozen=True)
class Part:
    """One study, as it is written."""

    headline: str
    """What it found, in a sentence or two; that of the first part is the finding of the page."""
    summary: Mapping[str, Any]
    """Its part of `results.json`. Lists of several studies under one key, as long, are put together entry by entry."""
    values: Mapping[str, Any]
    """Result objects and arrays for `results.safetensors`, by name; None: not measured. Figures are drawn from them."""
    tables: Mapping[str, pd.DataFrame]
    """Tables, by file name."""
    sections: Callable[[Path], Sequence[Section]]
    """Sections of the page, given the folder of the figures."""
    first: Callable[[Path], Sequence[Section]] = lambda _: ()
    """What the first screen shows of it, given the same."""
    shown: Sequence[tuple[str, Table]] = ()
    """What a terminal prints, with titles."""
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    """Further files, by name, each with what writes it."""


@dataclass(frozen=True)
class RunRecord:
    """What was run, as every folder of results says it, whatever was studied."""

    title: str
    described: str
    """In a sentence: the data, the settings."""
    provenance: Mapping[str, Any]
    """Of the model and the data; holds `name`, the model's."""
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    """What every `results.json` holds."""
    values: Mapping[str, Any]
    """What every `results.safetensors` holds."""
    costs: Mapping[str, Cost]
    """Of each step of the run."""
    job: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, every option of it, as plain values."""

    @property
    def about(self) -> dict[str, Any]:
        """What every file of results says of itself."""
        described = f"Model: {self.provenance['name']}. {self.described}"
        return {"provenance": self.provenance, "settings": self.settings, "described": described, "job": self.job}


@dataclass(frozen=True)
class LeftOut:
    """A study that the model or the prompts are not fit for."""

    study: str
    """Its name."""
    why: str


def with_ci95(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` for `results.json`: each interval as its mean, and the ends of all together under `ci95`."""
    intervals = {key: value for key, value in values.items() if isinstance(value, Interval)}
    means = {key: value.mean for key, value in intervals.items()}
    return {**values, **means, "ci95": {key: value.ends for key, value in intervals.items()}}
