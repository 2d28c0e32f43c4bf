"""The store: values come back as they were, damage is noticed, steps are computed once, and what a key depends on."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from icl_circuits import cli
from icl_circuits.costs import Cost, count_forwards
from icl_circuits.errors import InputError
from icl_circuits.jobs import Job, ModelSpec, Settings
from icl_circuits.models import SMALL, LensModel, identity, load_model
from icl_circuits.residual import Head
from icl_circuits.store import Store, code_version, default_folder, digest, packed, unpacked
from icl_circuits.studies import Loaded, Steps, begin, run_job
from icl_circuits.studies.begun import prepare
from icl_circuits.studies.in_context import IN_CONTEXT

COST = Cost(1.5, 3, 10)
ABOUT = {"step": "a step", "model": "a model", "data": "some data"}
KEY = digest("a key")


class Pair(NamedTuple):
    """Two values."""

    one: Any
    two: Any


@dataclass(frozen=True)
class Found:
    """A result with parts of every kind."""

    numbers: np.ndarray
    parts: tuple[Any, ...]
    name: str


VALUES = [
    None, True, 0, -1.5, "text\u2028", float("inf"), (), [], {}, (1, (2.0, "x")), [None, [True]],
    {"a": 1, ("b", 2): (3,)}, np.float32(0.1), np.int64(2**40), np.bool_(True), np.array(3.0),
    np.zeros((0, 3)), np.arange(6, dtype=np.int16).reshape(2, 3), np.array(["a", "bcd"]), torch.arange(4),
    torch.zeros(2, 0), Head(1, 2), Pair(np.array([1.0, np.nan]), None), Found(np.eye(2), (Head(0, 1), None), "n"),
]  # fmt: skip


def same(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return (
            one.dtype == two.dtype
            and one.shape == two.shape
            and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
        )
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, tuple | list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, Found):
        return same((one.numbers, one.parts, one.name), (two.numbers, two.parts, two.name))
    return bool(one == two)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(value: object) -> None:
    assert same(unpacked(packed(value)), value)
    assert packed(value) == packed(value)
    assert digest(value) == digest(unpacked(packed(value)))


def test_tables_come_back_as_they_were() -> None:
    frame = pd.DataFrame({"head": ["L0H1", None], "score": [0.1, np.nan], "n": [1, 2], "is": [True, False]})
    pd.testing.assert_frame_equal(unpacked(packed(frame)), frame)
    assert digest(frame) != digest(frame.rename(columns={"n": "m"}))


def test_different_values_have_different_digests() -> None:
    assert len({digest(value) for value in VALUES}) == len(VALUES)
    assert digest((1, 2)) != digest([1, 2])
    assert digest(np.zeros(2, np.float32)) != digest(np.zeros(2))
    assert digest(np.zeros((2, 3))) != digest(np.zeros((3, 2)))


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), Path("x"), lambda: 1], ids=type)
def test_what_cannot_be_kept_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be kept"):
        packed(value)


def test_a_file_names_no_other_class_than_plain_ones() -> None:
    data = packed(Pair(1, 2)).replace(b"test_store:Pair", b"os:system......")
    with pytest.raises((AttributeError, TypeError)):
        unpacked(data)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_step_is_kept_with_its_cost(store: Store) -> None:
    assert store.get(KEY) is None
    store.put(KEY, Found(np.eye(2), (), "x"), COST, ABOUT)
    kept = Store(store.folder).get(KEY)
    assert kept is not None
    assert same(kept.value, Found(np.eye(2), (), "x"))
    assert kept.cost == COST
    (listed,) = store.listing()
    assert (listed.step, listed.model, listed.data, listed.cost) == ("a step", "a model", "some data", COST)
    assert listed.size <= store.size()


@pytest.mark.parametrize("place", [0.0, 0.1, 0.3, 0.6, 0.9, 0.999])
def test_a_flipped_bit_is_noticed_and_the_step_computed_again(store: Store, place: float) -> None:
    store.put(KEY, np.arange(100.0), COST, ABOUT)
    (file,) = store.folder.rglob("*.step")
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 4
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged: the step is computed again"):
        assert store.get(KEY) is None
    assert not file.exists()


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 64])
def test_a_truncated_file_is_noticed(store: Store, data: bytes) -> None:
    store.put(KEY, np.arange(100.0), COST, ABOUT)
    (file,) = store.folder.rglob("*.step")
    file.write_bytes(data)
    assert store.listing() == []
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.get(KEY) is None


def test_a_file_of_another_format_is_computed_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("icl_circuits.store.store.FORMAT", 0)
        store.put(KEY, 1, COST, ABOUT)
    with pytest.warns(UserWarning, match="is of another version"):
        assert store.get(KEY) is None
    assert list(store.folder.rglob("*.step"))  # it may be of use to the other


def test_prune_removes_what_was_not_used(store: Store) -> None:
    store.put(KEY, 1, COST, ABOUT)
    store.put(digest("other"), 2, COST, ABOUT)
    (old,) = store.folder.rglob(f"{KEY}*.step")
    os.utime(old, (time.time() - 10 * 24 * 3600,) * 2)
    assert store.prune(unused_days=30) == (0, 0)
    assert store.prune(unused_days=5)[0] == 1
    assert store.get(KEY) is None
    assert store.get(digest("other")) is not None
    assert store.prune()[0] == 1
    assert store.listing() == []


def test_other_folders_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other things"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "file" / "store")


def test_steps_are_computed_once(store: Store) -> None:
    calls: list[int] = []

    def compute() -> np.ndarray:
        calls.append(1)
        count_forwards(7)
        return np.arange(3)

    first, second, other = (Steps(on, data="d", store=store) for on in (("x", 1), ("x", 1), ("x", 2)))
    assert same(first("step", compute), np.arange(3))
    assert same(second("step", compute), np.arange(3))
    assert len(calls) == 1
    assert first.costs == second.costs
    assert first.costs["step"].forwards == 7
    other("step", compute)
    second("another step", compute)
    assert len(calls) == 3
    Steps(("x", 1))("step", compute)  # without a store
    assert len(calls) == 4


def test_a_step_that_another_run_computes_is_waited_for(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    steps, got = Steps("run", store=store), list[int]()
    key = digest((code_version(), code_version(__name__), "step", digest("run")))
    with FileLock(store.folder / "locks" / key):
        waiting = Thread(target=lambda: got.append(steps("step", lambda: pytest.fail("computed twice"))))
        waiting.start()
        for _ in range(400):
            if "another run computes it" in capsys.readouterr().err:
                break
            time.sleep(0.05)
        assert waiting.is_alive()
        store.put(key, 5, COST, ABOUT)
    waiting.join(timeout=20)
    assert got == [5]
    assert not list((store.folder / "locks").iterdir())


def test_a_step_that_fails_is_not_kept(store: Store) -> None:
    def fail() -> int:
        raise InputError("no")

    steps = Steps("run", store=store)
    with pytest.raises(InputError):
        steps("step", fail)
    assert steps("step", lambda: 3) == 3
    assert not list((store.folder / "locks").iterdir())


def test_the_code_that_computes_is_part_of_the_key(tmp_path: Path) -> None:
    assert code_version() == code_version("icl_circuits.heads")
    assert code_version(__name__) != code_version()


def test_an_identity_is_of_weights_and_not_of_names(gpt2: LensModel) -> None:
    before = identity(gpt2)
    name, gpt2.cfg.model_name = gpt2.cfg.model_name, "another name"
    assert identity(gpt2) == before
    gpt2.cfg.model_name = name
    weight = gpt2.blocks[0].attn.W_Q
    with torch.no_grad():
        weight[0, 0, 0] += 1
        changed = identity(gpt2)
        weight[0, 0, 0] -= 1
    assert changed["weights"] != before["weights"]
    assert {key for key in before if changed[key] != before[key]} == {"weights"}


def test_a_model_is_known_by_its_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(SMALL, checkpoint=0)
    first = Loaded(spec, store)
    assert first.identity == identity(first.model)
    monkeypatch.setattr("icl_circuits.studies.loading.load_spec", lambda _: pytest.fail("loaded"))
    assert Loaded(spec, store).identity == first.identity
    with pytest.raises(pytest.fail.Exception):
        Loaded(ModelSpec(SMALL), store).identity  # noqa: B018
    note = next((store.folder / "models").iterdir())
    note.write_text(note.read_text().replace('"weights": "', '"weights": "0'))
    with pytest.raises(pytest.fail.Exception):
        Loaded(spec, store).identity  # noqa: B018


SETTINGS = Settings(prompts=6, heads=2, select="paper", shots=2)
JOB = Job(ModelSpec(SMALL), settings=SETTINGS)


@pytest.mark.slow
def test_a_second_run_takes_every_step_from_the_store(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_job(JOB, [IN_CONTEXT], tmp_path / "a", store=store)
    assert "taken from the store" not in capsys.readouterr().err
    run_job(JOB, [IN_CONTEXT], tmp_path / "b", store=store)
    assert capsys.readouterr().err.count("taken from the store") == len(store.listing()) == 3
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) > 10
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_fewer_heads_share_their_scores(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(SMALL)
    one = begin(model, prepare(JOB), store=store)
    two = begin(model, prepare(replace(JOB, settings=replace(SETTINGS, heads=3))), store=store)
    assert capsys.readouterr().err.count("scores of every head: taken from the store") == 1
    assert same(two.scores.effects.log_prob_drop, one.scores.effects.log_prob_drop)
    assert len(two.heads) == 3
    begin(model, prepare(replace(JOB, settings=replace(SETTINGS, seed=1))), store=store)
    begin(load_model(SMALL, checkpoint=0), prepare(JOB), store=store)
    assert "taken from the store" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_store_without_room_does_not_end_a_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("icl_circuits.store.store._write", full)
    with pytest.warns(UserWarning, match="cannot be kept in .*No space left on device"):
        run_job(JOB, [IN_CONTEXT], tmp_path / "a", store=store)
    assert (tmp_path / "a" / "report.html").is_file()
    assert store.listing() == []


@pytest.mark.slow
def test_commands_look_after_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["icl-circuits", *words])
        with contextlib.suppress(SystemExit):
            cli.main()
        return capsys.readouterr().out

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's
    options = ("--model", SMALL, "--heads", "2", "--select", "paper", "--prompts", "6", "--shots", "2")
    run("in-context", *options, "--out", str(tmp_path / "out"))
    listed = run("store", "list")
    assert "scores of every head" in listed
    assert SMALL in listed
    assert str(default_folder())[:60] in listed
    assert "3 steps" in run("store", "size")
    assert "Removed 0 steps" in run("store", "prune")
    assert "Removed 3 steps" in run("store", "prune", "--days", "0")
    run("in-context", *options, "--out", str(tmp_path / "two"), "--no-store")
    assert "0 steps" in run("store", "size")
    run("heads", *options)
    run("heads", *options)
    assert "1 steps" in run("store", "size")


def test_what_tells_models_apart(gpt2: LensModel) -> None:
    before = identity(gpt2)
    weight = gpt2.blocks[0].attn.W_O
    number = weight[0, 0, 0].item()
    weight.data[0, 0, 0] = 5.0  # changes no version
    assert identity(gpt2)["weights"] != before["weights"]
    weight.data[0, 0, 0] = number
    gpt2.blocks[0].hook_resid_post.add_hook(lambda x, hook: x * 2)
    assert identity(gpt2)["hooks"] != identity(gpt2)["hooks"] != ""
    gpt2.reset_hooks()
    assert identity(gpt2) == before


def test_a_step_gives_what_the_store_would_give() -> None:
    """To the order of numbers in memory, since sums depend on it."""
    turned = np.arange(6.0).reshape(2, 3).T
    found = Steps("run")("step", lambda: turned)
    assert np.array_equal(found, turned)
    assert found.flags.c_contiguous


def test_files_that_change_while_they_are_read_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([[("a", 1, 2)], [("a", 1, 3)]])
    monkeypatch.setattr("icl_circuits.studies.loading.files_of", lambda *_: next(found))
    with pytest.raises(InputError, match="changed while they were read"):
        Loaded(ModelSpec(SMALL), store).model  # noqa: B018


def test_code_in_no_file_is_never_taken_for_other_code() -> None:
    assert code_version("__no_module__") != code_version("__no_module__")


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, refused: Callable[..., str]) -> None:
    for command in ("list", "size", "prune"):
        assert "there is no store at 'typo'" in refused("store", command, "--store", "typo")
    made = str(Store(tmp_path / "made").folder)
    assert "--days -1.0 are no days" in refused("store", "prune", "--days", "-1", "--store", made)
