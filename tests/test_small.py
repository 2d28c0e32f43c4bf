"""The small model: its language, its training, its files, and that the one in the package learns in context."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from icl_circuits.errors import InputError
from icl_circuits.levels import loss_reduction
from icl_circuits.models import SMALL, checkpoints, load_model, model_card, own_texts
from icl_circuits.models.series import BUILT_IN
from icl_circuits.prompts import encode, load_rows, load_tasks, sample_prompts, token_batch
from icl_circuits.relations import load_conllu, load_triplets, relation_batch
from icl_circuits.small import (
    KINDS,
    Language,
    Shape,
    SmallModel,
    demonstrations,
    facts,
    questions,
    repeats,
    right,
    sentences,
    train,
    train_small,
    write_checkpoint,
)
from icl_circuits.small.training import BATCH, REPEATS, SENTENCES, batch

TINY = Shape(n_layers=1, n_heads=2, d_model=16, d_mlp=24)


@pytest.fixture(scope="module")
def language() -> Language:
    return Language()


def words(language: Language, tokens: np.ndarray) -> list[str]:
    return [language.vocabulary[token] for token in tokens.tolist()]


def test_every_word_is_one_token_of_one_class(language: Language) -> None:
    assert len(set(language.vocabulary)) == len(language.vocabulary)
    assert len(language.classes) == 40
    for of, (row, size) in enumerate(zip(language.word, language.size, strict=True)):
        assert (language.class_of[row] == of).all()
        assert len(set(row[:size].tolist())) == size
    assert (language.class_of[[language.ids[word] for word in ("foo", ":", "the", "sees", "animal")]] == -1).all()
    assert language.classes[language.class_of[language.ids["dog"]]] == "animal"


def test_no_prompt_of_training_has_what_is_held_out(language: Language) -> None:
    rng, n = np.random.default_rng(0), BATCH - SENTENCES - REPEATS
    held = {
        *language.word[language.held_out_words].tolist(),
        *language.held_out_labels.tolist(),
        *language.word[language.held_out_classes].ravel().tolist(),
    }
    halves = [set(half) for half in language.halves.tolist()]
    pairs = {tuple(sorted(pair)) for pair in language.choices["unseen pairs of classes"].pairs.tolist()}
    met = set[tuple[int, int]]()
    for step in range(64):
        early = {"share": 0.4, "late": 0.0} if step % 32 >= 16 else {}
        for prompt in batch(language, rng, step, **early).tokens[:n]:  # demonstrations, then word pairs of facts
            assert not held & set(prompt.tolist())
            classes = set(language.class_of[prompt].tolist()) - {-1}
            assert any(classes <= half for half in halves)
            met |= {(a, b) for a in classes for b in classes if a < b}
    assert not met & pairs
    assert len(met) > 200
    assert (len(pairs), len(language.held_out_labels)) == (17 * 17, 19)


@pytest.mark.parametrize(("form", "per"), [("line", 4), ("running", 3), ("bare", 2)])
def test_demonstrations_label_classes_alike_and_say_what_can_be_known(language: Language, form: str, per: int) -> None:
    found = demonstrations(
        language, np.random.default_rng(1), language.choices["as in training"], (30, 12), n_classes=4, form=form
    )
    label = {"line": 2, "running": 2, "bare": 1}[form]
    for tokens, known in zip(found.tokens.reshape(30, 12, per), found.labels.reshape(30, 12, per), strict=True):
        of_class: dict[int, int] = {}
        for line, can in zip(tokens, known, strict=True):
            name = int(language.class_of[line[0]])
            assert can.tolist() == [place == label and name in of_class for place in range(per)]
            assert of_class.setdefault(name, int(line[label])) == line[label]
        assert len(set(of_class.values())) == len(of_class)


def test_own_labels_are_words_of_their_class(language: Language) -> None:
    choice = language.choices["as in training"]
    own = demonstrations(language, np.random.default_rng(2), choice, (20, 10), own=1.0).tokens.reshape(-1, 4)
    assert (language.class_of[own[:, 0]] == language.class_of[own[:, 2]]).all()
    words_of_any = demonstrations(language, np.random.default_rng(2), choice, (20, 10), plain=0.0).tokens.reshape(-1, 4)
    assert (language.class_of[words_of_any[:, 2]] >= 0).all()
    assert (language.class_of[words_of_any[:, 0]] != language.class_of[words_of_any[:, 2]]).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_questions_can_be_answered_from_their_demonstrations_alone(language: Language, kind: str) -> None:
    choice = language.choices[kind]
    across = {tuple(sorted(pair)) for pair in product(*language.halves.tolist())}
    tokens, answers = questions(language, np.random.default_rng(3), choice, 50, 4)
    assert tokens.shape == (50, 8 * 4 + 2)
    for row, answer in zip(tokens, answers, strict=True):
        lines, asked = row[:32].reshape(8, 4), row[32]
        labels = dict(zip(language.class_of[lines[:, 0]].tolist(), lines[:, 2].tolist(), strict=True))
        assert len(labels) == 2
        assert (np.unique(lines[:, 2], return_counts=True)[1] == 4).all()
        assert labels[int(language.class_of[asked])] == answer
        assert asked not in lines[:, 0]
        assert len(set(lines[:, 0].tolist())) == 8
        new = {
            "unseen words": ({*lines[:, 0].tolist(), int(asked)}, set(language.word[language.held_out_words].tolist())),
            "unseen labels": (set(lines[:, 2].tolist()), set(language.held_out_labels.tolist())),
            "unseen classes": (set(labels), set(language.held_out_classes.tolist())),
            "unseen pairs of classes": ({tuple(sorted(labels))}, across),
        }
        for name, (used, held) in new.items():
            assert used <= held if name == kind else not used & held


def test_sentences_say_what_the_language_knows(language: Language) -> None:
    rows = sentences(language, np.random.default_rng(4), 20, 60).reshape(-1, 6)
    said = [words(language, row) for row in rows]
    known = {verb: {tuple(pair) for pair in facts(language, verb).tolist()} for verb in ("eats", "drives")}
    assert {line[0] for line in said} > {"the", "fruit", "animal"}
    for row, line in zip(rows, said, strict=True):
        assert line[5] == "."
        if line[0] == "the" and line[3] in known:
            assert (row[2], row[4]) in known[line[3]]
        elif line[0] == "the" and line[3] in ("sees", "likes"):
            verb = ("sees", "likes").index(line[3])
            subject, other = language.class_of[row[[2, 4]]]
            assert verb in language.verbs_of[subject]
            assert language.object_of[subject, verb] == other


def test_repeats_come_round(language: Language) -> None:
    rows = repeats(language, np.random.default_rng(5), 10, 48)
    periods = [next(p for p in range(1, 48) if (row[p:] == row[:-p]).all()) for row in rows]
    assert all(4 <= period <= 24 for period in periods)
    assert len(set(periods)) > 3


def test_a_checkpoint_is_the_same_model_in_hugging_face(language: Language, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = SmallModel(len(language.vocabulary), seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16))
    write_checkpoint(model, language, tmp_path)
    hf_model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.from_numpy(sentences(language, np.random.default_rng(6), 3, 90))
    with torch.no_grad():
        assert torch.allclose(model(tokens), hf_model(tokens).logits, atol=1e-4)
    assert load_file(tmp_path / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "dog : foo\ncat : bar\nunheard : 7\n"
    assert [language.vocabulary[i] for i in tokenizer(text).input_ids] == (
        ["dog", ":", "foo", "\n", "cat", ":", "bar", "\n", "<unk>", ":", "7", "\n"]
    )


def test_training_is_the_same_every_time(language: Language) -> None:
    weights = [
        torch.cat([w.flatten() for w in train(language, steps=4, seed=seed, shape=TINY).parameters()]).detach()
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-3)


@pytest.mark.slow
def test_training_learns_sentences(language: Language) -> None:
    told: list[float] = []
    train(language, steps=60, shape=TINY, at=(20, 60), seen=lambda step, model, progress: told.append(progress.texts))
    assert told[1] < told[0] - 0.5


@pytest.mark.slow
def test_training_writes_a_series_that_loads(language: Language, tmp_path: Path) -> None:
    train_small(tmp_path, steps=10, seed=2)
    assert checkpoints(str(tmp_path)) == (0, 10)
    model = load_model(str(tmp_path), checkpoint=0)
    assert model_card(model).revision == "step-000000"
    assert not torch.equal(model.embed.W_E, load_model(str(tmp_path)).embed.W_E)
    assert len(load_conllu(own_texts(str(tmp_path), "dependencies") or "").texts) == 150
    assert "| unseen labels |" in (tmp_path / "README.md").read_text()


def test_a_series_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'icl-small' has no checkpoint 7: it has 0, "):
        load_model(SMALL, checkpoint=7)
    with pytest.raises(InputError, match="is no series of checkpoints on this machine"):
        checkpoints(str(tmp_path))
    with pytest.raises(InputError, match="steps is 0: ask for at least"):
        train_small(tmp_path, steps=0)
    with pytest.raises(InputError, match="20 shots and a question need 21 words of a class, but one has 8"):
        questions(Language(), np.random.default_rng(0), Language().choices["unseen words"], 5, 20)
    with pytest.raises(InputError, match="seed is -1"):
        train_small(tmp_path, steps=20, seed=-1)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def trained(language: Language) -> SmallModel:
    """The model of the package in plain PyTorch."""
    folder = BUILT_IN[SMALL] / f"step-{checkpoints(SMALL)[-1]:06d}"
    model = SmallModel(len(language.vocabulary))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in weights.items()})
    return model


@pytest.mark.slow
def test_the_model_of_the_package_learns_in_context(trained: SmallModel, language: Language) -> None:
    found = {kind: float(answers.mean()) for kind, answers in right(trained, language, seed=11).items()}
    assert found["unseen pairs of classes"] >= 0.95
    assert found["unseen labels"] >= 0.95
    assert found["unseen words"] >= 0.85
    untrained = right(SmallModel(len(language.vocabulary)), language, n=100)
    assert max(answers.mean() for answers in untrained.values()) < 0.1


def test_the_model_of_the_package_is_read_as_it_was_trained(trained: SmallModel, language: Language) -> None:
    model = load_model(SMALL)
    tokens, _ = questions(language, np.random.default_rng(8), language.choices["unseen words"], 20, 4)
    with torch.no_grad():
        ours, theirs = trained(torch.from_numpy(tokens)), model(torch.from_numpy(tokens))
    assert torch.allclose(ours.log_softmax(-1), theirs.log_softmax(-1), atol=1e-3)


def test_the_package_brings_a_history_of_the_size_it_may_have() -> None:
    folder, steps = BUILT_IN[SMALL], checkpoints(SMALL)
    assert len(steps) >= 10
    assert steps[0] == 0
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 25e6
    assert (folder / "README.md").is_file()
    assert (folder / "training.csv").is_file()


def test_texts_of_the_package_fit_its_model() -> None:
    model = load_model(SMALL)
    for corpus in (
        load_conllu(own_texts(SMALL, "dependencies")),
        load_triplets(own_texts(SMALL, "triplets")),
    ):
        batch = relation_batch(model, corpus, n_texts=50)
        assert len(batch) >= 50
        assert {reason for reason, _ in batch.left_out} <= {"a text that was not drawn"}
    assert len(load_tasks(own_texts(SMALL, "tasks"))) == 6
    assert len(load_rows(own_texts(SMALL, "words")).by_class()) == 40


def test_words_that_a_tokenizer_does_not_know_are_refused_by_name() -> None:
    model = load_model(SMALL)
    words = zip(["dog", "cat", "unheard", "apple", "pear", "plum"], "aaabbb", strict=True)
    rows = load_rows([{"text": text, "label": label} for text, label in words])
    with pytest.raises(InputError, match="prompt .: the tokenizer has no token for 'unheard': use words that it knows"):
        encode(model, sample_prompts(rows, 8, labels=("foo", "bar"), shots=2))
    for texts, answers in ((["dog", "unheard"], ["cat", "cat"]), (["dog"], ["unheard"])):
        with pytest.raises(InputError, match="the tokenizer has no token for 'unheard'"):
            token_batch(model, texts, answers)
    with pytest.raises(InputError, match="text 0: the tokenizer has no token for 'unheard'"):
        loss_reduction(model, ["dog unheard " * 60])
