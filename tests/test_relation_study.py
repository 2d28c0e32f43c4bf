"""The study of relations as a user runs it, on a tiny model."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from icl_circuits import cli
from icl_circuits.errors import InputError
from icl_circuits.jobs import RelationJob, RelationSettings, RelationSpec
from icl_circuits.residual import Head
from icl_circuits.studies import STUDIES, load_results
from icl_circuits.studies.relations.begun import prepare

SMALL = ("--texts", "12", "--heads", "1", "--prompts", "3", "--shots", "1", "--task-prompts", "1")
TABLES = {
    "relation_index_dependencies", "relation_index_knowledge", "relation_index_backwards", "by_tau_dependencies",
    "by_tau_knowledge", "by_tau_backwards", "relations", "left_out", "induction_scores",
    "function_vector_heads", "tasks", "families", "family_overlap", "families_zeroed_on_words",
    "families_zeroed_on_tasks",
}  # fmt: skip
FIGURES = {
    "relation_index_dependencies", "relation_index_knowledge", "relation_index_backwards", "relation_index_by_tau",
    "best_heads_dependencies", "best_heads_knowledge",
    "best_heads_backwards", "attention_ratios", "family_overlap", "families_zeroed",
}  # fmt: skip


@pytest.mark.slow
def test_the_whole_study(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's
    monkeypatch.setattr(sys, "argv", ["icl-circuits", "relations", "--model", str(folders["llama"]), *SMALL])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code or 0) == 0, err
    assert "Syntactic dependencies" in out
    folder = tmp_path / "icl-relations"
    assert {file.stem for file in (folder / "tables").glob("*.csv")} >= TABLES
    assert {file.stem for file in (folder / "figures").iterdir()} == FIGURES
    numbers = json.loads((folder / "results.json").read_text())
    found = load_results(folder, STUDIES).values
    index = found["dependencies"]
    assert set(index.relations) == {"subj", "obj", "mod"}
    frame = pd.read_csv(folder / "tables" / "relation_index_dependencies.csv")
    row = frame.iloc[0]
    r = index.relations.index(row["relation"])
    assert row["index"] == pytest.approx(float(index.index[r, row["layer"], row["head"]]), rel=1e-4)
    families = {
        name: [Head(*map(int, head[1:].split("H"))) for head in heads] for name, heads in numbers["families"].items()
    }
    assert {"induction", "function vector"} <= set(families)
    page = (folder / "report.html").read_text()
    said = "In-context heads are missing" in page  # a random model may have none
    assert said != ("in-context" in families)
    assert re.search(r"(None|\d+) of \d+ triplets were left out\.", page)
    assert all(len(heads) == 1 for heads in families.values())
    best = found["induction"].prefix_matching.mean(axis=0)
    assert best[families["induction"][0].layer, families["induction"][0].head] == best.max()
    shared = {(row["family"], row["other"]): row["shared"] for row in numbers["overlap"]}
    for (one, other), n in shared.items():
        assert n == len(set(families[one]) & set(families[other]))
    of_base = found["on_words"].base.log_prob[0]
    whole = found["on_words"].of("induction", "whole").log_prob.mean(axis=0)
    (given,) = (
        entry
        for entry in numbers["zeroed"]["in-context prompts"]
        if (entry["family"], entry["kind"]) == ("induction", "whole")
    )
    assert given["log_prob_drop"] == pytest.approx(float((of_base - whole).mean()), abs=1e-5)
    assert found.get("probe") is None  # this tokenizer makes too many tokens of the sentences


def test_what_is_asked_for_is_read_before_a_model(tmp_path: Path) -> None:
    """Bad files and settings show before a model is loaded, and texts are treated as asked."""
    words = prepare(RelationJob(data=RelationSpec(keep_entities=True, keep_words=True))).knowledge
    letters = prepare(RelationJob()).knowledge
    assert any(" of " in text.text for text in words.texts)
    assert not any(" of " in text.text for text in letters.texts)
    for text in letters.texts:
        for triplet in text.triplets:
            assert all(len(text.text[start:stop]) == 1 for start, stop in triplet.spans)
    for job, message in (
        (RelationJob(data=RelationSpec(dependencies="none.conllu")), "none.conllu"),
        (RelationJob(data=RelationSpec(dependencies=str(tmp_path / "none.txt"))), "none.txt"),
        (RelationJob(data=RelationSpec(triplets="none.jsonl")), "none.jsonl"),
        (RelationJob(settings=RelationSettings(texts=0)), "cannot use 0 texts"),
        (RelationJob(settings=RelationSettings(tau=0.5)), "tau is 0.5 and draws are 4000: give 1 or more"),
        (RelationJob(settings=RelationSettings(heads=0)), "cannot select 0 heads"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(job)
