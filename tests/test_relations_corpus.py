"""Texts with relations: every loader and treatment on cases worked out by hand, and what is refused or left out."""

import dataclasses
import gzip
import importlib.machinery
import importlib.util
import json
import re
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from conftest import ARCHITECTURES, save_model
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

from icl_circuits.errors import InputError, Unfit
from icl_circuits.models import LensModel, load_model
from icl_circuits.relations import (
    KNOWLEDGE,
    LETTERS,
    Corpus,
    RelationBatch,
    RelationText,
    Span,
    Triplet,
    in_sentences,
    load_conllu,
    load_triplets,
    parse_dependencies,
    relation_batch,
    with_letters,
    without_words,
)

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
few = settings(max_examples=60, deadline=None)
Named = tuple[str, str, str]


def named(text: RelationText) -> list[Named]:
    """The triplets of a text in words: relation, head, tail."""
    return [(t.relation, text.text[slice(*t.head)], text.text[slice(*t.tail)]) for t in text.triplets]


def all_named(corpus: Corpus) -> list[list[Named]]:
    return [named(text) for text in corpus.texts]


def text_of(words: str, *triplets: Named, entities: tuple[tuple[Span, ...], ...] = ()) -> RelationText:
    """A text whose triplets are given in words that it has once."""
    found = [
        Triplet(name, *((words.index(end), words.index(end) + len(end)) for end in ends)) for name, *ends in triplets
    ]
    return RelationText(words, tuple(found), entities)


def corpus_of(*texts: RelationText) -> Corpus:
    return Corpus("told", texts)


def spans_of(text: str, word: str) -> tuple[Span, ...]:
    return tuple(match.span() for match in re.finditer(re.escape(word), text))


# --- a corpus ---------------------------------------------------------------------------------------------------------


def test_a_corpus() -> None:
    first = text_of("a b c", ("r", "a", "b"), ("r", "b", "c"), ("q", "a", "c"))
    corpus = Corpus("told", (first, text_of("d e", ("p", "d", "e"))), (("why", 3),))
    assert corpus.relations == ("r", "q", "p")
    turned = corpus.reversed()
    assert turned.relations == ("r reversed", "q reversed", "p reversed")
    assert all_named(turned)[0][0] == ("r reversed", "b", "a")
    assert turned.left_out == corpus.left_out
    frame = corpus.to_frame()
    assert frame.columns.tolist() == ["relation", "left_out", "triplets", "texts"]
    rows = [tuple(row) for row in frame.astype(object).where(frame.notna(), None).itertuples(index=False)]
    assert rows == [("r", "", 2, 1), ("q", "", 1, 1), ("p", "", 1, 1), ("", "why", 3, None)]


@pytest.mark.parametrize(
    "span", [(0, 0), (2, 1), (-1, 1), (0, 9), (0, 2), (1, 2), (0,), "ab", None, (0, True), (0, 1.0)]
)
@pytest.mark.usefixtures("unchecked")
def test_spans_are_words_of_the_text(span: Any) -> None:
    with pytest.raises(InputError, match="text 'a b c': .*: give"):
        RelationText("a b c", (Triplet("r", span, (2, 3)),))
    with pytest.raises(InputError, match="text 'a b c': .*: give"):
        RelationText("a b c", (), ((span,),))


# --- treebanks --------------------------------------------------------------------------------------------------------


def row(number: Any, form: str, upos: str = "_", head: Any = "_", label: str = "_", misc: str = "_") -> str:
    return "\t".join([str(number), form, "_", upos, "_", "_", str(head), label, "_", misc])


KIM = [
    row(1, "Kim", "PROPN", 2, "nsubj"),
    row(2, "sold", "VERB", 0, "root"),
    row(3, "red", "ADJ", 4, "amod"),
    row(4, "apples", "NOUN", 2, "obj", "SpaceAfter=No"),
    row(5, ".", "PUNCT", 2, "punct"),
]
KIM_SAYS = [("subj", "sold", "Kim"), ("mod", "apples", "red"), ("obj", "sold", "apples")]
AUX = row(1, "I", "PRON", 5, "nsubj:pass"), row("2-3", "don't"), row(2, "do", "AUX", 5, "aux")
PARTS = [*AUX, row(3, "n't", "PART", 2, "advmod"), row("3.1", "E", "VERB"), row(4, "ever", "ADV", 5, "advmod")]
PARTS += [row(5, "win", "VERB", 0, "root")]
FRENCH = [
    row("1-2", "du"),
    row(1, "de", "VERB", 0, "root"),
    row(2, "le", "DET", 1, "obj"),
    row(3, "vin", "NOUN", 1, "obj"),
]


def conllu_of(folder: Path, *sentences: list[str]) -> Path:
    path = folder / "s.conllu"
    path.write_text("\n\n".join("\n".join(lines) for lines in sentences) + "\n", encoding="utf-8")
    return path


