"""Token- and concept-induction heads: from word to word, to the next one's first token or to its last (Feucht 2025)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from icl_circuits.display import Displayed, highest
from icl_circuits.errors import InputError, Unfit, require_whole
from icl_circuits.heads.attention import attention_between
from icl_circuits.heads.induction import head_frame
from icl_circuits.models import LensModel
from icl_circuits.prompts import bos_of, ids_of, load_rows, token_batch
from icl_circuits.residual import Head
from icl_circuits.stats import generator, mean_of_finite

FEWEST_WORDS = 20
"""Words of several tokens that there must be at least, so that sequences differ."""


@dataclass(frozen=True, repr=False)
class ConceptScores(Displayed):
    """Both scores of every head, for each sequence of words, a mean over its words."""

    words: tuple[tuple[str, ...], ...]
    """The words of each sequence, which come twice in this order."""
    next_token: Float[np.ndarray, "sequence layer head"]
    """Attention to the first token of the next word: token induction. A share."""
    last_token: Float[np.ndarray, "sequence layer head"]
    """Attention to the last token of the next word: concept induction. A share."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return highest("next_token", mean_of_finite(self.next_token), Head)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: layer, head and both scores, means over sequences with 95 % bootstrap intervals."""
        return head_frame(next_token=self.next_token, last_token=self.last_token)


def concept_scores(model: LensModel, *, n_sequences: int = 16, n_words: int = 12, seed: int = 0) -> ConceptScores:
    """Score every head on words of two and more tokens, in random order, repeated once.

    What counts is attention from the last token of each word in the second copy, to the word that came next in the
    first copy. The last word has none. Token induction heads attend to its first token, which comes now (`next_token`).
    Concept induction heads attend to its last, where the meaning of the whole word is (`last_token`). See Feucht et al.
    2025, "The Dual-Route Model of Induction", arXiv 2504.03022, section 3. The paper weights attention by the norms of
    values, and sets one entity among random tokens; here attention is plain, and all is words.

    Args:
        model: the model.
        n_sequences: how many sequences.
        n_words: how many different words each has; 2 or more. They are those of the built-in word categories that the
            tokenizer splits.
        seed: of the draw.

    Raises:
        InputError: no sequences, too many or too few words, sequences too long for the model, or no tokenizer.
        Unfit: a tokenizer that splits fewer than 20 of the words; a model whose z is not attention times values.
    """
    require_whole(n_sequences, 1, f"n_sequences is {n_sequences}: ask for at least 1")
    require_whole(n_words, 2, f"n_words is {n_words}: ask for at least 2, so that one comes next")
    split = _split_words(model)
    if n_words > len(split):
        raise InputError(
            f"n_words is {n_words}, but the tokenizer splits {len(split)} words: ask for at most that many"
        )
    rng, words = generator(seed), list(split)
    chosen = [[words[i] for i in rng.choice(len(words), size=n_words, replace=False)] for _ in range(n_sequences)]
    bos = bos_of(model, None)
    rows = [[*bos, *2 * [token for word in sequence for token in split[word]]] for sequence in chosen]
    batch = token_batch(model, rows, [row[-1] for row in rows])  # answers are not looked at
    device = batch.tokens.device
    ends = torch.tensor([np.cumsum([len(split[word]) for word in sequence]).tolist() for sequence in chosen])
    ends = ends.to(device) + len(bos)  # behind each word of the first copy
    copied = ends[:, -1:] - len(bos)
    first, last = ends[:, :-1], ends[:, 1:] - 1
    found = attention_between(model, batch, ends[:, :-1] - 1 + copied, torch.stack([first, last], -1))
    return ConceptScores(tuple(map(tuple, chosen)), found[:, 0], found[:, 1])


def _split_words(model: LensModel) -> dict[str, list[int]]:
    """The built-in words that the tokenizer splits, with a space before, and their tokens.

    Raises:
        Unfit: fewer than 20 of them.
    """
    words = dict.fromkeys(row.text for row in load_rows("word-categories").rows)
    tokens = {word: ids_of(model, f" {word}") for word in words}
    split = {word: ids for word, ids in tokens.items() if len(ids) > 1}
    if len(split) < FEWEST_WORDS:
        raise Unfit(
            f"the tokenizer of {model.cfg.model_name!r} splits {len(split)} of {len(words)} words, too few to tell "
            f"first tokens from last: {FEWEST_WORDS} are needed"
        )
    return split
