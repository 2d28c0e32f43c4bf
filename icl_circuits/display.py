"""How results show themselves: in one line in a console, as a table in a notebook."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from html import escape
from itertools import takewhile
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

ROWS = 20
"""Of a table in a notebook, at most: as in pandas, the middle ones are left out."""
WIDTH = 200
"""Characters that a line has at most."""


class Displayed(ABC):
    """A frozen dataclass (made with `repr=False`) that shows itself instead of its arrays."""

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """The result as a table. A head is in the columns `layer` and `head`, an interval in `x_low` and `x_high`."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """The main number, in a few words, with the names of the table's columns."""

    def __repr__(self) -> str:
        sizes = "".join(f" {axis}={size}" for axis, size in self._sizes().items())
        line = shorten(f"{type(self).__name__}{sizes}: {self.headline}", WIDTH - 2, placeholder=" ...")
        return f"<{line}>"

    def _repr_html_(self) -> str:
        """The line and the table, which leaves out rows in the middle where it is long."""
        table = self.to_frame().to_html(max_rows=ROWS, notebook=True, float_format="{:.3g}".format)
        return f"<p>{escape(repr(self))}</p>{table}"

    def _sizes(self) -> dict[str, int]:
        """The named axes of the arrays, as their types declare them, and how long each is."""
        sizes: dict[str, int] = {}
        for field in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            axes = getattr(field.type, "dim_str", "").split()
            shape = np.shape(getattr(self, field.name)) if axes else ()
            for axis, size in zip(takewhile(str.isidentifier, axes), shape, strict=False):
                sizes.setdefault(axis, size)
        return sizes


def highest(name: str, values: Shaped[np.ndarray, "..."], place: Callable[..., Any]) -> str:
    """The highest of some values and where it is: `highest auc 0.91 at L10H7`.

    Args:
        name: of the values.
        values: NaN where there is none.
        place: gives the name of a place from its index.
    """
    if not np.isfinite(values).any():
        return f"no {name}"
    best = np.unravel_index(np.nanargmax(values), values.shape)
    return f"highest {name} {values[best]:.3g} at {place(*map(int, best))}"
