"""The attention-and-words probe: planted syntax is found, features and scores are those of plain loops."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_relations_corpus import KIM, conllu_of, fake_spacy, raises_one_line
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, hook_name
from icl_circuits.prompts import bos_of
from icl_circuits.relations import HeadProbe, ParsedSentence, head_probe, load_parses, parse_sentences
from icl_circuits.relations.probe import KINDS, best_offset, probed, reduced, scores, trained
from icl_circuits.relations.words import WordPairs, usable_sentences, word_pairs


def parse(text: str, *heads: int) -> ParsedSentence:
    """Words with spaces between."""
    spans, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        spans.append((at, at + len(word)))
        at += len(word)
    return ParsedSentence(text, tuple(spans), heads)


# --- parses -----------------------------------------------------------------------------------------------------------


def test_parses_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("conllu")
    path = conllu_of(tmp_path, ["# text = Kim  sold red apples.", *KIM], ["# text = Kim bought it", *KIM])
    (found,) = load_parses(path)
    assert [found.text[slice(*span)] for span in found.words] == ["Kim", "sold", "red", "apples", "."]
    assert found.heads == (1, -1, 3, 1, 1)
    unaligned = conllu_of(tmp_path, ["# text = Kim bought it", *KIM])
    raises_one_line(lambda: load_parses(unaligned), "has no parsed sentence to use: give")
    raises_one_line(lambda: load_parses("nowhere.conllu"), "does not exist")
    assert len(load_parses()) >= 60


def test_parses_by_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_spacy(monkeypatch)
    first, second = parse_sentences(["Kim was seen. She ate two figs."])
    assert (first.words, first.heads) == (((0, 3), (4, 7), (8, 12)), (2, 2, -1))
    assert second.heads == (1, -1, 3, 1)
    raises_one_line(lambda: parse_sentences([]), r"texts are \[\]: give a list")


@pytest.mark.parametrize(
    ("words", "heads", "message"),
    [
        (((0, 1), (2, 3)), (1,), "has 2 words and 1 heads"),
        (((0, 1), (2, 3)), (1, 2), "the head of word 1 is 2: give the number of another word, 0..1, or -1"),
        (((0, 1), (2, 3)), (-1, 1), "the head of word 1 is 1"),
        (((0, 1), (2, 3)), (-2, 0), "the head of word 0 is -2"),
        (((0, 1), (2, 3)), (-1, True), "the head of word 1 is True"),
        (((0, 1), (2, 9)), (-1, 0), "are no characters of it"),
        (((0, 1), (1, 3)), (-1, 0), "begins or ends with a space"),
        (((0, 1), (3, 3)), (-1, 0), "are no characters of it"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_broken_parses_are_refused(words: Any, heads: Any, message: str) -> None:
    raises_one_line(lambda: ParsedSentence("a b c", words, heads), message)


# --- attention between words ------------------------------------------------------------------------------------------


def test_attention_between_words(model: LensModel) -> None:
    """Against a plain loop over the words of one sentence at a time."""
    parses = [parse(" foo unknown bar zebras", -1, 0, 1, 0), parse("cat", -1), parse("red apple", 1, -1)]
    usable, left_out = usable_sentences(model, parses)
    assert left_out == {"a sentence in which no word has a head": 1}
    found = word_pairs(model, usable)
    assert found.head.tolist() == [-1, 0, 1, 0, 1, -1]
    assert found.place.tolist() == [0, 1, 2, 3, 0, 1]
    assert found.length.tolist() == [4, 4, 4, 4, 2, 2]
    assert (found.attended < found.attending).all()
    seen = {(int(i), int(j)): row for i, j, row in zip(found.attending, found.attended, found.attention, strict=True)}
    assert len(seen) == 6 + 1
    n_bos, number = len(bos_of(model, None)), 0
    for sentence in usable:
        tokens = torch.tensor([[*bos_of(model, None), *sentence.ids]])
        _, cache = model.run_with_cache(tokens)
        n_words = len(sentence.places)
        for span, places in zip(sentence.parse.words, sentence.places, strict=True):
            read = model.tokenizer.decode([sentence.ids[place] for place in places])
            assert read.strip() == sentence.parse.text[slice(*span)]
        for i in range(n_words):
            rows = model.embed.W_E[[sentence.ids[place] for place in sentence.places[i]]]
            torch.testing.assert_close(found.embedding[number + i], rows.mean(0))
            for j in range(n_words):
                expected = []
                for layer in range(model.cfg.n_layers):
                    pattern = cache[hook_name("pattern", layer)][0]
                    for head in range(model.cfg.n_heads):
                        to_word = [
                            sum(pattern[head, n_bos + p, n_bos + q] for q in sentence.places[j])
                            for p in sentence.places[i]
                        ]
                        expected.append(sum(to_word) / len(to_word))
                if i > j:
                    torch.testing.assert_close(
                        seen[number + i, number + j], torch.stack(expected), atol=1e-5, rtol=1e-4
                    )
                elif i < j:
                    assert not any(expected)
        number += n_words


def test_words_of_parts_of_tokens(gpt2: LensModel) -> None:
    """A word of several tokens has all of them, and two words of one token (` foo`) share it."""
    text = "zq foo"
    (found,), _ = usable_sentences(gpt2, [ParsedSentence(text, ((0, 2), (3, 4), (4, 6)), (-1, 0, 0))])
    assert found.places == ((0, 1), (2,), (2,))
    pairs = word_pairs(gpt2, [found])
    ends = list(zip(pairs.attending.tolist(), pairs.attended.tolist(), strict=True))
    assert ends == [(1, 0), (1, 2), (2, 0), (2, 1)]
    torch.testing.assert_close(pairs.attention[1], pairs.attention[3])
    torch.testing.assert_close(pairs.embedding[1], gpt2.embed.W_E[found.ids[2]])


def test_what_is_left_out(gpt2: LensModel) -> None:
    usable, left_out = usable_sentences(
        gpt2,
        [
            parse("foo bar", -1, 0),
            parse("foo bar", 1, -1),
            parse("red", -1),
            parse(" foo" * 33, *[-1] + [0] * 32),
            parse(" foo" * 32, *[-1] + [0] * 31),
        ],
    )
    assert [len(sentence.places) for sentence in usable] == [2, 32]
    assert sorted(left_out.items()) == [
        ("a sentence in which no word has a head", 1),
        ("a sentence of more than 32 tokens", 1),
        ("a sentence that is there before", 1),
    ]


# --- the probe --------------------------------------------------------------------------------------------------------


def sentences_of(rng: np.random.Generator, n: int, mark: bool) -> WordPairs:
    """Random words with random heads in a causal model. With `mark`, head 0 attends to syntactic heads before a word,
    and head 1 from those behind it; the others attend anywhere.
    """
    first, length, head, attending, attended, attention = [], [], [], [], [], []
    for _ in range(n):
        n_words, begin = int(rng.integers(4, 9)), len(first)
        heads = [int(rng.choice([j for j in range(n_words) if j != i])) for i in range(n_words)]
        heads[int(rng.integers(n_words))] = -1
        for i in range(n_words):
            for j in range(i):
                attending.append(begin + i)
                attended.append(begin + j)
                marks = [float(heads[i] == j), float(heads[j] == i)] if mark else rng.random(2).tolist()
                attention.append([*marks, *rng.random(2)])
        first += [begin] * n_words
        length += [n_words] * n_words
        head += heads
    return WordPairs(
        *(torch.tensor(values) for values in (first, length, head)),
        torch.tensor(rng.normal(size=(len(first), 3)), dtype=torch.float32),
        *(torch.tensor(values) for values in (attending, attended)),
        torch.tensor(attention, dtype=torch.float32),
    )


def pooled(found: HeadProbe) -> dict[str, float]:
    frame = found.to_frame()
    return dict(zip(frame["kind"], frame["accuracy"], strict=True))


def test_planted_heads_are_found() -> None:
    rng = np.random.default_rng(0)
    train, test = sentences_of(rng, 60, True), sentences_of(rng, 40, True)
    found = probed(*reduced(train, test), 0, ())
    accuracy = pooled(found)
    with_head = test.head >= 0
    chance = float((1 / (test.length - 1.0))[with_head].mean())
    assert accuracy["attention and words"] > 0.99
    for kind in ("shuffled heads", "words", "words and distance", "offset"):
        assert abs(accuracy[kind] - chance) < 0.12, kind
    assert found.n_words.sum() == with_head.sum()
    assert (found.n_train, found.n_train_words) == (60, int((train.head >= 0).sum()))
    frame = found.to_frame()
    assert frame["lead"].tolist() == pytest.approx([accuracy[KINDS[0]] - accuracy[kind] for kind in KINDS])
    assert (frame["accuracy_low"] <= frame["accuracy"]).all()
    assert (frame["accuracy"] <= frame["accuracy_high"]).all()
    by_word = (found.accuracy * found.n_words).sum(1) / found.n_words.sum()
    assert frame["accuracy"].tolist() == pytest.approx(by_word.tolist())


def test_nothing_planted_nothing_found() -> None:
    rng = np.random.default_rng(1)
    train, test = sentences_of(rng, 60, False), sentences_of(rng, 60, False)
    accuracy = pooled(probed(*reduced(train, test), 0, ()))
    assert accuracy["attention and words"] < 0.3


def test_the_word_before_is_found_by_distance() -> None:
    rng = np.random.default_rng(2)
    parts = [sentences_of(rng, 30, False) for _ in range(2)]
    train, test = (dataclasses.replace(part, head=part.place - 1) for part in parts)
    assert best_offset(train) == -1
    accuracy = pooled(probed(*reduced(train, test), 0, ()))
    assert accuracy["words and distance"] > 0.95
    assert accuracy["offset"] == 1
    assert accuracy["words"] < 0.5


def test_scores_are_the_formula() -> None:
    rng = np.random.default_rng(3)
    pairs = sentences_of(rng, 3, False)
    theta = torch.tensor(rng.normal(size=(2, 6, 4)), dtype=torch.float32)
    found = scores(pairs, theta)
    alpha: dict[tuple[int, int], Tensor] = {
        (int(i), int(j)): row for i, j, row in zip(pairs.attending, pairs.attended, pairs.attention, strict=True)
    }
    for i in range(len(pairs.first)):
        begin, n_words = int(pairs.first[i]), int(pairs.length[i])
        assert torch.isinf(found[i, n_words:]).all()
        for j in range(begin, begin + n_words):
            both = torch.cat([pairs.embedding[i], pairs.embedding[j]])
            nothing = torch.zeros(4)
            expected = (both @ theta[0]) @ alpha.get((i, j), nothing) + (both @ theta[1]) @ alpha.get((j, i), nothing)
            if i == j:
                assert torch.isinf(found[i, j - begin])
            else:
                torch.testing.assert_close(found[i, j - begin], expected)


def test_training_ends_near_a_minimum() -> None:
    """Steps in random directions lead up."""
    pairs = sentences_of(np.random.default_rng(4), 20, True)
    theta = trained(pairs)
    rows = pairs.head >= 0

    def loss(at: Tensor) -> float:
        entropy = torch.nn.functional.cross_entropy(scores(pairs, at)[rows], pairs.head[rows])
        return float(entropy + 0.005 * at.square().sum())

    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        assert loss(theta + 0.1 * torch.randn(theta.shape, generator=generator)) > loss(theta)


def test_components_of_embeddings() -> None:
    rng = np.random.default_rng(5)
    train, test = sentences_of(rng, 30, False), sentences_of(rng, 10, False)
    wide = [
        dataclasses.replace(part, embedding=torch.tensor(rng.normal(5, 2, (len(part.first), 50)), dtype=torch.float32))
        for part in (train, test)
    ]
    small, other = reduced(*wide)
    assert small.embedding.shape[1] == other.embedding.shape[1] == 33
    assert (small.embedding[:, -1] == 1).all()
    assert float(small.embedding[:, :-1].square().mean()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(small.embedding[:, :-1].mean(0), torch.zeros(32), atol=1e-4, rtol=0)


VOCABULARY = ("foo", "bar", "baz", "cat", "dog", "apple", "red", "zebra")


def random_parses(n: int) -> list[ParsedSentence]:
    rng = np.random.default_rng(6)
    found = []
    for _ in range(n):
        words = rng.choice(VOCABULARY, size=int(rng.integers(4, 7)))
        found.append(parse(" ".join(words), *[-1, *range(len(words) - 1)]))
    return found


def test_a_model_is_probed(model: LensModel) -> None:
    parses = random_parses(22)
    found = head_probe(model, [*parses, parse("red", -1)], train=12, test=8)
    assert found.kinds == KINDS
    assert found.accuracy.shape == (5, 8)
    assert ((found.accuracy >= 0) & (found.accuracy <= 1)).all()
    assert (found.n_train, found.offset) == (12, -1)
    assert pooled(found)["offset"] == 1
    assert found.left_out == (
        ("a sentence in which no word has a head", 1),
        ("a sentence that was not drawn", 2),
        ("a root word", 20),
    )
    again = head_probe(model, [*parses, parse("red", -1)], train=12, test=8)
    assert (again.accuracy == found.accuracy).all()


@pytest.mark.usefixtures("unchecked")
def test_bad_input(gpt2: LensModel) -> None:
    parses: Any = random_parses(6)
    for options, message in [
        ({}, r"6 sentences can be used \(none was left out\), but train=200 and test=100 need 300: give more"),
        ({"train": 0}, "cannot train on 0 sentences"),
        ({"train": 2, "test": 0}, "cannot test on 0 sentences"),
        ({"train": 2, "test": 2, "seed": -1}, "seed is -1"),
    ]:
        raises_one_line(lambda options=options: head_probe(gpt2, parses, **options), message)
    for sentences, message in [
        ([parse("red", -1)] * 3, "0 sentences can be used .3 a sentence in which no word has a head., but train=1"),
        (["a text"], "sentence 0 is a str: give parsed sentences"),
        ("a text", "sentences are 'a text': give a list"),
        (None, "sentences are None: give a list"),
    ]:
        raises_one_line(lambda given=sentences: head_probe(gpt2, given, train=1, test=1), message)
    with pytest.raises(InputError, match="tokenizer"):
        head_probe(without_tokenizer(gpt2), parses, train=1, test=1)


def without_tokenizer(model: LensModel) -> Any:
    """The model as one that was built without a tokenizer."""

    class Without:
        tokenizer = None

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    return Without()
