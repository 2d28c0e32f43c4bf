"""The main job: find the in-context heads of a model, test them, and write the report."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from icl_circuits.errors import InputError
from icl_circuits.heads import (
    GroupEffects,
    HeadEffects,
    InContextHeads,
    LogProbIncrease,
    PositionIncrease,
    group_intervention,
    log_prob_increase,
    position_increase,
    select_heads,
    zero_each_head,
)
from icl_circuits.interventions import Capture, answer_logits
from icl_circuits.models import Head, LensModel, provenance
from icl_circuits.prompts import Prompt, PromptBatch, Rows, encode, sample_prompts
from icl_circuits.viz import (
    MarkedToken,
    Section,
    Table,
    accuracy_bars,
    attention_view,
    head_map,
    heads_that_fit,
    layer_bars,
    render_page,
    save,
)

RANDOM_DRAWS = 20
VIEWED_PROMPTS = 3
EVALUATION_SEED = 1_000_003
"""Added to the seed for the evaluation prompts, so that neighbouring seeds share none."""


@dataclass(frozen=True)
class Settings:
    """What the main job runs on, besides the model and the rows."""

    labels: tuple[str, ...]
    shots: int
    prompts: int
    heads: int
    seed: int
    separator: str


@dataclass(frozen=True)
class Plan:
    """The prompts of a run, sampled before any model is loaded."""

    settings: Settings
    data: str
    selection: tuple[Prompt, ...]
    evaluation: tuple[Prompt, ...]
    """Made of other texts than `selection`."""


@dataclass(frozen=True)
class Scores:
    """Both scores of the heads on the selection prompts, and the heads they select."""

    batch: PromptBatch
    increase: LogProbIncrease
    effects: HeadEffects
    selected: InContextHeads


@dataclass(frozen=True)
class Findings:
    """Everything the report shows."""

    settings: Settings
    provenance: dict[str, Any]
    scores: Scores
    evaluation: PromptBatch
    groups: GroupEffects
    positions: PositionIncrease
    attention: Float[np.ndarray, "prompt head pos src_pos"]
    """Attention of the selected heads on the first evaluation prompts."""
    tokens: tuple[tuple[MarkedToken, ...], ...]
    """The tokens of those prompts."""
    seconds: dict[str, float]


def plan(rows: Rows, settings: Settings) -> Plan:
    """Sample prompts to select on from one half of the texts, and prompts to test on from the other.

    Raises:
        InputError: no head asked for, and whatever `sample_prompts` raises (a half may have too few texts of a class).
    """
    if settings.heads < 1:
        raise InputError(f"cannot select {settings.heads} heads: ask for at least 1")
    for_selection, for_evaluation = rows.split(settings.seed)
    options: dict[str, Any] = {"labels": settings.labels, "shots": settings.shots}
    return Plan(
        settings,
        rows.name,
        sample_prompts(for_selection, settings.prompts, seed=settings.seed, **options),
        sample_prompts(for_evaluation, settings.prompts, seed=settings.seed + EVALUATION_SEED, **options),
    )


def score_heads(model: LensModel, plan: Plan) -> Scores:
    """Score every head statically and causally on the selection prompts, and select.

    Raises:
        InputError: more heads asked for than half of the model's, and whatever encoding and scoring raise.
    """
    settings, n_heads = plan.settings, model.cfg.n_layers * model.cfg.n_heads
    if settings.heads > n_heads // 2:
        raise InputError(
            f"cannot select {settings.heads} heads: {model.cfg.model_name!r} has {n_heads}, and as many others are "
            f"needed for the random control, so select at most {n_heads // 2}"
        )
    batch = encode(model, plan.selection, separator=settings.separator)
    increase = log_prob_increase(model, batch)
    effects = zero_each_head(model, batch)
    selected = select_heads(increase, effects, batch.gold.cpu().numpy(), settings.labels, n_heads=settings.heads)
    return Scores(batch, increase, effects, selected)


def run(model: LensModel, plan: Plan) -> Findings:
    """Select in-context heads and test them on prompts of other texts.

    Raises:
        InputError: whatever `score_heads` and encoding raise.
    """
    settings = plan.settings
    seconds: dict[str, float] = {}
    evaluation = encode(model, plan.evaluation, separator=settings.separator)
    with _timed(seconds, "selection"):
        scores = score_heads(model, plan)
    with _timed(seconds, "evaluation"):
        groups = group_intervention(model, evaluation, scores.selected, n_random=RANDOM_DRAWS, seed=settings.seed)
    with _timed(seconds, "positions and attention"):
        positions = position_increase(model, evaluation, scores.selected.of())
        few = encode(model, plan.evaluation[:VIEWED_PROMPTS], separator=settings.separator)
        attention = _attention(model, few, scores.selected.of())
        tokens = tuple(marked_tokens(model, few, row) for row in range(len(few)))
    where = provenance(model) | {"data": plan.data, "seed": settings.seed, "template": _template(settings)}
    return Findings(settings, where, scores, evaluation, groups, positions, attention, tokens, seconds)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 1)


def _template(settings: Settings) -> str:
    return f"<text> : <label>{settings.separator}<text> : <label>{settings.separator}... <query> :"


def _attention(
    model: LensModel, batch: PromptBatch, heads: Sequence[Head]
) -> Float[np.ndarray, "prompt head pos src_pos"]:
    capture = Capture(tuple({f"blocks.{head.layer}.attn.hook_pattern": None for head in heads}))
    answer_logits(model, batch, capture)
    patterns = [capture.found[f"blocks.{head.layer}.attn.hook_pattern"][:, head.head].float().cpu() for head in heads]
    return np.stack([pattern.numpy() for pattern in patterns], axis=1)


def marked_tokens(model: LensModel, batch: PromptBatch, row: int) -> tuple[MarkedToken, ...]:
    """One prompt's tokens as text, its label positions and last position marked."""
    last, labels = int(batch.last[row]), set(batch.label_positions[row].tolist())
    return tuple(
        MarkedToken(model.tokenizer.decode([token]), i, "last" if i == last else "label" if i in labels else "plain")
        for i, token in enumerate(batch.tokens[row, : last + 1].tolist())
    )


