"""Reports that were recorded before the package was rearranged, to compare new ones with."""

import math
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
ROUNDING = 1e-4
"""How far other processors, other numbers of threads and the other class may round a number away."""


def differences(recorded: Any, found: Any, where: str = "") -> list[str]:
    """The places where `found` differs from what was recorded; what it has besides is not asked after."""
    if isinstance(recorded, dict):
        missing = [f"{where}.{key} is missing" for key in recorded.keys() - found.keys()]
        return missing + [
            d for k in recorded.keys() & found.keys() for d in differences(recorded[k], found[k], f"{where}.{k}")
        ]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        return [
            d for i, (a, b) in enumerate(zip(recorded, found, strict=True)) for d in differences(a, b, f"{where}.{i}")
        ]
    if isinstance(recorded, float) and isinstance(found, float | int):
        same = math.isclose(recorded, found, rel_tol=ROUNDING, abs_tol=1e-6)
    else:
        same = recorded == found
    return [] if same else [f"{where}: {recorded} was recorded, {found} found"]
