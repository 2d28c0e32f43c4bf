"""What a long run says: every step by number, one bar in a terminal, a line a step elsewhere."""

import ast
import importlib
import inspect
import re
import sys

import pytest

from icl_circuits import progress
from icl_circuits.progress import run_of, step, taken, tracked
from icl_circuits.studies import STUDIES
from icl_circuits.studies.study import Study


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_names_its_steps(study: Study) -> None:
    """In the order in which its module takes them, but for those of development, one a checkpoint."""
    module = importlib.import_module(f"icl_circuits.studies.{study.name}.run")
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    named = {
        (call.lineno, call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "step" and isinstance(call.args[0], ast.Constant)
    }
    assert tuple(name for _, name in sorted(named)) == study.steps


def test_a_log_has_a_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    with run_of(["one", "two", "three", "four"]):
        with step("one"):
            assert list(tracked([1, 2, 3], "a loop")) == [1, 2, 3]
        taken("two")
        with step("four"), step("a part of it"):
            taken("another")
    said = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "step 1 of 4: one",
        "step 2 of 4: two: taken from the store",
        "step 4 of 4: four",
        "step 4 of 4: four: a part of it",
        "step 4 of 4: four: a part of it: another: taken from the store",
        "",
    ]


def test_a_step_that_nobody_named_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with run_of(["one"], unit="job"):
        for name in ("of mine", "one", "last"):
            with step(name):
                pass
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2] for line in said[:-1]] == [
        "job 1 of 2: of mine", "job 2 of 2: one", "job 3 of 3: last",
    ]  # fmt: skip
    assert re.fullmatch(r"3 jobs in \d\d:\d\d", said[-1])


def test_the_bar_moves_with_loops_and_never_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share that is done, with a step from the store and steps of known seconds."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shares = []
    with run_of(["one", "two", "three"], seconds={"one": 2.0, "three": 6.0}):
        assert progress._run is not None
        bar = progress._run.bar
        assert bar.total == 2 + 4 + 6
        with step("one"):
            for _ in tracked([1, 2], "a loop"):
                list(tracked([1, 2], "a loop in it"))
                shares.append(bar.n)
            list(tracked([1], "another loop"))
            shares.append(bar.n)
        shares.append(bar.n)
        taken("two")
        assert (bar.n, bar.initial) == (6, 4)  # its seconds are not counted among those that were worked
        with step("three"):
            pass
        assert bar.n == bar.total
    assert shares == [0, 0.5, 1.5, 2]
    assert bar.disable


def test_outside_a_run_a_loop_speaks_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with step("not shown"):
        assert list(tracked([1], "a loop")) == [1]
    taken("this")
    assert capsys.readouterr().err == "a loop ...\nthis: taken from the store\n"


def test_an_error_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), run_of(["one"]), step("one"):
        _ = 1 / 0
    assert progress._run is None
    assert " in " not in capsys.readouterr().err
