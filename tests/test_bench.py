"""The benchmark runs, agrees with TransformerLens's own functions, and writes every figure it promises."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import require_backend, script

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = {"n_layers": 2, "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32, "d_vocab": 300, "n_ctx": 64}


@pytest.fixture
def bench(monkeypatch: Any) -> Any:
    require_backend("hooked")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return script(BENCHMARKS / "run.py")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quick_benchmark(bench: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    bench.SHAPES["tiny"] = TINY | {"act_fn": "gelu_new", "normalization_type": "LN"}
    out = tmp_path / "results.json"
    monkeypatch.setattr("sys.argv", ["run.py", "--quick", "--shape", "tiny", "--out", str(out)])
    bench.main()
    stored = json.loads(out.read_text())
    rows = stored["rows"]
    sweeps = ["zero each head, last position", "all head -> head q edges, last position"]
    assert [row["sweep"] for row in rows] == sweeps
    for row in rows:
        assert row["max_error"] <= 1e-4 * row["logit_scale"]
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])
        assert {"model", "tokens", "forwards", "peak_bytes"} <= row.keys()
    assert "ratio" in capsys.readouterr().out
    for row, start in zip(stored["subvalues"]["rows"], ("exact top 30", "exact top 20", "exact scores"), strict=True):
        assert row["work"].startswith(start)
        assert row["max_error"] < 1e-5
        assert row["ratio"] == pytest.approx(row["plain_seconds"] / row["seconds"])
        same, of = row["same_top"].split(" of ")
        assert int(same) >= int(of) - 1  # rounding may swap the last two
    for row in stored["relations"]["rows"]:
        assert row["compared"] > 10
        assert row["max_error"] < 1e-4  # the plain loop's probabilities are float32
        assert row["ratio"] == pytest.approx(row["plain_seconds"] / row["seconds"])
    for only, other in (("subvalues", "relations"), ("relations", "subvalues")):
        monkeypatch.setattr("sys.argv", ["run.py", "--quick", "--shape", "tiny", "--only", only, "--out", str(out)])
        before = json.loads(out.read_text())
        bench.main()
        again = json.loads(out.read_text())
        assert again["rows"] == rows
        assert again[other] == before[other]
        assert again[only] != before[only]


def test_the_page_has_the_numbers_that_were_measured(bench: Any) -> None:
    stored = json.loads((BENCHMARKS / "results.json").read_text())
    page = bench.subvalues.PAGE.read_text(encoding="utf-8")
    assert bench.subvalues.tables(stored["subvalues"]) in page
    assert bench.relations.table(stored["relations"]) in page
