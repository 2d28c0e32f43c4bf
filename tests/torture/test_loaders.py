"""A thousand broken inputs for every loader: each ends in one clear error or in a valid value.

Not in `make test`: `make torture` runs it. Runs repeat one another, since hypothesis draws by a seed of its own.
"""

import json
import shutil
import signal
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from conftest import files_of
from hypothesis import HealthCheck, given, settings, strategies as st
from mutations import ENCODINGS, as_json, files, odd_values, values
from safetensors import safe_open
from safetensors.numpy import save as to_safetensors
from test_results import SHAPES, made

from icl_circuits import relations
from icl_circuits.circuits import Circuit, node_of, plain_node
from icl_circuits.circuits.export import KINDS
from icl_circuits.errors import InputError
from icl_circuits.jobs import (
    DataSpec,
    DevelopmentJob,
    DevelopmentSpec,
    FactJob,
    FactSpec,
    Job,
    RelationJob,
    RelationSpec,
    Series,
)
from icl_circuits.levels import LevelTask, level_tasks, row_task
from icl_circuits.models import LensModel, checkpoints
from icl_circuits.prompts import Facts, Pairs, Rows, json_objects, load_facts, load_rows, load_tasks, pairs, read_text
from icl_circuits.prompts.cells import frame_of
from icl_circuits.relations import Corpus, load_conllu, load_parses, load_triplets
from icl_circuits.report import Results, new_folder, read_results, write_results
from icl_circuits.report.manifest import NAME, read_manifest, write_manifest
from icl_circuits.report.results import STRUCTURE, require_shapes
from icl_circuits.studies import begun, kinds_of, load_results, save_results
from icl_circuits.studies.development import begun as development
from icl_circuits.studies.relations import begun as relation_study
from icl_circuits.studies.subvalues import begun as fact_study

pytestmark = [
    pytest.mark.torture,
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"),  # long inputs are written long
]

SECONDS = 10
"""A loader that takes longer hangs."""
PACKAGE = Path(relations.__file__).parent.parent


class TakesTooLongError(BaseException):
    """Not an `Exception`, which a loader might take for a fault of the file."""


