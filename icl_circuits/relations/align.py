"""Triplets of words as triplets of tokens: a corpus as a batch for one model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Int

from icl_circuits.display import Displayed
from icl_circuits.errors import InputError, Unfit, require_whole
from icl_circuits.models import LensModel
from icl_circuits.prompts import TokenBatch, bos_of, require_offsets, shown, token_batch, tokenized
from icl_circuits.relations.corpus import Corpus, RelationText, Span, counted
from icl_circuits.stats import generator

NOT_DRAWN = "a text that was not drawn"
TOO_LATE = "a head or tail beyond the model's context"
NO_TOKEN = "a head or tail without a token"
ONE_TOKEN = "head and tail in one token"


@dataclass(frozen=True, repr=False)
class RelationBatch(Displayed):
    """Texts as a model reads them, and where the heads and tails of triplets stand."""

    batch: TokenBatch
    """The texts that have a triplet, each cut where the model's context ends. Its target, each text's own last token,
    stands for nothing."""
    relations: tuple[str, ...]
    """Those of the corpus; of some there may be no triplet left."""
    text: Int[np.ndarray, " triplet"]
    """The row of `batch` that each triplet is in."""
    relation: Int[np.ndarray, " triplet"]
    """Which of `relations` it has."""
    head_pos: Int[np.ndarray, " triplet"]
    """The position of its head's last token."""
    tail_pos: Int[np.ndarray, " triplet"]
    """The position of its tail's first token."""
    left_out: tuple[tuple[str, int], ...]
    """Reasons, and how many triplets were left out for each, in the corpus or here."""
    n_bos: int = 0
    """How many tokens stand before each text: 1 for BOS, where the tokenizer puts one."""

    @property
    def headline(self) -> str:
        """Its main number."""
        return f"{len(self.batch)} texts, {len(self.relations)} relations"

    def to_frame(self) -> pd.DataFrame:
        """One row a triplet: its relation, the row of its text, and the positions of its head and tail."""
        relation = [self.relations[i] for i in self.relation]
        places = {name: getattr(self, name) for name in ("text", "head_pos", "tail_pos")}
        return pd.DataFrame({"relation": relation, **places})

    def __len__(self) -> int:
        return len(self.text)

    def triplets_of(self, relation: str) -> Int[np.ndarray, " of_relation"]:
        """The triplets of one relation, by number.

        Raises:
            InputError: a relation that is none of the corpus, or of which no triplet is left.
        """
        if relation not in self.relations:
            raise InputError(f"relation {shown(relation)} is unknown: use one of {', '.join(self.relations)}")
        found = np.flatnonzero(self.relation == self.relations.index(relation))
        if not len(found):
            have = [name for number, name in enumerate(self.relations) if number in self.relation]
            raise InputError(f"relation {relation!r} has no triplet left: use one of {', '.join(have)}, or more texts")
        return found


def relation_batch(model: LensModel, corpus: Corpus, *, n_texts: int | None = None, seed: int = 0) -> RelationBatch:
    """Find the tokens of each triplet's head and tail, by the tokenizer's character offsets.

    A head of several tokens is read at its last, which has seen all of it. A tail is read at its first, which is the
    one that the model has to say next. The batch begins with a BOS token where the model's own tokenizer puts one.

    Args:
        model: any TransformerLens model with a tokenizer.
        corpus: texts with triplets.
        n_texts: how many texts to keep, drawn at random; default all.
        seed: of that draw.

    Left out and counted: triplets of texts that were not drawn, beyond the model's context, or of words that have no
    token. So are those whose head and tail are read at one token.

    Raises:
        InputError: a tokenizer without character offsets, text that it cannot read, or an `n_texts` below 1.
        Unfit: no triplet of the corpus is left.
    """
    if n_texts is not None:
        require_whole(n_texts, 1, f"cannot keep {n_texts} texts: ask for 1 or more")
    relations, bos = corpus.relations, bos_of(model, None)
    require_offsets(model.tokenizer)
    room = model.cfg.n_ctx - len(bos)
    drawn = sorted(generator(seed).permutation(len(corpus.texts))[:n_texts].tolist())
    left_out = Counter({NOT_DRAWN: sum(len(text.triplets) for text in corpus.texts)})
    rows, texts, found = list[list[int]](), list[str](), list[tuple[int, int, int, int]]()
    for text in (corpus.texts[number] for number in drawn):
        left_out[NOT_DRAWN] -= len(text.triplets)
        ids, offsets = tokens_and_places(model, text.text)
        unknown = model.tokenizer.unk_token_id
        known = [(0, 0) if token == unknown else span for token, span in zip(ids, offsets, strict=True)]
        here = _positions(text, known, room, left_out)
        found += [(len(rows), relations.index(name), len(bos) + head, len(bos) + tail) for name, head, tail in here]
        if here:
            rows.append(bos + ids[:room])
            texts.append(text.text)
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "it has none"
        raise Unfit(
            f"no triplet of {shown(corpus.name)} is left for {model.cfg.model_name!r} ({reasons}): give other texts"
        )
    batch = token_batch(model, rows, [row[-1] for row in rows])
    text_of, relation, head_pos, tail_pos = np.array(found, dtype=np.int64).T
    return RelationBatch(
        replace(batch, texts=tuple(texts)),
        relations,
        text_of,
        relation,
        head_pos,
        tail_pos,
        counted(corpus.left_out, left_out),
        len(bos),
    )


def _positions(
    text: RelationText, offsets: list[Span], room: int, left_out: Counter[str]
) -> list[tuple[str, int, int]]:
    """The relation of each triplet of a text, and the tokens at which its head and its tail are read."""
    found = []
    for triplet in text.triplets:
        head, tail = (tokens_of(span, offsets) for span in triplet.spans)
        if not head or not tail:
            left_out[NO_TOKEN] += 1
        elif max(head[-1], tail[0]) >= room:
            left_out[TOO_LATE] += 1
        elif head[-1] == tail[0]:
            left_out[ONE_TOKEN] += 1
        else:
            found.append((triplet.relation, head[-1], tail[0]))
    return found


def tokens_and_places(model: LensModel, text: str) -> tuple[list[int], list[Span]]:
    """The tokens of a text, without special ones, and the characters of each, as `tokens_of` takes them.

    Raises:
        InputError: text that the tokenizer cannot read.
    """
    ids, offsets = tokenized(model.tokenizer, text)
    if model.tokenizer.decode(ids[:1]).strip() == "":
        offsets[:1] = [(0, 0)]  # a space that the tokenizer puts before the text passes for its first character
    return ids, offsets


def tokens_of(span: Span, offsets: Sequence[Span]) -> list[int]:
    """The tokens that hold a character of a span."""
    return [i for i, (begin, stop) in enumerate(offsets) if max(begin, span[0]) < min(stop, span[1])]
