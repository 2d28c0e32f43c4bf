"""Bad data of every kind: each input ends in one clear error or in the right value, never in a traceback.

A table a kind. Its last column is what the message must say, or the right value. Types are not checked at calls here,
as they are not for users.
"""

import gzip
import io
import itertools
import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import icl_circuits as icl
from icl_circuits.errors import InputError
from icl_circuits.models import LensModel
from icl_circuits.prompts import Demo, Prompt, Row, Rows

pytestmark = pytest.mark.usefixtures("unchecked")
GOOD = (Row("fast", "good"), Row("slow", "bad"))
CSV = b"text,label\nfast,good\nslow,bad\n"
JSONL = b'{"text": "fast", "label": "good"}\n{"text": "slow", "label": "bad"}\n'


def check(call: Callable[[], Any], expected: Any) -> None:
    """The right value, or one line of an `InputError` that says what is expected and how to go on."""
    if not isinstance(expected, str):
        assert call() == expected
        return
    with pytest.raises(InputError, match=expected) as raised:
        call()
    message = str(raised.value)
    assert message.isprintable(), message
    assert len(message) < 500, message
    assert ": " in message, message


def line(**row: Any) -> bytes:
    return json.dumps(row).encode() + b"\n"


def bomb(depth: int) -> bytes:
    return b'{"text": ' + b"[" * depth + b"]" * depth + b', "label": "x"}\n'


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


# --- files ------------------------------------------------------------------------------------------------------------