@contextmanager
def in_time() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TakesTooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def torture(inputs: st.SearchStrategy[Any], load: Callable[[Any], Any], valid: Callable[[Any], None]) -> None:
    """Load each of 1,000 inputs: a valid value, or an `InputError` of one line that says how to go on."""
    ends = {"loaded": 0, "refused": 0}

    @settings(
        max_examples=1000, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(inputs)
    def every(given_input: Any) -> None:
        with warnings.catch_warnings(), in_time():
            warnings.simplefilter("error")
            try:
                value = load(given_input)
            except InputError as error:
                message = str(error)
                assert message.isprintable(), message
                assert ": " in message
                assert len(message) < 700, message
                ends["refused"] += 1
                return
            valid(value)
            ends["loaded"] += 1

    every()
    assert min(ends.values()) >= 20, ends  # the changes are neither all harmless nor all fatal


def lines_of(path: str, first: int, last: int) -> bytes:
    return b"".join((PACKAGE / path).read_bytes().splitlines(keepends=True)[first:last])


def whole_characters(*texts: str) -> None:
    for text in texts:
        assert isinstance(text, str)
        text.encode()


# --- tables -----------------------------------------------------------------------------------------------------------


def valid_rows(found: Rows) -> None:
    assert len({row.label for row in found.rows}) > 1
    for row in found.rows:
        whole_characters(*row)
        assert row.text == row.text.strip() != ""
        assert row.label
    assert sum(map(len, found.by_class().values())) == len({row.text for row in found.rows})


def valid_facts(found: Facts) -> None:
    assert len({fact.text for fact in found.facts}) == len(found.facts) > 0
    for fact in found.facts:
        whole_characters(*fact)
        assert fact.text
        assert fact.answer
        assert fact.type


def valid_tasks(found: Sequence[Any]) -> None:
    assert len({task.name for task in found}) == len(found) > 0
    for task in found:
        assert len({pair.text for pair in task.pairs}) == len(task.pairs) > 0
        whole_characters(task.name, *(text for pair in task.pairs for text in pair))
        assert all(pair.text and pair.answer for pair in task.pairs)


def valid_pairs(found: Pairs) -> None:
    clean, corrupted = found
    assert len(clean) == len(corrupted) > 0
    assert clean.target.equal(corrupted.target)
    for batch in found:
        assert ((batch.last >= 0) & (batch.last < batch.tokens.shape[1])).all()
        assert ((batch.tokens >= 0) & (batch.tokens < 500)).all()
        whole_characters(*batch.texts)


IOI = b"""clean,corrupted,correct,incorrect
"When Mary and John went to the store, John gave a drink to","When Mary and John went, Mary gave a drink to", Mary, John
cat dog cat,dog cat dog, dog, cat
foo bar foo,bar foo bar, bar, foo
"""
IOI_IDS = b"clean,corrupted,correct_idx,incorrect_idx\nfoo bar foo,bar foo bar,3,4\ncat dog,dog cat,5,6\n"
TABLES: dict[str, tuple[tuple[bytes, ...], tuple[str, ...], Callable[..., Any], Callable[[Any], None]]] = {
    "rows": (
        (lines_of("prompts/word_categories.csv", 0, 8) + b"apple,fruit\n", b'text,label\n"a ""b"", c",x\nd,1.0\n'),
        ("text", "label"),
        load_rows,
        valid_rows,
    ),
    "facts": (
        (lines_of("prompts/facts.csv", 0, 6), b"text,answer\nThe capital of France is,Paris\n"),
        ("text", "answer", "type"),
        load_facts,
        valid_facts,
    ),
    "tasks": (
        (lines_of("prompts/tasks.csv", 0, 8), b"text,label,task\nhot,cold,antonym\none,two,next\n"),
        ("text", "label", "task"),
        load_tasks,
        valid_tasks,
    ),
}  # fmt: skip


def of_kind(table: bytes, kind: str) -> bytes:
    """A table of CSV as a file of another kind."""
    frame = pd.read_csv(BytesIO(table), dtype=str)
    if kind == "tsv":
        return frame.to_csv(sep="\t", index=False).encode()
    return b"".join(as_json(row) + b"\n" for row in frame.to_dict("records")) if kind == "jsonl" else table


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "encoding": st.sampled_from(
            [*ENCODINGS, "utf-8", "ascii", "sjis", "big5", "gb18030", "iso2022_jp", "hz", "idna", "punycode", "rot13",
             "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "base64", "zlib", "", "\0", "\ud800"]
        ),
        "delimiter": st.one_of(st.sampled_from([",", ";", "\t", "|", " ", '"', "\0", "\n", ""]), st.text(max_size=2)),
    },
)  # fmt: skip
"""Of a file, as people may give them."""


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("loader", TABLES)
def test_tables_in_files(tmp_path: Path, loader: str, ending: str) -> None:
    good, _, load, valid = TABLES[loader]
    inputs = files([of_kind(table, ending) for table in good], json_lines=ending == "jsonl")
    loaded = from_file(tmp_path / f"data.{ending}", load)
    torture(st.tuples(inputs, st.one_of(st.just({}), st.just({}), OPTIONS)), loaded, valid)


@pytest.mark.parametrize("loader", TABLES)
def test_tables_in_memory(loader: str) -> None:
    good, columns, load, valid = TABLES[loader]
    tables = [pd.read_csv(BytesIO(table), dtype=str).to_dict("records") for table in good]
    named = st.dictionaries(
        st.sampled_from([f"{'answer' if (loader, name) == ('tasks', 'label') else name}_column" for name in columns]),
        st.one_of(st.sampled_from([*columns, "a\nb", "a" * 3000, None, 1, ("text",)]), odd_values),
        max_size=2,
    )

    def loaded(given_input: tuple[Any, Mapping[str, Any], bool]) -> Any:
        rows, options, framed = given_input
        is_table = isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
        return load(frame_of(rows) if framed and is_table else rows, **options)

    torture(
        st.tuples(
            values([[*map(dict, table)] for table in tables]), st.one_of(st.just({}), st.just({}), named), st.booleans()
        ),
        loaded,
        valid,
    )


