"""The findings are what the stored runs give, and their data are read as plain data alone."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from conftest import script

FOLDER = Path(__file__).parent.parent / "benchmarks" / "findings"


def test_the_page_is_what_the_stored_runs_give() -> None:
    page = script(FOLDER / "page.py")
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run benchmarks/findings/page.py"
    assert "{{" not in page.page()


def test_a_number_of_another_run_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page = script(FOLDER / "page.py")
    found = page.runs()
    row = next(row for row in found["words"][0]["accuracy"]["by_group"] if row["kind"] == "all" and not row["gold"])
    row["top1"] += 0.1
    monkeypatch.setattr(page, "runs", lambda: found)
    assert page.PAGE.read_text(encoding="utf-8") != page.page()


def test_means_over_seeds_have_students_interval() -> None:
    page = script(FOLDER / "page.py")
    mean, low, high = page.over_seeds([(0.4, 0, 1), (0.5, 0, 1), (0.6, 0, 1)])
    assert (mean, high - mean) == (pytest.approx(0.5), pytest.approx(4.302652729911275 * 0.1 / 3**0.5))
    assert mean - low == pytest.approx(high - mean)
    assert page.over_seeds([(0.4, 0.1, 0.8)]) == (0.4, 0.1, 0.8)


def test_pickles_of_the_data_cannot_run_code() -> None:
    staicc = script(FOLDER / "staicc.py")
    plain = [(["a text"], 1), (["another"], 0)]
    assert staicc.PlainUnpickler(io.BytesIO(pickle.dumps(plain))).load() == plain

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    with pytest.raises(pickle.UnpicklingError, match="no plain data"):
        staicc.PlainUnpickler(io.BytesIO(pickle.dumps([Evil()]))).load()