def test_a_treebank(tmp_path: Path) -> None:
    pytest.importorskip("conllu")
    found = load_conllu(conllu_of(tmp_path, ["# text = Kim  sold red apples.", *KIM], KIM))
    assert [text.text for text in found.texts] == ["Kim  sold red apples.", "Kim sold red apples."]
    assert all_named(found) == [KIM_SAYS, KIM_SAYS]
    assert found.left_out == ()
    assert found.name == str(tmp_path / "s.conllu")
    (tmp_path / "s.conllu.gz").write_bytes(gzip.compress((tmp_path / "s.conllu").read_bytes()))
    assert load_conllu(tmp_path / "s.conllu.gz").texts == found.texts
    only = load_conllu(tmp_path / "s.conllu", labels={"thing": ["obj"]})
    assert all_named(only) == [[("thing", "sold", "apples")]] * 2


def test_words_in_words(tmp_path: Path) -> None:
    """Parts that spell their token have their own characters, others all of it; empty nodes have none."""
    pytest.importorskip("conllu")
    found = load_conllu(conllu_of(tmp_path, PARTS, ["# text = du vin", *FRENCH]))
    assert [text.text for text in found.texts] == ["I don't ever win", "du vin"]
    said = [("subj", "win", "I"), ("mod", "do", "n't"), ("mod", "win", "ever")]
    assert all_named(found) == [said, [("obj", "du", "vin")]]
    assert found.left_out == (("head and tail are the same words", 1),)


def test_what_a_treebank_leaves_out(tmp_path: Path) -> None:
    pytest.importorskip("conllu")
    other = ["# text = Kim sold green apples.", *KIM]
    more = ["# text = Kim sold red apples. Really", *KIM]
    odd = [row(1, "so", "ADV", 2, "advmod"), row(2, "tall", "ADJ", 0, "obj"), row(3, "all", "_", 2, "advmod")]
    odd += [row(4, "here", "ADV", 3, "advmod")]
    found = load_conllu(conllu_of(tmp_path, KIM, other, more, odd, ["# a comment alone"]))
    assert all_named(found) == [KIM_SAYS, [("mod", "all", "here")]]
    assert dict(found.left_out) == {
        "a sentence whose words are not its text": 6,
        "mod of another word than a noun or verb": 2,
        "a relation to the root": 1,
    }


def changed(line: int, text: str) -> list[str]:
    return [*KIM[:line], text, *KIM[line + 1 :]]


BAD_TREEBANKS: list[tuple[list[str], dict[str, Any], str]] = [
    (
        changed(3, row(4, "apples", "NOUN", 9, "obj")),
        {},
        "line 4: the head of word 4 .'apples'. is 9, which is no word",
    ),
    (["# sent_id = k1", *changed(0, row(1, "Kim", "X", 1))], {}, "line 2, sentence 'k1': .* is the word itself: give"),
    (changed(0, row(1, "Kim", "X", "two")), {}, "line 1 is no CoNLL-U .*'two' is not a valid value"),
    (changed(0, row(1, "Kim", "X")), {}, "line 1: the head of word 1 .'Kim'. is missing: give the id"),
    (changed(1, row(1, "sold", "X", 0)), {}, "line 2: a second word 1: number the words"),
    (changed(1, row("_", "sold", "X", 0)), {}, "line 2 has no id or no word"),
    (changed(1, row("x", "sold", "X", 0)), {}, "line 2 is no CoNLL-U .*'x' is not a valid ID"),
    (changed(1, row("9" * 5000, "sold", "X", 0)), {}, "line 2 is no CoNLL-U .ValueError: .* digits"),
    (changed(1, row("\ufeff2", "sold", "X", 0)), {}, r"line 2 is no CoNLL-U .*'\\ufeff2' is not a valid ID"),
    (["Kim sold red apples.", ""], {}, "line 1 is no CoNLL-U .*: write ten columns with tabs between"),
    ([row(1, "Go", "VERB", 0, "root")], {}, "has no subj or obj or mod to use: give parsed sentences"),
    ([], {}, "has no subj or obj or mod to use"),
    (["# text = Kim", *KIM], {}, "no subj or obj or mod to use .a sentence whose words are not its text.: give"),
    (KIM, {"labels": {}}, "labels are {}: give the labels of each relation"),
    (KIM, {"labels": ["nsubj"]}, "labels are .*: give the labels of each relation"),
    (KIM, {"labels": {"subj": "nsubj"}}, "labels of 'subj' are 'nsubj': give a list"),
    (KIM, {"labels": {"subj": [1]}}, "labels of 'subj' are .1.: give a list"),
    (KIM, {"labels": {"case": ["case"]}}, "has no case to use"),
]


def raises_one_line(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        call()
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500
    assert ": " in str(raised.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("lines", "options", "message"), BAD_TREEBANKS)
def test_bad_treebanks_are_named(tmp_path: Path, lines: list[str], options: dict[str, Any], message: str) -> None:
    pytest.importorskip("conllu")
    raises_one_line(lambda: load_conllu(conllu_of(tmp_path, lines), **options), message)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("load", [load_conllu, load_triplets])
def test_files_that_are_none(tmp_path: Path, load: Any) -> None:
    pytest.importorskip("conllu")
    for data, message in [
        (3, "data is an int: give a file's path, or '(dependencies|triplets)' .built in."),
        ("none.jsonl", "file 'none.jsonl' does not exist: check the path, or use"),
        ("", "file '' does not exist"),
        ("https://x.org/f", "is a web address: download it"),
        (tmp_path, "is a folder|neither .jsonl nor .tsv"),
    ]:
        raises_one_line(lambda data=data: load(data), message)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "spacy" else find(name))
    raises_one_line(lambda: parse_dependencies(["A b."]), r"needs the spacy package: run `pip install 'icl_circuits\[")