FILES: list[tuple[str, bytes, dict[str, Any], Any]] = [
    # encodings
    ("d.csv", CSV, {}, GOOD),
    ("d.csv", b"\xef\xbb\xbf" + CSV, {}, GOOD),
    ("d.csv", b"\xef\xbb\xbf" + CSV, {"encoding": "utf-8"}, GOOD),
    ("d.csv", CSV.decode().encode("utf-16"), {}, GOOD),
    ("d.csv", b"\xfe\xff" + CSV.decode().encode("utf-16-be"), {}, GOOD),
    ("d.csv", CSV.decode().encode("utf-32"), {}, GOOD),
    ("d.csv", CSV.decode().encode("utf-16-le"), {"encoding": "utf-16-le"}, GOOD),
    ("d.csv", CSV.decode().encode("utf-16-le"), {}, "holds null characters, so it is no text in utf-8: give"),
    ("d.csv", CSV.decode().encode("utf-16"), {"encoding": "utf-8"}, "line 1: byte 0xff is not utf-8"),
    ("d.csv", "text,label\ncafé,x\nb,y\n".encode("latin-1"), {}, "line 2: byte 0xe9 is not utf-8: save the file"),
    ("d.csv", "text,label\né,x\nb,y\n".encode("latin-1"), {"encoding": "latin-1"}, (Row("é", "x"), Row("b", "y"))),
    ("d.csv", "text,label\n“a”,x\nb,y\n".encode("cp1252"), {"encoding": "cp1252"}, (Row("“a”", "x"), Row("b", "y"))),
    ("d.csv", "text,label\n速,x\nb,y\n".encode("sjis"), {"encoding": "sjis"}, (Row("速", "x"), Row("b", "y"))),
    ("d.csv", "text,label\nça,x\n".encode("latin-1"), {"encoding": "ascii"}, "line 2: byte 0xe7 is not ascii"),
    ("d.csv", CSV, {"encoding": "utf-9"}, "encoding 'utf-9' is unknown: use utf-8"),
    ("d.csv", CSV, {"encoding": "base64"}, "encoding 'base64' is unknown"),
    ("d.csv", CSV, {"encoding": ""}, "encoding '' is unknown"),
    ("d.csv", CSV, {"encoding": "a\0b"}, "encoding .* is unknown"),
    ("d.csv", CSV, {"encoding": "undefined"}, "encoding 'undefined' is unknown"),
    ("d.csv", CSV, {"encoding": 8}, "encoding 8 is unknown"),
    ("d.jsonl", b"\xef\xbb\xbf" + JSONL, {}, GOOD),
    ("d.jsonl", JSONL.decode().encode("utf-16"), {}, GOOD),
    ("d.jsonl", b'{"text": "caf\xe9", "label": "x"}\n', {}, "line 1: byte 0xe9 is not utf-8"),
    ("d.jsonl", b'{"text": "caf\xe9", "label": "x"}\n{"text": "b", "label": "y"}', {"encoding": "latin-1"},
     (Row("café", "x"), Row("b", "y"))),
    ("d.csv", b"text,label\n\\q,x\nb,y\n", {"encoding": "unicode_escape"}, (Row("\\q", "x"), Row("b", "y"))),
    ("d.csv", b"text,label,\\ud800\na,x,1\nb,y,2\n", {"encoding": "unicode_escape"}, (Row("a", "x"), Row("b", "y"))),
    # packed, binary, empty
    ("d.csv.gz", packed(CSV), {}, GOOD),
    ("d.csv", packed(CSV), {}, GOOD),
    ("d.jsonl.gz", packed(JSONL), {}, GOOD),
    ("d.csv.gz", packed(CSV)[:-9], {}, "cannot be read: "),
    ("d.csv.gz", packed(CSV)[:20] + b"\xff" * 9, {}, "cannot be read: "),
    ("d.csv.gz", CSV, {}, GOOD),
    ("d.csv", b"PK\x03\x04\x14\0\0\0\x08\0", {}, "holds null characters, so it is no text"),
    ("d.csv", b"PAR1\x15\x04\x15\xff", {}, "is not utf-8"),
    ("d.csv", b"", {}, "is empty: its first line must name the columns"),
    ("d.csv", b"\n\n\n", {}, "is empty"),
    ("d.csv", b"\xef\xbb\xbf", {}, "is empty"),
    ("d.jsonl", b"", {}, "has no rows: give some"),
    ("d.jsonl", b"\n \n", {}, "has no rows"),
    ("d.csv", b"text,label\n", {}, "has no rows"),
    # rows and their header
    ("d.csv", b"text,label\nfast, cheap,good\nslow, dear,bad\n", {}, r"line 2: 3 cells, but the header names 2"),
    ("d.csv", b"label,text\ngood,fast, cheap\nbad,slow, dear\n", {}, "line 2: 3 cells"),
    ("d.csv", b"text,label\na,x\nb,y,\n", {}, "line 3: 3 cells, but the header names 2 columns"),
    ("d.csv", b"text,label\na,x\nb\n", {}, "line 3: 1 cell, but the header names 2 columns"),
    ("d.csv", b'text,label\n"a\nb",x\nc,y,z\n', {}, "line 4: 3 cells"),
    ("d.csv", b'text,label\n"a\nb",x\n\nc,y\n', {}, (Row("a\nb", "x"), Row("c", "y"))),
    ("d.csv", b'text,label\n"a ""b"", c",x\nc,y\n', {}, (Row('a "b", c', "x"), Row("c", "y"))),
    ("d.csv", b'text,label\n"a,x\nc,y\n', {}, "cannot be read as CSV .unexpected end of data.: put texts with quotes"),
    ("d.csv", b'text,label\n"a"b,x\nc,y\n', {}, "line 2: cannot be read as CSV"),
    ("d.csv", b'text\tlabel\n"a" b\tx\n', {}, r"cannot be read as CSV \('\\t' expected after"),
    ("d.csv", b"text,label\n" + b"a" * 140_000 + b",x\nc,y\n", {}, "line 2: cannot be read as CSV .field larger"),
    ("d.csv", b"text,label\r\na,x\r\nb,y\r\n", {}, (Row("a", "x"), Row("b", "y"))),
    ("d.csv", b"text,label\ra,x\rb,y\r", {}, (Row("a", "x"), Row("b", "y"))),
    ("d.csv", b" text , label\na,x\nb,y\n", {}, (Row("a", "x"), Row("b", "y"))),
    ("d.csv", b"text,text,label\na,b,x\n", {}, "has 2 columns 'text': its columns are text, text, label"),
    ("d.csv", b"Text,Label\na,x\n", {}, "has no column 'text': its columns are Text, Label"),
    ("d.csv", b"a,x\nb,y\n", {}, "has no column 'text': its columns are a, x"),
    ("d.csv", b'"te\nxt",\x1b[2J\na,x\n', {}, r"its columns are 'te\\nxt', '\\x1b\[2J'"),
    ("d.csv", b",".join(b"c%d" % i for i in range(50)) + b"\n" + b"," * 49 + b"\n", {}, "c19 and 30 more"),
    ("d.csv", b"text,label\nNA,x\nnull,y\n", {}, (Row("NA", "x"), Row("null", "y"))),
    ("d.csv", b"text,label\na,x\n  ,y\n", {}, r"row 1 \(from 0\): empty text: fill it in"),
    ("d.csv", b"text,label\na,x\nb,\n", {}, r"row 1 \(from 0\): empty label"),
    ("d.csv", b"text,label\na,1\nb,1.0\n", {}, r"one class only \('1'\)"),
    ("d.csv", b"text,label\na,1\nb,1.0\nc,2\n", {}, (Row("a", "1"), Row("b", "1"), Row("c", "2"))),
    ("d.csv", b"text,label\nb," + b"a" * 9000, {}, r"one class only \('a+\.\.\.a+'\): learning in context"),
    ("d.csv", b'"te\nxt",label\n ,x\n', {"text_column": "te\nxt"}, r"row 0 .from 0.: empty 'te\\nxt': fill it in"),
    ("d.csv", b"text,label\na,x\n", {"text_column": "a" * 9000}, r"has no column 'a+\.\.\.a+': its columns are"),
    ("d.csv", b"a" * 9000 + b",label\na,x\n", {}, r"its columns are 'a+\.\.\.a+', label"),
    # delimiters
    ("d.csv", CSV.replace(b",", b";"), {}, GOOD),
    ("d.csv", CSV.replace(b",", b"\t"), {}, GOOD),
    ("d.csv", CSV.replace(b",", b"|"), {}, GOOD),
    ("d.tsv", CSV.replace(b",", b"\t"), {}, GOOD),
    ("d.tsv", b"text\tlabel\na, b\tx\nc;d\ty\n", {}, (Row("a, b", "x"), Row("c;d", "y"))),
    ("d.csv", b"text;label\na, b;x\nc;y\n", {}, (Row("a, b", "x"), Row("c", "y"))),
    ("d.csv", CSV.replace(b",", b"~"), {}, "has no column 'text': its columns are text~label"),
    ("d.csv", CSV.replace(b",", b"~"), {"delimiter": "~"}, GOOD),
    ("d.csv", CSV, {"delimiter": ";"}, "has no column 'text': its columns are text,label"),
    ("d.csv", CSV, {"delimiter": ""}, "delimiter '': give one character"),
    ("d.csv", CSV, {"delimiter": "::"}, "delimiter '::': give one character"),
    ("d.csv", CSV, {"delimiter": '"'}, "give one character"),
    ("d.csv", CSV, {"delimiter": "\n"}, "give one character"),
    ("d.csv", CSV, {"delimiter": 3}, "delimiter 3: give one character"),
    ("d.csv", CSV, {"text_column": "label"}, "text_column and label_column are both 'label': name the column of each"),
    ("d.csv", CSV, {"text_column": ["text"]}, "has no column .'text'.: its columns are text, label"),
    ("d.csv", CSV, {"label_column": None}, "has no column None"),
    ("d.jsonl", JSONL, {"delimiter": ","}, "only CSV files a delimiter: leave them out"),
    # JSONL
    ("d.jsonl", JSONL.replace(b"\n", b"\r\n"), {}, GOOD),
    ("d.jsonl", b"null\n" + JSONL, {}, "line 1 holds null, no object: write each row as"),
    ("d.jsonl", JSONL + b"[1, 2]\n", {}, "line 3 holds a list"),
    ("d.jsonl", b"[" + JSONL.strip().replace(b"\n", b",") + b"]", {}, "line 1 holds a list"),
    ("d.jsonl", b'"text"\n', {}, "line 1 holds a str"),
    ("d.jsonl", b"3\n", {}, "line 1 holds an int"),
    ("d.jsonl", b"true\n", {}, "line 1 holds a bool"),
    ("d.jsonl", b'{"text": "a"', {}, "line 1 cannot be read as JSON"),
    ("d.jsonl", JSONL + b"{'text': 'a'}\n", {}, "line 3 cannot be read as JSON"),
    ("d.jsonl", bomb(100_000), {}, "line 1 is nested too deeply: write an object"),
    ("d.jsonl", bomb(10), {}, "row 0 .from 0., text: .* is a list, no text"),
    ("d.jsonl", line(text=10**400, label="x") + line(text="b", label="y"), {}, (Row(str(10**400), "x"), Row("b", "y"))),
    ("d.jsonl", b'{"text": "a", "label": 1' + b"0" * 5000 + b"}\n", {}, "line 1 cannot be read as JSON"),
    ("d.jsonl", b'{"text": 1e400, "label": "x"}\n', {}, "inf is a float, no text"),
    ("d.jsonl", b'{"text": NaN, "label": "x"}\n', {}, "empty text"),
    ("d.jsonl", b'{"text": "a", "label": Infinity}\n', {}, "label: inf is a float"),
    ("d.jsonl", line(text=None, label="x"), {}, r"row 0 \(from 0\): empty text"),
    ("d.jsonl", line(text="a") + line(text="b", label="x"), {}, r"row 0 \(from 0\): empty label"),
    ("d.jsonl", line(text=["a"], label="x"), {}, "is a list, no text: write it as text"),
    ("d.jsonl", line(text={"a": 1}, label="x"), {}, "is a dict, no text"),
    ("d.jsonl", line(text=True, label="x"), {}, "text: True is a bool, no text"),
    ("d.jsonl", line(text="a", label=["x"]), {}, "label: .* is a list"),
    ("d.jsonl", line(text="a", label={"x": 1}), {}, "label: .* is a dict"),
    ("d.jsonl", line(text="a", label=True) + line(text="b", label=False), {}, (Row("a", "True"), Row("b", "False"))),
    ("d.jsonl", line(text="a", label=1) + line(text="b", label=1.0), {}, "one class only"),
    ("d.jsonl", line(text="a", label=1) + line(text="b", label="1"), {}, "one class only"),
    ("d.jsonl", line(text="a\ud83d", label="x"), {}, r"holds '\\ud83d', half of a character"),
    ("d.jsonl", line(text="a", label="\udc00"), {}, "label: .* half of a character"),
    ("d.jsonl", line(text="a", label="x", **{"\ud800": 1}) + line(text="b", label="y"), {},
     (Row("a", "x"), Row("b", "y"))),
    ("d.jsonl", line(text="😀", label="x") + line(text="b", label="y"), {}, (Row("😀", "x"), Row("b", "y"))),
    ("d.jsonl", b'{"text": "a", "text": "b", "label": "x"}\n', {}, "a name stands there twice"),
    ("d.jsonl", b"{}\n", {}, "has no column 'text'"),
    # names
    ("d.txt", CSV, {}, "data .* is unknown: give 'word-categories', a .csv, .tsv or .jsonl file"),
    ("d.xlsx", CSV, {}, "is unknown"),
    ("d", CSV, {}, "is unknown"),
    ("D.CSV", CSV, {}, GOOD),
    ("a b ü\n.csv", CSV, {}, GOOD),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "options", "expected"), FILES, ids=itertools.count())
