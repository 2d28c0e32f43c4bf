"""The study of paper 2402.02872's first half: which heads, and what is lost when they are zeroed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_circuits.heads import GroupEffects, InContextHeads, group_intervention
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch, encode
from icl_circuits.report.folder import Part
from icl_circuits.report.plan import Start, marked_tokens
from icl_circuits.residual import Capture, Head, PositionIncrease, answer_logits, position_increase
from icl_circuits.viz import (
    MarkedToken,
    Section,
    Table,
    attention_view,
    colored_tokens_view,
    topk_tokens_view,
)

RANDOM_DRAWS = 20
VIEWED_PROMPTS = 3
TOP_TOKENS = 5


@dataclass(frozen=True)
class Findings:
    """What the study found, besides the heads themselves."""

    groups: GroupEffects
    positions: PositionIncrease
    attention: Float[np.ndarray, "prompt head pos src_pos"]
    """Attention of the selected heads on the first evaluation prompts."""
    attended: Float[np.ndarray, "prompt layer src_pos any_head"]
    """Attention of every head from the last position of those prompts."""
    tokens: tuple[tuple[MarkedToken, ...], ...]
    """The tokens of those prompts."""


def in_context_study(start: Start) -> Part:
    """Zero the selected heads, each label's alone and random ones, and see what they read."""
    plan, heads = start.plan, start.heads
    with start.timed("zeroing groups"):
        groups = group_intervention(
            start.model, start.evaluation, start.scores.selected, n_random=RANDOM_DRAWS, seed=plan.settings.seed
        )
    with start.timed("positions and attention"):
        positions = position_increase(start.model, start.evaluation, heads)
        few = encode(start.model, plan.evaluation[:VIEWED_PROMPTS], separator=plan.settings.separator)
        tokens = tuple(marked_tokens(start.model, few, row) for row in range(len(few)))
        findings = Findings(groups, positions, *_attention(start.model, few, heads), tokens)
    scores = start.scores
    return Part(
        headline=_headline(start, groups),
        summary=_summary(findings),
        values={
            "increase": scores.increase,
            "effects": scores.effects,
            "groups": groups,
            "positions": positions,
            "selection.tokens": scores.batch.tokens.cpu().numpy(),
            "selection.gold": scores.batch.gold.cpu().numpy(),
            "evaluation.tokens": start.evaluation.tokens.cpu().numpy(),
            "evaluation.gold": groups.gold,
            "evaluation.label_positions": start.evaluation.label_positions.cpu().numpy(),
            "evaluation.demo_labels": start.evaluation.demo_labels.cpu().numpy(),
        },
        tables=_paper_tables(start, groups),
        sections=lambda figures: _sections(start, findings, figures),
        shown=(
            ("In-context heads", head_table(scores.selected)),
            ("Accuracy before and after zeroing", accuracy_table(groups)),
        ),
    )


def _headline(start: Start, groups: GroupEffects) -> str:
    """The finding in a few sentences."""
    heads, n_scored = start.heads, len(start.scores.effects.heads)
    (top1, between), (top1_zeroed, between_zeroed), (top1_random, between_random) = (
        (group.answers.top1.mean(), group.answers.between_labels.mean())
        for group in (groups.base, groups.all, groups.random)
    )
    return (
        f"Zeroing {len(heads)} of {n_scored} heads ({len(heads) / n_scored:.1%}) takes top-1 "
        f"accuracy from {top1:.1%} to {top1_zeroed:.1%}, and accuracy between the labels alone "
        f"from {between:.1%} to {between_zeroed:.1%}. As many random heads of the same layers (mean of "
        f"{len(groups.random_heads)} draws) leave {top1_random:.1%} and {between_random:.1%}."
    )


