"""Facts as people give them, the built-in ones, and which of them a model knows."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import loaded

from icl_circuits.errors import InputError, Unfit
from icl_circuits.models import LensModel
from icl_circuits.prompts import Fact, Facts, load_facts, token_batch
from icl_circuits.subvalues import known_facts

GOOD = (Fact("Tim plays", "chess", "game"), Fact("The capital of Peru is", "Lima", "capital"))
DICTS = [fact._asdict() for fact in GOOD]

# --- loading ----------------------------------------------------------------------------------------------------------


def test_built_in_facts() -> None:
    """Six types of knowledge; an answer is one word that its text does not give away."""
    found = load_facts()
    assert found.name == "facts"
    assert sorted(found.types) == ["capital", "colour", "country", "language", "month", "number"]
    assert min(Counter(fact.type for fact in found.facts).values()) >= 40
    texts = [fact.text for fact in found.facts]
    assert len({text.lower() for text in texts}) == len(texts)
    for text, answer, _ in found.facts:
        assert re.fullmatch(r"[^\W\d_]+", answer), answer
        assert not re.search(rf"\b{answer}\b", text, re.IGNORECASE), text
        assert text == text.strip()
        assert not text.endswith((".", "?", "!"))
    for kind in found.types:
        assert len({fact.answer for fact in found.facts if fact.type == kind}) >= 5


def test_facts_of_a_file_and_in_memory(tmp_path: Path) -> None:
    frame = pd.DataFrame(DICTS)
    frame.to_csv(tmp_path / "f.csv", index=False)
    frame.to_csv(tmp_path / "f.tsv", index=False, sep="\t")
    (tmp_path / "f.jsonl").write_text("\n".join(json.dumps(row) for row in DICTS))
    frame.to_csv(tmp_path / "odd.csv", index=False, sep=";", encoding="utf-16")
    for data in (frame, DICTS, tmp_path / "f.csv", str(tmp_path / "f.tsv"), tmp_path / "f.jsonl"):
        assert load_facts(data).facts == GOOD
    assert load_facts(tmp_path / "odd.csv", encoding="utf-16", delimiter=";").facts == GOOD
    assert (load_facts(frame).name, load_facts(DICTS).name) == ("DataFrame of 2 rows", "list of 2 rows")
    assert load_facts(DICTS).types == ("game", "capital")


def test_columns_of_other_names() -> None:
    frame = pd.DataFrame(DICTS).rename(columns={"text": "query", "answer": "word", "type": "topic"})
    renamed: dict[str, Any] = {"text_column": "query", "answer_column": "word"}
    assert load_facts(frame, **renamed, type_column="topic").facts == GOOD
    one_type = tuple(fact._replace(type="fact") for fact in GOOD)
    assert load_facts(frame, **renamed).facts == one_type
    assert load_facts(pd.DataFrame(DICTS)[["text", "answer"]]).facts == one_type
    with pytest.raises(InputError, match="has no column 'topic': its columns are text, answer, type"):
        load_facts(DICTS, type_column="topic")


def test_what_is_put_in_order() -> None:
    """Spaces go, numbers are written out, a fact that stands there twice counts once."""
    rows = [
        {"text": " Two and two are ", "answer": 4, "type": 1.0},
        {"text": "He said", "answer": " yes ", "type": "word"},
        {"text": "He said", "answer": "yes", "type": "word"},
    ]
    expected = (Fact(" Two and two are", "4", "1"), Fact("He said", "yes", "word"))
    assert load_facts(rows).facts == expected


BAD: list[tuple[Any, dict[str, str], str]] = [
    ("nonsense", {}, "data 'nonsense' is unknown: give 'facts', a .csv"),
    ("none.csv", {}, "file 'none.csv' does not exist"),
    ("https://x.org/f.csv", {}, "is a web address: download it"),
    (3, {}, "data is an int: give a name or path"),
    ([], {}, "data 'list of 0 rows' has no rows: give some"),
    (DICTS, {"encoding": "utf-8"}, "only files have an encoding"),
    (DICTS, {"text_column": "query"}, "has no column 'query': its columns are text, answer, type"),
    (DICTS, {"answer_column": "word"}, "has no column 'word'"),
    (DICTS, {"answer_column": "text"}, "text_column and answer_column and type_column are .*: name three columns"),
    (DICTS, {"type_column": ["type"]}, r"has no column \['type'\]: its columns are text, answer, type"),
    (pd.DataFrame([["a", "b", "c"]], columns=["text", "answer", "answer"]), {}, "has 2 columns 'answer'"),
    ([*DICTS, {"text": "", "answer": "b", "type": "c"}], {}, "row 2 .from 0.: empty text: fill it in"),
    ([*DICTS, {"text": "  ", "answer": "b", "type": "c"}], {}, "row 2 .from 0.: empty text"),
    ([*DICTS, {"text": "a", "answer": None, "type": "c"}], {}, "row 2 .from 0.: empty answer"),
    ([*DICTS, {"text": "a", "answer": "b"}], {}, "row 2 .from 0.: empty type"),
    ([{"text": ["a"], "answer": "b"}], {}, r"row 0 .from 0., text: \['a'\] is a list, no text"),
    ([{"text": "a", "answer": True}], {}, "row 0 .from 0., answer: True is a bool, no text"),
    ([{"text": "a", "answer": "b", "type": ["c"]}], {}, r"row 0 .from 0., type: \['c'\] is a list"),
    ([{"text": "a", "answer": "b\ud83d"}], {}, "row 0 .from 0., answer: .* half of a character"),
    ([*DICTS, DICTS[0] | {"answer": "go"}], {}, "row 2 .from 0.: 'Tim plays' has two answers: give one row a text"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("data", "options", "message"), BAD)
def test_bad_facts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Any, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        load_facts(data, **options)
    assert str(raised.value).isprintable()


# --- what a model knows -----------------------------------------------------------------------------------------------

WORDS = ("foo", "bar", "baz", "cat", "dog", "apple", "red")
ANSWERS = {"long": WORDS, "short": ("fo", "do", "ap", "ba")}
"""Answers by type; with the space before, each is one token."""


@pytest.fixture(scope="module")
def asked(folders: dict[str, Path]) -> LensModel:
    """A random model, but for the answers' logits: three times as far from zero, so that some are among the first."""
    model = loaded(folders["gpt2"], "bridge")
    with torch.no_grad():
        for word in itertools.chain(*ANSWERS.values()):
            model.unembed.W_U[:, token_of(model, word)] *= 3
    return model