def test_files(tmp_path: Path, name: str, content: bytes, options: dict[str, Any], expected: Any) -> None:
    (tmp_path / name).write_bytes(content)
    check(lambda: icl.load_rows(tmp_path / name, **options).rows, expected)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, content)]


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    (tmp_path / "file").touch()
    for name, message in {
        "folder.csv": "'folder.csv' is a folder: name a file in it",
        "pipe.csv": "'pipe.csv' is a pipe or a device: save the data as a file first",
        "loop.csv": "file 'loop.csv' cannot be read: Too many levels",
        "gone.csv": "file 'gone.csv' does not exist: check the path",
        "none.csv": "file 'none.csv' does not exist: check the path",
        "none/none.jsonl": "does not exist: check the path",
        "file/none.csv": "cannot be read: Not a directory",
        "n" * 300 + ".csv": "cannot be read: File name too long",
        "nul\0.csv": "cannot be read: embedded null",
        "~nobody-of-this-name/d.csv": "cannot be found: Could not determine home",
        "": "data '' is unknown: give",
        ".": "data '.' is a folder: name a file in it, or hf:. if it is laid out as a Hub data set",
        "~nobody-of-this-name": "cannot be found",
        "https://example.org/d.csv": "is a web address: download it",
        "hf:": "data 'hf:': give hf:NAME/CONFIG@SPLIT",
        "hf:@test": "give hf:NAME/CONFIG@SPLIT",
        "hf:a@": "give hf:NAME/CONFIG@SPLIT",
        "hf:a\0": "give hf:NAME/CONFIG@SPLIT",
        "hf:./none": "folder './none' does not exist: check the path",
        "hf:none/of/these/there": "folder 'none/of/these/there' does not exist: check the path",
        "hf:~/no-such-folder-here@test": "folder '~/no-such-folder-here' does not exist",
    }.items():
        check(lambda name=name: icl.load_rows(name), message)
    if os.getuid():
        (tmp_path / "secret.csv").touch(mode=0)
        check(lambda: icl.load_rows("secret.csv"), "cannot be read: Permission denied")


