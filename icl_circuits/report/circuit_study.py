"""The circuit through the selected heads, what it does alone, and a few prompts to see it on."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from icl_circuits.circuits import CURVES, Circuit, CircuitTest, evaluate_circuit, find_circuit, score_edges
from icl_circuits.errors import InputError
from icl_circuits.interventions import Capture, answer_logits
from icl_circuits.models import Head, LensModel, at_least_float32
from icl_circuits.prompts import PromptBatch, encode, reverse_labels
from icl_circuits.report.plan import Start
from icl_circuits.towers import LabelFeatures, label_features, tower_tokens, two_towers
from icl_circuits.viz import CircuitView, PromptRow, ShownRun, Table

PROMPTS = 32
"""How many test prompts the edges are scored on."""
SHOWN = 3
"""How many of them the page shows."""
TOP_TOKENS = 6


def circuit_study(start: Start) -> CircuitView:
    """Find the circuit on the first test prompts and on their label-reversed twins, and test it on the same prompts.

    Raises:
        InputError: what `find_circuit` and the studies of its heads raise.
    """
    model, heads, settings = start.model, start.heads, start.plan.settings
    batch = start.evaluation.select(range(min(PROMPTS, len(start.evaluation))))
    with start.timed("circuit"):
        circuit = find_circuit(model, batch, heads)
    with start.timed("label-reversed circuit"):
        twins = encode(model, [reverse_labels(prompt) for prompt in batch.prompts], separator=settings.separator)
        reversed_circuit = score_edges(model, twins, circuit.edges)
    with start.timed("circuit alone"):
        tested = evaluate_circuit(model, batch, start.scores.batch, heads, seed=settings.seed)
    with start.timed("prompts to see it on"):
        versions = (("original", batch, circuit), ("labels reversed", twins, reversed_circuit))
        rows = range(min(SHOWN, len(batch)))
        runs = [run for name, part, found in versions for run in _runs(model, part.select(rows), heads, found, name)]
    labels = {head.index: head.label for head in start.scores.selected.heads}
    return CircuitView(
        circuit=replace(circuit, provenance=start.provenance),
        heads=heads,
        head_labels=tuple(labels[head] for head in heads),
        labels=settings.labels,
        runs=tuple(runs),
        summary=_summary(start, len(batch)),
        tests=_table(tested),
    )


def _runs(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], circuit: Circuit, version: str
) -> list[ShownRun]:
    """What the page shows of each prompt of `batch`, the first prompts that `circuit` was scored on."""
    features = label_features(model, batch, heads)
    attention, raw = features.at_labels(features.attention), _raises_own_label(features)
    try:
        found = two_towers(model, batch, heads)
        towers = np.stack([found.score, found.content_score])
    except InputError:  # no equations for this model's scores
        towers = np.full((2, *attention.shape), np.nan)
    names = [f"blocks.{head.layer}.attn.hook_pattern" for head in heads]
    capture = Capture(tuple(dict.fromkeys(names)))
    answer_logits(model, batch, capture)
    patterns = [at_least_float32(capture.found[name][:, head.head]) for name, head in zip(names, heads, strict=True)]
    runs, segments = [], batch.segments.tolist()
    n_demos = batch.label_positions.shape[1]
    for i, prompt in enumerate(batch.prompts):
        n_pos = int(batch.last[i]) + 1
        tokens = [model.tokenizer.decode([token]) for token in batch.tokens[i, :n_pos].tolist()]
        special = {*batch.label_positions[i].tolist(), n_pos - 1}
        texts = [
            "".join(t for p, t in enumerate(tokens) if segments[i][p] == demo and p not in special)
            for demo in range(n_demos + 1)
        ]
        top = tower_tokens(model, batch, heads, prompt=i, n_tokens=TOP_TOKENS)
        top = top[top["kind"] == "value"]
        by_head = [tuple(top[(top["layer"] == h.layer) & (top["head"] == h.head)]["top"]) for h in heads]
        runs.append(
            ShownRun(
                title=f"Prompt {i + 1}",
                version=version,
                tokens=tuple(tokens),
                row=PromptRow(tuple(text.strip() for text in texts), tuple(demo.label for demo in prompt.demos)),
                answer=prompt.labels[prompt.gold],
                base=float(circuit.base[i]),
                scores=circuit.scores[:, i],
                attention=attention[i],
                raw=raw[i],
                towers=towers[:, i],
                top=tuple(by_head),
                patterns=torch.stack([pattern[i, :n_pos, :n_pos] for pattern in patterns]).cpu().numpy(),
            )
        )
    return runs


def _raises_own_label(features: LabelFeatures) -> Float[np.ndarray, "prompt selected demo"]:
    """The logit of each label position's own label less the mean of the others, under its value-output vector."""
    at_labels = np.take_along_axis(features.logits, features.label_positions[:, None, :, None], axis=2)
    own = np.take_along_axis(at_labels, features.demo_labels[:, None, :, None], axis=3)[..., 0]
    return own - (at_labels.sum(axis=3) - own) / (at_labels.shape[3] - 1)


def _summary(start: Start, n_prompts: int) -> str:
    return (
        f"{len(start.heads)} in-context heads of {start.provenance['name']}, and what reaches them: how the texts and "
        "labels of demonstrations become an answer. Every edge was cut on its own, in the exact sweep engine, on "
        f"{n_prompts} test prompts and on the same prompts with their labels reversed. {start.described}"
    )


def _table(tested: CircuitTest) -> Table:
    """Faithfulness and completeness by size."""
    frame = tested.to_frame()
    columns = ("heads", "these heads alone", "the model without them", "random heads alone")
    body = []
    for size in tested.sizes:
        rows = frame[frame["size"] == size].set_index("curve")
        cells = [
            f"{row[tested.metric]:+.2f} [{row[f'{tested.metric}_low']:+.2f}, {row[f'{tested.metric}_high']:+.2f}]"
            for row in (rows.loc[curve] for curve in CURVES)
        ]
        body.append((str(size), *cells))
    body.append(("all", f"{tested.whole.mean():+.2f}", f"{tested.empty.mean():+.2f}", ""))
    return Table(columns, tuple(body))