@pytest.fixture(scope="module")
def told(asked: LensModel) -> Facts:
    """Of each type, every other answer is the one that the model likes best; the others go round."""
    texts = [" ".join(words) for n in (2, 3) for words in itertools.product(WORDS, repeat=n)]
    logits = logits_of(asked, texts)
    facts = []
    for row, text in enumerate(texts):
        kind = "short" if row % 3 else "long"
        best = best_of(asked, logits[row], ANSWERS[kind])
        facts.append(Fact(text, ANSWERS[kind][row // 2 % len(ANSWERS[kind])] if row % 2 else best, kind))
    return Facts("told", tuple(facts))


def token_of(model: LensModel, word: str) -> int:
    (token,) = model.tokenizer.encode(f" {word}", add_special_tokens=False)
    return int(token)


def best_of(model: LensModel, logits: torch.Tensor, words: tuple[str, ...]) -> str:
    return max(words, key=lambda word: float(logits[token_of(model, word)]))


def logits_of(model: LensModel, texts: list[str]) -> torch.Tensor:
    batch = token_batch(model, texts, [" foo"] * len(texts))
    with torch.no_grad():
        return model(batch.tokens)[torch.arange(len(batch)), batch.last]


def test_the_rule(asked: LensModel, told: Facts) -> None:
    """Among the first ten tokens, and above all other answers of its type: by sorting the logits."""
    found = known_facts(asked, told)
    logits = logits_of(asked, [fact.text for fact in told.facts])
    for kind, words in ANSWERS.items():
        assert {fact.answer for fact in told.facts if fact.type == kind} == set(words)
    expected, why = [], Counter[tuple[bool, bool]]()
    for fact, row in zip(told.facts, logits, strict=True):
        among = token_of(asked, fact.answer) in row.topk(10).indices.tolist()
        above = best_of(asked, row, ANSWERS[fact.type]) == fact.answer
        why[among, above] += 1
        if among and above:
            expected.append(fact)
    assert len(why) == 4, "the facts do not try both halves of the rule"
    assert set(found.facts) == set(expected)
    assert [fact.type for fact in found.facts] == sorted((f.type for f in found.facts), key=told.types.index)
    assert found.batch.texts == tuple(fact.text for fact in found.facts)
    words = [asked.tokenizer.decode([token]) for token in found.batch.target.tolist()]
    assert words == [f" {fact.answer}" for fact in found.facts]
    for kind, tried, known in found.asked:
        assert tried == sum(fact.type == kind for fact in told.facts)
        assert known == sum(fact.type == kind for fact in expected) == len(found.rows_of(kind))


def test_a_few_of_each_type(asked: LensModel, told: Facts) -> None:
    every = known_facts(asked, told)
    few, again, other = (known_facts(asked, told, per_type=2, seed=seed) for seed in (1, 1, 2))
    assert few.facts == again.facts
    assert few.facts != other.facts
    assert few.asked == every.asked
    for kind in few.types:
        assert len(few.rows_of(kind)) == 2
    assert set(few.facts) < set(every.facts)
    assert [few.facts.index(fact) for fact in every.facts if fact in few.facts] == list(range(4))
    assert known_facts(asked, told, per_type=10**6).facts == every.facts


def test_answers_that_begin_alike_are_left_out(asked: LensModel, told: Facts) -> None:
    known = known_facts(asked, told).facts[0]
    longer = Fact("foo foo foo foo", known.answer + "\u00e9", known.type)
    both = token_batch(asked, [known.text, longer.text], [f" {known.answer}", f" {longer.answer}"])
    assert both.target[0] == both.target[1]
    assert known_facts(asked, Facts("one", (known,))).facts == (known,)
    with pytest.raises(Unfit, match="knows none of the 2 facts in 'alike'"):
        known_facts(asked, Facts("alike", (known, longer)))
    apart = Facts("apart", (known, longer._replace(type="another")))
    assert known in known_facts(asked, apart).facts


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("per_type", [0, -1, 1.5, True])
def test_a_bad_number_of_facts(asked: LensModel, told: Facts, per_type: Any) -> None:
    with pytest.raises(InputError, match=f"cannot keep {per_type} facts of a type: ask for 1 or more"):
        known_facts(asked, told, per_type=per_type)


def test_facts_that_cannot_be_asked(asked: LensModel, told: Facts) -> None:
    with pytest.raises(InputError, match="seed is -1"):
        known_facts(asked, told, per_type=1, seed=-1)
    with pytest.raises(InputError, match="there is no prompt: give one or more"):
        known_facts(asked, Facts("none", ()))
    with pytest.raises(InputError, match="prompt 0.*256"):
        known_facts(asked, Facts("long", (Fact("foo " * 400, "bar", "x"),)))