# --- parsing ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class FakeToken:
    """What is read of a spaCy token."""

    i: int
    idx: int
    text: str
    dep_: str
    pos_: str
    head: "FakeToken | None" = None


class FakeSentence(list[FakeToken]):
    """What is read of a sentence."""

    def __init__(self, text: str, start: int, start_char: int, words: list[tuple[str, str, str, int]]) -> None:
        places = [text.index(word) for word, *_ in words]
        super().__init__(
            FakeToken(start + i, start_char + places[i], word, dep, pos) for i, (word, dep, pos, _) in enumerate(words)
        )
        for token, (*_, head) in zip(self, words, strict=True):
            token.head = self[head]
        self.text, self.start, self.start_char = text, start, start_char


WAS_SEEN = [("Kim", "nsubjpass", "PROPN", 2), ("was", "auxpass", "AUX", 2), ("seen", "ROOT", "VERB", 2)]
ATE_FIGS = [("She", "nsubj", "PRON", 1), ("ate", "ROOT", "VERB", 1), ("two", "nummod", "NUM", 3)]
ATE_FIGS += [("figs", "dobj", "NOUN", 1)]
SPACY = [FakeSentence("Kim was seen.", 0, 0, WAS_SEEN), FakeSentence("She ate two figs.", 4, 14, ATE_FIGS)]


def fake_spacy(monkeypatch: pytest.MonkeyPatch, pipes: tuple[str, ...] = ("parser",)) -> None:
    def load(name: str) -> Any:
        if name == "none":
            raise OSError("[E050] Can't find model\n'none'.")
        document = types.SimpleNamespace(sents=SPACY)
        return types.SimpleNamespace(pipe_names=pipes, pipe=lambda texts: [document for _ in texts])

    module = types.ModuleType("spacy")
    module.load = load  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec("spacy", None)
    monkeypatch.setitem(sys.modules, "spacy", module)