# --- the Hub, as local folders ----------------------------------------------------------------------------------------


def hub_folder(folder: Path, configs: dict[str, dict[str, str]]) -> Path:
    """A data set with some configurations, each of some splits, whose texts say which they are of."""
    datasets = pytest.importorskip("datasets")
    listed = ["---", "configs:"]
    for config, splits in configs.items():
        listed += [f"- config_name: {config}", "  data_files:"]
        for split, file in splits.items():
            listed += [f"  - split: {split}", f"    path: {file}"]
            texts = [f"{config} {split} {i}" for i in range(2)]
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict({"text": texts, "label": [0, 1]}).to_parquet(str(folder / file))
    (folder / "README.md").write_text("\n".join([*listed, "---", ""]))
    return folder


def test_configurations_and_splits(tmp_path: Path) -> None:
    two = {config: {split: f"{config}/{split}.parquet" for split in ("train", "test")} for config in ("one", "two")}
    several = hub_folder(tmp_path / "several", two)
    empty = tmp_path / "empty"
    empty.mkdir()
    only = hub_folder(tmp_path / "only@test", {"default": {"test": "t.parquet"}})
    for name, expected in {
        f"{several}/one": "one train 0",
        f"{several}/two@test": "two test 0",
        f"{several}/two@test[:1]+test": "two test 0",
        f"{only}@test": "default test 0",
    }.items():
        assert icl.load_rows(f"hf:{name}").rows[0] == Row(expected, "0")
    for name, message in {
        f"{several}": "cannot be loaded: its configurations are one, two: name one, as in hf:.*/one",
        f"{several}@test": "its configurations are one, two: name one",
        f"{several}/three": "its configurations are one, two: name one",
        f"{several}/one@dev": "it has no split 'dev', but train, test: name one, as in ...@train",
        f"{only}": "it has no split 'train', but test: name one, as in ...@test",
        f"{only}@train": "it has no split 'train', but test",
        f"{only}/other@test": "its configurations are default: name one",
        f"{empty}": "cannot be loaded: ",
    }.items():
        check(lambda name=name: icl.load_rows(f"hf:{name}"), message)
    for name in ("nobody/nothing", "nobody/nothing/config@test", "nothing"):
        check(
            lambda name=name: icl.load_rows(f"hf:{name}"),
            "the Hub cannot be reached and no folder 'no.*' is here",
        )
    check(lambda: icl.load_rows("hf:nobody/nothing", encoding="utf-8"), "only files have an encoding")


