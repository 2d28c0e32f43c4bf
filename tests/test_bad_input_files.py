"""Bad input on the command line: no traceback, nothing of the user's lost, exit code 2, and one line that says why."""

import errno
import json
import os
import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import files_of
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from test_results import SHAPES, made

from icl_circuits.characters import spreadsheet_cell, visible
from icl_circuits.errors import InputError
from icl_circuits.report import Results, figures, new_folder, write_results
from icl_circuits.report.results import STRUCTURE
from icl_circuits.studies import figures_of, kinds_of, load_results, save_results

ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e\r"
DEEP = "[" * 100_000
HUGE = 10**400


# --- arguments --------------------------------------------------------------------------------------------------------

WRITING = ("report", "in-context", "towers", "biases", "circuit")
ARGUMENTS = [
    *(((command, "--out", "there"), "exists already: give --force") for command in WRITING),
    *(((command, "--out", "thesis", "--force"), "was not written by") for command in (*WRITING, "figures")),
    *(((command, "--seed", "x"), "--seed") for command in (*WRITING, "heads", "prompts")),
    *(((command, "--labels", "foo\0,bar"), "not text in UTF-8") for command in (*WRITING, "heads", "prompts")),
    (("report", "--out", "file"), "is a file: name a folder"),
    (("report", "--out", "file", "--force"), "is a file: name a folder"),
    (("report", "--out", "file/r"), "cannot write to"),
    (("report", "--out", "x" * 256), "cannot be a folder"),
    (("report", "--out", "x/" * 3000), "cannot be a folder"),
    (("report", "--out", "\udcff\udcfe"), "not text in UTF-8"),
    (("report", "--out", "nul\0"), "not text in UTF-8"),
    (("report", "--out", "loop"), "cannot be a folder"),
    (("report", "--out", "loop/r"), "cannot be a folder"),
    (("report", "--out", "~no-such-user/r"), "cannot be a folder"),
    (("report", "--out", "dangling"), "cannot write to"),
    (("report", "--out", "page.html"), "names a page"),
    (("report", "--out", "/proc/r"), "cannot write to"),
    (("report", "--out", "/dev/null"), "is a file"),
    (("report", "--out", "/dev/null/r"), "cannot write to"),
    (("report", "--out", "/", "--force"), "cannot be written"),
    (("report", "--out", ".", "--force"), "was not written by this command"),
    (("report", "--out", "..", "--force"), "was not written by this command"),
    (("report", "--out", "pictures", "--force"), "holds figures, not results"),
    (("report", "--out", "changed", "--force"), "was changed since it was written"),
    (("report", "--data", "no.csv"), "no.csv"),
    (("report", "--data", "folder.csv"), "folder.csv"),
    (("report", "--data", "x" * 300 + ".csv"), "x"),
    (("report", "--data", "loop/rows.csv"), "loop"),
    (("report", "--data", f"{ESCAPES}.csv"), r"\x1b"),
    (("report", "--data", "\udcff.csv"), "not text in UTF-8"),
    (("report", "--heads", "0"), "cannot select 0 heads"),
    (("report", "--heads", "-3"), "heads"),
    (("report", "--prompts", "0"), "cannot sample 0 prompts"),
    (("report", "--prompts", "-1"), "prompts"),
    (("report", "--prompts", "1000001"), "cannot sample 1000001 prompts: ask for at most 1000000"),
    (("report", "--prompts", str(HUGE)), "ask for at most 1000000"),
    (("report", "--shots", str(HUGE)), "lower --shots or add rows"),
    (("report", "--data", "hf:" + "x" * 5000), "cannot be read: File name too long"),
    (("report", "--data", "hf:/"), "check the name"),
    (("report", "--data", "hf:"), "give hf:NAME/CONFIG@SPLIT"),
    (("report", "--n-ctx", "0"), "--n-ctx is 0"),
    (("report", "--n-ctx", str(HUGE)), "--n-ctx is 1000"),
    (("report", "--encoding", "zip"), "only files have an encoding"),
    (("report", "--text-column", "label"), "are both 'label'"),
    (("report", "--separator", "foo"), "separator 'foo' is one of the labels"),
    (("heads", "--heads", str(HUGE)), "select at most 6"),
    (("report", "--shots", "-1"), "shots"),
    (("report", "--seed", "-1"), "seed is -1"),
    (("report", "--labels", "foo"), "at least two different words"),
    (("report", "--labels", ""), "label"),
    (("report", "--labels", "foo,foo"), "label"),
    (("report", "--labels", "foo,,bar"), "label"),
    (("report", "--shots", "1e3"), "--shots"),
    (("report", "--shots", ESCAPES), "--shots"),
    (("report", "--dtype", "int8"), "--dtype"),
    (("report", "--backend", ESCAPES), "--backend"),
    (("report", ESCAPES), r"\x1b"),
    ((f"--{ESCAPES}",), r"\x1b"),
    ((ESCAPES,), r"\x1b"),
    (("report", "--device", "meta"), "device 'meta' holds no numbers"),
    (("report", "--device", ESCAPES), "does not exist"),
    (("report", "--device", "cuda:99"), "does not exist"),
    (("figures",), "RESULTS"),
    (("figures", "a", "b"), "b"),
    (("figures", "nothing"), "no results at 'nothing'"),
    (("figures", "thesis"), "no results at 'thesis'"),
    (("figures", "thesis/thesis.tex"), "holds no results"),
    (("figures", "loop"), "no results at 'loop'"),
    (("figures", "dangling"), "no results at 'dangling'"),
    (("figures", "x" * 256), "no results at"),
    (("figures", "x/" * 3000), "no results at"),
    (("figures", "/dev/zero"), "no results at"),
    (("figures", "pipe"), "no results at"),
    (("figures", ""), "no results at"),
    (("figures", ESCAPES), r"\x1b"),
    (("figures", "\udcff"), "not text in UTF-8"),
    (("figures", "good.safetensors", "--out", "pictures"), "exists already"),
    (("figures", "good.safetensors", "--out", "there", "--force"), "holds results, not figures"),
    (("figures", "good.safetensors", "--out", "file", "--force"), "is a file"),
    (("figures", "good.safetensors", "--out", "x" * 256), "cannot be a folder"),
    (("figures", "good.safetensors", "--out", "loop"), "cannot be a folder"),
    (("figures", "good.safetensors", "--out", "there/figures", "--force"), "was not written by this command"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of results with every kind in it."""
    file = tmp_path_factory.mktemp("results") / "good.safetensors"
    write_results(Results({"described": "A run."}, made(**SHAPES["usual"])), file, kinds_of())
    return file


@pytest.fixture
def desk(tmp_path: Path, good: Path) -> Iterator[Path]:
    """A folder with what a user may have in it."""
    with new_folder(tmp_path / "there", "results", force=False) as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "a.png").write_text("a picture")
        (folder / "results.json").write_text("numbers")
    with new_folder(tmp_path / "pictures", "figures", force=False) as folder:
        (folder / "a.png").write_text("a picture")
    with new_folder(tmp_path / "changed", "results", force=False) as folder:
        (folder / "report.html").write_text("a page")
    (tmp_path / "changed" / "report.html").write_text("a page with notes")
    (tmp_path / "thesis").mkdir()
    for name in ("thesis.tex", "results.json", "head_map.png"):
        (tmp_path / "thesis" / name).write_text("years of work")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("/proc/none/r")
    (tmp_path / "good.safetensors").write_bytes(good.read_bytes())
    os.mkfifo(tmp_path / "pipe")
    yield tmp_path
    (tmp_path / "pipe").unlink()


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_bad_arguments(
    refused: Callable[..., str],
    desk: Path,
    folders: dict[str, Path],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    given = [*arguments]
    if arguments[0] in (*WRITING, "heads", "prompts"):
        given[1:1] = ["--model", str(folders["gpt2"])]
    if arguments[0] == "figures" and arguments[1:2] == ("--out",):
        given.insert(1, "good.safetensors")
    assert message in refused(*given)


# --- files of results -------------------------------------------------------------------------------------------------

Arrays = dict[str, np.ndarray]
Change = Callable[[Arrays, dict[str, Any]], Any]


def value(name: str, *keys: str | int, to: Any) -> Change:
    """Change what is not an array of one result object."""

    def change(_: Arrays, structure: dict[str, Any]) -> None:
        place = structure["values"][name]
        *above, last = ("value", *keys)
        for key in above:
            place = place[key]
        place[last] = to

    return change


def array(name: str, to: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Change an array."""

    def change(arrays: Arrays, _: dict[str, Any]) -> None:
        arrays[name] = np.ascontiguousarray(to(arrays[name]))

    return change


def whole(to: Any) -> Change:
    """Put something in the place of the structure."""
    return lambda *_: to


def flatter(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1)


def shorter(values: np.ndarray) -> np.ndarray:
    return values[..., :-1]


def as_text(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int8) if values.dtype != np.int8 else values.astype(np.float64)


CHANGES: dict[str, Change] = {
    "no structure": whole({}),
    "null": whole(None),
    "a number": whole(3),
    "a list": whole([]),
    "a text": whole("text"),
    "values are a list": whole({"about": {}, "values": []}),
    "values are null": whole({"about": {}, "values": None}),
    "a value is a number": whole({"about": {}, "values": {"selected": 3}}),
    "a value is null": whole({"about": {}, "values": {"selected": None}}),
    "no kind": whole({"about": {}, "values": {"selected": {"value": {}}}}),
    "an odd kind": whole({"about": {}, "values": {"selected": {"kind": ["x"], "value": {}}}}),
    "an unknown kind": whole({"about": {}, "values": {"selected": {"kind": "os.system", "value": {}}}}),
    "a kind of another": lambda _, s: s["values"]["increase"].update(kind="HeadEffects"),
    "about is a list": lambda _, s: s.update(about=[]),
    "about is null": lambda _, s: s.update(about=None),
    "no about": lambda _, s: s.pop("about") and None,
    "described is a number": lambda _, s: s["about"].update(described=3),
    "described is a list": lambda _, s: s["about"].update(described=["x"]),
    "an array is a number": value("increase", "mlp", to=1),
    "an array is null": value("increase", "mlp", to=None),
    "an array is a list": value("increase", "mlp", to=[[1.0]]),
    "an array that is not there": value("increase", "mlp", to={"$array": "nowhere"}),
    "an array of an odd name": value("increase", "mlp", to={"$array": ["x"]}),
    "an array of another": value("increase", "mlp", to={"$array": "evaluation.gold"}),
    "heads are a number": value("effects", "heads", to=3),
    "heads are null": value("effects", "heads", to=None),
    "a head is a text": value("effects", "heads", 0, to="L1H1"),
    "a head of one number": value("effects", "heads", 0, to=[1]),
    "a head of three numbers": value("effects", "heads", 0, to=[1, 1, 1]),
    "a head of halves": value("effects", "heads", 0, to=[1.5, 0.5]),
    "a head of truths": value("effects", "heads", 0, to=[True, False]),
    "a huge head": value("effects", "heads", 0, to=[HUGE, 0]),
    "a head beyond the model": value("effects", "heads", 0, to=[10_000, 0]),
    "a huge layer": value("selected", "heads", 0, "layer", to=HUGE),
    "a layer as a text": value("selected", "heads", 0, "layer", to="1"),
    "a label as a number": value("selected", "heads", 0, "label", to=1),
    "a label as null": value("selected", "heads", 0, "label", to=None),
    "labels are a text": value("selected", "labels", to=3),
    "labels are nested": value("selected", "labels", to=[["foo"], ["bar"]]),
    "a score as a text": value("selected", "heads", 0, "log_prob_increase", to="1.0"),
    "a huge score": value("selected", "heads", 0, "log_prob_increase", to=HUGE),
    "a strength as a text": value("majority", "strengths", 0, to="0"),
    "a huge strength": value("majority", "strengths", 0, to=HUGE),
    "no strengths": value("majority", "strengths", to=[]),
    "keeps are a number": value("majority", "keeps", to=3),
    "a route as a number": value("flow", "routes", 0, to=0),
    "too few layers": value("flow", "layers", to=[]),
    "probes without names": value("probe", "probed", to=[]),
    "a size as a text": value("circuit_test", "sizes", 0, to="1"),
    "a huge size": value("circuit_test", "sizes", 0, to=HUGE),
    "no sizes": value("circuit_test", "sizes", to=[]),
    "a metric as a list": value("circuit_test", "metric", to=["logit_diff"]),
    "an edge as a text": value("circuit", "edges", 0, to="text0 -> label0"),
    "an edge from nowhere": value("circuit", "edges", 0, 0, to=None),
    "an edge of an odd node": value("circuit", "edges", 0, 0, to={"kind": "os", "layer": None, "index": 0}),
    "an edge of a half": value("circuit", "edges", 0, 0, to={"kind": "text", "layer": None, "index": 0.5}),
    "an edge below 0": value("circuit", "edges", 0, 0, to={"kind": "text", "layer": None, "index": -1}),
    "an edge to an odd input": value("circuit", "edges", 0, 2, to="x"),
    "an edge of a list": value("circuit", "edges", 0, 2, to=["q"]),
    "edges are null": value("circuit", "edges", to=None),
    "no field": lambda _, s: s["values"]["increase"]["value"].pop("mlp") and None,
    "no coefficient chosen": array("chosen", lambda v: v[:0]),
    "a coefficient that was not tried": array("chosen", lambda v: v + 77),
    "a coefficient of two axes": array("chosen", lambda v: v[None]),
    **{
        f"{how.__name__}: {name}": array(name, how)
        for how in (flatter, shorter, as_text)
        for name in ("increase.heads", "effects.zeroed.log_prob", "features.logits", "auc.auc", "recency.attention",
                     "circuit.scores", "probe.right", "positions.attention")
    },
}  # fmt: skip


def changed(good: Path, file: Path, change: Change) -> None:
    with safe_open(good, framework="numpy") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        structure = json.loads(opened.metadata()[STRUCTURE])
    before = deepcopy(structure), dict(arrays)
    other = change(arrays, structure)
    structure = structure if other is None and change is not CHANGES["null"] else other
    apart = [name for name in arrays if arrays[name] is not before[1][name]]
    assert structure != before[0] or apart
    if isinstance(structure, dict) and structure.get("values", {}) and structure.get("about"):
        _keep_what_is_drawn_with(structure["values"], before[0]["values"], apart)
    save_file(arrays, file, metadata={STRUCTURE: json.dumps(structure)})


def _keep_what_is_drawn_with(values: dict[str, Any], before: dict[str, Any], arrays: list[str]) -> None:
    """Leave out of a file the figures that the change does not concern, since drawing them takes long."""
    concerned = {name for name in values if any(f"{array}.".startswith(f"{name}.") for array in arrays)}
    concerned |= {name for name in values if values[name] != before[name]}
    kept = concerned.union(
        {"probe"}, *(figure.needs for figure in figures_of().values() if concerned & {*figure.needs})
    )
    for name in [name for name in values if name not in kept]:
        del values[name]


@pytest.mark.parametrize("name", CHANGES)
def test_results_that_were_tampered_with(refused: Callable[..., str], good: Path, tmp_path: Path, name: str) -> None:
    changed(good, tmp_path / "bad.safetensors", CHANGES[name])
    said = refused("figures", "bad.safetensors", "--out", "f")
    assert "bad.safetensors" in said
    assert "holds no results that this version" in said or "holds values that no study wrote" in said


def headed(header: bytes) -> bytes:
    """A safetensors file of a header alone."""
    return struct.pack("<Q", len(header)) + header


RAW = {
    "empty": b"",
    "text": b"no results",
    "a pickle": b"\x80\x04\x95\x0b",
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "a header of no JSON": headed(b"[["),
    "a header of a deep list": headed(DEEP.encode()),
    "a header alone": headed(b"{}"),
    "an array too far": headed(b'{"x":{"dtype":"F64","shape":[100000000000],"data_offsets":[0,800000000000]}}'),
    "an odd type": headed(b'{"x":{"dtype":"Z9","shape":[1],"data_offsets":[0,8]}}'),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_files_that_are_none(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.safetensors").write_bytes(RAW[name])
    assert "holds no results" in refused("figures", "bad.safetensors", "--out", "f")


@pytest.mark.parametrize("text", [DEEP, "{", "", '{"a":' * 50_000, "9" * 5000, "?"])
def test_structures_that_are_none(refused: Callable[..., str], tmp_path: Path, text: str) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "bad.safetensors", metadata={STRUCTURE: text})
    assert "holds no results" in refused("figures", "bad.safetensors", "--out", "f")


def test_there_are_enough() -> None:
    assert len(ARGUMENTS) + len(CHANGES) + len(RAW) > 150


def test_a_full_disk_is_no_fault_of_the_results(
    refused: Callable[..., str], good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.safetensors").write_bytes(good.read_bytes())

    def save(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figures, "save", save)
    said = refused("figures", "good.safetensors", "--out", "f")
    assert "cannot write" in said
    assert "No space left on device" in said
    assert "holds values" not in said


def test_results_are_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.safetensors").write_bytes(headed(b"{}"))
    (tmp_path / "notes").write_text("mine")
    save_results({"x": np.zeros(2)}, tmp_path / "r.safetensors")
    save_results({"x": np.ones(2)}, tmp_path / "r.safetensors")
    before = files_of(tmp_path)
    for name in ("weights.safetensors", "notes"):
        with pytest.raises(InputError, match="exists and holds no results: name another file"):
            save_results({"x": np.zeros(2)}, tmp_path / name)
    for name in ("none/r", "x" * 300, "notes/r"):
        with pytest.raises(InputError, match="cannot write .*: name another file"):
            save_results({"x": np.zeros(2)}, tmp_path / name)

    def save_file(arrays: Any, path: Path, metadata: Any) -> None:
        path.write_text("the first half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr("icl_circuits.report.results.save_file", save_file)
        with pytest.raises(InputError, match="cannot write .*No space left on device"):
            save_results({"x": np.zeros(2)}, tmp_path / "r.safetensors")
    assert files_of(tmp_path) == before
    assert load_results(tmp_path / "r.safetensors").values["x"].tolist() == [1, 1]


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_characters_are_seen_and_no_cell_is_a_formula() -> None:
    assert visible("plain \u00e9 \u4e2d \U0001f600") == "plain \u00e9 \u4e2d \U0001f600"
    assert visible("a\x1b[2J\n\u202eb\ud800\u2028") == r"a\x1b[2J\n\u202eb\ud800\u2028"
    for formula in ("=1+1", "+1", "-1", "@x", " =1", "\t=1", "\r=1"):
        assert spreadsheet_cell(formula) == f"'{formula}"
    for plain in ("a=1", "1-2", "", "foo"):
        assert spreadsheet_cell(plain) == plain