def _attention(
    model: LensModel, batch: PromptBatch, heads: Sequence[Head]
) -> tuple[Float[np.ndarray, "prompt head pos src_pos"], Float[np.ndarray, "prompt layer src_pos any_head"]]:
    """The patterns of `heads`, and the attention of every head of the model from the last position."""
    layers = range(model.cfg.n_layers)
    whole = Capture([("pattern", head.layer) for head in heads])
    last = Capture([("pattern", layer) for layer in layers], batch.last)
    answer_logits(model, batch, whole, last)
    patterns = [whole.of(model, "pattern", head).cpu() for head in heads]
    attended = [last.at("pattern", layer).cpu().numpy().swapaxes(1, 2) for layer in layers]
    return np.stack([pattern.numpy() for pattern in patterns], axis=1), np.stack(attended, axis=1)


def _summary(findings: Findings) -> dict[str, Any]:
    """The study's part of `results.json`. Accuracies are shares; `ci95` over prompts."""
    frame = findings.groups.to_frame()

    def accuracy(row: Any) -> dict[str, Any]:
        ci95 = {rule: [row[f"{rule}_low"], row[f"{rule}_high"]] for rule in ("top1", "between_labels")}
        return {"top1": row["top1"], "between_labels": row["between_labels"], "ci95": ci95}

    overall = {row["kind"]: accuracy(row) for _, row in frame[frame["gold"].isna() & frame["label"].isna()].iterrows()}
    return {
        "accuracy": {
            "base": overall["base"],
            "heads_zeroed": overall["all"],
            "random_zeroed": overall["random"] | {"draws": len(findings.groups.random_heads)},
            "by_group": [
                {key: row[key] for key in ("kind", "label", "n_heads", "gold")} | accuracy(row)
                for _, row in frame.iterrows()
            ],
        },
    }


def _paper_tables(start: Start, groups: GroupEffects) -> dict[str, pd.DataFrame]:
    """Tables 2 and 3 of arXiv 2402.02872: accuracy before and after, and by zeroed group and gold label."""
    frame = groups.to_frame()
    everything = frame[frame["gold"].isna() & frame["label"].isna()].set_index("kind")
    table_2: dict[str, object] = {"model": start.provenance["name"], "data": start.provenance["data"]}
    for rule in ("top1", "between_labels"):
        for kind, name in (("base", "original"), ("all", "heads_zeroed"), ("random", "random_zeroed")):
            table_2[f"{rule}_{name}"] = everything.loc[kind, rule]
    columns = ["zeroed", "n_heads", "gold", "top1", "top1_low", "top1_high", "between_labels"]
    return {"table_2": pd.DataFrame([table_2]), "table_3": frame[frame["gold"].notna()][columns]}


# --- the page ---------------------------------------------------------------------------------------------------------


def accuracy_table(groups: GroupEffects) -> Table:
    """Accuracy by group and gold label, as text."""
    rows = [
        (
            row["zeroed"],
            str(row["n_heads"]),
            row["gold"] or "(all)",
            *(f"{row[r]:.2f} [{row[f'{r}_low']:.2f}, {row[f'{r}_high']:.2f}]" for r in ("top1", "between_labels")),
        )
        for _, row in groups.to_frame().iterrows()
    ]
    return Table(("zeroed", "heads", "gold label", "top-1", "between labels"), tuple(rows))


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


def _positions_table(start: Start, findings: Findings) -> Table:
    """What each head reads and writes at the label positions, by whether they hold the gold label."""
    batch, found = start.evaluation, findings.positions
    where = batch.label_positions.cpu().numpy()
    is_gold = batch.demo_labels.cpu().numpy() == batch.gold.cpu().numpy()[:, None]
    rows = []
    for place, head in enumerate(found.heads):
        cells = [str(head)]
        for quantity in ("attention", "increase"):
            for kind in (is_gold, ~is_gold):
                cells.append(f"{found.summed(quantity, where, kind)[:, place].mean():.3f}")
        rows.append(tuple(cells))
    columns = ("head", "attention: gold label", "attention: other labels", "increase: gold", "increase: other")
    return Table(columns, tuple(rows))


