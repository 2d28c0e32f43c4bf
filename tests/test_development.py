"""Training runs: what is measured at each checkpoint, when it emerges, what rises together, and the study."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from icl_circuits import cli
from icl_circuits.development import Development, Yardsticks, alike, co_timing, curves, develop, emergence, half_rise
from icl_circuits.errors import InputError
from icl_circuits.heads import induction_scores, zero_each_head
from icl_circuits.interventions import ZeroHeads, intervene
from icl_circuits.jobs import DevelopmentJob, DevelopmentSettings, DevelopmentSpec, Series
from icl_circuits.levels import icl_levels, loss_reduction
from icl_circuits.models import SMALL, LensModel, checkpoints, load_model
from icl_circuits.models.series import BUILT_IN
from icl_circuits.relations import relation_index
from icl_circuits.report import write_report
from icl_circuits.residual import Head
from icl_circuits.studies.development import DEVELOPMENT, run as development_run
from icl_circuits.studies.development.begun import begin, prepare

SMALL_SETTINGS = DevelopmentSettings(prompts=8, texts=12, task_prompts=2, level_prompts=4)


def run(steps: list[int], rises: dict[Head, int]) -> Development:
    """A run of 2 layers of 2 heads, each scoring 1 from its step on, and 0 before."""
    n = len(steps)
    of_heads = np.zeros((n, 2, 2))
    for head, at in rises.items():
        of_heads[:, head.layer, head.head] = np.array(steps) >= at
    nothing = np.zeros((n, 2, 2))
    top1 = np.repeat(of_heads[:, 1, 1, None] > 0, 8, axis=1)
    shares = np.repeat(top1[:, None, None], 2, axis=2)
    return Development(
        np.array(steps), ("eats",), ("task",), (0, 10), of_heads[:, None], of_heads, nothing, of_heads,
        0.5 + of_heads / 2, nothing, top1, top1, -of_heads[:, 0, :1] * np.ones(5), np.full((n, 5), np.nan), shares,
        shares,
    )  # fmt: skip


def test_half_rise_is_where_the_curve_is_half_way() -> None:
    steps = np.array([0, 100, 200, 400])
    assert half_rise(steps, np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(
        np.expm1((np.log1p(100) + np.log1p(200)) / 2)
    )
    assert half_rise(steps, np.array([0.0, 0.5, 1.0, 0.2])) == pytest.approx(100)
    assert half_rise(steps, np.array([np.nan, 0.0, 1.0, 1.0])) == half_rise(steps, np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isnan(half_rise(steps, np.array([1.0, 0.5, 0.5, 0.1])))
    assert np.isnan(half_rise(steps, np.array([0.5, 0.55, 0.2, 0.1])))  # it falls, whatever its first steps do
    assert np.isfinite(half_rise(steps, np.array([0.5, 0.2, 0.55, 0.6])))  # it dips, and ends at its highest
    assert np.isnan(half_rise(steps, np.array([np.nan, np.nan, np.nan, 1.0])))


def test_emergence_has_the_order_and_intervals_over_seeds() -> None:
    steps = [0, 100, 200, 400, 800]
    early, late = {Head(0, 0): 100, Head(1, 1): 400}, {Head(0, 0): 200, Head(1, 1): 800}
    found = emergence([run(steps, early), run(steps, late)]).set_index("curve")
    loss, labels = found.loc["loss reduction"], found.loc["labels in context"]
    assert loss["step"] < labels["step"]
    assert loss["step_low"] < loss["step"] < loss["step_high"]
    assert loss["n_seeds"] == 2
    logs = np.log1p([half_rise(np.array(steps), run(steps, rises).top1.mean(axis=1)) for rises in (early, late)])
    assert labels["step"] == pytest.approx(np.expm1(logs.mean()))
    assert labels["step_high"] == pytest.approx(np.expm1(logs.mean() + 12.7062 * logs.std(ddof=1) / 2**0.5), rel=1e-3)
    one = emergence([run(steps, early)])
    assert one["step_low"].isna().all()
    assert one["n_seeds"].max() == 1
    assert np.isnan(found.loc["copying"]["step"])  # never rises


def test_curves_are_of_the_head_that_is_best_in_the_end() -> None:
    found = {curve.name: curve for curve in curves(run([0, 1, 2], {Head(1, 0): 2, Head(0, 1): 3}))}
    assert found["relation index: eats"].head == Head(1, 0)
    assert found["in-context head"].values.tolist() == [0, 0, 1]
    assert found["labels in context"].head is None


def sigmoid(at: int) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.arange(13) - at) / 0.7))


def test_what_rises_at_the_same_checkpoints_is_told_from_what_merely_rises() -> None:
    base, heads = run(list(range(0, 1300, 100)), {}), np.zeros((13, 2, 2))
    early, late, even = (np.where(heads == 0, curve[:, None, None], 0) for curve in (
        sigmoid(4), sigmoid(9), np.linspace(0, 1, 13)))  # fmt: skip
    runs = [replace(base, copying=early, log_prob_drop=early, class_auc=late, prefix_matching=even)]
    found = co_timing(runs, draws=1000).set_index(["one", "other"])
    same, other = found.loc[("copying", "in-context head")], found.loc[("copying", "class AUC")]
    assert same["together"] == pytest.approx(1)
    assert same["p"] < 0.01
    assert same["lag"] == pytest.approx(0)
    assert other["spearman"] == pytest.approx(1)  # both rise, at other times
    assert other["p"] > 0.3
    assert other["lag"] > 0.5
    assert found.loc[("prefix matching", "class AUC")]["spearman"] == pytest.approx(1)
    assert np.isnan(found.loc[("prefix matching", "class AUC")]["together"])  # an even rise has no time
    assert (found["p_fdr"].dropna() >= found["p"].dropna()).all()
    turned = co_timing([replace(runs[0], copying=late, class_auc=early)], draws=1000).set_index(["one", "other"])
    assert turned.loc[("copying", "class AUC")]["together"] == pytest.approx(other["together"])


def test_runs_of_different_kinds_are_refused() -> None:
    one = run([0, 1], {})
    with pytest.raises(InputError, match="there is no run"):
        emergence([])
    with pytest.raises(InputError, match="other relations or tasks"):
        emergence([one, replace(one, relations=("drinks",))])
    with pytest.raises(InputError, match="different checkpoints"):
        co_timing([one, run([0, 2], {})])
    assert len(alike([one, run([0, 2], {}), run([0, 1], {})])) == 2


@pytest.fixture(scope="module")
def yardsticks() -> Yardsticks:
    return begin(load_model(SMALL), prepare(DevelopmentJob(settings=SMALL_SETTINGS))).yardsticks


@pytest.mark.slow
def test_the_development_of_heads_switched_on_at_known_steps_is_recovered(yardsticks: Yardsticks) -> None:
    """Every head of the small model is out before its step, as in a model that has not learned it."""
    trained = load_model(SMALL)
    effects = zero_each_head(trained, yardsticks.prompts)
    best = effects.heads[int(effects.log_prob_drop.mean(axis=1).argmax())]
    others = [head for head in effects.heads if head.layer == best.layer and head != best]
    on = {best: 300, others[0]: 200}

    def models() -> Iterator[tuple[int, LensModel]]:
        for step in (0, 100, 200, 300, 400):
            model = load_model(SMALL)
            with torch.no_grad():
                for head, at in on.items():
                    if step < at:
                        model.blocks[head.layer].attn.W_O[head.head] = 0
            yield step, model

    found = develop(models(), yardsticks)
    assert found.steps.tolist() == [0, 100, 200, 300, 400]
    drop = found.log_prob_drop[:, best.layer, best.head]
    assert np.allclose(drop[:3], 0, atol=1e-5)
    assert drop[3] == pytest.approx(drop[4], abs=1e-5)
    assert drop[3] > 0.1
    other = found.log_prob_drop[:, others[0].layer, others[0].head]
    assert np.allclose(other[:2], 0, atol=1e-5)
    assert abs(other[2]) > 1e-5
    for head, at in on.items():  # each score is nothing before its step, and what it is in the end from then on
        for scores in (found.log_prob_drop, np.nan_to_num(found.copying)):
            curve = scores[:, head.layer, head.head]
            assert np.allclose(curve[found.steps < at], 0, atol=1e-5)
    curve = found.log_prob_drop[:, best.layer, best.head]
    assert half_rise(found.steps, curve) == pytest.approx(np.expm1((np.log1p(200) + np.log1p(300)) / 2), rel=1e-3)
    table = emergence([found]).set_index("curve")
    assert table.loc["in-context head"]["step"] == pytest.approx(half_rise(found.steps, curve))
    assert found.top1[3:].mean() > found.top1[:3].mean()


@pytest.mark.slow
def test_each_checkpoint_is_measured_as_by_itself(yardsticks: Yardsticks) -> None:
    steps = checkpoints(SMALL)[::5]
    found = develop(((step, load_model(SMALL, checkpoint=step)) for step in steps), yardsticks)
    model = load_model(SMALL, checkpoint=steps[1])
    alone = np.concatenate([relation_index(model, batch, tau=1.0, draws=1).index for batch in yardsticks.relations])
    assert np.allclose(found.index[1], alone, equal_nan=True)
    assert np.allclose(found.prefix_matching[1], induction_scores(model).prefix_matching.mean(axis=0))
    levels = icl_levels(model, yardsticks.level_tasks, shots=yardsticks.shots, n_prompts=yardsticks.n_prompts)
    assert (found.format[1] == levels.format_unaided).all()
    assert (found.accuracy[1] == levels.accuracy).all()
    assert np.allclose(found.loss_reduction[1], loss_reduction(model, yardsticks.texts).by_100, equal_nan=True)
    with intervene(model, ZeroHeads((Head(3, 1),))):  # the plain computation of one head's effect
        logits = model(yardsticks.prompts.tokens)
    rows = torch.arange(len(yardsticks.prompts))
    zeroed = logits[rows, yardsticks.prompts.last].log_softmax(-1)[rows, yardsticks.prompts.target]
    whole = model(yardsticks.prompts.tokens)[rows, yardsticks.prompts.last].log_softmax(-1)[
        rows, yardsticks.prompts.target
    ]
    assert found.log_prob_drop[1, 3, 1] == pytest.approx(float((whole - zeroed).mean()), abs=1e-4)


@pytest.mark.slow
def test_checkpoints_of_other_shapes_and_orders_are_refused(yardsticks: Yardsticks, gpt2: LensModel) -> None:
    model = load_model(SMALL)
    with pytest.raises(InputError, match="there is no checkpoint"):
        develop([], yardsticks)
    with pytest.raises(InputError, match="comes behind"):
        develop([(5, model), (5, model)], yardsticks)
    with pytest.raises(InputError, match="give checkpoints of one training run"):
        develop([(5, model), (6, gpt2)], yardsticks)


def job(**model: object) -> DevelopmentJob:
    return DevelopmentJob(model=Series(**model), settings=SMALL_SETTINGS)  # type: ignore[arg-type]


def test_checkpoints_are_named_by_steps_or_revisions() -> None:
    runs = prepare(job(model="some/model", checkpoints=("stage1-step1000-tokens5B", "512"))).runs
    assert [(point.step, point.spec.revision, point.spec.checkpoint) for point in runs[0]] == [
        (512, None, 512), (1000, "stage1-step1000-tokens5B", None),
    ]  # fmt: skip
    assert [point.step for point in prepare(job()).runs[0]] == list(checkpoints(SMALL))
    assert prepare(job(checkpoints=("step-000400",))).runs[0][0].spec.checkpoint == 400


def test_bad_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no training step"):
        prepare(job(checkpoints=("main",)))
    with pytest.raises(InputError, match="name each step once"):
        prepare(job(checkpoints=("0", "step0")))
    with pytest.raises(InputError, match="no series of checkpoints"):
        prepare(job(seeds=(str(tmp_path),)))
    with pytest.raises(InputError, match="name each once"):
        prepare(job(seeds=(SMALL,)))
    with pytest.raises(InputError, match="has no checkpoint 7: it has 0, 100"):
        prepare(job(checkpoints=("0", "7")))
    with pytest.raises(InputError, match="ask for at most 5 with --heads"):
        begin(load_model(SMALL), prepare(DevelopmentJob(settings=replace(SMALL_SETTINGS, heads=6))))
    with pytest.raises(InputError, match="ask for 1 or more"):
        prepare(DevelopmentJob(settings=DevelopmentSettings(texts=0)))
    (tmp_path / "long.jsonl").write_text('{"txt": "a"}\n')
    with pytest.raises(InputError, match="without a text"):
        prepare(DevelopmentJob(data=DevelopmentSpec(long_texts=str(tmp_path / "long.jsonl"))))


@pytest.mark.slow
def test_a_run_in_which_no_head_stands_out_has_its_page(
    yardsticks: Yardsticks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relations = tuple(name for batch in yardsticks.relations for name in batch.relations)
    nothing = replace(run([0, 100, 200], {}), relations=relations, index=np.full((3, len(relations), 2, 2), np.nan))
    monkeypatch.setattr(development_run, "development_of", lambda *_: nothing)
    begun = begin(load_model(SMALL), prepare(DevelopmentJob(settings=SMALL_SETTINGS)))
    findings = development_run.compute(begun)
    assert findings.without is None
    body = DEVELOPMENT.body()
    write_report(begun.record, [body.present(begun, findings)], (), tmp_path, kinds=body.kinds, figures=body.figures)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Nothing rises." in page
    assert "No head stands out at the last checkpoint" in page
    assert json.loads((tmp_path / "results.json").read_text())["knock_out"] == []
    assert not (tmp_path / "tables" / "knock_out.csv").exists()


@pytest.mark.slow
def test_the_command_writes_the_whole_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = checkpoints(SMALL)
    out = tmp_path / "run"
    for step in (0, steps[4], steps[-1]):
        shutil.copytree(BUILT_IN[SMALL] / f"step-{step:06d}", tmp_path / "again" / f"step-{step:06d}")
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's
    arguments = [
        "icl-circuits", "development", "--checkpoints", f"0,{steps[4]},{steps[-1]}", "--seeds", str(tmp_path / "again"),
        "--prompts", "8", "--texts", "12", "--task-prompts", "2", "--level-prompts", "4", "--out", str(out),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    found = json.loads((out / "results.json").read_text())
    assert [row["step"] for row in found["checkpoints"]] == [0, steps[4], steps[-1]]
    assert found["checkpoints"][0]["top1"] < 0.3 < found["checkpoints"][-1]["top1"]
    assert {row["n_seeds"] for row in found["emergence"]} <= {0, 1, 2}
    for name in ("levels", "format_compliance", "pattern_discovery", "relation_indices", "head_scores", "emergence"):
        assert (out / "figures" / f"{name}.pdf").stat().st_size > 1000
    assert "checkpoint" in (out / "report.html").read_text()