# --- data in memory ---------------------------------------------------------------------------------------------------


def rows_of(*values: Any, labels: tuple[Any, ...] = ("x", "y")) -> list[dict[str, Any]]:
    return [{"text": value, "label": label} for value, label in zip(values, labels, strict=True)]


MEMORY: list[tuple[Any, Any]] = [
    (rows_of("a", "b"), (Row("a", "x"), Row("b", "y"))),
    (tuple(rows_of("a", "b")), (Row("a", "x"), Row("b", "y"))),
    (rows_of(1, 2.5), (Row("1", "x"), Row("2.5", "y"))),
    (rows_of(np.int64(1), np.float64(2.5)), (Row("1", "x"), Row("2.5", "y"))),
    (rows_of("a", "b", labels=(np.int64(3), np.True_)), (Row("a", "3"), Row("b", "True"))),
    (pd.DataFrame({"text": ["a", "b", "c"], "label": [1.0, 2.0, 2.0]})[1:], "one class only"),
    (pd.DataFrame({"text": ["a", "b", "c"], "label": [1.0, 2.0, 1.0]})[1:], (Row("b", "2"), Row("c", "1"))),
    (pd.DataFrame(rows_of("a", "b")).astype("category"), (Row("a", "x"), Row("b", "y"))),
    (pd.DataFrame(rows_of("a", "b")).astype("string"), (Row("a", "x"), Row("b", "y"))),
    (pd.DataFrame({"text": ["a", "b"], "label": [1, None]}), r"row 1 \(from 0\): empty label"),
    (pd.DataFrame({"text": ["a", "b"], "label": pd.array([1, None], dtype="Int64")}), r"row 1 \(from 0\): empty label"),
    (pd.DataFrame({"text": ["a", pd.NaT], "label": ["x", "y"]}), "empty text"),
    (pd.DataFrame({"text": pd.to_datetime(["2020-01-01"] * 2), "label": ["x", "y"]}), "is a Timestamp, no text"),
    (pd.DataFrame(), "has no rows"),
    (pd.DataFrame([["a", "x"], ["b", "y"]]), "has no column 'text': its columns are 0, 1"),
    (pd.DataFrame([["a", "b", "x"]], columns=["text", "label", "label"]), "has 2 columns 'label'"),
    ([], "'list of 0 rows' has no rows"),
    ([{}], "has no column 'text'"),
    ([{"text": "a"}], "has no column 'label': its columns are text"),
    ([{"text": "a", "label": "x"}, None], "data is a list: give a name or path"),
    ([["a", "x"]], "data is a list"),
    (["a", "b"], "data is a list"),
    ({"text": ["a"], "label": ["x"]}, "data is a dict"),
    (pd.Series(["a", "b"]), "data is a Series"),
    (np.array([["a", "x"]]), "data is a ndarray"),
    (iter([]), "data is a list_iterator"),
    (None, "data is a NoneType"),
    (3, "data is an int"),
    (b"d.csv", "data is a bytes"),
    (io.StringIO("text,label"), "data is a StringIO"),
    (rows_of(b"a", "b"), "is a bytes, no text"),
    (rows_of(date(2020, 1, 1), "b"), "is a date, no text"),
    (rows_of({"a"}, "b"), "is a set, no text"),
    (rows_of(object(), "b"), "is an object, no text"),
    (rows_of(1j, "b"), "is a complex, no text"),
    (rows_of(np.array(["a"]), "b"), "is a list, no text"),
    (rows_of(float("-inf"), "b"), "is a float, no text"),
    (rows_of("a", 10**5000), "int of more than 4300 digits is an int, no text"),
    (rows_of("a" * 1000 + "\ud800", "b"), "half of a character"),
    ([{"text": "a", "label": "x", "\ud800": 1}, {"text": "b", "label": "y"}], (Row("a", "x"), Row("b", "y"))),
    ([{"text": "a", "label": "x", ("a", "b"): 1}, {"text": "b", "label": "y"}], (Row("a", "x"), Row("b", "y"))),
    (rows_of("a", "\u200b \t"), (Row("a", "x"), Row("\u200b", "y"))),
    (rows_of("a", " \t\u3000"), "row 1 .from 0.: empty text"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), MEMORY, ids=itertools.count())