def _views(start: Start, findings: Findings) -> tuple[tuple[str, str], ...]:
    """An attention view of the selected heads for each viewed prompt, with its caption."""
    names = [str(head) for head in findings.positions.heads]
    views = []
    for row, tokens in enumerate(findings.tokens):
        caption = f"Prompt {row}: {start.evaluation.texts[row]}"
        pattern = findings.attention[row][:, : len(tokens), : len(tokens)]
        views.append((caption, attention_view(f"attention-{row}", [token.text for token in tokens], pattern, names)))
    return tuple(views)


def _colored(start: Start, findings: Findings) -> tuple[tuple[str, str], ...]:
    """The viewed prompts, their tokens coloured by what each selected head adds from there."""
    names, views = [str(head) for head in findings.positions.heads], []
    for row, tokens in enumerate(findings.tokens):
        values = findings.positions.increase[row, :, : len(tokens)].T
        view = colored_tokens_view(f"tokens-{row}", [token.text for token in tokens], values, names)
        prompt = start.evaluation.prompts[row]
        views.append((f"Prompt {row}: the right answer is {prompt.labels[prompt.gold]}", view))
    return tuple(views)


def _attended_view(findings: Findings) -> tuple[tuple[str, str], ...]:
    """The tokens that every head attends to most and least from the last position."""
    texts = [[token.text for token in tokens] for tokens in findings.tokens]
    values = [found[:, : len(tokens)] for found, tokens in zip(findings.attended, texts, strict=True)]
    caption = "Attention of every head from the last position, by layer"
    names = [f"prompt {row}" for row in range(len(texts))]
    return ((caption, topk_tokens_view("attended", texts, values, names, k=TOP_TOKENS)),)


def _sections(start: Start, findings: Findings, figures: Path) -> tuple[Section, ...]:
    selected, n_scored, groups = start.scores.selected, len(start.scores.effects.heads), findings.groups
    return (
        Section(
            "Accuracy before and after",
            "Each group of heads is zeroed at once, in every position. Accuracy is counted over the whole "
            "vocabulary (top-1) and between the label words alone. In brackets: 95 % bootstrap intervals; "
            "the random control is averaged over its draws first.",
            accuracy_table(groups),
            figures / "accuracy.svg",
        ),
        Section(
            "By the right answer",
            "Top-1 accuracy on the prompts of each right answer apart: the heads of one label should cost that label "
            "alone.",
            figure=figures / "accuracy_by_answer.svg",
        ),
        Section(
            "The in-context heads",
            f"Selected from all {n_scored} heads by log-probability increase and by what zeroing each alone at the "
            "last position costs, best mean rank first: a head may be here for one score alone. Its label is the "
            "one whose prompts lose most log-probability without it.",
            head_table(selected),
        ),
        Section(
            "Every head",
            "Means over the selection prompts. Framed: selected.",
            figure=figures / "head_map.svg",
        ),
        Section(
            "Layers",
            "What attention and MLP layers add to the log-probability of the right label at the last position.",
            figure=figures / "layer_bars.svg",
        ),
        Section(
            "What the heads read",
            "Sums over label positions, means over the test prompts: attention from the last position, and the "
            "log-probability increase (nats) of each position's part of the head's output.",
            _positions_table(start, findings),
            figures / "positions.svg",
        ),
        Section(
            "A prompt",
            "Boxed: label positions. Dashed: the last position, which gives the answer. Numbers: positions.",
            marked=findings.tokens[0],
        ),
        Section(
            "What each head adds from where",
            "Log-probability increase (nats) of each position's part of a head's output: blue where it raises the "
            "right label, red where it lowers it. Choose a head above its prompt.",
            views=_colored(start, findings),
        ),
        Section(
            "Attention of the in-context heads",
            "From each token (rows) to the tokens before it. Hover over a head to see it, click to keep it.",
            views=_views(start, findings),
        ),
        Section(
            "What every head attends to",
            "The tokens that the heads of a layer attend to most (above) and least (below) from the last position.",
            views=_attended_view(findings),
        ),
    )
