"""The selected heads, and the tokens of a prompt, as people read them."""

from icl_circuits.heads import InContextHeads
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch
from icl_circuits.viz import MarkedToken, Table


def marked_tokens(model: LensModel, batch: PromptBatch, row: int) -> tuple[MarkedToken, ...]:
    """One prompt's tokens as text, its label positions and last position marked."""
    last, labels = int(batch.last[row]), set(batch.label_positions[row].tolist())
    return tuple(
        MarkedToken(model.tokenizer.decode([token]), i, "last" if i == last else "label" if i in labels else "plain")
        for i, token in enumerate(batch.tokens[row, : last + 1].tolist())
    )


def head_table(selected: InContextHeads) -> Table:
    """The selected heads, as text."""
    rows = [
        (
            str(head.component),
            head.label,
            f"{head.log_prob_increase:.3f}",
            f"{head.accuracy_drop:+.3f}",
            f"{head.log_prob_drop:+.3f}",
        )
        for head in selected.heads
    ]
    columns = ("head", "label", "log-prob increase (nats)", "accuracy drop", "log-prob drop (nats)")
    return Table(columns, tuple(rows))