def test_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passive subjects are subjects, and each sentence is a text."""
    fake_spacy(monkeypatch)
    found = parse_dependencies(["Kim was seen. She ate two figs."])
    assert found.name == "1 texts parsed by en_core_web_sm"
    assert all_named(found) == [
        [("subj", "seen", "Kim")],
        [("subj", "ate", "She"), ("mod", "figs", "two"), ("obj", "ate", "figs")],
    ]


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_spacy(monkeypatch)
    for texts, message in [
        ("A text.", "texts are 'A text.': give a list"),
        ([], r"texts are \[\]: give a list"),
        ([3], "text 0 is an int: give a list of texts"),
        (["a\ud83d"], "text 0: .* half of a character"),
    ]:
        raises_one_line(lambda texts=texts: parse_dependencies(texts), message)
    raises_one_line(
        lambda: parse_dependencies(["A."], pipeline="none"), "no pipeline 'none' .* run `python -m spacy download none`"
    )
    raises_one_line(lambda: parse_dependencies(["A."], labels={"x": "y"}), "labels of 'x' are 'y'")
    fake_spacy(monkeypatch, ())
    raises_one_line(lambda: parse_dependencies(["A."]), "has no parser: name one that has")


def test_parsing_with_spacy_itself() -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    if not spacy.util.is_package("en_core_web_sm"):
        pytest.skip("spaCy's en_core_web_sm is not installed")
    found = parse_dependencies(["The tall girl reads old books. She sings."])
    assert ("obj", "reads", "books") in all_named(found)[0]
    assert all_named(found)[1] == [("subj", "sings", "She")]


# --- knowledge graphs -------------------------------------------------------------------------------------------------

TEXT = "a CRF model finds events , and an HMM finds events"
TOKENS = TEXT.split()
EXPECTED = [("Used-for", "CRF model", "events"), ("Compare", "CRF model", "HMM")]
WORDS = {"head": "CRF model", "relation": "USED_FOR", "tail": [18, 24]}
SIMPLE = {"text": TEXT, "triplets": [WORDS, {"head": "CRF model", "relation": "compare", "tail": "HMM"}]}
SCIERC = {
    "tokens": TOKENS,
    "entities": [{"span": [1, 2], "type": "Method"}, [4, 4], [8, 8]],
    "relations": [
        {"head": [1, 2], "tail": [4, 4], "relation": "USED-FOR"},
        {"head": 0, "tail": 2, "relation": "COMPARE"},
    ],
    "coref_clusters": [[[4, 4], [10, 10]]],
}
RELEASED = {
    "sentences": [TOKENS[:6], TOKENS[6:]],
    "ner": [[], []],
    "relations": [[[1, 2, 4, 4, "USED-FOR"]], [[1, 2, 8, 8, "COMPARE"]]],
    "clusters": [[[4, 4], [10, 10]]],
}
AGENDA = {
    "text": TEXT,
    "entities": ["events", "CRF model", "HMM"],
    "relations": [{"head": 1, "tail": 0, "relation": "USED-FOR"}, {"head": 1, "tail": 2, "relation": "COMPARE"}],
    "mentions": [[1, 2, 11], [0, 18, 24], [2, 34, 37], [0, 44, 50]],
}
TAGGED = "a <method_1> finds <task_0> , and an <method_2> finds <task_0>"
ROW = ["A title .", "events ; CRF model ; HMM", "<task> <method> <method>", "1 0 0 ; 1 4 2", TAGGED, "1 0 -1"]


def file_of(folder: Path, *rows: Any, name: str = "t.jsonl") -> Path:
    lines = ["\t".join(row) if isinstance(row, list) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    "row", [SIMPLE, SCIERC, RELEASED, AGENDA, ROW], ids=["simple", "scierc", "released", "agenda", "tsv"]
)
def test_every_form(tmp_path: Path, row: Any) -> None:
    path = file_of(tmp_path, row, name="t.tsv" if isinstance(row, list) else "t.jsonl")
    found = load_triplets(path)
    assert [text.text for text in found.texts] == [TEXT]
    assert all_named(found) == [EXPECTED]
    assert found.left_out == ()
    assert found.relations == ("Used-for", "Compare")
    if row is not SIMPLE:
        assert found.texts[0].related == (((2, 11),), ((18, 24), (44, 50)), ((34, 37),))


def test_forms_stand_in_one_file(tmp_path: Path) -> None:
    path = file_of(tmp_path, SIMPLE, SCIERC, AGENDA)
    path.write_text("\n" + path.read_text().replace("\n", "\n\n"))
    assert all_named(load_triplets(path)) == [EXPECTED] * 3


def test_names_of_relations(tmp_path: Path) -> None:
    names = ["HYPONYM-OF", "hyponym of", " Hyponym_Of ", "evaluate-for", "CONJUNCTION", "likes", "Is A"]
    rows = [{"text": "a b", "triplets": [{"head": "a", "relation": name, "tail": "b"}]} for name in names]
    found = [text.triplets[0].relation for text in load_triplets(file_of(tmp_path, *rows)).texts]
    assert found == ["Hyponym-of"] * 3 + ["Evaluate-for", "Conjunction", "likes", "Is A"]


def test_the_nearest_mentions(tmp_path: Path) -> None:
    """Of two mentions each, those with fewest characters between, and none within another."""
    text = "x y . x q y . x of y"
    mentions = [[0, 0, 1], [1, 2, 3], [0, 6, 7], [1, 10, 11], [0, 14, 15], [1, 14, 20]]
    row = {"text": text, "mentions": mentions, "relations": [{"head": 1, "tail": 0, "relation": "PART-OF"}]}
    (found,) = load_triplets(file_of(tmp_path, row)).texts
    assert found.triplets == (Triplet("Part-of", (2, 3), (0, 1)),)


def test_what_triplets_leave_out(tmp_path: Path) -> None:
    relations = [{"head": h, "tail": t, "relation": "PART-OF"} for h, t in [(1, 0), (1, 0), (3, 0), (2, 2), (0, 3)]]
    row = AGENDA | {"entities": ["events", "CRF model", "HMM", "gone"], "relations": relations}
    found = load_triplets(file_of(tmp_path, row, AGENDA | {"relations": []}))
    assert all_named(found) == [[("Part-of", "CRF model", "events")]]
    assert dict(found.left_out) == {
        "an entity that is not in the text": 2,
        "head and tail are the same words": 1,
        "a triplet that its text has twice": 1,
    }


def simple(**fields: Any) -> dict[str, Any]:
    return {"text": TEXT, "triplets": [WORDS | fields]}


BAD_ROWS: list[tuple[Any, str]] = [
    ({"title": "x"}, "line 2 has the fields 'title', no known form: give 'text' and 'triplets'"),
    ({"a" * 9000: "x"}, r"line 2 has the fields 'a+\.\.\.a+', no known form"),
    ({}, "line 2 has the fields none, no known form"),
    (simple(head="events"), "line 2, triplet 0 .from 0., head: the text has 'events' 2 times: give words"),
    (simple(head="event"), "the text has 'event' 0 times"),
    (simple(head=""), "the text has '' 0 times"),
    (simple(head=[0, 99]), "head: .0, 99. are no characters of it: give .from, to. with 0 <= from < to <= 50"),
    (simple(head=[1, 3]), "head: ' C' begins or ends with a space: give the words alone"),
    (simple(head=7), "head: 7 are no characters"),
    (simple(relation=""), "triplet 0 .from 0.: '' is no relation: give its name"),
    (simple(relation=3), "triplet 0 .from 0.: 3 is no relation"),
    (simple(relation="a\ud83d"), "triplet 0 .from 0.: .* half of a character"),
    ({"text": TEXT, "triplets": [{"head": "HMM"}]}, "triplet 0 .from 0. has no 'tail': give it one"),
    ({"text": TEXT, "triplets": ["x"]}, "triplet 0 .from 0. has no 'head'"),
    ({"text": TEXT, "triplets": "x"}, "triplets: 'x' is a str: give a list"),
    ({"text": "", "triplets": []}, "line 2, text: '' is no text: give one"),
    ({"text": 3, "triplets": []}, "line 2, text: 3 is no text"),
    ({"text": "a\ud83d", "triplets": []}, "line 2, text: .* half of a character"),
    (SCIERC | {"relations": [{"head": 3, "tail": 0, "relation": "COMPARE"}]}, "relation 0 .*: entity 3 does not exist"),
    (SCIERC | {"relations": [{"head": [0, 99], "tail": 0, "relation": "COMPARE"}]}, "line 2: .0, 99. is no span of"),
    (SCIERC | {"tokens": TEXT}, "line 2, tokens: .* is a str: give a list of words"),
    (SCIERC | {"text": "other"}, "line 2: the text is not its tokens with a space between"),
    (SCIERC | {"coref_clusters": [3]}, "line 2, clusters: .3. is a list: give a list of lists"),
    (RELEASED | {"relations": [[[1, 2, 4]]]}, r"relation 0 .from 0. is \[1, 2, 4\]: give .from, to, from, to"),
    (RELEASED | {"relations": [[[1, 2, 4, 44, "X"]]]}, "line 2: .4, 44. is no span of its 11 tokens"),
    (AGENDA | {"relations": [{"head": 9, "tail": 0, "relation": "COMPARE"}]}, "entity 9 does not exist: .* 0 to 2"),
    (AGENDA | {"relations": [{"head": -1, "tail": 0, "relation": "COMPARE"}]}, "entity -1 does not exist"),
    (AGENDA | {"mentions": [[0, 1]]}, "line 2, mention .0, 1.: give .entity, from, to."),
    (AGENDA | {"mentions": [[-1, 0, 1]]}, "line 2, mention .-1, 0, 1.: give .entity, from, to."),
    ({"text": TEXT, "mentions": [[10**12, 0, 1]], "relations": [{"head": -1}]}, "entity -1 does not exist: .* 0 to 1"),
    (AGENDA | {"mentions": [[7, 0, 1]], "entities": ["x"]}, "line 2, mention: entity 7 does not exist: .* 0 to 0"),
    (AGENDA | {"mentions": [[0, 0, 99]]}, "line 2, mention: .0, 99. are no characters"),
    ([*ROW[:3], "1 9 0", TAGGED], "line 2: relation 9 does not exist: give a number from 0 to 6"),
    ([*ROW[:3], "1 0 5", TAGGED], "line 2: entity 5 does not exist: give a number from 0 to 2"),
    ([*ROW[:3], "1 0", TAGGED], "line 2: relation '1 0': give three numbers"),
    ([*ROW[:4], "a <method_8>"], "line 2: entity 8 does not exist"),
    ([*ROW[:4], f"a <method_{'9' * 5000}>"], "line 2: entity '9+...9+' does not exist"),
    ([*ROW[:3], "1 0 " + "9" * 5000, TAGGED], "line 2: entity '9+...9+' does not exist"),
    (ROW[:3], "line 2 has 3 cells with tabs between: give title, entities"),
]  # fmt: skip


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_named(tmp_path: Path, row: Any, message: str) -> None:
    path = file_of(tmp_path, *((ROW, row) if isinstance(row, list) else (SIMPLE, row)))
    if isinstance(row, list):
        path = path.rename(tmp_path / "t.tsv")
    raises_one_line(lambda: load_triplets(path), message)


def test_bad_files_of_triplets(tmp_path: Path) -> None:
    raises_one_line(lambda: load_triplets(file_of(tmp_path, AGENDA | {"relations": []})), "has no triplet to use: give")
    gone = AGENDA | {"mentions": [], "relations": [{"head": 0, "tail": 1, "relation": "X"}]}
    raises_one_line(
        lambda: load_triplets(file_of(tmp_path, gone)), "no triplet to use .an entity that is not in the text"
    )
    (tmp_path / "t.jsonl").write_text("{")
    raises_one_line(lambda: load_triplets(tmp_path / "t.jsonl"), "line 1 cannot be read as JSON")
    (tmp_path / "t.txt").write_text("x")
    raises_one_line(lambda: load_triplets(tmp_path / "t.txt"), "is neither .jsonl nor .tsv by its name")


# --- built in, and what others have -----------------------------------------------------------------------------------


def test_built_in_sentences() -> None:
    pytest.importorskip("conllu")
    found = load_conllu()
    assert found.name == "dependencies"
    assert set(found.relations) == {"subj", "obj", "mod"}
    assert found.left_out == ()
    texts = [text.text for text in found.texts]
    assert len(set(texts)) == len(texts) >= 60
    assert all(6 <= len(text.split()) <= 15 for text in texts)
    frame = found.to_frame()
    assert frame["triplets"].min() >= 60
    said = {text.text: named(text) for text in found.texts}
    assert said["Peter repaired the broken clock and cleaned his desk."] == [
        ("subj", "repaired", "Peter"),
        ("mod", "clock", "broken"),
        ("obj", "repaired", "clock"),
        ("obj", "cleaned", "desk"),
    ]


def test_built_in_triplets() -> None:
    found = load_triplets()
    assert (found.name, found.left_out) == ("triplets", ())
    texts = [text.text for text in found.texts]
    assert len(set(texts)) == len(texts) >= 70
    counts = Counter(triplet.relation for text in found.texts for triplet in text.triplets)
    assert set(counts) == set(KNOWLEDGE)
    assert min(counts.values()) >= 12
    lettered = without_words(with_letters(found))
    assert lettered.left_out == ()
    assert lettered.to_frame()["triplets"].tolist() == found.to_frame()["triplets"].tolist()


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"the shared data ({name}) are not on this machine")
    return SHARED / name


def test_a_published_treebank() -> None:
    conllu = pytest.importorskip("conllu")
    path = shared("ud/en_ewt_dev_300.conllu")
    found = load_conllu(path)
    assert set(dict(found.left_out)) == {"mod of another word than a noun or verb"}, "a sentence does not align"
    assert sum(len(text.triplets) for text in found.texts) > 1000
    told = {
        s.metadata["text"]: [t["form"] for t in s if isinstance(t["id"], int)] for s in conllu.parse(path.read_text())
    }
    for text in found.texts:
        for _, *words in named(text):
            assert set(words) <= set(told[text.text])


@pytest.mark.parametrize(("name", "triplets", "missing"), [("scierc_dev", 455, 0), ("agenda_val_100", 460, 11)])
def test_published_graphs(name: str, triplets: int, missing: int) -> None:
    path = shared(f"relations/{name}.jsonl")
    found = load_triplets(path)
    assert set(found.relations) == set(KNOWLEDGE)
    assert sum(map(len, all_named(found))) == triplets - missing
    assert sum(count for _, count in found.left_out) == missing
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    told = {
        (row["text"], r["relation"].capitalize(), r["head_text"], r["tail_text"])
        for row in rows
        for r in row["relations"]
    }
    for text in found.texts:
        for relation, head, tail in named(text):
            assert (text.text, relation, head, tail) in told
    plain = without_words(with_letters(in_sentences(found)))
    assert sum(map(len, all_named(plain))) + sum(count for _, count in plain.left_out) == triplets
    for text in plain.texts:
        for _, head, tail in named(text):
            assert {head, tail} <= set(LETTERS)
            assert len(re.findall(rf"\b{head}\b", text.text)) == 1


# --- letters, words, sentences ----------------------------------------------------------------------------------------


def test_letters() -> None:
    """The paper's example, letters in order of appearance, and a letter that the text has itself."""
    text = text_of("We present a CRF model for Event Detection.", ("Used-for", "CRF model", "Event Detection"))
    vitamin = text_of("old tea has vitamin B and zinc", ("r", "zinc", "tea"))
    found = with_letters(corpus_of(text, vitamin))
    assert [text.text for text in found.texts] == ["We present a B for C.", "old C has vitamin B and D"]
    assert all_named(found) == [[("Used-for", "B", "C")], [("r", "D", "C")]]
    assert with_letters(corpus_of(text), letters="QR").texts[0].text == "We present a Q for R."
    words = without_words(corpus_of(text), ["WE", "for", "present"])
    assert words.texts[0].text == "a CRF model Event Detection."
    assert all_named(words) == all_named(corpus_of(text))


