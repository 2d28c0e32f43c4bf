"""A study that this file makes goes the whole way, through the list of studies alone."""

import csv
import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float

from icl_circuits import Head, InputError, cli
from icl_circuits.characters import visible
from icl_circuits.circuits import Circuit
from icl_circuits.costs import Cost
from icl_circuits.errors import Unfit
from icl_circuits.heads import attention_from_last, attention_patterns, score_heads
from icl_circuits.jobs import DataSpec, ModelSpec, Settings
from icl_circuits.models import LensModel, load_model
from icl_circuits.prompts import PromptBatch, encode, load_rows, sample_prompts
from icl_circuits.report import LeftOut, PaperFigure, Part, RunRecord, with_ci95, write_report
from icl_circuits.residual import Edge, Logits
from icl_circuits.stats import Interval, bootstrap_mean
from icl_circuits.studies import (
    STUDIES,
    Body,
    Study,
    begin,
    figures_of,
    kinds_of,
    load_results,
    run_studies,
    sample_job,
    save_results,
)
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.in_context import IN_CONTEXT
from icl_circuits.studies.towers import TOWERS
from icl_circuits.viz import Section, Table, new_figure, style

SMALL = ("--prompts", "6", "--heads", "2", "--select", "paper", "--shots", "2", "--device", "cpu")


@dataclass(frozen=True)
class Lengths:
    """How long the test prompts are, in tokens."""

    tokens: Float[np.ndarray, " prompt"]


def run_lengths(begun: Begun) -> Lengths:
    return begun.step("lengths", lambda: Lengths(begun.evaluation.last.cpu().numpy() + 1.0))


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


def lengths_body() -> Body:
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
    patch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's
    with pytest.raises(SystemExit) as stopped:
        cli.main(studies)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_a_part_of_a_report_runs_as_briefly_as_the_whole(gpt2: Any) -> None:
    """A worker that computes one study of a report computes what the report shows, not what its command does."""
    ran: list[str] = []
    body = Body(
        lambda _: ran.append("whole"),
        lambda *_: Part("", {}, {}, {}, lambda _: ()),
        run_briefly=lambda _: ran.append("brief"),
    )
    long = Study("long", "Long.", "icl-long", in_report=True, body=lambda: body)
    for studies, report in (((long,), None), ((long, long), None), ((long,), (long, LENGTHS))):
        run_studies(None, studies, report=report)
    assert ran == ["whole", "brief", "brief", "brief"]


