"""Which facts a model knows: those that its neurons can be asked about (arXiv 2312.12141, section 4)."""

from dataclasses import dataclass

import pandas as pd
import torch

from icl_circuits.display import Displayed
from icl_circuits.errors import Unfit, require_whole
from icl_circuits.models import LensModel
from icl_circuits.progress import tracked
from icl_circuits.prompts import Fact, Facts, TokenBatch, token_batch
from icl_circuits.residual import answer_logits
from icl_circuits.stats import generator

TOP = 10
"""The right answer is among so many tokens of the vocabulary."""


@dataclass(frozen=True, repr=False)
class KnownFacts(Displayed):
    """The facts that a model knows, as prompts, and how many of each type it was asked."""

    batch: TokenBatch
    facts: tuple[Fact, ...]
    """Row by row those of `batch`."""
    asked: tuple[tuple[str, int, int], ...]
    """Each type, how many facts of it were tried, and how many of those are known."""

    @property
    def headline(self) -> str:
        """Its main number."""
        by_type = (f"{name} {known} of {tried}" for name, tried, known in self.asked)
        return ", ".join([f"{len(self.facts)} facts", *by_type])

    def to_frame(self) -> pd.DataFrame:
        """One row a known fact, as a row of `batch`: text, answer and type."""
        return pd.DataFrame(self.facts)

    def rows_of(self, type_: str) -> list[int]:
        """The prompts of one type of knowledge."""
        return [row for row, fact in enumerate(self.facts) if fact.type == type_]

    @property
    def types(self) -> tuple[str, ...]:
        """The types of which a fact is left."""
        return tuple(dict.fromkeys(fact.type for fact in self.facts))


def require_per_type(per_type: int | None) -> None:
    """Raise `InputError` unless this is how many facts to keep of each type; None: all."""
    if per_type is not None:
        require_whole(per_type, 1, f"cannot keep {per_type} facts of a type: ask for 1 or more")


@torch.no_grad()
def known_facts(model: LensModel, facts: Facts, *, per_type: int | None = None, seed: int = 0) -> KnownFacts:
    """Keep the facts whose answer is among the model's first ten tokens, and above all other answers of its type.

    An answer stands for its first token, with a space before it. Facts whose answer begins like another of its type
    are left out: no token tells them apart.

    Args:
        model: any TransformerLens model with a tokenizer.
        facts: the facts to try.
        per_type: how many known facts to keep of each type, drawn at random; default all.
        seed: of that draw.

    Raises:
        InputError: a fact that the tokenizer cannot read, or too long for the model, or a `per_type` below 1.
        Unfit: the model knows none of the facts.
    """
    require_per_type(per_type)
    batch = token_batch(model, [fact.text for fact in facts.facts], [f" {fact.answer}" for fact in facts.facts])
    kinds = [fact.type for fact in facts.facts]
    words: dict[str, dict[str, int]] = {kind: {} for kind in facts.types}
    for fact, token in zip(facts.facts, batch.target.tolist(), strict=True):
        words[fact.type][fact.answer] = token
    known: list[int] = []
    for start, stop in tracked(list(batch.parts()), "asking for facts"):
        chunk = batch.select(range(start, stop))
        logits = answer_logits(model, chunk)
        right = logits.gather(1, chunk.target[:, None])
        among = (logits > right).sum(1) < TOP
        for row in range(start, stop):
            answer = facts.facts[row].answer
            others = [token for word, token in words[kinds[row]].items() if word != answer]
            if among[row - start] and (not others or (logits[row - start, others] < right[row - start]).all()):
                known.append(row)
    rng, kept, asked = generator(seed), list[int](), []
    for kind in facts.types:
        of_kind = [row for row in known if kinds[row] == kind]
        asked.append((kind, kinds.count(kind), len(of_kind)))
        few = of_kind if per_type is None else rng.permutation(of_kind)[:per_type]
        kept += sorted(int(row) for row in few)
    if not kept:
        raise Unfit(
            f"{model.cfg.model_name!r} knows none of the {len(facts.facts)} facts in {facts.name!r} (its answer among "
            f"the first {TOP} tokens, and above all others of its type): give facts that it knows"
        )
    return KnownFacts(batch.select(kept), tuple(facts.facts[row] for row in kept), tuple(asked))
