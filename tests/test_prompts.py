"""Prompts: the paper's template, exact label positions, exact padding, and variants that change one thing."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from planted import planted_rows
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import answer, require_first, zero_each_head
from icl_circuits.heads.answers import answer_each
from icl_circuits.interventions import ZeroHeads, intervene
from icl_circuits.models import LensModel, load_model
from icl_circuits.prompts import (
    Demo,
    LabelScore,
    Prompt,
    PromptBatch,
    Row,
    Rows,
    encode,
    group_by_label,
    imbalance,
    load_rows,
    reorder,
    reverse_labels,
    sample_prompts,
    zero_shot,
)
from icl_circuits.residual import Head
from icl_circuits.towers import knock_out_flow

WITH_MODEL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(lambda text: text.strip())
LABEL_SETS = st.sampled_from([("foo", "bar"), ("bar", "foo"), ("foo", "bar", "baz")])


@st.composite
def prompt_parts(draw: st.DrawFn) -> tuple[tuple[str, ...], list[tuple[list[tuple[str, int]], str, int]]]:
    """Label words, and prompts as (demonstrations, query, gold) of any text, all with as many demonstrations."""
    labels = draw(LABEL_SETS)
    label = st.integers(0, len(labels) - 1)
    n_demos = draw(st.integers(0, 4))
    demos = st.lists(st.tuples(TEXTS, label), min_size=n_demos, max_size=n_demos)
    return labels, draw(st.lists(st.tuples(demos, TEXTS, label), min_size=1, max_size=4))


# --- encoding ---------------------------------------------------------------------------------------------------------


@WITH_MODEL
@given(parts=prompt_parts(), separator=st.sampled_from([" ", "\n", ", ", " | "]), bos=st.booleans())
def test_label_positions_hold_the_labels(gpt2: LensModel, parts: Any, separator: str, bos: bool) -> None:
    labels, raw = parts
    prompts = [
        Prompt(tuple(Demo(text, "any", label) for text, label in demos), query, "any", gold, labels)
        for demos, query, gold in raw
    ]
    try:
        batch = encode(gpt2, prompts, separator=separator, prepend_bos=bos)
    except InputError as error:
        assert "tokens, but" in str(error)  # noqa: PT017  (only a prompt over n_ctx may be refused)
        return
    tokenizer = gpt2.tokenizer
    assert batch.label_positions.shape == (len(prompts), len(prompts[0].demos))
    assert [tokenizer.decode([token]) for token in batch.label_tokens] == [f" {label}" for label in batch.labels]
    for row, prompt in enumerate(prompts):
        demo_labels = torch.tensor([demo.label for demo in prompt.demos], dtype=torch.long)
        assert torch.equal(batch.tokens[row, batch.label_positions[row]], batch.label_tokens[demo_labels])
        assert torch.equal(batch.demo_labels[row], demo_labels)
        last = int(batch.last[row])
        assert tokenizer.decode(batch.tokens[row, int(bos) : last + 1]) == batch.texts[row]
        assert batch.texts[row].endswith(f"{prompt.query} :")
        assert (batch.tokens[row, last:] == batch.tokens[row, last]).all()
        for position, demo in zip(batch.label_positions[row], prompt.demos, strict=True):
            before = tokenizer.decode(batch.tokens[row, int(bos) : int(position)])
            assert before.endswith(f"{demo.text} :")
    assert torch.equal(batch.is_text.sum(1), batch.last + 1)
    assert torch.equal(batch.target, batch.label_tokens[batch.gold])


def test_the_papers_template(gpt2: LensModel) -> None:
    demos = tuple(Demo(f"S{i}", "c", label) for i, label in enumerate([1, 1, 0, 0]))
    batch = encode(gpt2, [Prompt(demos, "S4", "c", 0, ("foo", "bar"))])
    assert batch.texts == ("S0 : bar S1 : bar S2 : foo S3 : foo S4 :",)


def test_padding_is_exact_at_last(model: LensModel, batch: PromptBatch) -> None:
    assert len(set(batch.last.tolist())) > 1
    with torch.no_grad():
        together = model(batch.tokens)
        for row in range(len(batch)):
            last = int(batch.last[row])
            alone = model(batch.tokens[row : row + 1, : last + 1])[0, -1]
            torch.testing.assert_close(together[row, last], alone, atol=1e-5, rtol=0)


def test_chunks_hold_the_same_prompts(model: LensModel, batch: PromptBatch) -> None:
    chunks = list(batch.chunks(max_tokens=2 * batch.tokens.shape[1]))
    assert [len(chunk) for chunk in chunks] == [1, 2, 2]
    assert sum((chunk.texts for chunk in chunks), ()) == batch.texts
    for field in ("last", "gold", "label_positions", "demo_labels"):
        assert torch.equal(torch.cat([getattr(chunk, field) for chunk in chunks]), getattr(batch, field))
    for chunk in chunks:
        assert chunk.tokens.shape[1] == int(chunk.last.max()) + 1


def test_a_tokenizer_that_prepends_bos(folders: dict[str, Path], tmp_path: Path, words: Rows) -> None:
    """As Llama's: `<s>` first, spaces as word-initial marks, and label positions one further on."""
    shutil.copytree(folders["llama"], tmp_path, dirs_exist_ok=True)
    plain = load_model(str(folders["llama"]), device="cpu")
    vocabulary = {token: i for i, token in enumerate(["<s>", "<unk>", "\u2581", "\u2581:", "\u2581foo", "\u2581bar"])}
    vocabulary |= {chr(c): 6 + i for i, c in enumerate(range(33, 127))}
    merges = [("\u2581", ":"), ("f", "o"), ("fo", "o"), ("\u2581", "foo"), ("b", "a"), ("ba", "r"), ("\u2581", "bar")]
    vocabulary |= {pair[0] + pair[1]: 100 + i for i, pair in enumerate(merges) if "".join(pair) not in vocabulary}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>").save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    prompts = sample_prompts(words, 4, shots=2)
    batch = encode(model, prompts)
    without = encode(model, prompts, prepend_bos=False)
    assert (batch.tokens[:, 0] == 0).all()
    assert torch.equal(batch.label_positions, without.label_positions + 1)
    assert torch.equal(batch.tokens.gather(1, batch.label_positions), batch.label_tokens[batch.demo_labels])
    assert batch.label_tokens.tolist() == [vocabulary["\u2581foo"], vocabulary["\u2581bar"]]
    assert (batch.tokens.gather(1, batch.last[:, None]) == vocabulary["\u2581:"]).all()
    assert not encode(plain, prompts).tokens[:, 0].eq(0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("foo", "foofoo")}, "no token tells label 'foo' from label 'foofoo': choose another word"),
        ({"labels": ("xy", "foo", "xz")}, "no token tells label 'xy' from label 'xz'"),
        ({"separator": "bar"}, "separator 'bar' is one of the labels, foo, bar"),
        ({"separator": "\nfoo "}, "is one of the labels"),
        ({"separator": "\udc80"}, "half of a character"),
        ({"label_score": "last"}, "label_score 'last' is unknown: use one of first, whole"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_labels_that_cannot_be_read(gpt2: LensModel, words: Rows, options: dict[str, Any], message: str) -> None:
    prompts = sample_prompts(words, 2, labels=options.pop("labels", ("foo", "bar")))
    with pytest.raises(InputError, match=message):
        encode(gpt2, prompts, **options)


LABELS = [
    (("0", "1"), " ", ["0", "1"]),  # this tokenizer writes a space before a digit as a token of its own
    (("10", "12"), " 1", ["0", "2"]),
    (("foo", "0"), "", [" foo", " 0"]),
    (("foo cat", "foo dog"), " foo", [" cat", " dog"]),
    (("class one", "class two", "class six"), " class ", ["one", "two", "six"]),
    (("foo", "extraordinary"), "", [" foo", " extraordinary"]),
]


@pytest.mark.parametrize(("labels", "shared", "words_left"), LABELS)
def test_labels_are_read_where_they_differ(
    model: LensModel, words: Rows, labels: tuple[str, ...], shared: str, words_left: list[str]
) -> None:
    """Against the text alone: what all labels begin with joins the prompt, and the next token tells them apart."""
    batch = encode(model, sample_prompts(words, 3, labels=labels, shots=2), separator="\n")
    decode, ids = model.tokenizer.decode, ids_of(model)
    assert [decode(word) for word in batch.label_words] == words_left
    assert batch.label_tokens.tolist() == [word[0] for word in batch.label_words]
    for row, prompt in enumerate(batch.prompts):
        tokens, last = batch.tokens[row].tolist(), int(batch.last[row])
        assert decode(tokens[: last + 1]) == batch.texts[row] + shared
        assert tokens[: last + 1] + list(batch.label_words[prompt.gold]) == ids(
            f"{batch.texts[row]} {labels[prompt.gold]}"
        )
        for number, (at, demo) in enumerate(zip(batch.label_positions[row].tolist(), prompt.demos, strict=True)):
            assert decode(tokens[:at]).endswith(f"{demo.text} :{shared}")
            word = batch.label_words[demo.label]
            assert tuple(tokens[at : at + len(word)]) == word
            assert set(batch.segments[row, at : at + len(word)].tolist()) == {number}
            assert int(batch.segments[row, at + len(word)]) == number + 1


def ids_of(model: LensModel) -> Callable[[str], list[int]]:
    return lambda text: model.tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("label_score", ["first", "whole"])
@pytest.mark.parametrize("labels", [("0", "1"), ("foo", "extraordinary"), ("foo cat", "foo dog dog", "foo 10")])
def test_answers_against_a_plain_loop(
    model: LensModel, words: Rows, labels: tuple[str, ...], label_score: LabelScore
) -> None:
    """The label's first token that tells it apart, or all from there on, one forward pass a prompt and label."""
    batch = encode(model, sample_prompts(words, 4, labels=labels, shots=2), separator="\n", label_score=label_score)
    ids = ids_of(model)
    for silenced in ((), (ZeroHeads((Head(1, 2), Head(2, 0))),)):
        found = answer(model, batch, *silenced)
        for row, prompt in enumerate(batch.prompts):
            log_probs, greedy = [], []
            for label in labels:
                whole = ids(f"{batch.texts[row]} {label}")
                start = int(batch.last[row])
                stop = len(whole) if label_score == "whole" else start + 2
                with torch.no_grad(), intervene(model, *silenced):
                    logits = model(torch.tensor([whole]))[0].double().log_softmax(-1)
                log_probs.append(sum(float(logits[at, whole[at + 1]]) for at in range(start, stop - 1)))
                greedy.append(all(int(logits[at].argmax()) == whole[at + 1] for at in range(start, stop - 1)))
            others = max(value for label, value in enumerate(log_probs) if label != prompt.gold)
            assert found.log_prob[row] == pytest.approx(log_probs[prompt.gold], abs=1e-4)
            assert found.logit_diff[row] == pytest.approx(log_probs[prompt.gold] - others, abs=1e-4)
            assert found.between_labels[row] == (log_probs[prompt.gold] > others)
            assert found.top1[row] == greedy[prompt.gold]


def test_groups_of_heads_are_scored_as_answers_are(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 4, labels=("0 0", "1"), shots=2), label_score="whole")
    assert batch.scored_whole
    base, zeroed = answer_each(gpt2, batch, [(ZeroHeads((Head(1, 2),)),), (ZeroHeads((Head(0, 0),)),)], "zeroing")
    np.testing.assert_array_equal(base.log_prob, answer(gpt2, batch).log_prob)
    np.testing.assert_array_equal(zeroed.log_prob[0], answer(gpt2, batch, ZeroHeads((Head(1, 2),))).log_prob)
    assert (zeroed.log_prob[1] != base.log_prob).any()
    first = replace(batch, label_score="first")
    assert (zero_each_head(gpt2, batch).base.log_prob == zero_each_head(gpt2, first).base.log_prob).all()
    for refused in (lambda: knock_out_flow(gpt2, batch), lambda: require_first(batch, "biases")):
        with pytest.raises(Unfit, match="cannot score labels of several tokens whole: use label_score 'first'"):
            refused()
    short = encode(gpt2, sample_prompts(words, 4, shots=2), label_score="whole")
    assert not short.scored_whole  # one token is the whole label