def test_pairs_in_files(tmp_path: Path, gpt2: LensModel) -> None:
    inputs = st.tuples(files([IOI, IOI_IDS]), st.one_of(st.just({}), st.just({}), OPTIONS))
    torture(inputs, from_file(tmp_path / "pairs.csv", partial(pairs, gpt2)), valid_pairs)


def test_pairs_in_memory(gpt2: LensModel) -> None:
    columns = ("clean", "corrupted", "answers", "foils")
    words: dict[str, Any] = dict(
        zip(columns, (["foo bar", "cat dog"], ["bar foo", "dog cat"], [" foo", " cat"], [" bar", " dog"]), strict=True)
    )
    tokens: dict[str, Any] = dict(zip(columns, ([[5, 6], [7]], [[6, 5], [8]], [9, 10], [11, 12]), strict=True))

    def loaded(given_input: Any) -> Pairs:
        if not isinstance(given_input, dict) or not {*given_input} <= {*columns}:
            return pairs(gpt2, given_input)
        return pairs(gpt2, **given_input)

    torture(values([words, tokens]), loaded, valid_pairs)


def test_level_tasks_of_rows() -> None:
    rows = load_rows("word-categories")
    labels: dict[str, Any] = {"fruit": "0", "animal": "1", "colour": "2"}
    labels = {name: label for name, label in labels.items() if name in rows.by_class()}
    assert len(labels) > 1

    def valid(task: LevelTask) -> None:
        assert len({*task.labels}) == len(task.labels) == len(task.texts) > 1
        whole_characters(*task.labels, *(text for texts in task.texts for text in texts))

    torture(values([labels]), lambda given_input: row_task(rows, given_input), valid)


def test_level_tasks_of_files(tmp_path: Path) -> None:
    """The rows of a file as one task, and as the words of the paper's eight."""
    table = lines_of("levels/words.csv", 0, 1) + b"".join(
        lines_of("levels/words.csv", 0, 200).splitlines(keepends=True)[1::3]
    )

    def loaded(path: Path) -> tuple[LevelTask, ...]:
        rows = load_rows(path)
        return (row_task(rows), *level_tasks(rows))

    def valid(found: tuple[LevelTask, ...]) -> None:
        assert len(found) == 9
        assert all(len(task.labels) == len(task.texts) > 1 and all(task.texts) for task in found)

    torture(files([table]), from_file(tmp_path / "words.csv", loaded), valid)


# --- texts with relations ---------------------------------------------------------------------------------------------


def valid_corpus(found: Corpus) -> None:
    assert found.texts
    for text in found.texts:
        assert text.triplets
        whole_characters(text.text)
        for triplet in text.triplets:
            whole_characters(triplet.relation)
            assert triplet.head != triplet.tail
            for start, stop in triplet.spans:
                words = text.text[start:stop]
                assert words == words.strip() != ""
    assert len(found.to_frame()) >= len(found.relations) > 0
    for treated in (relations.in_sentences(found), relations.with_letters(found), relations.without_words(found)):
        assert len(treated.texts) <= sum(len(text.text) for text in found.texts)
    found.reversed()


CONLLU = (
    b"\n\n".join((PACKAGE / "relations" / "dependencies.conllu").read_bytes().split(b"\n\n")[:4]) + b"\n",
    "\n".join(
        [
            "# newdoc",
            "# text = I don't see it.",
            "1\tI\tI\tPRON\tPRP\tCase=Nom\t4\tnsubj\t4:nsubj\t_",
            "2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_",
            "2\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_",
            "3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_",
            "4\tsee\tsee\tVERB\t_\t_\t0\troot\t_\t_",
            "4.1\tx\t_\t_\t_\t_\t_\t_\t0:x\t_",
            "5\tit\tit\tPRON\t_\t_\t4\tobj\t4:obj|1:y\tSpaceAfter=No",
            "6\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_\n",
        ]
    ).encode(),
)