def test_what_letters_leave_out() -> None:
    said = "the parser of trees beats tagger and tagger and tree parser"
    entities = (spans_of(said, "tagger"), spans_of(said, "tree parser"))
    twice = text_of(said, ("r", "beats", "tree parser"), entities=entities)
    tagger = Triplet("r", entities[0][0], spans_of(said, "beats")[0])
    twice = dataclasses.replace(twice, triplets=(*twice.triplets, tagger))
    nested = text_of("a model of rain in Rome", ("p", "model of rain", "Rome"), ("q", "rain", "Rome"))
    across = text_of("fast tea cups", ("p", "fast tea", "tea cups"))
    many = text_of("k l m n", ("p", "k", "l"), ("q", "m", "n"))
    found = with_letters(corpus_of(twice, nested, across, many), letters="BCD")
    assert dict(found.left_out) == {
        "an entity that occurs twice": 1,
        "an entity within or across another": 2,
        "an entity beyond the letters": 1,
    }
    assert [text.text for text in found.texts] == ["the parser of trees B C and C and D", "a B in C", "B C D n"]
    assert all_named(found) == [[("r", "B", "D")], [("p", "B", "C")], [("p", "B", "C")]]


def test_words_of_entities_stay() -> None:
    said = "The rate of the state of the art is part of the cost, of"
    text = text_of(said, ("Part-of", "state of the art", "cost"))
    hyphens = text_of("a state-of-the-art tagger and the tagset", ("p", "tagger", "tagset"))
    found = without_words(corpus_of(text, hyphens))
    assert [text.text for text in found.texts] == [
        "rate state of the art part cost,",
        "a state-of-the-art tagger tagset",
    ]
    assert all_named(found) == [[("Part-of", "state of the art", "cost")], [("p", "tagger", "tagset")]]


