"""The attention-and-words probe: how much of a sentence's syntax the attention of a model's heads tells.

By Clark et al. (arXiv 1906.04341, section 5), as Ren et al. (arXiv 2402.13055) use it. A word's head is chosen among
the other words of its sentence by `p(j | i) ∝ exp sum_k [W_k (e_i ⊕ e_j) A_k[i, j] + U_k (e_i ⊕ e_j) A_k[j, i]]`: the
attention `A_k` of every head `k`, in both directions, weighed by what the two words are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, require_whole
from icl_circuits.models import LensModel
from icl_circuits.progress import tracked
from icl_circuits.prompts import kind, shown
from icl_circuits.relations.corpus import counted
from icl_circuits.relations.dependencies import ROOT, ParsedSentence
from icl_circuits.relations.words import WordPairs, usable_sentences, word_pairs
from icl_circuits.stats import Interval, bootstrap, generator, weighted_mean

PROBE = "attention and words"
KINDS = (PROBE, "shuffled heads", "words", "words and distance", "offset")
"""The probe and its controls: trained on other words as heads; without attention; with the distance between words in
place of attention; and the word at one distance from each."""
ROOT_WORD = "a root word"
NOT_DRAWN = "a sentence that was not drawn"

N_DIMENSIONS = 32
"""Principal components of the words' embeddings that the probe takes."""
DECAY = 0.01
"""Weight decay: twice the factor of the squared weights in the loss. Chosen for SmolLM2 on held-out training sentences,
where 0.001 and 0.03 gave accuracies at most 0.03 lower."""
FAR = 8
"""Words as far from each other and farther are at one distance."""


@dataclass(frozen=True, repr=False)
class HeadProbe(Displayed):
    """How many words of the test sentences a probe gives their syntactic head, and how many its controls do."""

    kinds: tuple[str, ...]
    """The probe and its controls."""
    accuracy: Float[np.ndarray, "kind sentence"]
    """The share of each test sentence's words that get their head; root words are none of them."""
    n_words: Int[np.ndarray, " sentence"]
    """How many words of each test sentence have a head."""
    offset: int
    """The distance from a word to its head that most words of the training sentences have; 1: the next word."""
    n_train: int
    """Training sentences."""
    n_train_words: int
    """Their words that have a head."""
    left_out: tuple[tuple[str, int], ...]
    """Reasons, and how many sentences (for roots: words, of training and test) were left out for each."""

    @property
    def headline(self) -> str:
        """Its main number."""
        best = highest("accuracy", np.array([self._pooled(row).mean for row in self.accuracy]), self.kinds.__getitem__)
        return f"{len(self.n_words)} sentences, {best}"

    def to_frame(self) -> pd.DataFrame:
        """One row a kind: the accuracy over all test words, and by how much the probe's is above it (`lead`).

        Both with 95 % bootstrap intervals over sentences, `lead` on the same resamples. Also `words` and `sentences`.
        """
        rows = []
        for kind_of_probe, accuracy in zip(self.kinds, self.accuracy, strict=True):
            row: dict[str, object] = {"kind": kind_of_probe}
            row |= self._pooled(accuracy).columns("accuracy")
            row |= self._pooled(self.accuracy[0] - accuracy).columns("lead")
            rows.append(row | {"words": int(self.n_words.sum()), "sentences": len(self.n_words)})
        return pd.DataFrame(rows)

    def _pooled(self, of_sentence: Float[np.ndarray, " sentence"]) -> Interval:
        """The mean over words, resampled by sentences."""

        def ratio(counts: Float[np.ndarray, "draw sentence"]) -> Float[np.ndarray, " draw"]:
            return weighted_mean(of_sentence * self.n_words, counts) / weighted_mean(self.n_words * 1.0, counts)

        return bootstrap(ratio, len(self.n_words))


def head_probe(
    model: LensModel, sentences: Sequence[ParsedSentence], *, train: int = 200, test: int = 100, seed: int = 0
) -> HeadProbe:
    """Train the probe and its controls on some sentences, and test them on others.

    The papers' words are GloVe's; ours are the model's own `W_E`, reduced to principal components of the training
    sentences. A constant stands behind them, so that attention alone can tell too. The loss is cross-entropy with
    weight decay. It is convex, so neither a seed nor a learning rate matters: L-BFGS takes up to 100 steps towards its
    minimum. The test sentences choose nothing. Punctuation counts as words.

    In a model without a BOS token, heads that attend nowhere attend to the first word.

    Args:
        model: any causal TransformerLens model with a tokenizer.
        sentences: parsed, as `load_parses` gives them.
        train: how many sentences to train on, drawn at random.
        test: how many others to test on.
        seed: of the draw, and of the shuffled heads.

    Left out and counted are sentences of more than 32 tokens (or the model's context), and those that come twice. So
    are those with a word without a token, those without any head, those that were not drawn, and root words.

    Raises:
        InputError: too few sentences, what is no parsed sentence, or a tokenizer without character offsets.
        Unfit: a model whose attention says nothing, or that sees what comes later.
    """
    require_whole(train, 1, f"cannot train on {shown(train)} sentences: give 1 or more")
    require_whole(test, 1, f"cannot test on {shown(test)} sentences: give 1 or more")
    if not isinstance(sentences, list | tuple):
        raise InputError(f"sentences are {shown(sentences)}: give a list of parsed sentences, as load_parses does")
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, ParsedSentence):
            raise InputError(f"sentence {number} is {kind(sentence)}: give parsed sentences, as load_parses does")
    usable, left_out = usable_sentences(model, sentences)
    if len(usable) < train + test:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none was left out"
        raise InputError(
            f"{len(usable)} sentences can be used ({reasons}), but train={train} and test={test} need {train + test}: "
            "give more sentences, or ask for fewer"
        )
    drawn = generator(seed).permutation(len(usable))[: train + test].tolist()
    left_out[NOT_DRAWN] = len(usable) - len(drawn)
    parts = [word_pairs(model, [usable[i] for i in numbers]) for numbers in (drawn[:train], drawn[train:])]
    left_out[ROOT_WORD] = sum(int((part.head == ROOT).sum()) for part in parts)
    return probed(*reduced(*parts), seed, counted((), left_out))


