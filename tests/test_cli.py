"""The command line, as a user runs it: reports on small models and the real one, and one clear error for bad input."""

import html
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from architectures import tiny_config
from browser import open_page
from conftest import require_backend, require_smollm2, save_model, save_tokenizer
from recording import RECORDED, ROUNDING, differences, rounding
from safetensors.numpy import load_file, save_file
from test_house import too_long

from icl_circuits import cli
from icl_circuits.heads import answer
from icl_circuits.jobs import CircuitJob, DataSpec, Job, ModelSpec, Settings
from icl_circuits.models import load_model
from icl_circuits.models.lens import hooked_transformer_class
from icl_circuits.prompts import load_rows
from icl_circuits.report import Results, new_folder, write_results
from icl_circuits.report.manifest import is_unchanged, read_manifest
from icl_circuits.store import Store, default_folder
from icl_circuits.studies import Outcome, begin, load_results, sample_job
from icl_circuits.studies.in_context.run import RANDOM_DRAWS

TOWER_KEYS = {
    "qk_auc", "qk_auc_shuffled", "qk_auc_p", "qk_auc_without_position", "qk_auc_grouped_order", "ov_logit_minus",
    "ov_logit_minus_raw", "ov_copying", "copying_score", "attention", "attention_change", "value_change", "ci95",
}  # fmt: skip
SMALL = ["--prompts", "6", "--heads", "2", "--select", "paper", "--shots", "2", "--device", "cpu"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run the command line in this process, in an empty folder; gives (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icl-circuits", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def hostile_csv(folder: Path) -> Path:
    file = folder / "hostile.csv"
    rows = [f'"</script><b>{kind} {i}\u2028 ""quoted"" <!--",{kind}' for kind in ("x", "y") for i in range(12)]
    file.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return file


def check_report(out: Path, *, heads: int, prompts: int) -> dict[str, Any]:
    """What every report holds."""
    results = json.loads((out / "results.json").read_text())
    for group in ("base", "heads_zeroed", "random_zeroed"):
        accuracy = results["accuracy"][group]
        for rule in ("top1", "between_labels"):
            low, high = accuracy["ci95"][rule]
            assert 0 <= low <= accuracy[rule] <= high <= 1
    assert results["accuracy"]["random_zeroed"]["draws"] == RANDOM_DRAWS
    assert len(results["heads"]) == heads
    for head in results["heads"]:
        assert set(head) == {
            "layer", "head", "label", "log_prob_increase", "accuracy_drop", "log_prob_drop", "log_prob_drop_low",
            "log_prob_drop_high", "p_increase", "p_drop", *TOWER_KEYS
        }  # fmt: skip
    where = results["provenance"]
    assert len(where["weights_sha256"]) == 64
    assert where["processing"] == "none"
    assert {"transformer_lens", "torch"} <= set(where["versions"])
    selection, evaluation = (results["prompts"][part] for part in ("selection", "evaluation"))
    assert len(selection) == len(evaluation) == prompts
    assert not {prompt["text"] for prompt in selection} & {prompt["text"] for prompt in evaluation}
    assert all(prompt["text"].endswith(" :") and "seed 0" in prompt["origin"] for prompt in selection)
    arrays = load_file(out / "results.safetensors")
    assert arrays["groups.base.answers.top1"].shape == (prompts,)
    assert arrays["groups.base.answers.top1"].mean() == pytest.approx(results["accuracy"]["base"]["top1"])
    assert arrays["groups.random.answers.log_prob"].shape == (RANDOM_DRAWS, prompts)
    means = arrays["increase.heads"].mean(axis=0)
    for head in results["heads"]:
        assert means[head["layer"], head["head"]] == pytest.approx(head["log_prob_increase"], abs=1e-5)
    assert arrays["auc.auc"].mean(axis=0) == pytest.approx([head["qk_auc"] for head in results["heads"]])
    assert {f"table_{n}.{kind}" for n in (1, 2, 3, 4, 5) for kind in ("csv", "tex")} <= {
        file.name for file in (out / "tables").iterdir()
    }
    assert "\\begin{tabular}" in (out / "tables" / "table_3.tex").read_text()
    figures = {file.name for file in (out / "figures").iterdir()}
    assert {f"{stem}.{kind}" for stem in ("head_map", "layer_bars", "accuracy") for kind in ("pdf", "png")} <= figures
    return results


def check_page(page: str, folder: Path) -> None:
    """The finding and the circuit come first, then sections that open with an answer; every figure leads to its PDF."""
    first, *sections = page.split("<main>")[1].split("<section ")
    assert re.search(r'<p class="finding">Without 2 of its \d+ heads, .+ %|\d%', first)
    assert first.count("<img") == 2
    assert "its 24 strongest edges: the right answer is" in first
    for section in sections:
        (answer,) = re.findall(r'</h2>\s*<p class="answer">([^<]+[.:)])', section)
        assert not too_long(re.sub(r" \[[^]]*\]", "", html.unescape(answer)))  # intervals are no words
    for name in re.findall(r'href="(figures/[^"]+)"', page):
        assert (folder / name).is_file()
    assert page.count(">PDF</a>") == page.count("<figure><img") - 1  # the circuit leads to its own page


# --- the main job -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [pytest.param("hooked", marks=pytest.mark.slow), "bridge"])
def test_report_on_a_small_model(
    run: Any, folders: dict[str, Path], tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    require_backend(backend)
    data = hostile_csv(tmp_path)
    options = ("--data", str(data), "--backend", backend, "--out", "r", *SMALL)
    fewer = () if backend == "hooked" else ("--shots", "1")  # a report without the biases, which take longest
    code, out, err = run("report", "--model", str(folders["llama"]), *options, *fewer)
    assert (code, err.count("error")) == (0, 0), err
    assert "In-context heads" in out
    assert "Report: r/report.html" in out
    results = check_report(tmp_path / "r", heads=2, prompts=6)
    assert results["provenance"]["backend"] == backend
    assert {file.name for file in tmp_path.iterdir()} == {"r", "hostile.csv"}
    assert (tmp_path / "r" / "report.html").stat().st_size < 3_000_000
    opened = open_page(request.getfixturevalue("chromium"), tmp_path / "r" / "report.html")
    assert opened.console == []
    assert opened.count("canvas") == 2 + 1  # of the first prompt; the others are in a list
    check_page((tmp_path / "r" / "report.html").read_text(), tmp_path / "r")
    assert "<b>x" not in re.sub(r'="[^"]*"', "", opened.dom)
    drawn = {file.stem for file in (tmp_path / "r" / "figures").glob("*.svg")}
    assert drawn >= {"schematic", "head_map", "accuracy", "positions", "flow"} | (set() if fewer else {"majority"})
    assert opened.count("img") == len(drawn) + 2  # on the first screen: accuracy once more, and the circuit
    found = load_results(tmp_path / "r").values
    assert found["groups"].to_frame().iloc[0]["top1"] == pytest.approx(results["accuracy"]["base"]["top1"])
    assert [vars(head) for head in found["selected"].heads] == [
        {key: head[key] for key in vars(found["selected"].heads[0])} for head in results["heads"]
    ]
    if fewer:
        return
    code, out, err = run("figures", "r", "--out", "f")
    assert (code, err) == (0, "")
    drawn = sorted(file.name for file in (tmp_path / "f").iterdir() if file.name != "manifest.json")
    assert drawn == sorted(file.name for file in (tmp_path / "r" / "figures").iterdir())
    assert len(drawn) == 4 * (opened.count("img") - 2)
    for name in drawn:
        assert (tmp_path / "f" / name).read_bytes() == (tmp_path / "r" / "figures" / name).read_bytes(), name
    caption = (tmp_path / "f" / "accuracy.txt").read_text()
    assert "table 2" in caption
    assert results["provenance"]["name"] in caption
    assert run("figures", "r", "--out", "f")[0] == 2  # exists
    (tmp_path / "f" / "mine").touch()
    (tmp_path / "f" / "head_map").mkdir()
    assert run("figures", "r", "--out", "f", "--force")[0] == 0
    assert {"mine", "head_map", *drawn} < {file.name for file in (tmp_path / "f").iterdir()}
    assert "holds results, not figures" in run("figures", "r", "--out", "r", "--force")[2]


@pytest.mark.slow
def test_a_report_is_the_same_every_time(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    for out in ("a", "b"):
        assert run("report", "--model", str(folders["gpt2"]), "--out", out, *SMALL, "--shots", "1")[0] == 0
    first, second = (json.loads((tmp_path / out / "results.json").read_text()) for out in ("a", "b"))
    for results in (first, second):
        for step in results["steps"]:
            step.pop("seconds")
    assert first == second
    for file in ("results.safetensors", "figures/head_map.png", "figures/accuracy.pdf"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["hooked", "bridge"])
def test_the_recorded_report(run: Any, folders: dict[str, Path], tmp_path: Path, backend: str) -> None:
    """Every number of a report as it was before the package was rearranged."""
    require_backend(backend)
    recorded = json.loads((RECORDED / "tiny.json").read_text())
    exact = rounding(recorded.pop("recorded_on"))
    if backend == "bridge":
        exact = ROUNDING
        recorded["provenance"].pop("weights_sha256")  # the classes keep their weights under other names
    assert run("report", "--model", str(folders["llama"]), "--backend", backend, "--out", "r", *SMALL)[0] == 0
    assert differences(recorded, json.loads((tmp_path / "r" / "results.json").read_text()), exact) == []


@pytest.mark.slow
def test_three_labels_and_force(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    with new_folder(tmp_path / "r", "results", force=False) as older:
        (older / "results.json").write_text("an older report")
        (older / "old").touch()
    (tmp_path / "r" / "notes").write_text("mine")
    options = ("--labels", "foo, bar,baz", "--separator", r"\n", "--force")
    assert run("report", "--model", str(folders["neox"]), "--out", "r", *options, *SMALL, "--shots", "1")[0] == 0
    assert not (tmp_path / "r" / "old").exists()
    assert (tmp_path / "r" / "notes").read_text() == "mine"
    results = check_report(tmp_path / "r", heads=2, prompts=6)
    assert results["settings"]["labels"] == ["foo", "bar", "baz"]
    assert results["settings"]["separator"] == "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_report_on_smollm2(run: Any, tmp_path: Path) -> None:
    """What a report is, on the real model, and every number as it was recorded."""
    require_smollm2()
    code, _, err = run("report", "--prompts", "8", "--select", "paper", "--out", "r", "--device", "cpu")
    assert code == 0, err
    results = check_report(tmp_path / "r", heads=12, prompts=8)
    accuracy = results["accuracy"]
    assert accuracy["heads_zeroed"]["top1"] < accuracy["random_zeroed"]["top1"] - 0.2
    if hooked_transformer_class() is not None:  # the classes differ in rounding, and so in which heads are selected
        recorded = json.loads((RECORDED / "smollm2.json").read_text())
        assert differences(recorded, results, rounding(recorded.pop("recorded_on"))) == []


@pytest.mark.slow
def test_towers_and_biases_commands(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    for command, tables in (("towers", {1, 4, 5}), ("biases", {7, 8})):
        code, out, err = run(command, "--model", str(folders["gpt2"]), "--out", command, *SMALL)
        assert code == 0, err
        assert f"Report: {command}/report.html" in out
        names = {int(file.stem.removeprefix("table_")) for file in (tmp_path / command / "tables").glob("table_*.csv")}
        assert tables <= names <= tables | {6}
    groups = pd.read_csv(tmp_path / "towers" / "tables" / "table_4.csv")["heads"].tolist()
    assert groups[-1] == "random heads"
    towers = json.loads((tmp_path / "towers" / "results.json").read_text())
    assert all(set(head) > TOWER_KEYS for head in towers["heads"])
    assert all(0 <= head["qk_auc"] <= 1 for head in towers["heads"])
    assert set(towers["towers"]) == {"in_context_heads", "random_heads", "flipping_pairs"}
    biases = json.loads((tmp_path / "biases" / "results.json").read_text())["biases"]
    for bias in ("majority", "recency"):
        assert {"before", "after", "reduction", "ci95", "strength", "cost", "random_heads"} <= set(biases[bias])
        low, high = biases[bias]["ci95"]["before"]
        assert 0 <= low <= high


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Gemma2ForCausalLM", "Gemma3ForCausalLM"])
def test_report_behind_post_norms(run: Any, tmp_path: Path, name: str) -> None:
    """Models whose heads write through a norm are analysed as any other."""
    folder = tmp_path / "model"
    save_model(folder, tiny_config(name, save_tokenizer(folder)))
    code, out, err = run("report", "--model", str(folder), "--backend", "bridge", "--out", "r", *SMALL)
    assert (code, err.count("error")) == (0, 0), err
    assert "Left out" not in out
    check_report(tmp_path / "r", heads=2, prompts=6)


@pytest.mark.slow
def test_a_report_leaves_out_what_cannot_be_measured(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    """GPT-J's scores are dead on the Bridge: no flow, no recency. One shot: no imbalance."""
    options = ("--model", str(folders["gptj"]), "--backend", "bridge")
    code, out, err = run("biases", *options, "--out", "b", *SMALL)
    assert code == 0, err
    biases = json.loads((tmp_path / "b" / "results.json").read_text())["biases"]
    assert "does not compute with the attention scores" in biases["recency"]["refused"]
    assert "before" in biases["majority"]
    code, out, err = run("report", *options, "--out", "r", *SMALL, "--shots", "1")
    assert code == 0, err
    assert "Left out: biases: the majority-label bias needs" in out
    page = (tmp_path / "r" / "report.html").read_text()
    assert "Not measured" in page
    code, _, err = run("biases", *options, "--out", "c", *SMALL, "--shots", "1")
    assert (code, (tmp_path / "c").exists()) == (2, False)
    assert "2 or more demonstrations of each label" in err


@pytest.mark.slow
def test_circuit_command(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    options = ("circuit", "--model", str(folders["llama"]), "--data", str(hostile_csv(tmp_path)), *SMALL)
    code, out, err = run(*options, "--out", "new/c")
    assert code == 0, err
    assert "Also: new/c/circuit.html" in out
    assert "Report: new/c/report.html" in out
    folder = tmp_path / "new" / "c"
    assert {file.name for file in folder.iterdir()} == {
        "circuit.html", "circuit.json", "circuit.svg", "figures", "manifest.json", "report.html", "results.json",
        "results.safetensors", "tables",
    }  # fmt: skip
    page = (folder / "report.html").read_text()
    assert '<a href="circuit.html">' in page
    assert "Heads alone, and the model without them" in page
    circuit = load_results(folder).values["circuit"]
    assert len(json.loads((folder / "circuit.json").read_text())["edges"]) == len(circuit.edges)
    assert len(circuit.heads) >= 2
    assert circuit.provenance["backend"] in ("hooked", "bridge")
    assert len(circuit.base) == 6
    edges = pd.read_csv(folder / "tables" / "edges.csv")
    assert len(edges) == len(circuit.edges)
    assert edges["score"].tolist() == pytest.approx(circuit.to_frame()["score"].tolist(), abs=1e-6)
    assert edges["reversed"].notna().all()
    numbers = json.loads((folder / "results.json").read_text())["circuit"]
    assert numbers["n_edges"] == len(circuit.edges)
    assert len(numbers["heads_alone"]) == 3 * len({row["size"] for row in numbers["heads_alone"]})
    before = (folder / "circuit.json").read_bytes()
    for refused, why in (("new/c", "give --force"), ("c.html", "this command writes a folder")):
        code, _, err = run(*options, "--out", refused)
        assert (code, err.count("\n")) == (2, 1)
        assert why in err
    assert run(*options, "--out", "new/c", "--force")[0] == 0
    assert (folder / "circuit.json").read_bytes() == before
    assert run("figures", "new/c", "--out", "f")[0] == 0
    assert sorted(file.name for file in (tmp_path / "f").iterdir()) == [
        *(f"circuit_curves.{kind}" for kind in ("pdf", "png", "svg", "txt")), "manifest.json",
    ]  # fmt: skip
    for name in ("circuit_curves.svg", "circuit_curves.txt"):
        assert (tmp_path / "f" / name).read_bytes() == (folder / "figures" / name).read_bytes()
    found = load_results(folder / "results.safetensors").values
    np.testing.assert_array_equal(found["circuit"].scores, circuit.scores)
    assert found["circuit_reversed"].edges == circuit.edges
    code, _, err = run(*options[:-2], "--shots", "0", "--out", "zero/c")
    assert code == 2
    assert {file.name for file in tmp_path.iterdir()} == {"new", "f", "hostile.csv"}


@pytest.mark.slow
def test_a_circuit_of_given_heads_and_of_earlier_results(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    """The heads of a report, some of them by number or name, scored by another metric, on the report's prompts."""
    model = ("--model", str(folders["gpt2"]), "--data", str(hostile_csv(tmp_path)), *SMALL)
    assert run("in-context", *model, "--out", "r")[0] == 0
    earlier = load_results(tmp_path / "r").values
    selected = earlier["selected"].of()
    code, _, err = run("circuit", "--results", "r", "--metric", "log_prob", "--out", "a")
    assert code == 0, err
    found = load_results(tmp_path / "a").values
    assert (found["selected"].of(), found["circuit"].metric) == (selected, "log_prob")
    texts = [json.loads((tmp_path / name / "results.json").read_text())["prompts"] for name in ("r", "a")]
    assert texts[0] == texts[1]
    base = earlier["groups"].base.answers
    np.testing.assert_allclose(sorted(found["circuit"].base), sorted(base.log_prob), atol=1e-4)
    n_right = int(base.top1.sum())  # those come first
    np.testing.assert_allclose(sorted(found["circuit"].base[:n_right]), sorted(base.log_prob[base.top1]), atol=1e-4)
    assert run("circuit", "--results", "r", "--heads", "1", "--out", "b")[0] == 0
    assert load_results(tmp_path / "b").values["selected"].of() == selected[:1]
    other = next(str(head) for head in earlier["effects"].heads if head not in selected)
    assert run("circuit", *model, "--heads", f"{other},{selected[1]}", "--out", "c")[0] == 0
    assert set(map(str, load_results(tmp_path / "c").values["selected"].of())) == {other, str(selected[1])}
    for options, why in (
        (("--results", "r", "--shots", "3"), "leave out other options than --heads and --metric"),
        (("--results", "nowhere"), "no results at 'nowhere'"),
        ((*model, "--heads", "L99H0"), "L99H0 does not exist"),
        ((*model, "--heads", "best"), "'best' is no head"),
        ((*model, "--metric", "best"), "metric 'best' is unknown"),
    ):
        code, _, err = run("circuit", *options, "--out", "d")
        assert (code, err.count("\n"), (tmp_path / "d").exists()) == (2, 1, False)
        assert why in err


@pytest.mark.slow
def test_labels_of_several_tokens(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    """From a file of another encoding and delimiter; what scores the first token alone is left out, and said."""
    rows = [f"caf\u00e9 {kind}{i}\t{kind}" for kind in ("x", "y") for i in range(12)]
    (tmp_path / "d.csv").write_bytes("\n".join(["text\tlabel", *rows]).encode("latin-1"))
    data = ("--data", "d.csv", "--encoding", "latin-1", "--delimiter", "\\t", "--label-score", "whole")
    code, out, err = run("report", "--model", str(folders["gpt2"]), *data, "--labels", "foo cat,0 1", *SMALL)
    assert (code, err.count("error")) == (0, 0), err
    assert "cannot score labels of several tokens whole" in " ".join(out.split())
    results = json.loads((tmp_path / "icl-report" / "results.json").read_text())
    assert results["provenance"]["label_score"] == "whole"
    assert "caf\u00e9" in results["prompts"]["selection"][0]["text"]
    found = load_results(tmp_path / "icl-report").values
    model = load_model(str(folders["gpt2"]), device="cpu")
    read = load_rows(tmp_path / "d.csv", encoding="latin-1", delimiter="\t")
    settings = Settings(("foo cat", "0 1"), shots=2, prompts=6, heads=2, select="paper")
    batch = begin(model, sample_job(read, settings, "whole")).evaluation
    expected = answer(model, batch).log_prob
    np.testing.assert_allclose(found["groups"].base.answers.log_prob, expected, atol=1e-5)
    assert (np.abs(expected - answer(model, replace(batch, label_score="first")).log_prob) > 0.1).all()


def test_heads_command(run: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    code, out, _ = run("heads", "--model", str(folders["gptj"]), *SMALL)
    assert code == 0
    assert len([line for line in out.splitlines() if re.match(r" *L\d+H\d+ ", line)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_prompts_command(run: Any, folders: dict[str, Path]) -> None:
    code, out, _ = run("prompts", "--model", str(folders["gpt2"]), "--shots", "1", "--prompts", "2", "--seed", "4")
    assert code == 0
    shown = [line for line in out.splitlines() if "<last" in line]
    assert len(shown) == 2
    for line in shown:
        assert line.count("| foo<label ") == line.count("| bar<label ") == 1
        assert "| :<last " in line
        assert line.count("|") == int(line.rsplit("<last ", 1)[1].rstrip(">"))
    assert out.count("right answer: ") == 2
    assert "word-categories, seed 4, prompt 1" in out


def test_help_and_version(run: Any) -> None:
    assert run("--version")[1].startswith("icl-circuits 0.")
    code, out, _ = run("--help")
    assert code == 0
    commands = (
        "report",
        "in-context",
        "towers",
        "biases",
        "circuit",
        "subvalues",
        "relations",
        "development",
        "figures",
        "heads",
        "prompts",
        "train-small",
        "batch",
        "completion",
        "store",
    )
    assert [line.split()[1] for line in out.splitlines() if re.match(r"│ [a-z]", line)] == list(commands)
    assert run()[1] == out  # no arguments
    others = ("train-small", "batch", "completion", "store")
    for command in commands:
        shown = run(command, "--help")[1]
        options = re.findall(r"│ +(--[a-z-]+)", shown)
        assert len(options) == len(set(options))
        assert not {"--no-force", "--empty-labels"} & set(options)
        if command not in ("figures", *others):
            assert "--model" in options
        if command not in ("figures", "subvalues", "relations", "development", *others):
            assert {"--shots", "--separator"} <= set(options)


def run_python(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    ).stdout


def test_the_program_is_a_module_too() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "icl_circuits", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("icl-circuits 0.")


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib', 'pandas'}"
    shown = run_python(
        "import sys, icl_circuits.cli.app as c\n"
        "app = c.make_app()\n"
        "app(['report', '--help'], result_action='return_value')\n"
        f"print({heavy} & set(sys.modules))"
    )
    assert shown.endswith("set()\n")


@pytest.mark.slow
def test_using_the_package_warns_of_nothing_and_draws_nothing() -> None:
    script = "import sys, icl_circuits as i; [getattr(i, name) for name in i.__all__]; print({} & set(sys.modules))"
    assert run_python(script.format("{'transformers', 'matplotlib'}")) == "set()\n"


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "no-such-model-anywhere"), "cannot load model 'no-such-model-anywhere'"),
        (("--model", "no-such-model-anywhere", "--out", "new/folders/r"), "cannot load model"),
        (("--data", "nonsense"), "data 'nonsense' is unknown"),
        (("--data", "GOOD", "--text-column", "body"), "no column 'body': its columns are text, label"),
        (("--data", "EMPTY"), "has no rows"),
        (("--data", "ONE"), "one class only"),
        (("--data", "GOOD", "--shots", "7"), "7 shots and a query need 8"),
        (("--labels", "foo,foobar"), "no token tells label 'foo' from label 'foobar': choose another word"),
        (("--separator", " bar "), "separator ' bar ' is one of the labels"),
        (("--data", "GOOD", "--encoding", "utf-9"), "encoding 'utf-9' is unknown"),
        (("--data", "GOOD", "--delimiter", "::"), "delimiter '::': give one character"),
        (("--data", "GOOD", "--delimiter", "\\t"), "no column 'text': its columns are text,label"),
        (("--encoding", "latin-1"), "only files have an encoding"),
        (("--labels", "foo"), "at least two different words"),
        (("--shots", "19"), "reads at most 256"),
        (("--heads", "7"), "select at most 6"),
        (("--seed", "-1"), "seed is -1"),
        (("--device", "nonsense"), "device 'nonsense' does not exist"),
        (("--model", "[/x]"), "model folder '[/x]' does not exist"),
        (("--out", "/proc/none/r"), "cannot write to"),
        (("--heads", "0"), "cannot select 0 heads"),
        (("--prompts", "0"), "cannot sample 0 prompts"),
        (("--out", "there"), "there' exists already: give --force"),
        (("--out", "file", "--force"), "file' is a file: name a folder"),
        (("--out", ".", "--force"), "exists and was not written by this command"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Any, folders: dict[str, Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    rows = [f"{kind}{i},{kind}" for kind in ("x", "y") for i in range(12)]
    for name, content in (("GOOD", rows), ("EMPTY", []), ("ONE", rows[:12])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *content]) + "\n")
    before = sorted(tmp_path.rglob("*"))
    given = [f"{a}.csv" if a.isupper() else a for a in arguments]
    code, _, err = run("report", "--model", str(folders["gpt2"]), *SMALL, *given)
    errors = [line for line in err.splitlines() if line.startswith("icl-circuits: error: ")]
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("report", "--no-such-option"), "--no-such-option"),
        (("report", "--model.model", "x"), "--model.model"),
        (("report", "word"), "word"),
        (("report", "--shots", "few"), "--shots"),
        (("report", "--backend", "other"), "--backend"),
        (("report", "--model"), "--model"),
        (("prompts", "--heads", "3"), "--heads"),
        (("figures",), "RESULTS"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_a_wrong_option_is_named(run: Any, arguments: tuple[str, ...], named: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("icl-circuits: error: ")
    assert named in err


def test_options_become_a_job(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def no_run(job: Job, studies: Any, out: Path, *, force: bool, store: Store | None) -> Outcome:
        asked.append((job, out, force, store and store.folder.name))
        return Outcome(())

    monkeypatch.setattr("icl_circuits.studies.run_job", no_run)
    assert run("report")[0] == 0
    options = ("--labels", "foo, bar,baz", "--separator", r"-\n\t", "--shots", "2", "--shots", "3", "--force")
    data = ("--data", "x.csv", "--encoding", "cp1252", "--delimiter", r"\t", "--label-score", "whole")
    assert run("towers", *options, *data, "--dtype", "float64", "--out", "r", "--seed", "-1", "--store", "s")[0] == 0
    assert run("circuit", "--no-store")[0] == 0
    settings = Settings(("foo", "bar", "baz"), shots=3, seed=-1, separator="-\n\t")
    assert asked == [
        (Job(), Path("icl-report"), False, default_folder().name),
        (
            Job(
                ModelSpec(dtype="float64"),
                DataSpec("x.csv", encoding="cp1252", delimiter="\t", label_score="whole"),
                settings,
            ),
            Path("r"),
            True,
            "s",
        ),
        (CircuitJob(), Path("icl-circuit"), False, None),
    ]


def test_the_hooked_backend_on_new_transformer_lens(run: Any, folders: dict[str, Path]) -> None:
    if hooked_transformer_class() is not None:
        pytest.skip("this TransformerLens has HookedTransformer")
    code, _, err = run("report", "--model", str(folders["gpt2"]), "--backend", "hooked", *SMALL)
    assert code == 2
    assert "transformer_lens<4" in err


def test_figures_of_what_holds_no_results(run: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no results")
    save_file({"x": np.zeros(2)}, tmp_path / "other.safetensors")
    write_results(Results({"described": ""}, {"x": np.zeros(2)}), tmp_path / "bare.safetensors", ())
    for given, message in (
        ("nothing", "no results at 'nothing'"),
        ("folder", "no results at 'folder'"),
        ("file", "holds no results that this version"),
        ("other.safetensors", "holds no results that this version"),
        ("bare.safetensors", "nothing that a figure is drawn of"),
    ):
        code, _, err = run("figures", given, "--out", "f")
        assert (code, err.count("error:")) == (2, 1)
        assert message in err
        assert not (tmp_path / "f").exists()
    with pytest.raises(TypeError, match="x is a str"):
        write_results(Results({}, {"x": "text"}), tmp_path / "no.safetensors", ())


STARTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background lack
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup takes away
from icl_circuits.__main__ import main, obey_signals
obey_signals()
print("started", flush=True)
main()
"""
MOMENTS = int(os.environ.get("MOMENTS", "6"))
"""At how many random moments a report is ended."""


@pytest.mark.slow
def test_a_report_ended_at_random_moments_leaves_the_old_one(folders: dict[str, Path], tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    with new_folder(home / "r", "results", force=False) as older:
        (older / "results.json").write_text("an older report")
    (home / "r" / "notes").write_text("mine")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    options = ["report", "--model", str(folders["gpt2"]), "--out", "r", "--force", *SMALL, "--shots", "1"]
    chance, environment = random.Random(0), os.environ | {"TMPDIR": str(home)}
    ended = []
    for moment in range(MOMENTS):
        number = chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        command = [sys.executable, "-c", STARTED, *options]
        with subprocess.Popen(
            command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            time.sleep(chance.uniform(0, 12))
            sent = time.monotonic()
            process.send_signal(number)
            code = process.wait(timeout=60)
            assert time.monotonic() - sent < 5, (moment, number)  # alone it is half a second
        assert (home / "r" / "notes").read_text() == "mine"
        if (home / "r" / "results.json").read_text() == "an older report":
            assert code == 128 + number, moment
            assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before, moment
            ended.append(number)
        else:  # it had come to its end
            found = read_manifest(home / "r")
            assert found is not None
            assert all(is_unchanged(home / "r", *file) for file in found.files.items())
            assert [path.name for path in home.iterdir()] == ["r"]
            shutil.rmtree(home / "r")
            (home / "r").mkdir()
            for path, content in before.items():
                path.write_bytes(content)
    assert len(ended) > MOMENTS // 3