# --- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def new_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and is removed when it does not.

    Raises:
        InputError: `out` exists and `force` is not set, `out` is neither empty nor a report, or its parent cannot be
            written.
    """
    out = out.resolve()
    if out.exists():
        if not out.is_dir():
            raise InputError(f"--out {str(out)!r} is a file: name a folder")
        if any(out.iterdir()) and not (out / "results.json").is_file():
            raise InputError(f"--out {str(out)!r} exists and is no report: name another folder")
        if not force:
            raise InputError(f"--out {str(out)!r} exists already: give --force to replace it, or name another folder")
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write to {str(out.parent)!r}: {error.strerror}") from error
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(work, ignore_errors=True)
        if not out.exists():
            for folder in made:
                folder.rmdir()


def write(findings: Findings, folder: Path) -> None:
    """Write `results.json`, `results.safetensors`, `figures/` and `report.html` into `folder`."""
    from safetensors.numpy import save as to_safetensors

    (folder / "results.json").write_text(json.dumps(summary(findings), indent=2) + "\n", encoding="utf-8")
    (folder / "results.safetensors").write_bytes(to_safetensors(_arrays(findings)))
    figures = folder / "figures"
    figures.mkdir()
    scores = findings.scores
    save(head_map(scores.increase, scores.effects, scores.selected), figures / "head_map")
    save(layer_bars(scores.increase), figures / "layer_bars")
    save(accuracy_bars(findings.groups), figures / "accuracy")
    (folder / "report.html").write_text(_page(findings, figures), encoding="utf-8")


def summary(findings: Findings) -> dict[str, Any]:
    """The content of `results.json`. Accuracies are shares, increases and drops nats; `ci95` over prompts."""
    frame = findings.groups.to_frame()

    def accuracy(row: Any) -> dict[str, Any]:
        ci95 = {rule: [row[f"{rule}_low"], row[f"{rule}_high"]] for rule in ("top1", "between_labels")}
        return {"top1": row["top1"], "between_labels": row["between_labels"], "ci95": ci95}

    overall = {row["kind"]: accuracy(row) for _, row in frame[frame["gold"].isna() & frame["label"].isna()].iterrows()}
    return {
        "provenance": findings.provenance,
        "settings": asdict(findings.settings),
        "accuracy": {
            "base": overall["base"],
            "heads_zeroed": overall["all"],
            "random_zeroed": overall["random"] | {"draws": len(findings.groups.random_heads)},
            "by_group": [
                {key: row[key] for key in ("kind", "label", "n_heads", "gold")} | accuracy(row)
                for _, row in frame.iterrows()
            ],
        },
        "heads": [vars(head) for head in findings.scores.selected.heads],
        "heads_scanned": len(findings.scores.effects.heads),
        "prompts": {"selection": _prompts(findings.scores.batch), "evaluation": _prompts(findings.evaluation)},
        "seconds": findings.seconds,
    }


def _prompts(batch: PromptBatch) -> list[dict[str, str]]:
    return [
        {"text": text, "answer": prompt.labels[prompt.gold], "category": prompt.category, "origin": prompt.origin}
        for text, prompt in zip(batch.texts, batch.prompts, strict=True)
    ]


def _arrays(findings: Findings) -> dict[str, np.ndarray]:
    """The per-prompt values of `results.safetensors`, named by what they are and their axes' order."""
    scores, groups = findings.scores, findings.groups
    arrays: dict[str, np.ndarray] = {
        "increase.attn": scores.increase.attn,
        "increase.mlp": scores.increase.mlp,
        "increase.heads": scores.increase.heads,
        "effects.heads": np.array(scores.effects.heads, dtype=np.int64),
        "selection.tokens": scores.batch.tokens.cpu().numpy(),
        "selection.gold": scores.batch.gold.cpu().numpy(),
        "evaluation.tokens": findings.evaluation.tokens.cpu().numpy(),
        "evaluation.gold": groups.gold,
        "evaluation.label_positions": findings.evaluation.label_positions.cpu().numpy(),
        "evaluation.demo_labels": findings.evaluation.demo_labels.cpu().numpy(),
        "positions.increase": findings.positions.increase,
        "positions.attention": findings.positions.attention,
        "random.heads": np.array(groups.random_heads, dtype=np.int64),
    }
    named = {"effects.base": scores.effects.base, "effects.zeroed": scores.effects.zeroed}
    named |= {
        "groups." + (f"label.{group.label}" if group.label else group.kind): group.answers for group in groups.groups
    }
    for name, answers in named.items():
        arrays |= {f"{name}.{field}": value for field, value in vars(answers).items()}
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}


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
            str(head.index),
            head.label,
            f"{head.log_prob_increase:.3f}",
            f"{head.accuracy_drop:+.3f}",
            f"{head.log_prob_drop:+.3f}",
        )
        for head in selected.heads
    ]
    columns = ("head", "label", "log-prob increase (nats)", "accuracy drop", "log-prob drop (nats)")
    return Table(columns, tuple(rows))


