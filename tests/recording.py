"""Reports that were recorded before the package was rearranged, to compare new ones with."""

import math
import platform
from pathlib import Path
from typing import Any

import torch

RECORDED = Path(__file__).parent / "recorded"
ROUNDING = 1e-4
"""How far other processors, other numbers of threads and the other class may round a number away."""


def rounding(recorded_on: dict[str, Any]) -> float:
    """How far numbers may be from those recorded: not at all where torch and the processor are those of the record."""
    here = {"torch": torch.__version__, "processor": processor()}
    threads = recorded_on["threads"]
    same = torch.get_num_threads() in threads and all(recorded_on[name] == value for name, value in here.items())
    return 0.0 if same else ROUNDING


def processor() -> str:
    """The processor's name, model and stepping, and the widest vectors it computes with: they decide the rounding.

    The name alone does not: hypervisors give processors of several generations one name.
    """
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    name = " ".join(facts.get(key, "") for key in ("model name", "cpu family", "model", "stepping")).strip()
    return f"{name or platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def differences(recorded: Any, found: Any, rounding: float, where: str = "") -> list[str]:
    """The places where `found` differs from what was recorded; what it has besides is not asked after."""
    if isinstance(recorded, dict):
        missing = [f"{where}.{key} is missing" for key in recorded.keys() - found.keys()]
        return missing + [
            d
            for k in recorded.keys() & found.keys()
            for d in differences(recorded[k], found[k], rounding, f"{where}.{k}")
        ]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        return [
            d
            for i, (a, b) in enumerate(zip(recorded, found, strict=True))
            for d in differences(a, b, rounding, f"{where}.{i}")
        ]
    if isinstance(recorded, float) and isinstance(found, float | int):
        same = math.isclose(recorded, found, rel_tol=rounding, abs_tol=rounding / 10)  # small ones are differences
    else:
        same = recorded == found
    return [] if same else [f"{where}: {recorded} was recorded, {found} found"]
