"""The subvalues study as a user runs it: on facts that a tiny model knows, and on one prompt."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import loaded

from icl_circuits import cli
from icl_circuits.errors import InputError
from icl_circuits.jobs import FactJob, Job
from icl_circuits.models import LensModel
from icl_circuits.prompts import token_batch
from icl_circuits.residual import answer_logits
from icl_circuits.studies import STUDIES, load_results, run_job
from icl_circuits.studies.every import SUBVALUES

TABLES = {
    "table_1_adding_before_softmax", "table_2_eight_methods", "table_3_sums_of_layers", "table_4_value_layers",
    "table_5_12_concentration", "table_6_query_layers_of_ffn", "table_7_query_neurons_zeroed", "table_8_shared_neurons",
    "table_9_what_shared_neurons_say", "table_10_heads_on_their_own_type", "table_11_heads_on_other_types",
    "table_13_value_neurons_zeroed", "table_14_query_layers_of_attention", "value_neurons", "query_neurons",
    "agreement_with_zeroing",
}  # fmt: skip
OF_MANY = {
    "table_2_eight_methods", "table_5_12_concentration", "agreement_with_zeroing", "table_10_heads_on_their_own_type",
    "table_11_heads_on_other_types",
}  # fmt: skip


def run(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, folder: Path, *arguments: str
) -> tuple[int, str, str]:
    patch.chdir(folder)
    patch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's
    patch.setattr(sys, "argv", ["icl-circuits", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def facts_it_knows(model: LensModel, folder: Path) -> Path:
    """A file of what a random model says to some texts, in two types; a fact is what it says first."""
    texts = ["foo bar", "cat dog foo", "baz cat", "dog dog bar", "bar foo baz cat", "foo dog", "baz baz", "cat bar"]
    vocab = {
        token: id_
        for token, id_ in model.tokenizer.get_vocab().items()
        if token.startswith("Ġ") and token[1:].isalpha()
    }
    logits = answer_logits(model, token_batch(model, texts, [" foo"] * len(texts)))
    ids = torch.tensor(list(vocab.values()))
    words = [list(vocab)[int(row)][1:] for row in logits[:, ids].argmax(1)]
    kinds = ["one" if words.index(word) % 2 == 0 else "two" for word in words]
    file = folder / "facts.csv"
    pd.DataFrame({"text": texts, "answer": words, "type": kinds}).to_csv(file, index=False)
    return file


@pytest.mark.slow
def test_on_one_prompt(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = ("--model", str(folders["gpt2"]), "--prompt", "foo bar baz", "--answer", "foo")
    code, out, err = run(capsys, monkeypatch, tmp_path, "subvalues", *prompt)
    assert code == 0, err
    assert "What is left of the answer" in out
    folder = tmp_path / "icl-subvalues"
    assert "Prompt: &#39;foo bar baz&#39;, answer foo." in (folder / "report.html").read_text(encoding="utf-8")
    assert {file.stem for file in (folder / "tables").glob("*.csv")} == TABLES - OF_MANY
    page = (folder / "prompts.html").read_text(encoding="utf-8")
    assert '"activatedBy":[["' in page.replace(" ", "")
    numbers = json.loads((folder / "results.json").read_text())
    assert numbers["facts"] == {}  # it was not asked
    zeroed = {row["zeroed"]: row for row in numbers["subvalues"]["effects"]}
    assert zeroed["value neurons"]["log_prob"] < zeroed["nothing"]["log_prob"]
    found = load_results(folder, STUDIES).values
    assert found["ffn"].score.shape[0] == 1
    np.testing.assert_array_equal(found["increase"].attn.shape, (1, 3))
    code, _, err = run(capsys, monkeypatch, tmp_path, "subvalues", *prompt, "--data", "facts.csv", "--out", "other")
    assert (code, (tmp_path / "other").exists()) == (2, False)
    assert "--data is of a data file, but --prompt asks for one prompt: give one of them" in err
    code, _, err = run(capsys, monkeypatch, tmp_path, "subvalues", *prompt[:4], "--out", "other")
    assert code == 2
    assert "a prompt comes with its answer: give --answer" in err


@pytest.mark.slow
def test_on_facts(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = facts_it_knows(loaded(folders["llama"], "hooked"), tmp_path)
    given = ("--model", str(folders["llama"]), "--data", str(file))
    code, out, err = run(capsys, monkeypatch, tmp_path, "subvalues", *given)
    assert code == 0, err
    folder = tmp_path / "icl-subvalues"
    assert TABLES - {file.stem for file in (folder / "tables").glob("*.csv")} <= {
        "table_10_heads_on_their_own_type", "table_11_heads_on_other_types",
    }  # fmt: skip
    assert "Also: icl-subvalues/prompts.html" in out
    found = load_results(folder, STUDIES).values
    frame = pd.read_csv(folder / "tables" / "table_13_value_neurons_zeroed.csv")
    base, zeroed = found["effects"].base, found["effects"].zeroed[0]
    lost = zeroed[:, 1].astype(float).mean() / base[:, 1].astype(float).mean() - 1
    row = frame[frame["zeroed"] == "value neurons"].iloc[0]
    assert row["prob_change"] == pytest.approx(lost, rel=1e-4)
    assert row["prob_change_low"] <= row["prob_change"] <= row["prob_change_high"]
    assert np.isnan(frame[frame["zeroed"] == "nothing"]["prob_change"].item())
    drawn = {file.stem for file in (folder / "figures").iterdir()}
    assert {"fact_layers", "eight_methods", "agreement", "interpolation", "query_or_value"} <= drawn
    assert run(capsys, monkeypatch, tmp_path, "figures", "icl-subvalues", "--out", "f")[0] == 0
    assert {path.stem for path in (tmp_path / "f").iterdir()} == {*drawn, "manifest"}


def test_studies_and_jobs_belong_together(tmp_path: Path) -> None:
    for job, studies in ((Job(), (SUBVALUES,)), (FactJob(), STUDIES[:1]), (Job(), ()), (Job(), (*STUDIES,))):
        with pytest.raises(InputError, match="cannot run .*: give studies that begin alike, and their job"):
            run_job(job, studies, tmp_path / "out")
    assert not (tmp_path / "out").exists()