def test_memory(data: Any, expected: Any) -> None:
    check(lambda: icl.load_rows(data).rows, expected)


# --- prompts, labels, separators --------------------------------------------------------------------------------------

FEW = Rows("few", tuple(Row(f"{kind}{i}", kind) for kind in "ab" for i in range(4)))
SAMPLED: list[tuple[dict[str, Any], str]] = [
    ({"n": 0}, "cannot sample 0 prompts: ask for at least 1"),
    ({"n": -1}, "cannot sample -1 prompts"),
    ({"n": 1.5}, "cannot sample 1.5 prompts"),
    ({"n": True}, "cannot sample True prompts"),
    ({"shots": -1}, "shots is -1"),
    ({"shots": 1.5}, "shots is 1.5"),
    ({"shots": 4}, "class 'a' has 4 different texts here, but 4 shots and a query need 5"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 0.5}, "seed is 0.5"),
    ({"labels": ()}, "at least two different words"),
    ({"labels": ("foo",)}, "at least two different words"),
    ({"labels": ("foo", "foo")}, "at least two different words"),
    ({"labels": ("foo", "")}, "at least two different words"),
    ({"labels": ("foo", " bar")}, "without spaces around them"),
    ({"labels": ("foo", "bar\n")}, "without spaces around them"),
    ({"labels": ("a", "b", "c")}, "has 2 classes, fewer than the 3 labels: drop labels"),
    ({"labels": "foo"}, "labels 'foo': give a list of words"),
    ({"labels": (0, 1)}, r"labels \(0, 1\): give a list of words"),
    ({"labels": None}, "labels None: give a list of words"),
]


@pytest.mark.parametrize(("options", "message"), SAMPLED, ids=itertools.count())
def test_sampling(options: dict[str, Any], message: str) -> None:
    check(lambda: icl.sample_prompts(FEW, **({"n": 2, "shots": 1} | options)), message)


def prompt(*labels: str, demos: int = 1, text: str = "a", query: str = "b") -> Prompt:
    return Prompt(tuple(Demo(text, "c", 0) for _ in range(demos)), query, "c", 1, labels or ("foo", "bar"))


