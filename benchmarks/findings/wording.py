"""How the findings write numbers and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

Number = tuple[float, float, float]
"""A mean and the ends of its 95 % interval."""


def measured(row: Mapping[str, Any], name: str) -> Number:
    """A number with its interval, as `results.json` or as tables have it."""
    if "ci95" in row:
        return (row[name], *row["ci95"][name])
    return (row[name], row[f"{name}_low"], row[f"{name}_high"])


def text(value: Number, form: str = ".2f") -> str:
    """`0.66 [0.53, 0.76]`; a share does not leave 0 to 1."""
    mean, low, high = value
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def share(value: Number) -> str:
    """A number between 0 and 1."""
    return text((value[0], max(value[1], 0.0), min(value[2], 1.0)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
