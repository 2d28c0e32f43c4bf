"""The circuit through the selected heads, what it does alone, and a few prompts to see it on."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.circuits import Circuit, evaluate_circuit, find_circuit, score_edges
from icl_circuits.errors import Unfit
from icl_circuits.interventions import Capture, answer_logits
from icl_circuits.models import Head, LensModel, at_least_float32, readout
from icl_circuits.prompts import PromptBatch, encode, reverse_labels
from icl_circuits.report.plan import Start
from icl_circuits.towers import label_features, two_towers, value_outputs
from icl_circuits.viz import CircuitView, PromptRow, ShownRun

PROMPTS = 32
"""How many test prompts the edges are scored on, and how many selection prompts upstream components are chosen on."""
SHOWN = 3
"""How many test prompts the page shows."""
TOP_TOKENS = 6
SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Sizes of the circuits that are run alone, as shares of the model's heads, besides the selected ones."""


def circuit_study(start: Start) -> CircuitView:
    """Find the circuit on the first test prompts, score it on their label-reversed twins too, and run its heads alone.

    Raises:
        InputError: what `find_circuit` and the studies of its heads raise.
    """
    model, heads, settings = start.model, start.heads, start.plan.settings
    batch = start.evaluation.select(range(min(PROMPTS, len(start.evaluation))))
    selection = start.scores.batch.select(range(min(PROMPTS, len(start.scores.batch))))
    with start.timed("circuit"):
        circuit = find_circuit(model, batch, heads, choose_on=selection)
    with start.timed("label-reversed circuit"):
        twins = encode(model, [reverse_labels(prompt) for prompt in batch.prompts], separator=settings.separator)
        reversed_circuit = score_edges(model, twins, circuit.edges)
    with start.timed("heads alone"):
        ranked = _ranked(start)
        sizes = sorted({len(heads), *(round(share * len(ranked)) for share in SHARES)} - {0})
        tested = evaluate_circuit(model, batch, start.scores.batch, ranked, sizes=sizes, seed=settings.seed)
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
        summary=_summary(start, circuit),
        reversed=replace(reversed_circuit, provenance=start.provenance),
        test=tested,
    )


def _ranked(start: Start) -> tuple[Head, ...]:
    """The selected heads, then all others by what zeroing them at the answer position loses, most first."""
    effects = start.scores.effects
    order = np.argsort(-effects.logit_diff_drop.mean(axis=1), kind="stable")
    return (*start.heads, *(effects.heads[i] for i in order if effects.heads[i] not in start.heads))


def _runs(
    model: LensModel, batch: PromptBatch, heads: tuple[Head, ...], circuit: Circuit, version: str
) -> list[ShownRun]:
    """What the page shows of each prompt of `batch`, the first prompts that `circuit` was scored on."""
    features = label_features(model, batch, heads)
    attention, raw = features.at_labels(features.attention), features.raises_own()
    try:
        found = two_towers(model, batch, heads)
        towers = np.stack([found.score, found.content_score])
    except Unfit:  # no equations for this model's scores
        towers = np.full((2, *attention.shape), np.nan)
    names = [f"blocks.{head.layer}.attn.hook_pattern" for head in heads]
    capture = Capture(tuple(dict.fromkeys(names)))
    answer_logits(model, batch, capture)
    patterns = [at_least_float32(capture.found[name][:, head.head]) for name, head in zip(names, heads, strict=True)]
    top = [_top_tokens(model, batch, of_head) for of_head, _ in value_outputs(model, batch, heads)]
    runs = []
    for i, prompt in enumerate(batch.prompts):
        n_pos = int(batch.last[i]) + 1
        runs.append(
            ShownRun(
                title=f"Prompt {i + 1}",
                version=version,
                tokens=tuple(model.tokenizer.decode([token]) for token in batch.tokens[i, :n_pos].tolist()),
                row=PromptRow(
                    (*(demo.text for demo in prompt.demos), prompt.query), tuple(demo.label for demo in prompt.demos)
                ),
                answer=prompt.labels[prompt.gold],
                base=float(circuit.base[i]),
                scores=circuit.scores[:, i],
                attention=attention[i],
                raw=raw[i],
                towers=towers[:, i],
                top=tuple(of_head[i] for of_head in top),
                patterns=torch.stack([pattern[i, :n_pos, :n_pos] for pattern in patterns]).cpu().numpy(),
            )
        )
    return runs


def _top_tokens(
    model: LensModel, batch: PromptBatch, raw: Float[Tensor, "batch src_pos d_model"]
) -> list[tuple[tuple[str, ...], ...]]:
    """For each prompt, the tokens that a head's value-output vector at each label position raises most.

    Their order does not depend on the final norm's scale, but a norm that centres takes the mean off.
    """
    at_labels = raw[torch.arange(len(batch), device=raw.device)[:, None], batch.label_positions]
    logits = readout(model).project(at_labels, torch.ones_like(at_labels[..., :1]))
    best = logits.topk(min(TOP_TOKENS, logits.shape[-1])).indices.tolist()
    return [tuple(tuple(model.tokenizer.decode([token]) for token in tokens) for tokens in demos) for demos in best]


def _summary(start: Start, circuit: Circuit) -> str:
    missing = "" if any(edge.sender.kind == "text" for edge in circuit.edges) else (
        "Edges from texts are missing: attention of this model cannot be cut. "
    )  # fmt: skip
    return (
        f"{len(start.heads)} in-context heads of {start.provenance['name']}, and what reaches them: how the texts and "
        f"labels of demonstrations become an answer. Each edge was cut or made neutral on its own, on "
        f"{len(circuit.base)} test prompts and on the same prompts with their labels reversed. {missing}"
        f"{start.described}"
    )
