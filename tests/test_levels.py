"""Levels of in-context learning: equal to plain loops over prompts and texts, exact on models made to answer so."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import save_model, save_tokenizer

import icl_circuits.levels
from icl_circuits.errors import InputError, Unfit
from icl_circuits.interventions import ZeroHeads, from_logits, intervene
from icl_circuits.levels import (
    Levels,
    LevelTask,
    LossReduction,
    icl_levels,
    level_batch,
    level_prompts,
    level_tasks,
    loss_reduction,
    row_task,
)
from icl_circuits.levels.encoding import format_tokens, label_tokens, vocabulary
from icl_circuits.models import LensModel, device_of, load_model
from icl_circuits.prompts import Prompt, Row, Rows, Task, WordPair, bos_of, load_rows
from icl_circuits.residual import Head, answer_logits
from icl_circuits.stats import wilson

WORDS = Path(icl_circuits.levels.__file__).parent / "words.csv"
MODELS = pytest.mark.parametrize("model", ["gpt2-hooked", "gpt2-bridge", "llama-hooked", "llama-bridge"], indirect=True)
COLOURS = LevelTask(
    "colours", ("0", "1"), (("cat, red", "dog, red", "foo, red"), ("red, cat", "red, dog", "red, foo")), "number"
)
THREE = LevelTask("three", ("2", "0", "7"), tuple((f"{a} cat", f"{a} dog") for a in ("foo", "bar", "baz")), "number")
WORDS_TASK = LevelTask("words", ("foo", "bar"), (("cat", "dog", "apple"), ("red", "baz", "d")), "label")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> LensModel:
    """A model that reads 600 tokens, for whose tokenizer ` 0`, ` 12`, `23` and ` true` are single tokens."""
    folder = tmp_path_factory.mktemp("long")
    size = save_tokenizer(folder, ["a23" * 9, *[" 0 1 2 3 4 5 6 7 8 12 true false cat dog red foo"] * 3])
    save_model(folder, transformers.GPT2Config(vocab_size=size, n_embd=16, n_head=2, n_layer=2, n_positions=600))
    return load_model(str(folder), device="cpu")


@contextmanager
def raised(model: Any, by: dict[str, float]) -> Iterator[None]:
    """A model with the logits of some tokens raised at every position, in standard deviations of its logits."""
    deviation = float(model(torch.arange(1, 60)[None]).std())
    bias = torch.zeros(model.cfg.d_vocab)
    for token, much in by.items():
        (one,) = model.tokenizer(token, add_special_tokens=False).input_ids
        bias[one] = much * deviation
    handle = model.register_forward_hook(lambda module, args, logits: logits + bias)
    try:
        yield
    finally:
        handle.remove()


# --- word lists, tasks and prompts ------------------------------------------------------------------------------------


def test_word_lists() -> None:
    words = load_rows(WORDS)
    assert Counter(row.label for row in words.rows) == {
        "fruit": 20, "month": 12, "furniture": 16, "profession": 16, "animal": 16,
    }  # fmt: skip
    assert len({row.text for row in words.rows}) == len(words.rows)
    for text, label in words.rows:
        assert text.isalpha()
        assert text == (text.capitalize() if label == "month" else text.lower())


def test_the_eight_tasks() -> None:
    category = dict(load_rows(WORDS).rows)
    tasks = level_tasks()
    assert [len(task.labels) for task in tasks] == [2, 2, 4, 9, 2, 2, 2, 2]
    rules: list[dict[tuple[str, str], int]] = [
        {("fruit", "month"): 0, ("month", "fruit"): 1},
        {("furniture", "profession"): 0, ("profession", "furniture"): 1},
        {("fruit", "fruit"): 0, ("fruit", "month"): 1, ("month", "fruit"): 2, ("month", "month"): 3},
        {
            (a, b): 3 * i + j
            for (i, a), (j, b) in product(enumerate(["fruit", "animal", "month"]), repeat=2)
        },
    ]  # fmt: skip
    sizes = Counter(category.values())
    for task, rule in zip(tasks[:4], rules, strict=True):
        assert task.format == "number"
        for label, texts in zip(task.labels, task.texts, strict=True):
            for text in texts:
                a, b = text.split(", ")
                assert a != b
                assert rule[category[a], category[b]] == int(label)
        expected = sum(sizes[a] * (sizes[b] - (a == b)) for a, b in rule)
        assert sum(map(len, task.texts)) == expected
    assert [task.name for task in tasks[4:]] == ["subj-verb", "verb-obj", "mod-obj", "part-whole"]
    for task in tasks[4:]:
        assert task.labels == ("true", "false")
        assert task.format == "label"
        assert len(task.texts[0]) == 60
        assert not any(category.get(word) == "month" for text in task.texts[0] for word in text.split(", "))
        assert {tuple(category[word] for word in text.split(", ")) for text in task.texts[1]} == {("animal", "month")}
        assert len(task.texts[1]) == 16 * 12
    assert "dog, bark" in tasks[4].texts[0]


def test_tasks_of_own_words() -> None:
    categories = ("fruit", "month", "furniture", "profession", "animal")
    words = Rows("own", tuple(Row(f"{name}{i}", name) for name in categories for i in range(2)))
    tasks = level_tasks(words, [Task("likes", (WordPair("cat", "fish"),))])
    assert [task.name for task in tasks[3:]] == ["nine-class fruit-animal-month", "likes"]
    assert tasks[0].texts[1] == ("month0, fruit0", "month0, fruit1", "month1, fruit0", "month1, fruit1")
    assert tasks[4].texts[0] == ("cat, fish",)


@pytest.mark.parametrize("shots", [0, 1, 3, 9, 20, 100])
def test_prompts_are_balanced_and_no_query_leaks(shots: int) -> None:
    for task in level_tasks():
        prompts = level_prompts(task, 20, shots=shots, seed=1)
        right = {text: i for i, texts in enumerate(task.texts) for text in texts}
        golds = Counter(prompt.gold for prompt in prompts)
        assert max(golds.values()) - min(golds[i] for i in range(len(task.labels))) <= 1
        for prompt in prompts:
            shown = [demo.text for demo in prompt.demos]
            assert len(shown) == shots
            assert len({*shown, prompt.query}) == shots + 1
            assert all(right[demo.text] == demo.label for demo in prompt.demos)
            assert right[prompt.query] == prompt.gold
            counts = Counter(demo.label for demo in prompt.demos)
            assert (
                max(counts[i] for i in range(len(task.labels))) - min(counts[i] for i in range(len(task.labels))) <= 1
            )
            if shots >= len(task.labels):
                assert len(counts) == len(task.labels)


def test_more_shots_only_add() -> None:
    task = level_tasks()[3]
    by_shots = [level_prompts(task, 6, shots=shots, seed=2) for shots in (0, 1, 4, 10, 30)]
    for fewer, more in pairwise(by_shots):
        for a, b in zip(fewer, more, strict=True):
            assert (a.query, a.gold) == (b.query, b.gold)
            assert set(a.demos) < set(b.demos)
    assert level_prompts(task, 6, shots=10, seed=2) == by_shots[3]
    assert level_prompts(task, 6, shots=10, seed=3) != by_shots[3]
    order = [demo.label for prompt in by_shots[4] for demo in prompt.demos[:9]]
    assert any(len(set(order[i : i + 9])) < 9 for i in range(0, len(order), 9))  # not a class after another


# --- tokens -----------------------------------------------------------------------------------------------------------


def text_of(prompt: Prompt, separator: str = "\n") -> str:
    demos = "".join(f"{demo.text}: {prompt.labels[demo.label]}{separator}" for demo in prompt.demos)
    return f"{demos}{prompt.query}:"


def test_prompts_as_tokens(gpt2: LensModel, long: LensModel) -> None:
    """A space that is a token of its own joins the prompt; a label with its space is predicted behind the colon."""
    prompts = level_prompts(COLOURS, 4, shots=2)
    assert text_of(prompts[0]).count("\n") == 2
    for model, space in ((gpt2, True), (long, False)):
        encode, decode = model.tokenizer, model.tokenizer.decode
        (bare,) = encode(" ", add_special_tokens=False).input_ids
        batch = level_batch(model, prompts)
        assert batch.texts == tuple(map(text_of, prompts))
        for row, prompt in enumerate(prompts):
            tokens = batch.tokens[row, : int(batch.last[row]) + 1].tolist()
            again = encode(text_of(prompt), add_special_tokens=False).input_ids
            assert tokens == [*bos_of(model, None), *again, *([bare] if space else [])]
            assert decode([*tokens, int(batch.target[row])]).endswith(f"{prompt.query}: {prompt.labels[prompt.gold]}")
    assert level_batch(gpt2, prompts, separator=" | ").texts == tuple(text_of(prompt, " | ") for prompt in prompts)


def test_which_tokens_keep_to_a_format(gpt2: LensModel, long: LensModel) -> None:
    for model, task, expected in (
        (gpt2, COLOURS, {str(i) for i in range(10)}),
        (long, COLOURS, {*map(str, range(10)), *(f" {i}" for i in range(9)), " 12", "23"}),
        (gpt2, WORDS_TASK, {" foo", " bar"}),
        (long, LevelTask("t", ("true", "false"), (("a",), ("b",)), "label"), {" true", " false"}),
        (gpt2, LevelTask("t", ("true", "false"), (("a",), ("b",)), "label"), {"t", "f"}),  # its tokens are letters
    ):
        keeps = format_tokens(model, task, vocabulary(model))
        found = {model.tokenizer.decode([token]) for token in keeps.nonzero()[:, 0].tolist()}
        assert expected <= found, task
        assert {text.strip() for text in found} == {text.strip() for text in expected}
    assert len(label_tokens(gpt2, ("true", "false")).shared) == 1
    assert label_tokens(long, ("true", "false")).shared == ()


# --- both levels: equal to plain loops --------------------------------------------------------------------------------


def greedy(model: LensModel, tokens: list[int]) -> tuple[int, torch.Tensor]:
    with torch.no_grad():
        logits = model(torch.tensor([tokens], device=device_of(model)))[0, -1]
    return int(logits.argmax()), logits.softmax(-1)


@MODELS
def test_levels_equal_a_loop_over_prompts(model: LensModel) -> None:
    """Numbers and labels are raised as much as gives some of each answer."""
    tasks, shots, n = [COLOURS, THREE, WORDS_TASK], (0, 3, 1), 6
    encode, decode = model.tokenizer, model.tokenizer.decode
    with raised(model, dict.fromkeys(["0", "1", "5", "7", " foo"], 2.5) | {" ": 3.0}):
        found = icl_levels(model, tasks, shots=shots, n_prompts=n, seed=5)
        assert (found.tasks, found.shots) == (("colours", "three", "words"), shots)
        for (i, task), (j, number) in product(enumerate(tasks), enumerate(shots)):
            for k, prompt in enumerate(level_prompts(task, n, shots=number, seed=5)):
                tokens = [*bos_of(model, None), *encode(text_of(prompt), add_special_tokens=False).input_ids]
                opened = True
                if task.format == "number":
                    (space,) = encode(" ", add_special_tokens=False).input_ids
                    opened = greedy(model, tokens)[0] == space
                    tokens.append(space)
                token, probs = greedy(model, tokens)
                answer, right = decode([token]).strip(), prompt.labels[prompt.gold]
                kept = answer.isdecimal() if task.format == "number" else answer in task.labels
                place = (i, j, k)
                assert found.format[place] == kept
                assert found.format_unaided[place] == (kept and opened)
                assert found.accuracy[place] == (answer == right)
                (wanted,) = encode(
                    right if task.format == "number" else f" {right}", add_special_tokens=False
                ).input_ids
                assert found.prob[place] == pytest.approx(float(probs[wanted]), abs=1e-5)
    for values in (found.format, found.format_unaided, found.accuracy):
        assert 0 < values.mean() < 1
    assert (found.accuracy <= found.format).all()
    assert (found.format_unaided[2] == found.format[2]).all()


@MODELS
def test_a_model_that_always_says_0(model: LensModel) -> None:
    task = THREE
    with raised(model, {"0": 1000.0}):
        found = icl_levels(model, [task], shots=(0, 2), n_prompts=7)
    assert found.format.all()
    assert not found.format_unaided.any()  # it gives no space
    golds = [prompt.gold for prompt in level_prompts(task, 7, shots=0)]
    assert found.accuracy[0].tolist() == [[task.labels[gold] == "0" for gold in golds]] * 2
    assert 2 <= found.accuracy[0, 0].sum() <= 3
    assert found.chance.tolist() == [1 / 3]


def test_a_label_with_its_space_needs_no_aid(long: LensModel) -> None:
    with raised(long, {" 12": 1000.0}):
        found = icl_levels(long, [COLOURS], shots=(1,), n_prompts=4)
    assert found.format.all()
    assert found.format_unaided.all()
    assert not found.accuracy.any()


def test_chunks_change_nothing(gpt2: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = icl_levels(gpt2, [COLOURS], shots=(0, 2), n_prompts=5)
    monkeypatch.setattr("icl_circuits.levels.measuring.LOGITS_AT_ONCE", 2 * gpt2.cfg.d_vocab)
    parts = icl_levels(gpt2, [COLOURS], shots=(0, 2), n_prompts=5)
    np.testing.assert_allclose(whole.prob, parts.prob, atol=1e-6)
    assert (whole.format == parts.format).all()


def test_the_eight_tasks_on_a_model(long: LensModel) -> None:
    found = icl_levels(long, shots=(0, 10), n_prompts=2)
    assert found.prob.shape == (8, 2, 2)
    assert ((found.prob > 0) & (found.prob < 1)).all()


def test_levels_under_an_intervention(gpt2: LensModel) -> None:
    heads = ZeroHeads((Head(0, 1), Head(1, 2)))
    with intervene(gpt2, heads):
        found = icl_levels(gpt2, [COLOURS], shots=(2,), n_prompts=4)
    batch = level_batch(gpt2, level_prompts(COLOURS, 4, shots=2))
    with torch.no_grad():
        expected = from_logits("prob", answer_logits(gpt2, batch, heads), batch)
        other = from_logits("prob", answer_logits(gpt2, batch), batch)
    np.testing.assert_allclose(found.prob[0, 0], expected.numpy(), atol=1e-6)
    assert not np.allclose(other.numpy(), expected.numpy(), atol=1e-5)


def test_a_task_of_any_data_set(gpt2: LensModel, words: Rows) -> None:
    task = row_task(words, {"fruit": "foo", "animal": "bar"})
    assert (task.name, task.format, task.labels) == ("word-categories", "label", ("foo", "bar"))
    assert [list(texts) for texts in task.texts] == [words.by_class()["fruit"], words.by_class()["animal"]]
    assert row_task(words).labels == tuple(words.by_class())
    with raised(gpt2, {" foo": 1000.0}):
        found = icl_levels(gpt2, [task], shots=(0, 2), n_prompts=4)
    assert found.format.all()
    assert found.accuracy[0].sum(axis=1).tolist() == [2, 2]


# --- results by hand --------------------------------------------------------------------------------------------------


def planted() -> Levels:
    """Of 5 prompts, so many keep the format, and one fewer is right, at 0, 4 and 2 shots."""
    counts = [[0, 5, 4], [1, 3, 2], [4, 2, 5]]
    reached = np.array([[[k < count for k in range(5)] for count in row] for row in counts])
    right = np.array([[[k < count - 1 for k in range(5)] for count in row] for row in counts])
    return Levels(("a", "b", "c"), (0, 4, 2), np.array([0.5, 0.25, 0.5]), reached, right, right, 0.1 + 0.5 * right)


def test_fewest_shots() -> None:
    found = planted()
    assert found.fewest_shots() == {"a": 2, "b": None, "c": 0}
    assert found.fewest_shots("accuracy") == {"a": 4, "b": None, "c": 2}
    assert found.fewest_shots("format_unaided", share=0.6) == {"a": 2, "b": None, "c": 0}
    assert found.fewest_shots(share=0.2) == {"a": 2, "b": 0, "c": 0}
    assert found.fewest_shots(share=1.0) == {"a": 4, "b": None, "c": 2}


def test_levels_as_a_table() -> None:
    frame = planted().to_frame()
    assert frame["task"].tolist() == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert frame["shots"].tolist() == [0, 4, 2] * 3
    assert frame["format"].tolist() == [0, 1, 0.8, 0.2, 0.6, 0.4, 0.8, 0.4, 1]
    assert frame["accuracy"].tolist() == [0, 0.8, 0.6, 0, 0.4, 0.2, 0.6, 0.2, 0.8]
    np.testing.assert_allclose(frame["prob"], 0.1 + 0.5 * frame["accuracy"])
    assert frame["chance"].tolist() == [0.5] * 3 + [0.25] * 3 + [0.5] * 3
    assert (frame["n_prompts"] == 5).all()
    for name in ("format", "format_unaided", "accuracy", "prob"):
        assert (frame[f"{name}_low"] <= frame[name]).all()
        assert (frame[f"{name}_high"] >= frame[name]).all()
    assert frame["format_high"][0] > 0.4  # no hits of 5 say little


def test_wilson_intervals_by_the_formula() -> None:
    z = 1.959963984540054
    for hits, n in ((0, 32), (32, 32), (20, 50), (1, 8)):
        p = hits / n
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        found = wilson(np.arange(n) < hits)
        assert found == pytest.approx(
            (p, (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=1e-9
        )
    assert wilson(np.zeros(32, bool)).high == pytest.approx(0.1072, abs=1e-4)


# --- loss reduction ---------------------------------------------------------------------------------------------------


def some_ids(model: LensModel, lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, model.cfg.d_vocab, size=n).tolist() for n in lengths]


def loop_losses(model: LensModel, bos: list[int], ids: list[int]) -> dict[int, float]:
    """By a token's place in its text, its loss, from one text alone."""
    tokens = [*bos, *ids]
    with torch.no_grad():
        log_probs = model(torch.tensor([tokens], device=device_of(model)))[0].log_softmax(-1)
    return {i + 1 - len(bos): -float(log_probs[i, tokens[i + 1]]) for i in range(len(tokens) - 1)}