def test_conllu(tmp_path: Path) -> None:
    def valid(found: tuple[Corpus, Sequence[relations.ParsedSentence]]) -> None:
        valid_corpus(found[0])
        assert all(len(parse.heads) == len(parse.words) > 0 for parse in found[1])

    def loaded(path: Path) -> Any:
        parses = load_parses(path)
        return load_conllu(path), parses

    torture(files(CONLLU), from_file(tmp_path / "trees.conllu", loaded), valid)


TRIPLETS = (
    lines_of("relations/triplets.jsonl", 0, 5),
    as_json({"text": "A tree is in a park.", "triplets": [{"head": [2, 6], "relation": "Part-of", "tail": [15, 19]}]}),
    as_json(
        {
            "sentences": [["We", "use", "trees", "for", "parsing", "."], ["They", "help", "parsing", "."]],
            "relations": [[[2, 2, 4, 4, "USED-FOR"]], [[6, 6, 8, 8, "USED-FOR"]]],
            "clusters": [[[2, 2], [6, 6]], [[4, 4], [8, 8]]],
        }
    ),
    as_json(
        {
            "tokens": ["We", "use", "trees", "for", "parsing", "."],
            "entities": [{"span": [2, 2]}, [4, 4]],
            "relations": [
                {"head": 0, "relation": "used for", "tail": 1},
                {"head": [2, 2], "relation": "x", "tail": [4, 5]},
            ],
            "coref_clusters": [[[2, 2], [5, 5]]],
        }
    ),
    as_json(
        {
            "text": "We use trees for parsing.",
            "mentions": [[0, 7, 12], [1, 17, 24], [0, 0, 2]],
            "relations": [{"head": 0, "relation": "Used-for", "tail": 1}],
        }
    ),
    as_json(
        {
            "text": "We use trees for parsing.",
            "entities": ["trees", "parsing"],
            "mentions": [[0, 7, 12], [1, 17, 24]],
            "relations": [{"head": 0, "relation": "Used-for", "tail": 1}],
        }
    ),
)
AGENDA = (
    b"A\ttrees ; parsing of text\t<method> <task>\t0 0 1 ; 1 3 0\tWe use <method_0> for <task_1> . <method_0> help .\n"
    b"B\tnets ; data\t<method> <data>\t0 0 1\t<method_0> read <data_1> .\n",
)


@pytest.mark.parametrize("ending", ["jsonl", "tsv"])
def test_triplets(tmp_path: Path, ending: str) -> None:
    inputs = files(TRIPLETS, json_lines=True) if ending == "jsonl" else files(AGENDA)
    torture(inputs, from_file(tmp_path / f"graphs.{ending}", load_triplets), valid_corpus)


def test_long_texts(tmp_path: Path) -> None:
    def valid(found: tuple[str, list[tuple[int, dict[str, Any]]]]) -> None:
        whole_characters(found[0])
        assert all(isinstance(row, dict) and number > 0 for number, row in found[1])

    def loaded(path: Path) -> Any:
        return read_text(path), json_objects(path)

    good = as_json({"text": "word " * 30, "n": 1}) + b"\n" + as_json({"text": "two\nlines", "more": [1, {"a": None}]})
    torture(files([good], json_lines=True), from_file(tmp_path / "texts.jsonl", loaded), valid)


# --- what the package wrote itself ------------------------------------------------------------------------------------


class Held(NamedTuple):
    """A file of results, taken apart."""

    arrays: dict[str, np.ndarray]
    structure: dict[str, Any]
    data: bytes


def held(path: Path, named: Iterable[str]) -> Held:
    """Some of the values of `test_results.made`, as a file."""
    every = made(**SHAPES["usual"])
    write_results(
        Results({"described": "A run.", "settings": {"seed": 0}}, {n: every[n] for n in named}), path, kinds_of()
    )
    with safe_open(path, framework="numpy") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        structure = json.loads(opened.metadata()[STRUCTURE])
    return Held(arrays, structure, path.read_bytes())


