"""What the interactive page shows of a prompt: attention, towers and values of each head, the score of each edge."""

import numpy as np
from jaxtyping import Bool

from icl_circuits.circuits import Circuit
from icl_circuits.errors import Unfit
from icl_circuits.heads import attention_patterns
from icl_circuits.models import LensModel
from icl_circuits.prompts import PromptBatch
from icl_circuits.residual import Head
from icl_circuits.towers import label_features, two_towers, value_outputs, value_tokens
from icl_circuits.viz import PromptRow, ShownRun


def shown_runs(
    model: LensModel,
    batch: PromptBatch,
    right: Bool[np.ndarray, " prompt"],
    heads: tuple[Head, ...],
    circuit: Circuit,
    version: str,
) -> list[ShownRun]:
    """What the page shows of each prompt of `batch`, the first prompts that `circuit` was scored on.

    `right` says which of them the model answers right.
    """
    features = label_features(model, batch, heads)
    attention, raw = features.at_labels(features.attention), features.raises_own()
    try:
        found = two_towers(model, batch, heads)
        towers = np.stack([found.score, found.content_score])
    except Unfit:  # no equations for this model's scores
        towers = np.full((2, *attention.shape), np.nan)
    patterns = attention_patterns(model, batch, heads)
    top = [value_tokens(model, batch, raw_values) for raw_values, _ in value_outputs(model, batch, heads)]
    runs = []
    for i, prompt in enumerate(batch.prompts):
        n_pos = int(batch.last[i]) + 1
        runs.append(
            ShownRun(
                title=f"Prompt {i + 1}",
                version=version,
                tokens=tuple(model.tokenizer.decode([token]) for token in batch.tokens[i, :n_pos].tolist()),
                row=PromptRow.of(prompt),
                answer=prompt.labels[prompt.gold],
                right=bool(right[i]),
                base=float(circuit.base[i]),
                scores=circuit.scores[:, i],
                attention=attention[i],
                raw=raw[i],
                towers=towers[:, i],
                top=tuple(of_head[i] for of_head in top),
                patterns=patterns[i, :, :n_pos, :n_pos],
            )
        )
    return runs
