"""The numbers of reports that were recorded before the package was rearranged, made again."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import require_backend, require_smollm2

from icl_circuits import cli

RECORDED = Path(__file__).parent / "recorded"
ROUNDING = 1e-4
"""How far other processors, other numbers of threads and the other class may round a number away."""


def made_again(folder: Path, *options: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["icl-circuits", "report", *options, "--device", "cpu", "--out", str(folder)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert not stopped.value.code
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


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


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
def test_the_tiny_report(folders: dict[str, Path], tmp_path: Path, backend: str) -> None:
    require_backend(backend)
    recorded = json.loads((RECORDED / "tiny.json").read_text())
    if backend == "bridge":
        recorded["provenance"].pop("weights_sha256")  # the classes keep their weights under other names
    options = ("--backend", backend, "--prompts", "6", "--heads", "2", "--shots", "2")
    assert differences(recorded, made_again(tmp_path / "r", "--model", str(folders["llama"]), *options)) == []


def test_the_report_on_smollm2(tmp_path: Path) -> None:
    require_smollm2()
    recorded = json.loads((RECORDED / "smollm2.json").read_text())
    require_backend("hooked")
    assert differences(recorded, made_again(tmp_path / "r", "--prompts", "8")) == []