ENCODED: list[tuple[Any, dict[str, Any], str]] = [
    ([], {}, "no prompts to encode: give one or more"),
    ([prompt("foo")], {}, "give at least two words"),
    ([prompt("foo", "")], {}, "give at least two words"),
    ([prompt("foo", "foo")], {}, "no token tells label 'foo' from label 'foo'"),
    ([prompt("foo", "foot")], {}, "no token tells label 'foo' from label 'foot'"),
    ([prompt("foo bar", "foo")], {}, "no token tells label 'foo bar' from label 'foo'"),
    ([prompt("ab", "ac", "foo")], {}, "no token tells label 'ab' from label 'ac'"),
    ([prompt("é", "è")], {"separator": "\udc80"}, "half of a character"),
    ([prompt("foo", "\ud83d")], {}, "half of a character"),
    ([prompt(text="\ud83d")], {}, "prompt 0: .* half of a character"),
    ([prompt(), prompt(query="\udc00")], {}, "prompt 1: .* half of a character"),
    ([prompt(), prompt(demos=2)], {}, "prompt 1 has labels .* encode them apart"),
    ([prompt(), prompt("foo", "baz")], {}, "prompt 1 has labels"),
    ([prompt(), "a : foo b :"], {}, "give a list of Prompts, as sample_prompts makes them"),
    (prompt(), {}, "prompts are Prompt.demos=.*: give a list of Prompts"),
    ("a : foo b :", {}, "give a list of Prompts"),
    (None, {}, "prompts are None: give a list of Prompts"),
    ([prompt()], {"separator": "foo"}, "separator 'foo' is one of the labels, foo, bar: choose another"),
    ([prompt()], {"separator": " bar\n"}, "is one of the labels"),
    ([prompt("0", "1")], {"separator": " 1 "}, "is one of the labels"),
    ([prompt()], {"separator": None}, "separator None: give text"),
    ([prompt()], {"label_score": "all"}, "label_score 'all' is unknown: use one of first, whole"),
    ([prompt(text="a" * 300)], {}, "prompt 0 has .* tokens, but .* reads at most 256"),
    ([prompt(), prompt(query="z " * 200)], {}, "prompt 1 has .* tokens, but"),
    ([Prompt((), "a", "c", 2, ("foo", "bar"))], {}, "label 2 does not exist"),
    ([Prompt((Demo("a", "c", 7),), "a", "c", 0, ("foo", "bar"))], {}, "label 7 does not exist"),
]


@pytest.mark.parametrize(("prompts", "options", "message"), ENCODED, ids=itertools.count())
def test_encoding(gpt2: LensModel, prompts: Any, options: dict[str, Any], message: str) -> None:
    check(lambda: icl.encode(gpt2, prompts, **options), message)


# --- pairs ------------------------------------------------------------------------------------------------------------

PAIR_FILES: list[tuple[bytes, dict[str, Any], Any]] = [
    (b"clean,corrupted,correct\na,b, cat\n", {}, ("a",)),
    (b"\xef\xbb\xbfclean;corrupted;correct\na;b; cat\n", {}, ("a",)),
    (b"clean~corrupted~correct\na~b~ cat\n", {"delimiter": "~"}, ("a",)),
    ("clean,corrupted,correct\né,b, cat\n".encode("latin-1"), {"encoding": "latin-1"}, ("é",)),
    ("clean,corrupted,correct\né,b, cat\n".encode("latin-1"), {}, "line 2: byte 0xe9 is not utf-8"),
    (b"", {}, "is empty"),
    (b"clean,corrupted,correct\n", {}, "0 clean, 0 corrupted, 0 answers"),
    (b"clean,corrupted,correct\na,b,c,d\n", {}, "line 2: 4 cells, but the header names 3 columns"),
    (b"clean,corrupted,correct\na,b\n", {}, "line 2: 2 cells"),
    (b"clean,corrupted\na,b\n", {}, "no column 'correct' for answers: theirs are clean, corrupted"),
    (b"clean,clean,corrupted,correct\na,b,c,d\n", {}, "column 'clean' stands in the pairs twice"),
    (b"clean,corrupted,correct\n,b, cat\n", {}, "prompt 0 is empty: give a text"),
    (b"clean,corrupted,correct\na,, cat\n", {}, "corrupted prompt 0 is empty"),
    (b"clean,corrupted,correct\na,b,\n", {}, "answer 0 is empty"),
    (b"clean,corrupted,correct,incorrect\na,b, cat, cat\n", {}, "no token tells answer 0"),
    (b"clean,corrupted,correct_idx\na,b,x\n", {}, "column 'correct_idx', row 0: 'x' is no vocabulary id"),
    (b"clean,corrupted,correct_idx\na,b,1.5\n", {}, "'1.5' is no vocabulary id"),
    (b"clean,corrupted,correct_idx\na,b,\n", {}, "'' is no vocabulary id"),
    (b"clean,corrupted,correct_idx\na,b,-1\n", {}, "answer 0: id -1 is not in the vocabulary"),
    (b"clean,corrupted,correct_idx\na,b,1" + b"0" * 400 + b"\n", {}, "is not in the vocabulary, which has ids 0.."),
    (b"clean,corrupted,correct_idx\na,b,1" + b"0" * 5000 + b"\n", {}, "is no vocabulary id"),
    (b"clean,corrupted,correct\na,b, cat\n", {"foils": "wrong"}, "no column 'wrong' for foils"),
    (b"clean,corrupted,correct\na,b, cat\n", {"clean": ["a"]}, "clean: with data given, name its column"),
]


