"""Induction, concept and function-vector heads: exact on a planted model, elsewhere equal to plain loops."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import require_backend
from planted import planted_rows
from planted_induction import planted_induction

from icl_circuits.errors import InputError, Unfit
from icl_circuits.heads import (
    FunctionVectorHeads,
    concept_scores,
    function_vector_heads,
    induction_scores,
    overlap,
    top_heads,
    zero_families,
)
from icl_circuits.heads.induction import head_frame
from icl_circuits.interventions import ZeroHeads
from icl_circuits.models import LensModel, attention_weights, load_model, model_card, readout
from icl_circuits.prompts import (
    Task,
    TokenBatch,
    WordPair,
    encode,
    load_tasks,
    sample_prompts,
    task_prompts,
    token_batch,
)
from icl_circuits.residual import Head, answer_logits

PREVIOUS, INDUCTION = Head(0, 0), Head(1, 0)
SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "word_pairs" / "function_vector_tasks_1500.jsonl"


# --- the planted model: every score is known --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repeating() -> LensModel:
    require_backend("hooked")
    return planted_induction()


def test_planted_induction_head_and_no_other(repeating: LensModel) -> None:
    length = 12
    scores = induction_scores(repeating, n_sequences=5, length=length, seed=1)
    assert scores.tokens.shape == (5, 1 + 2 * length)
    assert (scores.tokens[:, 0] == 0).all()
    for row in scores.tokens:
        assert (row[1 : length + 1] == row[length + 1 :]).all()
        assert len({*row[1:].tolist()}) == length
        assert 0 not in row[1:]
    even = np.mean([1 / (1 + position) for position in range(length + 1, 2 * length + 1)])
    np.testing.assert_allclose(scores.prefix_matching[:, 1, 0], 1, atol=1e-6)
    np.testing.assert_allclose(scores.prefix_matching[:, 0, 0], 0, atol=1e-6)
    np.testing.assert_allclose(scores.prefix_matching[:, :, 1], even, atol=1e-6)
    np.testing.assert_allclose(scores.copying[:, 1, 0], 1, atol=1e-6)
    assert np.isnan(scores.copying[:, 0]).all()  # these write to no logit
    assert np.isnan(scores.copying[:, 1, 1]).all()
    assert top_heads(scores.prefix_matching.mean(axis=0), 1) == (INDUCTION,)
    assert top_heads(scores.copying.mean(axis=0), 1) == (INDUCTION,)
    frame = scores.to_frame()
    assert list(frame["prefix_matching"].round(6)) == [0, round(even, 6), 1, round(even, 6)]
    assert frame["copying"].isna().tolist() == [True, True, False, True]
    assert (frame["chance"] == 1 / length).all()


def test_a_mean_is_over_what_is_there() -> None:
    frame = head_frame(score=np.array([[[1.0, np.nan]], [[3.0, 5.0]]]))
    assert frame["score"].tolist() == [2.0, 5.0]
    assert frame["score_low"].tolist() == [1.0, 5.0]


def test_planted_families(repeating: LensModel) -> None:
    """Without the circuit all 16 tokens are as likely; with its second head alone, the more often seen the likelier.

    That head then attends evenly: to `<s>` and the answer once each, to nine tokens twice, to five never.
    """
    tokens = induction_scores(repeating, n_sequences=4, length=10).tokens
    batch = token_batch(repeating, tokens[:, :-1].tolist(), tokens[:, -1].tolist())
    families = {"circuit": [PREVIOUS, INDUCTION], "late": [INDUCTION]}
    found = zero_families(repeating, batch, families, n_random=3)
    right = 4 - math.log(math.exp(4) + 15)
    np.testing.assert_allclose(found.base.log_prob, right, atol=1e-6)
    assert found.base.top1.all()
    even = 0.2 - math.log(2 * math.exp(0.2) + 9 * math.exp(0.4) + 5)
    for kind, expected in (("whole", -math.log(16)), ("exclusive", even)):
        group = found.of("circuit", kind)  # type: ignore[arg-type]
        assert not group.top1.any()
        np.testing.assert_allclose(group.log_prob, expected, atol=1e-6)
    assert found.of("circuit", "exclusive").draws == ((PREVIOUS,),)
    assert found.of("circuit", "random_exclusive").draws == ((Head(0, 1),),) * 3
    assert found.of("late", "exclusive").draws == ((),)
    np.testing.assert_allclose(found.of("late", "exclusive").log_prob, right, atol=1e-6)
    np.testing.assert_allclose(found.of("late", "random_whole").log_prob, right, atol=1e-6)
    assert found.of("late", "random_whole").draws == ((Head(1, 1),),) * 3
    frame = found.to_frame()
    assert list(frame["kind"][:5]) == ["base", "whole", "exclusive", "random_whole", "random_exclusive"]
    assert frame["family"][0] is None
    assert frame["n_heads"].tolist() == [0, 2, 1, 2, 1, 1, 0, 1, 0]
    assert frame["log_prob_drop"][1] == pytest.approx(right + math.log(16), abs=1e-6)


# --- every architecture: equal to the plain computation ---------------------------------------------------------------


def test_induction_scores_equal_the_formula(model: LensModel) -> None:
    n, length = 2, 5
    scores = induction_scores(model, n_sequences=n, length=length, seed=2)
    out = readout(model)
    for row, tokens in enumerate(torch.tensor(scores.tokens)):
        _, cache = model.run_with_cache(tokens[None])
        start = len(tokens) - length
        seen = tokens[start:].tolist()
        for layer in range(3):
            for head in range(4):
                attended, copied = [], []
                for t in range(start, start + length):
                    behind = t - length + 1
                    attended.append(float(cache[f"blocks.{layer}.attn.hook_pattern"][0, head, t, behind]))
                    final = cache["blocks.2.hook_resid_post"][0, t]
                    written = (
                        cache[f"blocks.{layer}.attn.hook_z"][0, t, head] @ attention_weights(model, layer).W_O[head]
                    )
                    if str(model.cfg.normalization_type).startswith("LN"):
                        written = (written - written.mean()) / torch.sqrt(final.var(unbiased=False) + model.cfg.eps)
                    else:
                        written = written / torch.sqrt(final.pow(2).mean() + model.cfg.eps)
                    p = (written * out.norm.weight @ out.W_U[:, seen]).exp()
                    p = p / p.sum()
                    q = (p - p.mean()).clamp(min=0)
                    copied.append(float(q[seen.index(int(tokens[behind]))] / q.sum()))
                assert scores.prefix_matching[row, layer, head] == pytest.approx(np.mean(attended), abs=1e-5)
                assert scores.copying[row, layer, head] == pytest.approx(np.mean(copied), abs=1e-3)


def test_concept_scores_equal_the_formula(model: LensModel) -> None:
    scores = concept_scores(model, n_sequences=2, n_words=4, seed=3)
    bos = [model.tokenizer.bos_token_id] if model_card(model).prepend_bos else []
    for row, words in enumerate(scores.words):
        ids = [model.tokenizer(f" {word}", add_special_tokens=False).input_ids for word in words]
        assert len(set(words)) == 4
        assert min(map(len, ids)) >= 2
        tokens = [*bos, *2 * [token for word in ids for token in word]]
        _, cache = model.run_with_cache(torch.tensor([tokens]))
        bounds = np.cumsum([len(bos), *map(len, ids), *map(len, ids)])
        for layer in range(3):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0]
            for head in range(4):
                first, last = [], []
                for i in range(3):
                    here = bounds[4 + i + 1] - 1  # the last token of word i in the second copy
                    first.append(float(pattern[head, here, bounds[i + 1]]))
                    last.append(float(pattern[head, here, bounds[i + 2] - 1]))
                assert scores.next_token[row, layer, head] == pytest.approx(np.mean(first), abs=1e-5)
                assert scores.last_token[row, layer, head] == pytest.approx(np.mean(last), abs=1e-5)
    assert list(scores.to_frame().columns[:3]) == ["layer", "head", "next_token"]


def tasks() -> list[Task]:
    """Two tasks that the small tokenizer can write."""
    words = ["foo", "bar", "baz", "cat", "dog", "red"]
    return [
        Task("next", tuple(WordPair(a, b) for a, b in zip(words, [*words[1:], "foo"], strict=True))),
        Task("apple", tuple(WordPair(word, f"apple {word}") for word in words)),
    ]


def at_last(batch: TokenBatch, logits: torch.Tensor) -> np.ndarray:
    rows = torch.arange(len(batch))
    return logits[rows, batch.last].float().softmax(-1)[rows, batch.target].numpy()


def test_indirect_effects_equal_hooks_head_by_head(model: LensModel) -> None:
    clean, shuffled = task_prompts(model, tasks(), 3, shots=2, seed=4)
    found = function_vector_heads(model, clean, shuffled)
    assert found.tasks == ("next", "apple")
    assert found.task.tolist() == [0, 0, 0, 1, 1, 1]
    start = 0
    for name, batch in shuffled.items():
        rows, given = torch.arange(len(batch)), slice(start, start + len(batch))
        logits, cache = model.run_with_cache(clean[name].tokens)
        np.testing.assert_allclose(found.clean_prob[given], at_last(clean[name], logits), atol=1e-5)
        with torch.no_grad():
            base = at_last(batch, model(batch.tokens))
        np.testing.assert_allclose(found.shuffled_prob[given], base, atol=1e-5)
        for layer in range(3):
            mean = cache[f"blocks.{layer}.attn.hook_z"][rows, clean[name].last].mean(0)
            for head in range(4):

                def put(z: torch.Tensor, hook: object, head: int = head, mean: torch.Tensor = mean) -> torch.Tensor:
                    z = z.clone()
                    z[rows, batch.last, head] = mean[head]  # noqa: B023
                    return z

                with torch.no_grad():
                    logits = model.run_with_hooks(batch.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", put)])
                np.testing.assert_allclose(found.effect[given, layer, head], at_last(batch, logits) - base, atol=1e-4)
        start += len(batch)
    np.testing.assert_allclose(found.average, found.effect.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.to_frame()["effect"], found.average.reshape(-1), atol=1e-6)
    assert found.tasks_frame()["task"].tolist() == ["next", "apple"]


def test_each_family_is_zeroed_as_by_itself(gpt2: LensModel, words: Any) -> None:
    batch = encode(gpt2, sample_prompts(words, 4, shots=1))
    families = {"a": [Head(0, 1), Head(1, 2)], "b": [Head(1, 2), Head(2, 0)]}
    found = zero_families(gpt2, batch, families, n_random=2, seed=5)
    for group in (found.base, *found.groups):
        for draw, heads in enumerate(group.draws):
            logits = answer_logits(gpt2, batch, ZeroHeads(heads))
            expected = logits.log_softmax(-1)[torch.arange(4), batch.target]
            np.testing.assert_allclose(group.log_prob[draw], expected.numpy(), atol=1e-4)
            assert (group.top1[draw] == (logits.argmax(-1) == batch.target).numpy()).all()
    for name in families:
        whole, random = found.of(name, "whole").draws[0], found.of(name, "random_whole").draws
        for draw, fewer in zip(random, found.of(name, "random_exclusive").draws, strict=True):
            assert [head.layer for head in draw] == [head.layer for head in whole]
            assert not {*draw} & {*families["a"], *families["b"]}
            assert len(fewer) == 1
            assert {*fewer} < {*draw}


# --- tasks and numbers by hand ----------------------------------------------------------------------------------------


def test_tasks_are_written_as_questions_and_answers(gpt2: LensModel) -> None:
    clean, shuffled = task_prompts(gpt2, tasks(), 4, shots=3, seed=0)
    pairs = {task.name: dict(task.pairs) for task in tasks()}
    for name in clean:
        assert torch.equal(clean[name].target, shuffled[name].target)
        for text, twin in zip(clean[name].texts, shuffled[name].texts, strict=True):
            *demos, query = text.split("\n\n")
            *others, again = twin.split("\n\n")
            assert query == again
            assert query.startswith("Q: ")
            assert query.endswith("\nA:")
            asked = [demo.removeprefix("Q: ").split("\nA: ") for demo in demos]
            assert all(pairs[name][word] == answer for word, answer in asked)
            moved = [demo.removeprefix("Q: ").split("\nA: ") for demo in others]
            assert [word for word, _ in moved] == [word for word, _ in asked]
            assert sorted(answer for _, answer in moved) == sorted(answer for _, answer in asked)
            assert all(answer != other for (_, answer), (_, other) in zip(asked, moved, strict=True))


def test_built_in_tasks() -> None:
    found = load_tasks()
    assert len(found) >= 6
    assert all(len(task.pairs) >= 25 for task in found)
    assert {task.name for task in found} >= {"singular-plural", "present-past", "country-capital"}


def test_tasks_from_a_file() -> None:
    if not SHARED.exists():
        pytest.skip("no shared data here")
    found = load_tasks(SHARED)
    assert len(found) == 26
    assert sum(len(task.pairs) for task in found) > 1400


def test_a_text_counts_for_its_first_answer() -> None:
    rows = [{"text": "a", "label": "b", "task": "x"}, {"text": "a", "label": "c", "task": "x"}]
    assert load_tasks([*rows, {"text": "a", "label": "c", "task": "y"}]) == (
        Task("x", (WordPair("a", "b"),)),
        Task("y", (WordPair("a", "c"),)),
    )


def test_overlap_by_hand() -> None:
    """Of 6 heads, 3 and 2: C(3,k) C(3,2-k) / C(6,2) ways."""
    a, b, c = [Head(0, 0), Head(0, 1), Head(0, 2)], [Head(0, 0), Head(0, 1)], [Head(1, 0)]
    found = overlap({"a": a, "b": b, "c": c}, 6)
    assert found.pairs == (("a", "b"), ("a", "c"), ("b", "c"))
    assert found.shared.tolist() == [2, 0, 0]
    np.testing.assert_allclose(found.jaccard, [2 / 3, 0, 0])
    np.testing.assert_allclose(found.expected, [1, 0.5, 1 / 3])
    np.testing.assert_allclose(found.p, [3 / 15, 1, 1])
    np.testing.assert_allclose(found.p_holm, [9 / 15, 1, 1])
    assert found.to_frame()["n_other"].tolist() == [2, 1, 1]
    one = overlap({"b": b, "a": a}, 6)
    np.testing.assert_allclose(one.p, [3 / 15])


def test_holm_steps_down() -> None:
    heads = [Head(0, i) for i in range(20)]
    found = overlap({"a": heads[:4], "b": heads[:4], "c": heads[:2]}, 20)
    p = found.p  # 1 / C(20, 4), and twice C(4, 2) / C(20, 2)
    np.testing.assert_allclose(p, [1 / 4845, 6 / 190, 6 / 190])
    np.testing.assert_allclose(found.p_holm, [3 / 4845, 12 / 190, 12 / 190])


def test_tasks_count_alike_however_many_prompts() -> None:
    effect = np.array([1.0, 1.0, 1.0, 5.0]).reshape(4, 1, 1)
    found = FunctionVectorHeads(("x", "y"), np.array([0, 0, 0, 1]), effect[:, 0, 0], effect[:, 0, 0], effect)
    assert found.average.tolist() == [[3.0]]
    assert found.to_frame()["effect"].tolist() == [3.0]
    assert found.tasks_frame()["clean_prob"].tolist() == [1.0, 5.0]


# --- bad input --------------------------------------------------------------------------------------------------------


def bad_inputs() -> list[tuple[str, Callable[[LensModel], Any], str]]:
    pair = [Head(0, 0)]
    few = [Task("few", (WordPair("foo", "bar"), WordPair("bar", "baz")))]

    def prompts(model: LensModel, n: int) -> dict[str, TokenBatch]:
        return task_prompts(model, tasks(), n, shots=2).clean

    def batch(model: LensModel) -> TokenBatch:
        return token_batch(model, ["foo"], [" bar"])

    return [
        ("no sequences", lambda m: induction_scores(m, n_sequences=0), "n_sequences is 0: ask for at least 1"),
        ("short", lambda m: induction_scores(m, length=2), "length is 2: ask for at least 3 tokens"),
        ("half a token", lambda m: induction_scores(m, length=3.5), "length is 3.5"),  # type: ignore[arg-type]
        ("too long", lambda m: induction_scores(m, length=200), "prompt 0 has 40\\d tokens, .* at most 256"),
        ("too many", lambda m: induction_scores(m, length=999), "ordinary tokens, too few for 999 different ones: ask"),
        ("seed", lambda m: induction_scores(m, seed=-1), "seed is -1: give a whole number"),
        ("no words", lambda m: concept_scores(m, n_words=1), "n_words is 1: ask for at least 2"),
        (
            "many words",
            lambda m: concept_scores(m, n_words=9999),
            "n_words is 9999, but the tokenizer splits \\d+ words:",
        ),
        ("no tasks", lambda m: task_prompts(m, [], 1), "tasks are \\[\\]: give one or more"),
        ("twice", lambda m: task_prompts(m, 2 * few, 1, shots=2), "tasks are \\['few', 'few'\\]: give"),
        ("few", lambda m: task_prompts(m, few, 1, shots=2), "task 'few' has 2 pairs, but 2 shots and a query need 3:"),
        ("one shot", lambda m: task_prompts(m, few, 1, shots=1), "shots is 1: ask for at least 2"),
        ("none asked", lambda m: task_prompts(m, few, 0), "cannot sample 0 prompts: ask for at least 1"),
        ("columns", lambda m: load_tasks(text_column="task"), "are \\['task', 'label', 'task'\\]: name three columns"),
        ("a list", lambda m: load_tasks(task_column=["task"]), "has no column \\['task'\\]"),  # type: ignore[arg-type]
        ("no column", lambda m: load_tasks([{"text": "a", "label": "b"}]), "has no column 'task': its columns are"),
        (
            "empty cell",
            lambda m: load_tasks([{"text": "a", "label": " ", "task": "x"}]),
            "row 0 \\(from 0\\): empty label: fill it in",
        ),
        ("no data", lambda m: load_tasks("nothing"), "data 'nothing' is unknown: give 'tasks', a .csv"),
        ("nothing", lambda m: function_vector_heads(m, {}, {}), "clean prompts are of tasks \\[\\], shuffled ones of"),
        (
            "others",
            lambda m: function_vector_heads(m, prompts(m, 1), {"next": prompts(m, 1)["next"]}),
            "of tasks \\['next', 'apple'\\], shuffled ones of \\['next'\\]: give the same",
        ),
        (
            "no partners",
            lambda m: function_vector_heads(m, prompts(m, 2), prompts(m, 1)),
            "task 'next' has 2 clean and 1 shuffled prompts: give each a partner",
        ),
        ("one family", lambda m: overlap({"a": pair}, 4), "families are \\['a'\\]: give two or more"),
        ("empty family", lambda m: overlap({"a": pair, "b": []}, 4), "family 'b' has 0 heads, 0 different: give each"),
        ("head twice", lambda m: overlap({"a": pair, "b": 2 * pair}, 4), "family 'b' has 2 heads, 1 different: give"),
        (
            "too small",
            lambda m: overlap({"a": pair, "b": [Head(0, 1)]}, 1),
            "n_all is 1, but the families have 2 heads:",
        ),
        ("top none", lambda m: top_heads(np.zeros((1, 2)), 0), "cannot take the top 0 heads: ask for 1 to 2"),
        ("no families", lambda m: zero_families(m, batch(m), {}), "there are no families of heads: give one or more"),
        ("no heads", lambda m: zero_families(m, batch(m), {"a": []}), "no heads to analyse: name at least one"),
        ("no such head", lambda m: zero_families(m, batch(m), {"a": [Head(9, 0)]}), "head L9H0 does not exist:"),
        ("no draws", lambda m: zero_families(m, batch(m), {"a": pair}, n_random=0), "0 draws of random heads .*: ask"),
        (
            "too many heads",
            lambda m: zero_families(m, batch(m), {"a": [Head(x, y) for x in (0, 1) for y in range(4)]}),
            "8 of 12 heads are selected, so no 8 others are left",
        ),
    ]


@pytest.mark.parametrize(("call", "expected"), [case[1:] for case in bad_inputs()], ids=[c[0] for c in bad_inputs()])
@pytest.mark.usefixtures("unchecked")
def test_bad_input(gpt2: LensModel, call: Callable[[LensModel], Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as raised:
        call(gpt2)
    message = str(raised.value)
    assert message.isprintable(), message
    assert len(message) < 500, message
    assert ": " in message, message


def test_words_of_one_token_are_unfit(planted: LensModel) -> None:
    with pytest.raises(Unfit, match="splits 0 of 5\\d\\d words, too few to tell first tokens from last: 20 are needed"):
        concept_scores(planted)
    assert planted_rows().rows


def test_no_tokenizer(folders: Any) -> None:
    model = load_model(str(folders["gpt2"]), device="cpu")
    model.tokenizer = None  # type: ignore[misc]
    for scores in (induction_scores, concept_scores):
        with pytest.raises(InputError, match="has no tokenizer: "):
            scores(model)