LENGTHS = [99, 560, 100, 500, 130, 501, 499]


@pytest.mark.parametrize("at_once", [1 << 24, 1 << 10])
@pytest.mark.parametrize("prepend_bos", [False, True])
def test_windows_equal_a_loop_over_texts(
    long: LensModel, prepend_bos: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icl_circuits.levels.loss.LOGITS_AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    letters = ["".join(rng.choice(list("abxyz .,"), size=n)) for n in (300, 900, 700)]
    ids = [long.tokenizer(text, add_special_tokens=False).input_ids for text in letters]
    found = loss_reduction(long, letters, prepend_bos=prepend_bos)
    bos = [long.tokenizer.bos_token_id] if prepend_bos else []
    assert found.n_tokens.tolist() == list(map(len, ids))
    assert found.n_tokens.min() >= 100
    for text, row in enumerate(ids):
        losses = loop_losses(long, bos, row[:590])
        early = [losses[i] for i in range(50) if i in losses]
        assert len(early) == 49 + prepend_bos
        assert found.by_100[text] == pytest.approx(
            np.mean([losses[i] for i in range(50, 100)]) - np.mean(early), abs=1e-5
        )
        if len(row) >= 501:
            late = np.mean([losses[i] for i in range(450, 500)])
            assert found.by_500[text] == pytest.approx(late - np.mean(early), abs=1e-5)
            assert found.token_500[text] == pytest.approx(losses[500] - losses[50], abs=1e-5)
    assert (found.n_tokens >= 501).any()


def test_texts_too_short_for_a_window(long: LensModel) -> None:
    ids = some_ids(long, LENGTHS)
    found = loss_reduction(long, ids)
    assert np.isnan(found.by_100).tolist() == [n < 100 for n in LENGTHS]
    assert np.isnan(found.by_500).tolist() == [n < 500 for n in LENGTHS]
    assert np.isnan(found.token_500).tolist() == [n < 501 for n in LENGTHS]
    losses = loop_losses(long, [], ids[3])
    expected = np.mean([losses[i] for i in range(450, 500)]) - np.mean([losses[i] for i in range(1, 50)])
    assert found.by_500[3] == pytest.approx(expected, abs=1e-5)
    frame = found.to_frame()
    assert frame["n_texts"].tolist() == [6, 3, 2]
    assert frame["n_too_short"].tolist() == [1, 4, 5]
    np.testing.assert_allclose(frame["loss_reduction"][0], np.nanmean(found.by_100))
    assert (frame["loss_reduction_low"] <= frame["loss_reduction"]).all()


@MODELS
def test_losses_are_those_of_the_model(model: LensModel) -> None:
    """Its context ends at 256 tokens, so that no text reaches token 450."""
    ids = some_ids(model, [100, 300, 180])
    found = loss_reduction(model, ids)
    for text, row in enumerate(ids):
        with torch.no_grad():
            losses = model(torch.tensor([row[:256]]), return_type="loss", loss_per_token=True)[0]
        expected = losses[49:99].mean() - losses[:49].mean()  # the first is of token 1
        assert found.by_100[text] == pytest.approx(float(expected), abs=1e-4)
    assert np.isnan(found.by_500).all()
    frame = found.to_frame()
    assert frame["n_too_short"].tolist() == [0, 3, 3]
    assert np.isnan(frame["loss_reduction"][1])


def test_a_model_that_copies_loses_less(long: LensModel) -> None:
    """Raised by context alone: tokens 50-100 and behind are the one that the model always expects."""
    (zero,) = long.tokenizer(" 0", add_special_tokens=False).input_ids
    (one,) = long.tokenizer(" 1", add_special_tokens=False).input_ids
    with raised(long, {" 0": 1000.0}):
        found = loss_reduction(long, [[one] * 50 + [zero] * 451])
    assert found.by_100[0] == pytest.approx(found.by_500[0], rel=1e-6)
    assert found.by_100[0] < -100
    assert found.token_500[0] == pytest.approx(0, abs=1e-5)
    assert isinstance(found, LossReduction)


# --- bad input --------------------------------------------------------------------------------------------------------


def bad_inputs() -> list[tuple[str, Callable[[LensModel], Any], str]]:
    def task(*labels: str, format: str = "label", **more: Any) -> LevelTask:  # noqa: A002
        return LevelTask("t", labels, more.get("texts", tuple((f"{i} cat",) for i in labels)), format)  # type: ignore[arg-type]

    def levels(*tasks: LevelTask, **more: Any) -> Callable[[LensModel], Any]:
        return lambda m: icl_levels(m, tasks, **{"n_prompts": 2, "shots": (0,)} | more)

    def prompts(*tasks: LevelTask) -> list[Prompt]:
        return [prompt for each in tasks for prompt in level_prompts(each, 1, shots=1)]

    rows = Rows("own", (Row("cat", "animal"), Row("red", "colour")))
    return [
        ("no tasks", levels(), "tasks are \\[\\]: give one or more, each once"),
        ("task twice", levels(COLOURS, COLOURS), "tasks are \\['colours', 'colours'\\]: give one or more, each once"),
        ("no shots", levels(COLOURS, shots=()), "shots are \\[\\]: give one number or more"),
        ("shots twice", levels(COLOURS, shots=(1, 1)), "shots are \\[1, 1\\]: give one number or more, each once"),
        ("negative shots", levels(COLOURS, shots=(0, -1)), "shots has -1: give whole numbers, 0 or more"),
        ("half a shot", levels(COLOURS, shots=(0.5,)), "shots has 0.5: give whole numbers"),
        ("no prompts", levels(COLOURS, n_prompts=0), "n_prompts is 0: ask for at least 1"),
        ("seed", levels(COLOURS, seed=-1), "seed is -1: give a whole number"),
        (
            "few words",
            levels(COLOURS, shots=(0, 5)),
            "task 'colours': label '0' has 3 texts, but 5 shots and a query need 4: ask for fewer shots or give more",
        ),
        (
            "too long",
            lambda m: icl_levels(m, level_tasks()[:1], shots=(0, 20), n_prompts=2),
            "task 'binary fruit-month', 20 shots, seed 0, prompt 0: 20 shots make \\d+ tokens, but '.*' reads at most "
            "256: ask for fewer shots",
        ),
        ("shots alone", lambda m: level_prompts(COLOURS, 1, shots=-1), "shots is -1: ask for 0 \\(zero-shot\\)"),
        ("separator", levels(COLOURS, separator=""), "separator '': give text that is no label"),
        ("label as separator", levels(WORDS_TASK, separator=" foo "), "separator ' foo ': give text that is no label"),
        ("one label", lambda m: task("a"), "task 't' has labels \\['a'\\]: give at least two, each once"),
        ("label twice", lambda m: task("a", "a"), "task 't' has labels \\['a', 'a'\\]: give at least two"),
        ("space", lambda m: task("a", " b"), "task 't': label ' b': give a word without spaces around it"),
        ("no number", lambda m: task("1", "x", format="number"), "task 't': label 'x' is no number: use format"),
        ("format", lambda m: task("1", "2", format="x"), "task 't': format 'x' is unknown: use one of number, label"),
        ("texts", lambda m: task("1", "2", texts=(("a",),)), "task 't' has 2 labels, but texts of 1: give each its"),
        ("no words", lambda m: task("1", "2", texts=(("a",), ())), "task 't' has no texts for label '2': give some"),
        ("text twice", lambda m: task("1", "2", texts=(("a",), ("a",))), "has 'a' 2 times: give each text one label"),
        ("same tokens", levels(task("foo", "foofoo")), "no token tells label 'foo' from label 'foofoo': choose"),
        ("part of it", levels(task("1", "12")), "no token tells label '1' from label '12': choose another word"),
        ("two kinds", levels(task("1", "foo")), "label '1' begins with a space that is a token of its own, .*: use "),
        ("two tasks", lambda m: level_batch(m, prompts(COLOURS, WORDS_TASK)), "have 2 sets of labels: give one"),
        ("nothing", lambda m: level_batch(m, []), "prompts have 0 sets of labels: give one or more prompts"),
        ("no class", lambda m: row_task(rows, {"plant": "foo"}), "has no class 'plant': its classes are \\['animal'"),
        ("one class", lambda m: row_task(rows, {"animal": "foo"}), "task 'own' has labels \\['foo'\\]: give at least"),
        ("labels", lambda m: row_task(rows, ["animal"]), "labels are \\['animal'\\]: give the label word"),  # type: ignore[arg-type]
        ("no word", lambda m: row_task(rows, {"animal": 0, "colour": []}), "has labels \\[0, \\[\\]\\]: give words"),  # type: ignore[dict-item]
        ("half", lambda m: task("1", "\ud800"), "task 't', label: .* half of a character"),
        ("no words of", lambda m: level_tasks(rows), "there are no words of category 'fruit': give some of each of fr"),
        ("level", lambda m: planted().fewest_shots("loss"), "level 'loss' is unknown: use one of "),  # type: ignore[arg-type]
        ("share", lambda m: planted().fewest_shots(share=80), "share is 80: give a share of the prompts, above 0"),
        ("no texts", lambda m: loss_reduction(m, []), "there is no text: give one or more"),
        ("empty", lambda m: loss_reduction(m, [""]), "text 0 is empty: give a text"),
        ("short", lambda m: loss_reduction(m, ["foo bar"]), "no text reaches 100 tokens, the longest has 3: give"),
        ("ids", lambda m: loss_reduction(m, [[9999] * 120]), "id 9999 is not in the vocabulary"),
    ]  # fmt: skip


@pytest.mark.parametrize(("call", "expected"), [case[1:] for case in bad_inputs()], ids=[c[0] for c in bad_inputs()])
@pytest.mark.usefixtures("unchecked")
def test_bad_input(gpt2: LensModel, call: Callable[[LensModel], Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as error:
        call(gpt2)
    message = str(error.value)
    assert message.isprintable(), message
    assert len(message) < 500, message
    assert ": " in message, message


def test_models_that_do_not_fit(folders: dict[str, Path]) -> None:
    model: Any = load_model(str(folders["gpt2"]), device="cpu")
    with torch.no_grad():
        model.unembed.W_U[0, 0] = float("nan")
    with pytest.raises(InputError, match="gives no finite loss for text 1: its weights are corrupt"):
        loss_reduction(model, some_ids(model, [50, 120]))
    with pytest.raises(InputError, match="NaN"):
        icl_levels(model, [COLOURS], shots=(0,), n_prompts=1)
    short = load_model(str(folders["gpt2"]), device="cpu")
    short.cfg.n_ctx = 98
    with pytest.raises(
        Unfit, match="reads at most 98 tokens, too few for loss reduction, which needs 100: use another"
    ):
        loss_reduction(short, some_ids(short, [120]))
    short.tokenizer = None  # type: ignore[misc]
    with pytest.raises(InputError, match="has no tokenizer: set one"):
        icl_levels(short, [COLOURS], shots=(0,), n_prompts=1)


def test_labels_are_the_same_tokens_everywhere(long: LensModel) -> None:
    """Behind `1`, the separator `2` joins it, but joins the next text where that begins with `3`."""
    task = LevelTask("spoilt", ("1", "0"), (("3 cat", "3 dog"), ("3 red", "3 foo")), "number")
    with pytest.raises(InputError, match="in '3 .*: 123 .*' the label '1' is not the tokens it is elsewhere: choose"):
        level_batch(long, level_prompts(task, 4, shots=2), separator="2")
    assert len(level_batch(long, level_prompts(task, 4, shots=2))) == 4


def test_a_label_that_the_tokenizer_does_not_know(planted: LensModel) -> None:
    with pytest.raises(InputError, match="label 'xyz' has no tokens of its own for this tokenizer in 'x: xyz"):
        level_batch(planted, level_prompts(replace(WORDS_TASK, labels=("foo", "xyz")), 1, shots=0))


def test_words_that_a_tokenizer_does_not_know_are_named() -> None:
    with pytest.raises(InputError, match="the tokenizer has no token for '[a-zA-Z]+': use words that it knows"):
        icl_levels(load_model("icl-small"), shots=(2,), n_prompts=4)