def test_a_whole_label_must_fit_the_context(gpt2: LensModel) -> None:
    labels = ("foo", "extraordinary")
    one = int(encode(gpt2, [Prompt((), "cat", "c", 0, labels)]).last[0]) + 1
    prompt = [Prompt((), "cat" + " cat" * (256 - one), "c", 0, labels)]
    assert int(encode(gpt2, prompt).last[0]) == 255
    with pytest.raises(InputError, match=r"prompt 0 has \d+ tokens, but .* reads at most 256"):
        encode(gpt2, prompt, label_score="whole")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt((), "a", "c", 0, ("foo",)), "give at least two words"),
        (Prompt((), "a", "c", 0, ("foo", "")), "give at least two words"),
        (Prompt((), "a", "c", 2, ("foo", "bar")), "label 2 does not exist: its labels are 0..1"),
        (Prompt((Demo("a", "c", -1),), "a", "c", 0, ("foo", "bar")), "label -1 does not exist"),
        (Prompt((), "a\ud83d", "c", 0, ("foo", "bar")), "prompt 0: .*half of a character"),
        (Prompt((), "a", "c", 0, ("foo", "\ud83d")), "half of a character"),
    ],
)
def test_prompts_that_cannot_be_written(gpt2: LensModel, prompt: Prompt, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(gpt2, [prompt])


def test_a_label_the_tokenizer_does_not_know_is_refused(planted: LensModel) -> None:
    with pytest.raises(InputError, match="label 'xyz' has no tokens of its own for this tokenizer"):
        encode(planted, sample_prompts(planted_rows(), 1, shots=2, labels=("foo", "xyz")))


def test_a_prompt_over_the_context_is_named(gpt2: LensModel) -> None:
    prompts = [Prompt((), text, "c", 0, ("foo", "bar")) for text in ("cat", "cat " * 400)]
    with pytest.raises(InputError, match=r"prompt 1 has \d+ tokens, but .* reads at most 256"):
        encode(gpt2, prompts)


def test_a_separator_that_spoils_the_labels_is_refused(planted: LensModel) -> None:
    """A tokenizer of whole words knows `foo` but not `foo,`."""
    with pytest.raises(InputError, match="label 'foo' has no tokens of its own for this tokenizer"):
        encode(planted, sample_prompts(planted_rows(), 1, shots=2), separator=",")


def test_prompts_of_different_shapes_are_refused(gpt2: LensModel, words: Rows) -> None:
    with pytest.raises(InputError, match="prompt 1 has labels .* encode them apart"):
        encode(gpt2, [*sample_prompts(words, 1, shots=2), *sample_prompts(words, 1, shots=1)])


# --- sampling and variants --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(n=st.integers(1, 12), labels=LABEL_SETS, shots=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_sampling(words: Rows, n: int, labels: tuple[str, ...], shots: int, seed: int) -> None:
    prompts = sample_prompts(words, n, labels=labels, shots=shots, seed=seed)
    assert prompts == sample_prompts(words, n, labels=labels, shots=shots, seed=seed)
    golds = Counter(prompt.gold for prompt in prompts)
    counts = [golds[label] for label in range(len(labels))]
    assert max(counts) - min(counts) <= 1
    category = {row.text: row.label for row in words.rows}
    for prompt in prompts:
        texts = [demo.text for demo in prompt.demos] + [prompt.query]
        assert len(set(texts)) == len(texts)
        assert Counter(demo.label for demo in prompt.demos) == {i: shots for i in range(len(labels)) if shots}
        assert all(category[demo.text] == demo.category for demo in prompt.demos)
        assert category[prompt.query] == prompt.category
        assert {demo.label for demo in prompt.demos if demo.category == prompt.category} <= {prompt.gold}


@given(seed=st.integers(0, 1000), labels=LABEL_SETS)
def test_variants_change_one_thing(words: Rows, seed: int, labels: tuple[str, ...]) -> None:
    (prompt,) = sample_prompts(words, 1, labels=labels, shots=3, seed=seed)
    twin = reverse_labels(prompt)
    assert [demo.text for demo in twin.demos] == [demo.text for demo in prompt.demos]
    assert twin.query == prompt.query
    assert all(a.label != b.label for a, b in zip(twin.demos, prompt.demos, strict=True))
    assert {demo.label for demo in twin.demos if demo.category == twin.category} == {twin.gold}
    for _ in range(len(labels) - 1):
        twin = reverse_labels(twin)
    assert replace(twin, origin=prompt.origin) == prompt
    assert twin.origin == f"word-categories, seed {seed}, prompt 0" + ", labels reversed" * len(labels)

    grouped = group_by_label(prompt)
    assert Counter(grouped.demos) == Counter(prompt.demos)
    shown = [demo.label for demo in grouped.demos]
    assert shown[-3:] == [prompt.gold] * 3
    assert sum(a != b for a, b in itertools.pairwise(shown)) == len(labels) - 1

    fewer = imbalance(prompt, [1, 3] + [2] * (len(labels) - 2))
    assert Counter(demo.label for demo in fewer.demos)[0] == 1
    assert [demo for demo in prompt.demos if demo in fewer.demos] == list(fewer.demos)
    assert zero_shot(prompt).demos == ()
    swap = [1, 0, *range(2, len(prompt.demos))]
    assert reorder(prompt, swap).demos != prompt.demos
    assert reorder(reorder(prompt, swap), swap).demos == prompt.demos


def test_imbalance_removes_early_and_late_demonstrations(words: Rows) -> None:
    """Else recency would pass for majority: which demonstration of a label is kept is random, and nested."""
    kept_last = 0
    for prompt in sample_prompts(words, 40, shots=4, seed=0):
        one, three = (imbalance(prompt, (kept, 4)) for kept in (1, 3))
        foos = [demo for demo in prompt.demos if demo.label == 0]
        (only,) = [demo for demo in one.demos if demo.label == 0]
        kept_last += only == foos[-1]
        assert only in three.demos
        assert one == imbalance(prompt, (1, 4))
    assert 2 <= kept_last <= 20


def test_variants_refuse_what_is_not_there(words: Rows) -> None:
    (prompt,) = sample_prompts(words, 1, shots=2)
    with pytest.raises(InputError, match=r"cannot keep \[3, 1\] .* has \[2, 2\]"):
        imbalance(prompt, [3, 1])
    with pytest.raises(InputError, match="no permutation"):
        reorder(prompt, [0, 0, 1, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("foo",)}, "at least two different words"),
        ({"labels": ("foo", "foo")}, "at least two different words"),
        ({"labels": ("foo", " bar")}, "without spaces around them"),
        ({"seed": -1}, "seed is -1"),
        ({"shots": 40}, "class 'animal' has 40 different texts here, but 40 shots and a query need 41"),
        ({"shots": -1}, "shots is -1"),
        ({"labels": tuple("abcdefghijklmno")}, "has 14 classes, fewer than the 15 labels"),
    ],
)
def test_sampling_refuses(words: Rows, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_prompts(words, 4, **options)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_the_built_in_words(words: Rows) -> None:
    by_class = words.by_class()
    assert len(by_class) == 14
    assert all(len(texts) == 40 for texts in by_class.values())
    assert len({row.text for row in words.rows}) == 560


def test_halves_share_no_text(words: Rows) -> None:
    first, second = words.split(seed=1)
    assert not {row.text for row in first.rows} & {row.text for row in second.rows}
    for half in (first, second):
        assert all(len(texts) == 20 for texts in half.by_class().values())
    assert words.split(seed=1) == (first, second)
    assert words.split(seed=2) != (first, second)


def test_a_text_in_two_classes_counts_once() -> None:
    rows = Rows("r", (Row("a", "x"), Row("b", "y"), Row("a", "y"), Row("b", "y")))
    assert rows.by_class() == {"x": ["a"], "y": ["b"]}


def test_csv_and_jsonl_hold_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('review,stars\n"good, very",1\nnull,0\nnan,0\n')
    with (tmp_path / "d.jsonl").open("w") as handle:
        for text, label in (("good, very", 1), ("null", 0), ("nan", 0)):
            handle.write(json.dumps({"review": text, "stars": label}) + "\n")
    expected = (Row("good, very", "1"), Row("null", "0"), Row("nan", "0"))
    for name in ("d.csv", "d.jsonl"):
        assert load_rows(str(tmp_path / name), text_column="review", label_column="stars").rows == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\n", "has no rows"),
        ("", "is empty: its first line must name the columns"),
        ("text,label\na,x\nb,x\n", r"one class only \('x'\)"),
        ("text,class\na,x\n", "no column 'label': its columns are text, class"),
        ("text,label\na,x\n,y\n", r"row 1 \(from 0\): empty text"),
        ("text,label\na,x\nb,\n", r"row 1 \(from 0\): empty label"),
        ('text,label\n"a,x\n', "cannot be read as CSV"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "d.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        load_rows(str(file))


def test_jsonl_may_hold_line_separators_inside_strings(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b", "label": "x"}, {"text": "c", "label": "y"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "d.jsonl").write_text(text, encoding="utf-8")
    assert load_rows(str(tmp_path / "d.jsonl")).rows == (Row("a\u2028b", "x"), Row("c", "y"))


def test_bad_jsonl_and_unknown_data(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"text": "a", "label"')
    with pytest.raises(InputError, match="line 1 cannot be read as JSON"):
        load_rows(str(file))
    with pytest.raises(InputError, match=r"file .*none\.csv' does not exist"):
        load_rows(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="data 'nonsense' is unknown"):
        load_rows("nonsense")


def test_hub_data_without_a_network_is_one_error() -> None:
    with pytest.raises(InputError, match=r"data 'hf:nobody/nothing' (cannot be loaded|needs the datasets package)"):
        load_rows("hf:nobody/nothing")


def test_hub_data_of_no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """`glue/sst2` is the configuration sst2 of glue, where nobody called glue has data of that name."""
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[str, str | None]] = []

    def load_dataset(path: str, config: str | None, split: str) -> object:
        asked.append((path, config))
        if config is None:
            raise datasets.exceptions.DatasetNotFoundError(path)
        return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [split, "other"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_rows("hf:glue/sst2@test").rows == (Row("a", "test"), Row("b", "other"))
    assert asked == [("glue/sst2", None), ("glue", "sst2")]


def test_hub_data_reads_class_names(tmp_path: Path) -> None:
    """`hf:` takes whatever the datasets library loads: here a local folder with named classes."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    table.to_parquet(str(tmp_path / "train.parquet"))
    assert load_rows(f"hf:{tmp_path}").rows == (Row("a", "pos"), Row("b", "neg"))


def test_rows_in_memory(words: Rows) -> None:
    """A data frame, a list of dicts and a `datasets.Dataset` are what the same file would be."""
    datasets = pytest.importorskip("datasets")
    dicts = [{"text": row.text, "label": row.label} for row in words.rows]
    names = sorted({row.label for row in words.rows})
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    numbered = [row | {"label": names.index(row["label"])} for row in dicts]
    frame = pd.DataFrame(dicts)
    given = {
        "list of 560 rows": dicts,
        "DataFrame of 560 rows": frame,
        "Dataset of 560 rows": datasets.Dataset.from_list(numbered, features=features),
    }
    for name, data in given.items():
        found = load_rows(data)
        assert (found.name, found.rows) == (name, words.rows)
    renamed = load_rows(
        frame.rename(columns={"text": "word", "label": "kind"}), text_column="word", label_column="kind"
    )
    assert renamed.rows == words.rows
    for wrong, message in (
        (frame.drop(columns="label"), "has no column 'label'"),
        ([*dicts, {"text": "x"}], "row 560 .from 0.: empty label"),
        (frame[:0], "has no rows"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": 1}], "one class only"),
    ):
        with pytest.raises(InputError, match=message):
            load_rows(wrong)


@pytest.mark.usefixtures("unchecked")
def test_odd_rows_in_memory(tmp_path: Path) -> None:
    for neither in (3, ["a", "b"], {"text": "a"}, None, b"a.csv"):
        with pytest.raises(InputError, match="give a name or path, a data frame, a list of dicts"):
            load_rows(neither)  # type: ignore[arg-type]
    for wrong, message in (
        ([], "data 'list of 0 rows' has no rows"),
        ([{"text": pd.NA, "label": "a"}], "row 0 .from 0.: empty text"),
        ([{"text": "b", "label": "a"}, {"text": "a", "label": float("nan")}], "row 1 .from 0.: empty label"),
        ([{"text": ["a"], "label": "b"}], r"row 0 .from 0., text: \['a'\] is a list, no text: write it as text"),
        ([{"text": {"a": 1}, "label": "b"}], "is a dict, no text"),
        ([{"text": True, "label": "b"}], "True is a bool, no text"),
        ([{"text": "a", "label": ["b"]}], r"row 0 .from 0., label: \['b'\] is a list, no text"),
        ([{"text": float("inf"), "label": "b"}], "inf is a float, no text"),
        ([{"text": "a\ud83d", "label": "b"}], "half of a character"),
        (pd.DataFrame([["a", "x", "b"]], columns=["text", "text", "label"]), "has 2 columns 'text'"),
    ):
        with pytest.raises(InputError, match=message):
            load_rows(wrong)  # type: ignore[arg-type]
    (tmp_path / "d.csv").write_text("text,label\na,x\nb,y\n")
    assert load_rows(tmp_path / "d.csv") == load_rows(str(tmp_path / "d.csv"))


def test_one_class_however_its_number_is_written() -> None:
    labels: list[Any] = [1, 1.0, "1", "1.0", np.int64(1), np.float32(1), True, 2.5, "x1.0", 10**400]
    found = load_rows([{"text": f"t{i}", "label": label} for i, label in enumerate(labels)])
    assert [row.label for row in found.rows] == ["1"] * 6 + ["True", "2.5", "x1.0", str(10**400)]