@pytest.mark.parametrize(("content", "options", "expected"), PAIR_FILES, ids=itertools.count())
def test_pair_files(gpt2: LensModel, tmp_path: Path, content: bytes, options: dict[str, Any], expected: Any) -> None:
    (tmp_path / "pairs.csv").write_bytes(content)
    check(lambda: icl.pairs(gpt2, tmp_path / "pairs.csv", **options).clean.texts, expected)


BATCHES: list[tuple[Any, Any, Any]] = [
    (["a"], [" cat"], ("a",)),
    (("a",), (" cat",), ("a",)),
    (np.array(["a"]), np.array([" cat"]), ("a",)),
    (pd.Series(["a"], index=[7]), pd.Series([" cat"], index=[9]), ("a",)),
    (torch.tensor([[68, 69]]), torch.tensor([5]), ("de",)),
    (torch.tensor([[68, 69]], dtype=torch.int32), np.array([5], dtype=np.uint8), ("de",)),
    ([torch.tensor([68, 69])], [torch.tensor(5)], ("de",)),
    ([(68, 69)], [np.int16(5)], ("de",)),
    ([], [], "there is no prompt: give one or more"),
    (torch.zeros(0, 3, dtype=torch.long), [], "there is no prompt"),
    (torch.zeros(2, 0, dtype=torch.long), [1, 2], "prompt 0 is empty"),
    ("a", [" cat"], "prompts: 'a' is a str: give a list"),
    (b"a", [" cat"], "is a bytes: give a list"),
    (None, [" cat"], "prompts: None is a NoneType"),
    (3, [3], "prompts: 3 is an int"),
    ({"a": 1}, [" cat"], "is a dict"),
    ({"a"}, [" cat"], "is a set"),
    (iter(["a"]), [" cat"], "is a list_iterator"),
    (pd.DataFrame({"clean": ["a"]}), [" cat"], "is a DataFrame: give a list"),
    (torch.tensor(3), [3], "prompts: 3 is an int"),
    (torch.tensor([68, 69]), [5, 5], "prompt 0 is 68: give a text, or a list of the prompt's token ids"),
    (torch.tensor([[[70]]]), [5], r"prompt 0: \[70\] is neither text nor a vocabulary id"),
    (torch.tensor([[70.0]]), [5], "prompt 0: 70.0 is neither"),
    (torch.tensor([[True]]), [5], "prompt 0: True is neither"),
    ([["a"]], [5], "prompt 0: 'a' is neither"),
    ([[None]], [5], "prompt 0: None is neither"),
    ([None], [5], "prompt 0 is missing"),
    ([float("nan")], [5], "prompt 0 is missing"),
    ([pd.NA], [5], "prompt 0 is missing"),
    ([1.5], [5], "prompt 0 is 1.5: give a text"),
    ([True], [5], "prompt 0 is True"),
    (["a", ["a"]], [5, 5], "prompt 1: 'a' is neither"),
    ([[70], "a"], [5, 5], "prompt 1: one of text and tokens, prompt 0 the other"),
    (["a", "\ud83d"], [5, 5], "prompt 1: .* half of a character"),
    ([[70, 10**6]], [5], "prompt 0: id 1000000 is not in the vocabulary"),
    ([[70, -1]], [5], "prompt 0: id -1 is not in the vocabulary"),
    ([[70, 10**400]], [5], "is not in the vocabulary"),
    (["a"], [], "there are 1 prompts and 0 answers: give each prompt one"),
    (["a"], [" cat", " dog"], "there are 1 prompts and 2 answers"),
    (["a"], " cat", "answers: ' cat' is a str: give a list"),
    (["a"], [""], "answer 0 is empty"),
    (["a"], ["\udc00"], "answer 0: .* half of a character"),
    (["a"], [None], "answer 0 is missing"),
    (["a"], [[5]], r"answer 0: \[5\] is neither text nor a vocabulary id"),
    (["a"], [5.0], "answer 0: 5.0 is neither"),
    (["a"], [False], "answer 0: False is neither"),
    (["a"], [-1], "answer 0: id -1 is not"),
    (["a"], [10**400], "answer 0: id .* is not in the vocabulary"),
    (["a" * 300], [" cat"], "prompt 0 has .* tokens, but"),
]


@pytest.mark.parametrize(("texts", "answers", "expected"), BATCHES, ids=itertools.count())
def test_batches(gpt2: LensModel, texts: Any, answers: Any, expected: Any) -> None:
    check(lambda: icl.token_batch(gpt2, texts, answers).texts, expected)