def broken_results(good: Held) -> st.SearchStrategy[bytes]:
    """Files whose bytes, header, structure or arrays are not what was written."""
    size = struct.unpack("<Q", good.data[:8])[0]
    header, arrays = json.loads(good.data[8 : 8 + size]), good.data[8 + size :]

    def headed(changed: Any) -> bytes:
        text = as_json(changed)
        return struct.pack("<Q", len(text)) + text + arrays

    def structured(changed: Any) -> bytes:
        return to_safetensors(good.arrays, metadata={STRUCTURE: as_json(changed).decode()})

    def cast(change: tuple[str, str, tuple[int, ...]]) -> bytes:
        name, kind, cut = change
        with np.errstate(all="ignore"):
            other = good.arrays[name].astype(kind)
        array = np.ascontiguousarray(other[tuple(slice(n) for n in cut)])
        return to_safetensors(good.arrays | {name: array}, metadata={STRUCTURE: json.dumps(good.structure)})

    kinds = st.sampled_from(["f8", "f4", "f2", "i8", "i4", "u1", "bool"])
    arrays_changed = st.sampled_from(sorted(good.arrays)).flatmap(
        lambda name: st.tuples(
            st.just(name), kinds, st.lists(st.integers(0, 9), max_size=good.arrays[name].ndim).map(tuple)
        )
    )
    return st.one_of(
        files([good.data]), values([header]).map(headed), values([good.structure]).map(structured),
        values([good.structure]).map(structured), arrays_changed.map(cast),
    )  # fmt: skip


def valid_value(value: Any) -> None:
    require_shapes(value)
    for field in fields(value) if is_dataclass(value) else ():
        valid_value(getattr(value, field.name))


def test_results(tmp_path: Path) -> None:
    good = held(tmp_path / "good.safetensors", ("increase", "selected", "effects", "recency", "auc"))

    def valid(found: Results) -> None:
        assert isinstance(found.about["described"], str)
        for value in found.values.values():
            assert isinstance(value, (np.ndarray, *kinds_of()))
            valid_value(value)
        save_results(found.values, tmp_path / "again.safetensors")
        assert {*load_results(tmp_path / "again.safetensors").values} == {*found.values}
        (tmp_path / "again.safetensors").unlink()

    torture(broken_results(good), from_file(tmp_path / "bad.safetensors", load_results), valid)


def test_circuits(tmp_path: Path) -> None:
    good = held(tmp_path / "good.safetensors", ("circuit",))

    def loaded(path: Path) -> Mapping[str, Any]:
        return read_results(path, (Circuit,)).values

    def valid(found: Mapping[str, Any]) -> None:
        for circuit in found.values():
            if isinstance(circuit, Circuit):
                assert len(circuit.edges) == len(circuit.scores)
                assert circuit.scores.shape[1:] == circuit.base.shape
                assert sorted(circuit.nodes, key=str)

    torture(broken_results(good), from_file(tmp_path / "bad.safetensors", loaded), valid)


def test_nodes_of_a_circuit() -> None:
    circuit = made(**SHAPES["usual"])["circuit"]
    nodes = [plain_node(node) for node in circuit.nodes]
    assert [node_of(node) for node in nodes] == list(circuit.nodes)
    numbers = st.one_of(st.none(), st.integers(-1, 40))
    any_node = st.fixed_dictionaries({"kind": st.sampled_from(sorted(KINDS)), "layer": numbers, "index": numbers})
    torture(st.one_of(values(nodes), any_node), node_of, lambda node: assert_equal(node_of(plain_node(node)), node))


def assert_equal(found: Any, expected: Any) -> None:
    assert found == expected


def test_manifests(tmp_path: Path) -> None:
    """A folder whose manifest is broken is refused or replaced; what the manifest does not name stays."""
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "results.json").write_text("{}")
    (out / "figures" / "a.svg").write_text("<svg/>")
    write_manifest(out, "results")
    good = (out / NAME).read_bytes()
    (out / "notes.txt").write_text("mine")
    (tmp_path / "outside.txt").write_text("mine too")

    def loaded(data: bytes) -> str | None:
        (out / NAME).write_bytes(data)
        found = read_manifest(out)
        assert found is None or all(isinstance(text, str) for item in found.files.items() for text in item)
        with new_folder(out, "results", force=True) as folder:
            assert found is not None
            assert list(folder.iterdir()) == []
            raise Stopped

    def ends(data: bytes) -> None:
        before = files_of(tmp_path)
        try:
            loaded(data)
        except Stopped:
            pass
        finally:
            assert files_of(tmp_path) == before | {f"out/{NAME}": data}

    inputs = st.one_of(files([good]), values([json.loads(good)]).map(as_json))
    torture(inputs, ends, lambda _: None)


