"""The selected heads, and the tokens of a prompt, as people read them."""

from collections.abc import Sequence
from dataclasses import replace

from icl_circuits.heads import InContextHeads
from icl_circuits.models import TextModel
from icl_circuits.prompts import PromptBatch
from icl_circuits.stats import Interval
from icl_circuits.viz import MarkedToken, Table

PARTIAL = "\ufffd"
"""What tokenizers decode bytes to that are no whole character."""
LONGEST_CHARACTER = 8
"""Tokens that one character is of, at most: its four bytes, some of which share a token with another's."""


def marked_tokens(model: TextModel, batch: PromptBatch, row: int) -> tuple[MarkedToken, ...]:
    """One prompt's tokens as text, its label positions and last position marked."""
    last, labels = int(batch.last[row]), set(batch.label_positions[row].tolist())
    return tuple(
        MarkedToken(model.tokenizer.decode([token]), i, "last" if i == last else "label" if i in labels else "plain")
        for i, token in enumerate(batch.tokens[row, : last + 1].tolist())
    )


def with_whole_characters(model: TextModel, tokens: Sequence[int], marked: Sequence[MarkedToken]) -> list[MarkedToken]:
    """Marked tokens, those that hold parts of one character (of Chinese, or an emoji) joined into one.

    Args:
        model: decodes them.
        tokens: the same, as ids.
        marked: one after the other. A mark among joined ones is that of all.
    """
    joined, start = [], 0
    while start < len(marked):
        size = _whole(model, tokens[start : start + LONGEST_CHARACTER])
        group = marked[start : start + size]
        mark = next((token for token in group if token.kind != "plain"), group[0])
        joined.append(
            mark if size == 1 else replace(mark, text=model.tokenizer.decode([*tokens[start : start + size]]))
        )
        start += size
    return joined


def _whole(model: TextModel, tokens: Sequence[int]) -> int:
    """How many of some tokens make whole characters: the fewest, or one where none do."""
    sizes = range(1, len(tokens) + 1)
    return next((size for size in sizes if PARTIAL not in model.tokenizer.decode([*tokens[:size]])), 1)


def head_table(selected: InContextHeads) -> Table:
    """The selected heads, as text."""
    rows = [
        (
            str(head.component),
            head.label,
            f"{head.log_prob_increase:.3f}",
            f"{Interval.in_row(vars(head), 'log_prob_drop'):+.3f}",
            f"{head.p_drop:.2g}",
            f"{head.accuracy_drop:+.3f}",
        )
        for head in selected.heads
    ]
    columns = (
        "head", "label", "log-prob increase (nats)", "log-prob drop (nats)", "p of the drop, corrected",
        "accuracy drop",
    )  # fmt: skip
    return Table(columns, tuple(rows))