def _positions_table(findings: Findings) -> Table:
    """What each head reads and writes at the label positions, by whether they hold the gold label."""
    batch, found = findings.evaluation, findings.positions
    where = batch.label_positions.cpu().numpy()
    is_gold = batch.demo_labels.cpu().numpy() == batch.gold.cpu().numpy()[:, None]
    rows = []
    for place, head in enumerate(found.heads):
        cells = [str(head)]
        for values in (found.attention[:, place], found.increase[:, place]):
            at_labels = np.take_along_axis(values, where, axis=1)
            for kind in (is_gold, ~is_gold):
                per_prompt = np.where(kind, at_labels, 0).sum(axis=1)
                cells.append(f"{per_prompt.mean():.3f}")
        rows.append(tuple(cells))
    columns = ("head", "attention: gold label", "attention: other labels", "increase: gold", "increase: other")
    return Table(columns, tuple(rows))


def _views(findings: Findings) -> tuple[tuple[str, str], ...]:
    """An attention view of the selected heads for each viewed prompt, with its caption."""
    names = [str(head) for head in findings.positions.heads]
    views = []
    for row, tokens in enumerate(findings.tokens):
        caption = f"Prompt {row}: {findings.evaluation.texts[row]}"
        if (shown := heads_that_fit(len(tokens))) < len(names):
            caption += f" (the first {shown} of {len(names)} heads, to keep the page small)"
        pattern = findings.attention[row][:, : len(tokens), : len(tokens)]
        views.append((caption, attention_view(f"attention-{row}", [token.text for token in tokens], pattern, names)))
    return tuple(views)


def _page(findings: Findings, figures: Path) -> str:
    settings, where, selected = findings.settings, findings.provenance, findings.scores.selected
    n_scored = findings.scores.increase.heads[0].size
    groups = findings.groups
    (top1, between), (top1_zeroed, between_zeroed), (top1_random, between_random) = (
        (group.answers.top1.mean(), group.answers.between_labels.mean())
        for group in (groups.base, groups.all, groups.random)
    )
    return render_page(
        title=f"In-context heads of {where['name']}",
        summary=(
            f"Zeroing {len(selected.heads)} of {n_scored} heads ({len(selected.heads) / n_scored:.1%}) takes top-1 "
            f"accuracy from {top1:.1%} to {top1_zeroed:.1%}, and accuracy between the labels alone "
            f"from {between:.1%} to {between_zeroed:.1%}. As many random heads of the same layers (mean of "
            f"{len(groups.random_heads)} draws) leave {top1_random:.1%} and "
            f"{between_random:.1%}. Data: {where['data']}, labels "
            f"{', '.join(settings.labels)}, {settings.shots} demonstrations of each label, {settings.prompts} prompts "
            f"to select on and {settings.prompts} others to test on, seed {settings.seed}."
        ),
        sections=(
            Section(
                "Accuracy before and after",
                "Each group of heads is zeroed at once, in every position. Accuracy is counted over the whole "
                "vocabulary (top-1) and between the label words alone. In brackets: 95 % bootstrap intervals; "
                "the random control is averaged over its draws first.",
                accuracy_table(groups),
                figures / "accuracy.svg",
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
                _positions_table(findings),
            ),
            Section(
                "A prompt",
                "Boxed: label positions. Dashed: the last position, which gives the answer. Numbers: positions.",
                marked=findings.tokens[0],
            ),
            Section(
                "Attention of the in-context heads",
                "From each token (rows) to the tokens before it. Hover over a head to see it, click to keep it.",
                views=_views(findings),
            ),
            Section(
                "Provenance",
                "What produced these numbers.",
                Table(("what", "value"), tuple((key, json.dumps(value)) for key, value in where.items())),
            ),
        ),
    )
