"""The benchmark runs, agrees with TransformerLens's own functions, and writes every figure it promises."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import require_backend

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "run.py"
TINY = {"n_layers": 2, "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32, "d_vocab": 300, "n_ctx": 64}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quick_benchmark(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    require_backend("hooked")
    spec = importlib.util.spec_from_file_location("bench_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    bench.SHAPES["tiny"] = TINY | {"act_fn": "gelu_new", "normalization_type": "LN"}
    out = tmp_path / "results.json"
    monkeypatch.setattr("sys.argv", ["run.py", "--quick", "--shape", "tiny", "--out", str(out)])
    bench.main()
    rows = json.loads(out.read_text())["rows"]
    sweeps = ["zero each head, last position", "all head -> head q edges, last position"]
    assert [row["sweep"] for row in rows] == sweeps
    for row in rows:
        assert row["max_error"] <= 1e-4 * row["logit_scale"]
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])
        assert {"model", "tokens", "forwards", "peak_bytes"} <= row.keys()
    assert "ratio" in capsys.readouterr().out
