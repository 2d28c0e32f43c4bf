"""The study's part of a folder: its values, its tables, and its sections of the page."""

from pathlib import Path
from typing import Any

import numpy as np

from icl_circuits.report import Part
from icl_circuits.stats import wilson
from icl_circuits.studies.begun import Begun
from icl_circuits.studies.in_context import sentences
from icl_circuits.studies.in_context.run import InContextFindings
from icl_circuits.studies.in_context.tables import accuracy_table, paper_tables, positions_table, summary
from icl_circuits.studies.shown import head_table
from icl_circuits.viz import Section, attention_view, colored_tokens_view, topk_tokens_view

TOP_TOKENS = 5


def present(begun: Begun, findings: InContextFindings) -> Part:
    """What is written of the findings."""
    groups = findings.groups
    return Part(
        headline=sentences.finding(begun, groups),
        summary=summary(groups),
        values=_values(begun, findings),
        tables=paper_tables(begun, groups),
        sections=lambda figures: _sections(begun, findings, figures),
        first=lambda figures: (Section("Accuracy", "", figure=figures / "accuracy.svg"),),
        shown=(
            ("In-context heads", head_table(begun.scores.selected)),
            ("Accuracy before and after zeroing", accuracy_table(groups)),
        ),
    )


def _values(begun: Begun, findings: InContextFindings) -> dict[str, Any]:
    scores, evaluation = begun.scores, begun.evaluation
    return {
        "increase": scores.increase,
        "effects": scores.effects,
        "groups": findings.groups,
        "positions": findings.positions,
        "selection.tokens": scores.batch.tokens.cpu().numpy(),
        "selection.gold": scores.batch.gold.cpu().numpy(),
        "evaluation.tokens": evaluation.tokens.cpu().numpy(),
        "evaluation.gold": findings.groups.gold,
        "evaluation.label_positions": evaluation.label_positions.cpu().numpy(),
        "evaluation.demo_labels": evaluation.demo_labels.cpu().numpy(),
    }


def _views(begun: Begun, findings: InContextFindings) -> tuple[tuple[str, str], ...]:
    """An attention view of the selected heads for each viewed prompt, with its caption."""
    names = [str(head) for head in findings.positions.heads]
    views = []
    for row, tokens in enumerate(findings.tokens):
        caption = f"Prompt {row}: {begun.evaluation.texts[row]}"
        pattern = findings.attention[row][:, : len(tokens), : len(tokens)]
        views.append((caption, attention_view(f"attention-{row}", [token.text for token in tokens], pattern, names)))
    return tuple(views)


def _colored(begun: Begun, findings: InContextFindings) -> tuple[tuple[str, str], ...]:
    """The viewed prompts, their tokens coloured by what each selected head adds from there."""
    names, views = [str(head) for head in findings.positions.heads], []
    for row, tokens in enumerate(findings.tokens):
        values = findings.positions.increase[row, :, : len(tokens)].T
        view = colored_tokens_view(f"tokens-{row}", [token.text for token in tokens], values, names)
        prompt = begun.evaluation.prompts[row]
        views.append((f"Prompt {row}: the right answer is {prompt.labels[prompt.gold]}", view))
    return tuple(views)


def _attended_view(findings: InContextFindings) -> tuple[tuple[str, str], ...]:
    """The tokens that every head attends to most and least from the last position."""
    texts = [[token.text for token in tokens] for tokens in findings.tokens]
    values = [found[:, : len(tokens)] for found, tokens in zip(findings.attended, texts, strict=True)]
    caption = "Attention of every head from the last position, by layer"
    names = [f"prompt {row}" for row in range(len(texts))]
    return ((caption, topk_tokens_view("attended", texts, values, names, k=TOP_TOKENS)),)


def _widest(n_prompts: int) -> float:
    """How wide the 95 % interval of an accuracy is, at most."""
    half = wilson(np.arange(n_prompts) % 2 == 0)
    return half.high - half.low


def _sections(begun: Begun, findings: InContextFindings, figures: Path) -> tuple[Section, ...]:
    selected, n_scored, groups = begun.scores.selected, len(begun.scores.effects.heads), findings.groups
    return (
        Section(
            "Accuracy before and after",
            "Each group of heads is zeroed at once, in every position. Accuracy is counted over the whole "
            "vocabulary (top-1) and between the label words alone. In brackets: 95 % intervals over prompts. Random "
            f"heads are averaged over their draws first. On {len(groups.gold)} prompts the interval of an accuracy is "
            f"up to {_widest(len(groups.gold)):.2f} wide.",
            accuracy_table(groups),
            figures / "accuracy.svg",
            answer=sentences.accuracy(groups),
        ),
        Section(
            "By the right answer",
            "Top-1 accuracy on the prompts of each right answer apart: the heads of one label should cost that label "
            "alone.",
            figure=figures / "accuracy_by_answer.svg",
            answer=sentences.by_answer(groups),
        ),
        Section(
            "The in-context heads",
            f"Selected from all {n_scored} heads by log-probability increase and by what zeroing each alone at the "
            "last position costs, best mean rank first. A head may be here for one score alone, since others may make "
            "up for it. In brackets: 95 % intervals over prompts; p-values are corrected for all heads (false-"
            "discovery rate). A head's label is the one whose prompts lose most log-probability without it.",
            head_table(selected),
            answer=sentences.selected(begun),
        ),
        Section(
            "Every head",
            "Means over the selection prompts. Framed: selected.",
            figure=figures / "head_map.svg",
            answer=sentences.every_head(begun),
        ),
        Section(
            "Layers",
            "What attention and MLP layers add to the log-probability of the right label at the last position.",
            figure=figures / "layer_bars.svg",
            answer=sentences.layers(begun),
        ),
        Section(
            "What the heads read",
            "Sums over label positions, means over the test prompts: attention from the last position, and the "
            "log-probability increase (nats) of each position's part of the head's output.",
            positions_table(begun, findings),
            figures / "positions.svg",
            answer=sentences.reads(begun, findings),
        ),
        Section(
            "A prompt",
            "Boxed: label positions. Dashed: the last position, which gives the answer. Numbers: positions.",
            marked=findings.tokens[0],
            answer=sentences.prompt(begun, findings),
        ),
        Section(
            "What each head adds from where",
            "Log-probability increase (nats) of each position's part of a head's output: blue where it raises the "
            "right label, red where it lowers it. All heads of a prompt share one scale of colours. Choose a head "
            "above the prompt; point at a token for its numbers.",
            views=_colored(begun, findings),
            answer=sentences.adds(findings),
        ),
        Section(
            "Attention of the in-context heads",
            "From each token (rows) to the tokens before it. Hover over a head to see it, click to keep it.",
            views=_views(begun, findings),
            answer=sentences.attends(findings),
        ),
        Section(
            "What every head attends to",
            "The tokens that the heads of a layer attend to most (above) and least (below) from the last position.",
            views=_attended_view(findings),
            answer=sentences.attended(findings),
        ),
    )