def reduced(train: WordPairs, test: WordPairs) -> tuple[WordPairs, WordPairs]:
    """Both with principal components of the training words, of unit variance on average, and a constant behind them."""
    mean = train.embedding.mean(0)
    directions = torch.linalg.svd(train.embedding - mean, full_matrices=False)[2][:N_DIMENSIONS]
    found = [(part.embedding - mean) @ directions.T for part in (train, test)]
    spread = found[0].square().mean().sqrt().clamp_min(1e-12)
    embeddings = [torch.cat([e / spread, torch.ones_like(e[:, :1])], 1) for e in found]
    return replace(train, embedding=embeddings[0]), replace(test, embedding=embeddings[1])


def probed(train: WordPairs, test: WordPairs, seed: int, left_out: tuple[tuple[str, int], ...]) -> HeadProbe:
    """Train the probe and its controls on some words, whatever their attention and embeddings, and test on others."""
    rng = generator(seed, 1)
    shuffled = replace(train, head=_other_heads(train, rng))
    kinds = [
        (train, test),
        (shuffled, test),
        (_without_attention(train), _without_attention(test)),
        (_distances(train), _distances(test)),
    ]
    rows = torch.nonzero(test.head != ROOT)[:, 0]
    right = list[Tensor]()
    for to_train, to_test in tracked(kinds, "training probes of syntactic heads"):
        right.append(scores(to_test, trained(to_train))[rows].argmax(1) == test.head[rows])
    offset = best_offset(train)
    guess = torch.minimum((test.place + offset).clamp_min(0), test.length - 1)  # as Clark et al. do at the ends
    right.append(guess[rows] == test.head[rows])
    sentence = torch.unique(test.first[rows], return_inverse=True)[1].cpu().numpy()
    n_words = np.bincount(sentence)
    accuracy = np.stack([np.bincount(sentence, weights=r.cpu().numpy()) for r in right]) / n_words
    n_train = len(torch.unique(train.first))
    n_train_words = int((train.head != ROOT).sum())
    return HeadProbe(KINDS, accuracy, n_words, offset, n_train, n_train_words, left_out)


def scores(pairs: WordPairs, theta: Float[Tensor, "2 both any_head"]) -> Float[Tensor, "word place"]:
    """How strongly the probe speaks for each place of a word's sentence; minus infinity for its own and beyond.

    Args:
        pairs: the words.
        theta: `W` and `U`, of the embeddings of a word and of its possible head, one behind the other.
    """
    at, to = pairs.attending, pairs.attended
    here, there = pairs.embedding[at], pairs.embedding[to]
    forth = ((torch.cat([here, there], 1) @ theta[0]) * pairs.attention).sum(1)
    back = ((torch.cat([there, here], 1) @ theta[1]) * pairs.attention).sum(1)
    possible = pairs.candidates
    found = torch.zeros(possible.shape, device=forth.device, dtype=forth.dtype).masked_fill(~possible, float("-inf"))
    found = found.index_put((at, (to - pairs.first[to])), forth, accumulate=True)
    return found.index_put((to, (at - pairs.first[at])), back, accumulate=True)


def trained(pairs: WordPairs) -> Float[Tensor, "2 both any_head"]:
    """The probe of the lowest loss, cross-entropy with weight decay, on the words that have a head."""
    rows = torch.nonzero(pairs.head != ROOT)[:, 0]
    shape = 2, 2 * pairs.embedding.shape[1], pairs.attention.shape[1]
    theta = torch.zeros(shape, device=rows.device, dtype=pairs.embedding.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=100, tolerance_change=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scores(pairs, theta)[rows], pairs.head[rows]) + DECAY / 2 * theta.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return theta.detach()


def _other_heads(pairs: WordPairs, rng: np.random.Generator) -> Int[Tensor, " word"]:
    """A random other word of the sentence as each word's head; roots stay roots."""
    n_others = np.maximum(pairs.length.cpu().numpy() - 1, 1)
    drawn = torch.tensor(rng.integers(n_others), device=pairs.head.device)
    return torch.where(pairs.head == ROOT, pairs.head, drawn + (drawn >= pairs.place))


def _without_attention(pairs: WordPairs) -> WordPairs:
    """The same words, each attending to every other one alike."""
    attending, place = torch.nonzero(pairs.candidates).T
    even = torch.ones(len(attending), 1, device=place.device, dtype=pairs.attention.dtype)
    return replace(pairs, attending=attending, attended=pairs.first[attending] + place, attention=even)


def _distances(pairs: WordPairs) -> WordPairs:
    """The same words with a head for each distance, which attends that far back."""
    every = _without_attention(pairs)
    distance = every.attending - every.attended
    back = distance > 0
    far = F.one_hot(distance[back].clamp_max(FAR) - 1, FAR).to(pairs.attention.dtype)
    return replace(every, attending=every.attending[back], attended=every.attended[back], attention=far)


def best_offset(pairs: WordPairs) -> int:
    """The distance from a word to its head that most words have."""
    rows = pairs.head != ROOT
    distances, counts = torch.unique((pairs.head - pairs.place)[rows], return_counts=True)
    return int(distances[counts.argmax()])