SENTENCES = [
    ("One two. Three four.", ["One two.", "Three four."]),
    ("Is it? Yes! Fine.", ["Is it?", "Yes!", "Fine."]),
    ("see fig . 3 shows it . then stop .", ["see fig .", "3 shows it .", "then stop ."]),
    ("By J. Smith et al. (2013), e.g. in Fig. 2. Good", ["By J. Smith et al. (2013), e.g. in Fig. 2.", "Good"]),
    ("It costs 3.5 approx. now. So what", ["It costs 3.5 approx. now.", "So what"]),
    ('He said "Go." She went.', ['He said "Go."', "She went."]),
    ("in the U.S. Army they go... maybe", ["in the U.S. Army they go... maybe"]),
    ("  One two.  Three. ", ["One two.", "Three."]),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_sentences(text: str, expected: list[str]) -> None:
    """Each sentence has a triplet of its first and last word, so that all are kept."""
    marked = []
    for sentence in expected:
        start = text.index(sentence)
        words = [(start + m.start(), start + m.end()) for m in re.finditer(r"\w+", sentence)]
        marked += [Triplet("r", words[0], words[-1])] if len(words) > 1 else []
    found = in_sentences(corpus_of(RelationText(text, tuple(marked))))
    kept = [sentence for sentence in expected if len(re.findall(r"\w+", sentence)) > 1]
    assert [text.text for text in found.texts] == kept
    assert found.left_out == ()


def test_triplets_across_sentences() -> None:
    said = "Tea beats milk. Milk vs. Mr. Tea is old. B for C. D fails."
    text = RelationText(
        said, (Triplet("p", (0, 3), (10, 14)), Triplet("q", (0, 3), (16, 20)), Triplet("r", (47, 48), (41, 42)))
    )
    found = in_sentences(dataclasses.replace(corpus_of(text), left_out=(("why", 2),)))
    assert [text.text for text in found.texts] == ["Tea beats milk.", "B for C."]
    assert all_named(found) == [[("p", "Tea", "milk")], [("r", "C", "B")]]
    assert found.left_out == (("why", 2), ("head and tail in two sentences", 1))


@pytest.mark.usefixtures("unchecked")
def test_bad_letters_and_words() -> None:
    corpus = corpus_of(text_of("a b", ("r", "a", "b")))
    for letters in ("", "BB", "B C", "B1", 3):
        raises_one_line(lambda letters=letters: with_letters(corpus, letters=letters), "letters are .*: give different")
    for words in ("the", ["of the"], [3], [""]):
        raises_one_line(lambda words=words: without_words(corpus, words), "words are .*: give a list of single words")


WORD = st.sampled_from(["the", "The", "of", "B", "cat", "dogs", "e.g.", "Mr.", "end.", "so?", "a-the", "ünï", ",", "."])


@st.composite
def related_words(draw: st.DrawFn) -> tuple[str, list[tuple[Span, Span]], tuple[tuple[Span, ...], ...]]:
    """Words with one space or two between, spans of one to three words, two by two, and mentions of some."""
    words = draw(st.lists(WORD, min_size=2, max_size=14))
    text, places = "", []
    for word in words:
        text += draw(st.sampled_from(["", " ", "  "])) if not text else draw(st.sampled_from([" ", "  "]))
        places.append((len(text), len(text) + len(word)))
        text += word
    text += draw(st.sampled_from(["", " "]))

    def span() -> Span:
        first = draw(st.integers(0, len(words) - 1))
        return places[first][0], places[min(first + draw(st.integers(0, 2)), len(words) - 1)][1]

    pairs = [(span(), span()) for _ in range(draw(st.integers(1, 4)))]
    entities = tuple((head, span()) for head, _ in pairs[: draw(st.integers(0, 2))])
    return text, [pair for pair in pairs if pair[0] != pair[1]], entities


@few
@given(related_words())
def test_spans_survive(words: tuple[str, list[tuple[Span, Span]], tuple[tuple[Span, ...], ...]]) -> None:
    """After any treatment, heads and tails are the words they were, or letters; nothing is lost uncounted."""
    text = RelationText(words[0], tuple(Triplet("r", *pair) for pair in words[1]), words[2])
    before, n_triplets = Counter(named(text)), len(text.triplets)
    corpus = corpus_of(text)
    for treated in (without_words(corpus), in_sentences(corpus), in_sentences(without_words(corpus))):
        after = Counter(one for text in treated.texts for one in named(text))
        assert after <= before
        assert after.total() + sum(count for _, count in treated.left_out) == n_triplets
    assert Counter(all_named(without_words(corpus))[0] if n_triplets else []) == before
    assert all(text.text == text.text.strip() for text in in_sentences(corpus).texts)
    lettered = with_letters(corpus)
    assert sum(map(len, all_named(lettered))) + sum(count for _, count in lettered.left_out) == n_triplets
    for one in lettered.texts:
        for _, head, tail in named(one):
            assert head != tail
            for letter in (head, tail):
                assert letter in LETTERS
                assert re.findall(r"\w+", one.text).count(letter) == 1


# --- tokens -----------------------------------------------------------------------------------------------------------


def with_tokenizer(folder: Path, tokenizer: Any) -> LensModel:
    tokenizer.save_pretrained(folder)
    save_model(folder, ARCHITECTURES["gpt2"](len(tokenizer)))
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> LensModel:
    """A model whose tokenizer writes a space as `▁`, perhaps as a token of its own, and puts a BOS token first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator([text.text for text in load_triplets().texts], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    return with_tokenizer(tmp_path_factory.mktemp("spaces"), fast)


def test_tokens_cover_words(gpt2: LensModel, spaces: LensModel) -> None:
    """A head's last character is of the token it is read at, and so is a tail's first: by decoding up to there."""
    corpus = load_triplets()
    for model in (gpt2, spaces):
        found = relation_batch(model, corpus)
        assert found.relations == corpus.relations
        assert found.batch.texts == tuple(text.text for text in corpus.texts)
        triplets = [(row, triplet) for row, text in enumerate(corpus.texts) for triplet in text.triplets]
        assert len(found) == len(triplets)
        assert found.left_out == ()
        begins = found.batch.tokens[:, 0] == model.tokenizer.bos_token_id
        assert begins.all() if model is spaces else not begins.any()
        assert found.text.tolist() == [row for row, _ in triplets]
        assert [found.relations[number] for number in found.relation] == [triplet.relation for _, triplet in triplets]
        for (row, triplet), head, tail in zip(triplets, found.head_pos, found.tail_pos, strict=True):
            read = [len(decoded(model, found.batch.tokens[row, :stop])) for stop in (head, head + 1, tail, tail + 1)]
            assert read[0] < triplet.head[1] <= read[1]
            assert read[2] <= triplet.tail[0] < read[3]


def decoded(model: LensModel, tokens: Tensor) -> str:
    return str(model.tokenizer.decode(tokens.tolist(), skip_special_tokens=True))


def test_one_entry_a_triplet(gpt2: LensModel) -> None:
    """By hand: ` bar` is one token, `xyz` three, and texts without triplets left go."""
    one = text_of("a xyz bar", ("p", "xyz", "bar"), ("q", "bar", "xyz"))
    gone = text_of("bar foo", ("q", "f", "oo"))
    found = relation_batch(gpt2, Corpus("told", (gone, one), (("why", 2),)))
    assert gpt2.tokenizer.convert_ids_to_tokens(found.batch.tokens[0].tolist()) == ["a", "Ġ", "x", "y", "z", "Ġbar"]
    assert found.relations == ("q", "p")
    fields = [getattr(found, name).tolist() for name in ("text", "relation", "head_pos", "tail_pos")]
    assert fields == [[0, 0], [1, 0], [4, 5], [5, 2]]
    assert (found.triplets_of("p").tolist(), found.triplets_of("q").tolist()) == ([0], [1])
    assert found.batch.target.tolist() == [int(found.batch.tokens[0, -1])]
    assert found.left_out == (("why", 2), ("head and tail in one token", 1))


def test_what_tokens_leave_out(gpt2: LensModel) -> None:
    word = text_of("bar foo", ("p", "f", "oo"), ("q", "bar", "foo"))
    late = text_of("cat dog " + "foo " * 400 + "red baz", ("p", "cat", "dog"), ("p", "cat", "red"), ("q", "baz", "cat"))
    found = relation_batch(gpt2, Corpus("told", (word, late), (("why", 2),)))
    assert found.left_out == (
        ("why", 2), ("head and tail in one token", 1), ("a head or tail beyond the model's context", 2),
    )  # fmt: skip
    assert len(found) == 2
    assert found.batch.tokens.shape == (2, gpt2.cfg.n_ctx)
    np.testing.assert_array_equal(found.text, [0, 1])
    alone = relation_batch(gpt2, corpus_of(late)).batch
    assert alone.last.tolist() == [gpt2.cfg.n_ctx - 1]


def test_words_without_tokens(tmp_path: Path) -> None:
    """A tokenizer that drops a character gives its word no token."""
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "b": 2}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("~", behavior="removed")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<s>")
    model = with_tokenizer(tmp_path, fast)
    text = text_of("a~b", ("p", "a", "b"), ("q", "a", "~"))
    found = relation_batch(model, corpus_of(text))
    assert found.left_out == (("a head or tail without a token", 1),)
    with pytest.raises(InputError, match="relation 'q' has no triplet left: use one of p, or more texts"):
        found.triplets_of("q")
    with pytest.raises(InputError, match="relation 'z' is unknown: use one of p, q"):
        found.triplets_of("z")
    with pytest.raises(
        Unfit, match="no triplet of 'told' is left for .* .1 a head or tail without a token.: give other"
    ):
        relation_batch(model, corpus_of(dataclasses.replace(text, triplets=text.triplets[1:])))


def test_a_few_texts(gpt2: LensModel) -> None:
    corpus = load_triplets()
    some, again, other = (relation_batch(gpt2, corpus, n_texts=5, seed=seed) for seed in (1, 1, 2))
    assert some.batch.texts == again.batch.texts != other.batch.texts
    assert len(some.batch) == 5
    texts = [text.text for text in corpus.texts]
    assert [texts.index(text) for text in some.batch.texts] == sorted(texts.index(text) for text in some.batch.texts)
    every: RelationBatch = relation_batch(gpt2, corpus, n_texts=10**6)
    assert every.batch.texts == tuple(texts)
    assert len(some) + dict(some.left_out)["a text that was not drawn"] == len(every)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_aligned(gpt2: LensModel) -> None:
    corpus = load_triplets()
    for n in (0, -1, 1.5, True):
        raises_one_line(
            lambda n=n: relation_batch(gpt2, corpus, n_texts=n), f"cannot keep {n} texts: ask for 1 or more"
        )
    raises_one_line(lambda: relation_batch(gpt2, corpus, seed=-1), "seed is -1")
    with pytest.raises(Unfit, match="no triplet of 'told' is left for .* .it has none.: give other texts"):
        relation_batch(gpt2, corpus_of())