@pytest.mark.slow
def test_towers_are_measured_on_the_first_of_many_prompts(gpt2: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_circuits.studies.begun.DETAILED", 4)
    settings = Settings(prompts=6, heads=2, select="paper", shots=2)
    begun = begin(gpt2, sample_job(load_rows("word-categories"), settings))
    said = (
        "Two towers are measured on the first 4 test prompts. Mitigations are chosen on the first 4 selection prompts."
    )
    assert said in begun.described
    assert len(begun.evaluation) == 6
    found = TOWERS.run(begun)
    assert found.own.features.attention.shape[0] == found.own.learned.auc.shape[0] == len(found.own.reversed.flips) == 4
    few = begin(gpt2, sample_job(load_rows("word-categories"), replace(settings, prompts=4)))
    assert few.detailed is few.evaluation
    assert said not in few.described


@pytest.mark.slow
def test_runs_of_too_many_prompts_are_not_kept(gpt2: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is made again where it is needed, and the numbers are the same."""
    job = sample_job(load_rows("word-categories"), Settings(prompts=4, heads=2, select="paper", shots=2))
    found = []
    for most in (1 << 13, 8):
        monkeypatch.setattr("icl_circuits.studies.begun.KEPT_TOKENS", most)
        begun = begin(gpt2, job)
        features = TOWERS.run(begun).own.features
        found.append((features.attention, begun.step.costs["reversal"].forwards))
    (shared, few), (alone, more) = found
    assert more > few
    np.testing.assert_array_equal(shared, alone)


@pytest.mark.slow
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
    assert '<a href="figures/lengths.pdf">PDF</a>' in page
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
    assert "Left out: unfit: this study suits no model" in out
    assert {"lengths", "accuracy"} <= {file.stem for file in (tmp_path / "r" / "figures").iterdir()}
    assert {"lengths", "groups"} <= set(load_results(tmp_path / "r", studies).values)
    code, _, err = run(studies, capsys, monkeypatch, "unfit", *model, "--out", "u")
    assert (code, (tmp_path / "u").exists()) == (2, False)
    assert "icl-circuits: error: this study suits no model\n" in err


def test_only_what_does_not_suit_is_left_out(gpt2: LensModel) -> None:
    begun = begin(gpt2, sample_job(load_rows("word-categories"), Settings(shots=1, prompts=4, heads=2, select="paper")))
    assert run_studies(begun, [UNFIT, LENGTHS]).left_out == (LeftOut("unfit", "this study suits no model"),)
    with pytest.raises(Unfit, match="suits no model"):
        run_studies(begun, [UNFIT])

    def mistaken(begun: Begun) -> None:
        raise InputError("a mistake")

    wrong = Study("wrong", "", "", in_report=True, body=lambda: Body(mistaken, present_lengths))
    with pytest.raises(InputError, match="a mistake"):
        run_studies(begun, [LENGTHS, wrong])
    assert begun.scores.ranked[:2] == begun.heads
    assert sorted(begun.scores.ranked) == sorted(begun.scores.effects.heads)


# --- what is written --------------------------------------------------------------------------------------------------

COSTS = {"a step": Cost(1.5, 2, 3)}
RECORD = RunRecord(
    "Title", "A run.", {"name": "m"}, {}, {"heads": [{"layer": 0}, {"layer": 1}]}, {"x": np.zeros(1)}, COSTS
)


def part(**given: Any) -> Part:
    return Part(**{"headline": "", "summary": {}, "values": {}, "tables": {}, "sections": lambda _: ()} | given)


def test_parts_are_put_together_and_figures_may_be_missing(tmp_path: Path) -> None:
    parts = (
        part(summary={"heads": [{"a": np.float32(0.5)}, {"a": np.nan}], "sizes": {"one": np.int64(1)}}),
        part(summary={"heads": [{"b": 2}, {"b": np.bool_(True)}], "sizes": {"two": 2}}, values={"y": np.ones(1)}),
    )
    write_report(RECORD, parts, [LeftOut("third", "it is <odd>")], tmp_path, kinds=(), figures={})
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "heads": [{"layer": 0, "a": 0.5, "b": 2}, {"layer": 1, "a": None, "b": True}],
        "sizes": {"one": 1, "two": 2},
        "left_out": {"third": "it is <odd>"},
        "steps": [{"step": "a step", "seconds": 1.5, "forwards": 2, "bytes": 3}],
    }
    assert set(load_results(tmp_path).values) == {"x", "y"}
    assert list((tmp_path / "figures").iterdir()) == []
    page = (tmp_path / "report.html").read_text()
    assert "<td>a step</td><td>1.5</td><td>2</td><td>0</td>" in page
    assert "<h2>Left out</h2>" in page
    assert "<td>third</td><td>it is &lt;odd&gt;</td>" in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([part(summary={"heads": [{"layer": 5}, {}]})], "results.json.heads.0.layer"),
        ([part(summary={"heads": [{}]})], "results.json.heads"),
        ([part(summary={"n": {"m": 1}}), part(summary={"n": {"m": 1}})], "results.json.n.m"),
        ([part(summary={"left_out": {}}), part(summary={"left_out": 3})], "results.json.left_out"),
        ([part(values={"x": np.ones(1)})], "value 'x'"),
        ([part(tables={"t": pd.DataFrame()}), part(tables={"t": pd.DataFrame()})], "table 't'"),
        ([part(files={"f": Path.touch}), part(files={"f": Path.touch})], "file 'f'"),
        ([part(files={"report.html": Path.touch})], "file 'report.html'"),
    ],
)
def test_what_two_parts_give_under_one_name_is_refused(tmp_path: Path, given: list[Part], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_report(RECORD, given, (), tmp_path, kinds=(), figures={})
    assert list(tmp_path.iterdir()) == []


def test_texts_of_the_data_command_neither_a_terminal_nor_a_spreadsheet(tmp_path: Path) -> None:
    hostile = "=cmd|'\x1b[2J\u202e"
    frame = pd.DataFrame({hostile: [hostile, "-1"], "number": [-1.5, 2.0]})
    given = part(tables={"t": frame}, headline=hostile, sections=lambda _: (Section(hostile, hostile),))
    write_report(replace(RECORD, described=f"{hostile}\ud800"), [given], (), tmp_path, kinds=(), figures={})
    rows = list(csv.reader((tmp_path / "tables" / "t.csv").read_text().splitlines()))
    assert [row[0][:2] for row in rows] == ["'=", "'=", "'-"]
    assert [row[1] for row in rows] == ["number", "-1.5", "2.0"]
    latex = (tmp_path / "tables" / "t.tex").read_text()
    assert visible(latex.replace("\n", "")) == latex.replace("\n", "")
    assert load_results(tmp_path).about["described"].endswith(f"{hostile}\ud800")


def test_tables_compile(tmp_path: Path) -> None:
    """Words of a vocabulary, in LaTeX: what pdflatex lacks, what it takes for commands, and rows that begin oddly."""
    words = [
        "[odd]",
        "*",
        "a_b",
        "50 %",
        "\\item",
        "{",
        "~^#$&",
        "caf\u00e9",
        "\u4e2d\u6587",
        "\u2192",
        "\u0394",
        "<unk>",
        "\x07",
    ]
    given = part(tables={"t": pd.DataFrame({"top": words, "bottom": words[::-1]})})
    write_report(RECORD, [given], (), tmp_path, kinds=(), figures={})
    latex = (tmp_path / "tables" / "t.tex").read_text(encoding="utf-8")
    assert "U+4E2DU+6587" in latex
    assert "{}[odd]" in latex
    assert all(ord(character) < 0x180 for character in latex)
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex to compile it with")
    around = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}%s\end{document}"
    (tmp_path / "t.tex").write_text(around % latex, encoding="utf-8")
    done = subprocess.run(
        [compiler, "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_study_of_a_name_that_is_taken_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("figures", "report", "towers"):
        taken = Study(name, "", "", in_report=False, body=lengths_body)
        code, _, err = run((*STUDIES, taken), capsys, monkeypatch, "--help")
        assert (code, err.count("\n")) == (2, 1)
        assert f"a study's command '{name}' exists already" in err
    twice = (LENGTHS, Study("other", "", "", in_report=False, body=lengths_body))
    assert set(figures_of(twice[:1])) == {"lengths"}
    with pytest.raises(InputError, match="figure 'lengths'"):
        figures_of(twice)

    @dataclass(frozen=True)
    class Circuit:
        """Named like a class of results of the circuit study."""

    alike = Study("alike", "", "", in_report=False, body=lambda: Body(run_lengths, present_lengths, (Circuit,)))
    with pytest.raises(InputError, match="class of results 'Circuit'"):
        kinds_of((*STUDIES, alike))


@pytest.mark.slow
def test_the_list_of_studies(tmp_path: Path) -> None:
    for study, again in zip(STUDIES, pickle.loads(pickle.dumps(STUDIES)), strict=True):
        assert (study.name, study.body()) == (again.name, again.body())
    script = "import icl_circuits, icl_circuits.studies as s; print('STUDIES' in s.__all__, 'STUDIES' in dir(s))"
    at_once = os.environ | {"EAGER_IMPORT": "1"}
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=at_once)
    assert shown.stdout == "True True\n"


def test_results_are_saved_and_read_back(tmp_path: Path) -> None:
    circuit = Circuit((Edge(Head(0, 1), Logits()),), np.ones((1, 3)), np.zeros(3), "logit_diff", {"n_layers": 1})
    save_results({"circuit": circuit, "x": np.arange(3)}, tmp_path / "found.safetensors")
    found = load_results(tmp_path / "found.safetensors").values
    assert found["circuit"].edges == circuit.edges
    np.testing.assert_array_equal(found["circuit"].scores, circuit.scores)
    np.testing.assert_array_equal(found["x"], np.arange(3))


@pytest.mark.parametrize(
    ("given", "function"),
    [
        ({"labels": Settings().labels, "shots": Settings().shots, "seed": Settings().seed}, sample_prompts),
        ({"separator": Settings().separator}, encode),
        ({"n_heads": Settings().heads}, score_heads),
        ({"text_column": DataSpec().text_column, "label_column": DataSpec().label_column}, load_rows),
        ({"backend": ModelSpec().backend, "revision": ModelSpec().revision, "device": ModelSpec().device}, load_model),
    ],
)
def test_defaults_of_a_job_are_those_of_the_functions(given: dict[str, Any], function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in given} == given


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
            np.testing.assert_allclose(patterns[row, place, : last + 1].sum(axis=-1), 1, atol=1e-5)
            assert not patterns[row, place, last + 1 :].any()
            np.testing.assert_allclose(patterns[row, place, last], seen[row, layer, :, head], atol=1e-6)


def test_intervals_in_results_json() -> None:
    found = with_ci95({"a": Interval(1.0, 0.5, 2.0), "b": 3, "c": None})
    assert found == {"a": 1.0, "b": 3, "c": None, "ci95": {"a": [0.5, 2.0]}}
    row = Interval(1.0, 0.5, 2.0).columns("x")
    assert Interval.in_row(row, "x") == (1.0, 0.5, 2.0)
