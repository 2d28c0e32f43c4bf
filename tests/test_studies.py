"""A study that this file makes goes the whole way, through the list of studies alone."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float

from icl_circuits import Head, InputError, cli
from icl_circuits.errors import Unfit
from icl_circuits.heads import attention_from_last, attention_patterns
from icl_circuits.jobs import Settings
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch, load_rows
from icl_circuits.report import PaperFigure, Part, with_ci95
from icl_circuits.stats import Interval, bootstrap_mean
from icl_circuits.studies import IN_CONTEXT, STUDIES, TOWERS, Body, Study, begin, load_results, run_studies, sample_job
from icl_circuits.studies.begun import Begun
from icl_circuits.viz import Section, Table
from icl_circuits.viz.look import new_figure, style

SMALL = ("--prompts", "6", "--heads", "2", "--shots", "2", "--device", "cpu")


@dataclass(frozen=True)
class Lengths:
    """How long the test prompts are, in tokens."""

    tokens: Float[np.ndarray, " prompt"]


def run_lengths(begun: Begun) -> Lengths:
    with begun.timed("lengths"):
        return Lengths(begun.evaluation.last.cpu().numpy() + 1.0)


def present_lengths(begun: Begun, found: Lengths) -> Part:
    mean = bootstrap_mean(found.tokens)
    table = Table(("model", "tokens"), ((begun.provenance["name"], f"{mean:.1f}"),))
    return Part(
        headline=f"Prompts have {mean:.1f} tokens.",
        summary={"lengths": with_ci95({"tokens": mean})},
        values={"lengths": found},
        tables={"lengths": pd.DataFrame([mean.columns("tokens")])},
        sections=lambda figures: (Section("Lengths", "In tokens.", table, figures / "lengths.svg", link="more.txt"),),
        shown=(("How long prompts are", table),),
        files={"more.txt": lambda path: path.write_text("more") and None},
    )


def draw_lengths(values: Any) -> Any:
    with style():
        figure = new_figure(2.0)
        figure.subplots().plot(values["lengths"].tokens)
    return figure


def lengths_body() -> Body[Any]:
    figure = PaperFigure(("lengths",), draw_lengths, "How long prompts are.")
    return Body(run_lengths, present_lengths, (Lengths,), {"lengths": figure})


LENGTHS = Study("prompt_lengths", "How long the prompts are.", "icl-lengths", in_report=True, body=lengths_body)


def refuse(begun: Begun) -> None:
    raise Unfit("this study suits no model")


UNFIT = Study("unfit", "Nothing.", "icl-unfit", in_report=True, body=lambda: Body(refuse, present_lengths))


def run(
    studies: tuple[Study, ...], capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    patch.setattr(sys, "argv", ["icl-circuits", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main(studies)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_a_new_study_goes_the_whole_way(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    studies = (IN_CONTEXT, UNFIT, LENGTHS)
    assert "How long the prompts are." in run(studies, capsys, monkeypatch, "--help")[1]
    model = ("--model", str(folders["gpt2"]), *SMALL)
    code, out, err = run(studies, capsys, monkeypatch, "prompt-lengths", *model)
    assert code == 0, err
    assert "How long prompts are" in out
    assert "Also: icl-lengths/more.txt" in out
    folder = tmp_path / "icl-lengths"
    found = load_results(folder, studies).values
    assert set(found) == {"selected", "lengths"}
    assert isinstance(found["lengths"], Lengths)
    numbers = json.loads((folder / "results.json").read_text())
    low, high = numbers["lengths"]["ci95"]["tokens"]
    assert low <= numbers["lengths"]["tokens"] == found["lengths"].tokens.mean() <= high
    assert pd.read_csv(folder / "tables" / "lengths.csv")["tokens_low"][0] == pytest.approx(low)
    page = (folder / "report.html").read_text()
    assert "<h2>Lengths</h2>" in page
    assert '<a href="more.txt">' in page
    assert run(studies, capsys, monkeypatch, "figures", "icl-lengths", "--out", "f")[0] == 0
    for kind in ("pdf", "png", "svg", "txt"):
        assert (tmp_path / "f" / f"lengths.{kind}").read_bytes() == (
            folder / "figures" / f"lengths.{kind}"
        ).read_bytes()
    code, _, err = run(STUDIES, capsys, monkeypatch, "figures", "icl-lengths", "--out", "g")  # a study it lacks
    assert (code, err.count("\n")) == (2, 1)
    code, out, err = run(studies, capsys, monkeypatch, "report", *model, "--out", "r")
    assert code == 0, err
    assert "Left out: this study suits no model" in out
    assert {"lengths", "accuracy"} <= {file.stem for file in (tmp_path / "r" / "figures").iterdir()}
    assert {"lengths", "groups"} <= set(load_results(tmp_path / "r", studies).values)
    code, _, err = run(studies, capsys, monkeypatch, "unfit", *model, "--out", "u")
    assert (code, (tmp_path / "u").exists()) == (2, False)
    assert "icl-circuits: error: this study suits no model\n" in err


def test_only_what_does_not_suit_is_left_out(gpt2: LensModel) -> None:
    begun = begin(gpt2, sample_job(load_rows("word-categories"), Settings(shots=1, prompts=4, heads=2)))
    assert run_studies(begun, [UNFIT, LENGTHS]).left_out == ("this study suits no model",)
    with pytest.raises(Unfit, match="suits no model"):
        run_studies(begun, [UNFIT])

    def mistaken(begun: Begun) -> None:
        raise InputError("a mistake")

    wrong = Study("wrong", "", "", in_report=True, body=lambda: Body(mistaken, present_lengths))
    with pytest.raises(InputError, match="a mistake"):
        run_studies(begun, [LENGTHS, wrong])
    assert begun.scores.ranked[:2] == begun.heads
    assert sorted(begun.scores.ranked) == sorted(begun.scores.effects.heads)


def test_studies_do_not_get_into_each_others_way() -> None:
    bodies = [study.body() for study in STUDIES]
    for names in ([s.command for s in STUDIES], [s.out for s in STUDIES], [n for b in bodies for n in b.figures]):
        assert len(names) == len(set(names))
    assert TOWERS.command == "towers"
    assert IN_CONTEXT.command == "in-context"


def test_attention_of_some_heads_and_of_all(model: LensModel, batch: PromptBatch) -> None:
    heads = (Head(1, 3), Head(0, 2))
    patterns, seen = attention_patterns(model, batch, heads), attention_from_last(model, batch)
    for row, last in enumerate(batch.last.tolist()):
        for place, (layer, head) in enumerate(heads):
            np.testing.assert_allclose(patterns[row, place].sum(axis=-1), 1, atol=1e-5)
            np.testing.assert_allclose(patterns[row, place, last], seen[row, layer, :, head], atol=1e-6)


def test_intervals_in_results_json() -> None:
    found = with_ci95({"a": Interval(1.0, 0.5, 2.0), "b": 3, "c": None})
    assert found == {"a": 1.0, "b": 3, "c": None, "ci95": {"a": [0.5, 2.0]}}
    row = Interval(1.0, 0.5, 2.0).columns("x")
    assert Interval.in_row(row, "x") == (1.0, 0.5, 2.0)
