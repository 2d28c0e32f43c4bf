"""Parsed sentences as a model reads them: what each head attends from word to word (arXiv 1906.04341, section 4.1)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.models import LensModel, at_least_float32, require_identities
from icl_circuits.prompts import bos_of, require_offsets, token_batch
from icl_circuits.relations.align import tokens_and_places, tokens_of
from icl_circuits.relations.dependencies import ROOT, ParsedSentence
from icl_circuits.residual import Capture, answer_logits

LONGEST = 32
"""Tokens of the longest sentence that is taken, without a BOS token (arXiv 2402.13055)."""
TOO_LONG = f"a sentence of more than {LONGEST} tokens"
WITHOUT_TOKEN = "a sentence with a word without a token"
WITHOUT_HEADS = "a sentence in which no word has a head"
TWICE = "a sentence that is there before"


@dataclass(frozen=True)
class TokenSentence:
    """A parsed sentence and its tokens."""

    parse: ParsedSentence
    ids: tuple[int, ...]
    """Without special tokens."""
    places: tuple[tuple[int, ...], ...]
    """Which of `ids` hold a part of each word. Words may share one."""


@dataclass(frozen=True)
class WordPairs:
    """The words of some sentences, and the pairs of them between which heads can attend.

    Words are numbered through all sentences. A pair is of two words of one sentence; pairs without attention are left
    out, as those from a word to a later one are in a causal model.
    """

    first: Int[Tensor, " word"]
    """The number of its sentence's first word."""
    length: Int[Tensor, " word"]
    """How many words its sentence has."""
    head: Int[Tensor, " word"]
    """The place of its head in the sentence, from 0; -1 for a root word."""
    embedding: Float[Tensor, "word d_embedding"]
    attending: Int[Tensor, " pair"]
    """The word that is attended from."""
    attended: Int[Tensor, " pair"]
    """The word that is attended to."""
    attention: Float[Tensor, "pair any_head"]
    """The attention of every head, layer by layer: a share, summed over the tokens of the word that is attended to,
    mean over those of the one attended from."""

    @property
    def place(self) -> Int[Tensor, " word"]:
        """Where each word stands in its sentence, from 0."""
        return torch.arange(len(self.first), device=self.first.device) - self.first

    @property
    def candidates(self) -> Bool[Tensor, "word place"]:
        """Which places of its sentence may hold a word's head: all but its own."""
        column = torch.arange(int(self.length.max()), device=self.first.device)
        return (column < self.length[:, None]) & (column != self.place[:, None])


def usable_sentences(model: LensModel, sentences: Sequence[ParsedSentence]) -> tuple[list[TokenSentence], Counter[str]]:
    """The sentences that a model can be probed with, as tokens, and how many were left out for each reason.

    Raises:
        InputError: a tokenizer without character offsets, or text that it cannot read.
    """
    longest = min(LONGEST, model.cfg.n_ctx - len(bos_of(model, None)))
    require_offsets(model.tokenizer)
    found: dict[str, TokenSentence] = {}
    left_out: Counter[str] = Counter()
    for parse in sentences:
        ids, offsets = tokens_and_places(model, parse.text)
        places = tuple(tuple(tokens_of(span, offsets)) for span in parse.words)
        if parse.text in found:
            left_out[TWICE] += 1
        elif all(head == ROOT for head in parse.heads):
            left_out[WITHOUT_HEADS] += 1
        elif len(ids) > longest:
            left_out[TOO_LONG] += 1
        elif not all(places):
            left_out[WITHOUT_TOKEN] += 1
        else:
            found[parse.text] = TokenSentence(parse, tuple(ids), places)
    return list(found.values()), left_out


@torch.no_grad()
def word_pairs(model: LensModel, sentences: Sequence[TokenSentence]) -> WordPairs:
    """Every head's attention between the words of sentences, from one forward pass for each chunk of them.

    The embedding of a word is the mean of its tokens' rows of `W_E`.

    Raises:
        Unfit: a model whose z is not attention times values, so that its attention says nothing, or one that sees what
            comes later.
    """
    bos = bos_of(model, None)
    rows = [[*bos, *sentence.ids] for sentence in sentences]
    batch = token_batch(model, rows, [row[-1] for row in rows])
    require_identities(model, batch.tokens, batch.last, "values")
    device, W_E = batch.tokens.device, at_least_float32(model.embed.W_E)
    layers = range(model.cfg.n_layers)
    attention, ends, embeddings = list[Tensor](), list[Tensor](), list[Tensor]()
    first, length, head = list[int](), list[int](), list[int]()
    for start, stop in batch.parts():
        capture = Capture([("pattern", layer) for layer in layers])
        answer_logits(model, batch.select(range(start, stop)), capture)
        for row, sentence in enumerate(sentences[start:stop]):
            n_words, begin = len(sentence.places), len(first)
            holds = torch.zeros(n_words, batch.tokens.shape[1], device=device, dtype=W_E.dtype)
            for word, places in enumerate(sentence.places):
                holds[word, [len(bos) + place for place in places]] = 1
            mean = holds / holds.sum(1, keepdim=True)
            patterns = torch.cat([capture.at("pattern", layer)[row] for layer in layers])
            between = (mean @ patterns.to(W_E.dtype) @ holds.T).permute(1, 2, 0)
            seen = [
                (i, j) for i, j in permutations(range(n_words), 2) if max(sentence.places[i]) >= min(sentence.places[j])
            ]
            here = torch.tensor(seen, device=device).reshape(-1, 2).T
            attention.append(between[here[0], here[1]])
            ends.append(here + begin)
            embeddings.append(mean[:, : len(rows[start + row])] @ W_E[rows[start + row]])
            first += [begin] * n_words
            length += [n_words] * n_words
            head += sentence.parse.heads
    of_word = torch.tensor([first, length, head], device=device)
    attending, attended = torch.cat(ends, 1)
    return WordPairs(
        of_word[0], of_word[1], of_word[2], torch.cat(embeddings), attending, attended, torch.cat(attention)
    )