class Stopped(Exception):  # noqa: N818
    """The run ends before it has written anything."""


def test_series_of_checkpoints(tmp_path: Path) -> None:
    """Folders of any name, with a configuration in it or not, and names of series that are none."""
    names = st.one_of(
        st.sampled_from(
            ["step-000100", "step-100", "step100", "step-0", "step-", "step--1", "step-1e3", "step-٣", "step-²",
             "stepx", "step-" + "9" * 200, "config.json", "step-1\n", "\udcff", "step-0x1"]
        ),
        st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12).filter(
            lambda name: name not in (".", "..")
        ),
    )  # fmt: skip
    kinds = ["checkpoint", "checkpoint", "folder", "file", "folder of it", "link", "loop"]
    trees = st.dictionaries(names, st.sampled_from(kinds), max_size=6)
    ways = st.sampled_from([*[""] * 6, "/", "/none", "\0", "\ud800", "x" * 300, "~none/", "hf"])
    root = tmp_path / "series"

    def loaded(given_input: tuple[dict[str, str], str]) -> tuple[int, ...]:
        tree, way = given_input
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for name, what in tree.items():
            place = root / name
            if what == "file":
                place.write_bytes(b"")
            elif what in ("link", "loop"):
                place.symlink_to(name if what == "loop" else "nowhere")
            else:
                place.mkdir()
                if what == "checkpoint":
                    (place / "config.json").write_text("{}")
                elif what == "folder of it":
                    (place / "config.json").mkdir()
        before = files_of(tmp_path)
        try:
            return checkpoints(way + str(root) if way == "~none/" else str(root) + way)
        finally:
            assert files_of(tmp_path) == before

    def valid(found: tuple[int, ...]) -> None:
        assert found
        assert list(found) == sorted({*found})
        assert all(step >= 0 for step in found)

    torture(st.tuples(trees, ways), loaded, valid)


# --- jobs -------------------------------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.sampled_from(["", " ", "text", "label", "a\nb", "\ud800", "\0", "a" * 300, "~none/x.csv", "/", ".", "hf:", "http://x/y.csv"]),
    st.text(max_size=6),
)  # fmt: skip
NUMBER = st.one_of(st.integers(1, 4), st.integers(-3, 20), st.sampled_from([0, -1, 2**31, 2**63, 10**30]))
WORDS = st.one_of(st.just(("foo", "bar")), st.lists(TEXT, max_size=4).map(tuple))


def few(fields_of: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Other values for up to two fields, of the types that they have: the command line sees to the types."""
    return st.sets(st.sampled_from(sorted(fields_of)), max_size=2).flatmap(
        lambda names: st.fixed_dictionaries({name: fields_of[name] for name in sorted(names)})
    )


def test_jobs(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(of_kind(TABLES["rows"][0][0], "csv"))
    data = st.one_of(st.just(str(path)), st.just("word-categories"), TEXT)
    options = {
        "encoding": OPTIONS.map(lambda o: o.get("encoding")),
        "delimiter": OPTIONS.map(lambda o: o.get("delimiter")),
    }
    numbers = dict.fromkeys(("shots", "prompts", "heads", "seed"), NUMBER)
    inputs = st.builds(
        lambda spec, changed: Job(data=DataSpec(**spec), settings=replace(Job().settings, **{"prompts": 8, **changed})),
        few({"data": data, "text_column": TEXT, "label_column": TEXT, **options}),
        few({"labels": WORDS, "separator": TEXT, **numbers}),
    )

    def valid(found: Any) -> None:
        assert len(found.selection) == len(found.evaluation) == found.settings.prompts
        assert not {p.query for p in found.selection} & {p.query for p in found.evaluation}

    torture(inputs, unwritten(tmp_path, begun.prepare), valid)


def test_fact_jobs(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_bytes(TABLES["facts"][0][0])
    data = st.one_of(st.just(str(path)), st.just("facts"), TEXT)
    names = dict.fromkeys(("text_column", "answer_column", "type_column", "prompt", "answer"), TEXT)
    inputs = few({"data": data, **names})
    torture(
        inputs.map(lambda spec: FactJob(facts=FactSpec(**spec))),
        unwritten(tmp_path, fact_study.prepare),
        lambda found: valid_facts(found.facts),
    )


def test_relation_jobs(tmp_path: Path) -> None:
    trees, graphs, tasks = tmp_path / "trees.conllu", tmp_path / "graphs.jsonl", tmp_path / "tasks.csv"
    trees.write_bytes(CONLLU[0])
    graphs.write_bytes(TRIPLETS[0])
    tasks.write_bytes(TABLES["tasks"][0][0])
    paths = {"dependencies": str(trees), "triplets": str(graphs), "tasks": str(tasks)}
    others = dict.fromkeys(paths, st.one_of(st.sampled_from([*paths.values()]), TEXT))
    flags = dict.fromkeys(("keep_entities", "keep_words", "whole_texts"), st.booleans())
    numbers = dict.fromkeys(("texts", "draws", "heads", "prompts", "shots", "task_prompts", "seed"), NUMBER)
    inputs = st.builds(
        lambda spec, changed: RelationJob(data=spec, settings=replace(RelationJob().settings, **changed)),
        few(others | flags).map(lambda changed: RelationSpec(**(paths | changed))),
        few(numbers | {"tau": st.floats()}),
    )
    torture(inputs, unwritten(tmp_path, relation_study.prepare), lambda found: valid_corpus(found.dependencies))


def test_development_jobs(tmp_path: Path) -> None:
    long, words, tasks = tmp_path / "long.jsonl", tmp_path / "words.csv", tmp_path / "tasks.csv"
    trees, graphs = tmp_path / "trees.conllu", tmp_path / "graphs.jsonl"
    trees.write_bytes(CONLLU[0])
    graphs.write_bytes(TRIPLETS[0])
    tasks.write_bytes(TABLES["tasks"][0][0])
    long.write_bytes(as_json({"text": "word " * 30}))
    words.write_bytes((PACKAGE / "prompts" / "word_categories.csv").read_bytes())
    paths = {"data": str(words), "long_texts": str(long), "tasks": str(tasks), "dependencies": str(trees)}
    paths["triplets"] = str(graphs)
    others = dict.fromkeys(paths, st.one_of(st.sampled_from([*paths.values()]), TEXT))
    names = st.lists(st.sampled_from(["100", "200", "step-300", "step1000", "1e3", "-1", "٣", "", "x"]), max_size=2)
    models = {
        "model": st.sampled_from(["icl-small", "none", "", "~none/x", str(tmp_path)]),
        "checkpoints": names.map(tuple),
        "seeds": names.map(tuple),
    }
    numbers = dict.fromkeys(("shots", "prompts", "texts", "task_prompts", "level_prompts", "heads", "seed"), NUMBER)
    inputs = st.builds(
        lambda model, spec, changed: DevelopmentJob(
            Series(**model), spec, replace(DevelopmentJob().settings, **changed)
        ),
        few(models),
        few(others).map(lambda changed: DevelopmentSpec(**(paths | changed))),
        few({"labels": WORDS, **numbers}),
    )
    torture(inputs, unwritten(tmp_path, development.prepare), lambda found: valid_corpus(found.dependencies))


# --- shared -----------------------------------------------------------------------------------------------------------


def from_file(path: Path, load: Callable[..., Any]) -> Callable[[Any], Any]:
    """What loads a file of the bytes given, perhaps with options, and leaves the folder as it is."""

    def loaded(given_input: bytes | tuple[bytes, Mapping[str, Any]]) -> Any:
        data, options = given_input if isinstance(given_input, tuple) else (given_input, {})
        path.write_bytes(data)
        return unwritten(path.parent, lambda _: load(path, **options))(None)

    return loaded


def unwritten(folder: Path, load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What loads, and leaves the folder as it is."""

    def loaded(given_input: Any) -> Any:
        before = files_of(folder)
        try:
            return load(given_input)
        finally:
            assert files_of(folder) == before

    return loaded
