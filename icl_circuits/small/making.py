"""The small model with its history as a folder: checkpoints, a training curve, texts of its language, a model card."""

import csv
from dataclasses import asdict
from pathlib import Path

import torch

from icl_circuits.errors import require_whole
from icl_circuits.small.check import KINDS, right
from icl_circuits.small.corpus import write_texts
from icl_circuits.small.language import Language
from icl_circuits.small.model import SmallModel, write_checkpoint
from icl_circuits.small.training import STEPS, Progress, train

BETWEEN = 100
"""Steps between two checkpoints."""
SEED = 1
"""Of the model that comes with the package."""
CHECKED = 500
"""Prompts of each kind at each checkpoint."""
CURVE, CARD = "training.csv", "README.md"
THREADS = 2
"""The same number everywhere, since sums depend on it."""


def train_small(folder: Path, *, steps: int = STEPS, seed: int = SEED) -> None:
    """Train the small model from scratch, and write everything into an empty folder.

    On one machine and version of PyTorch the same seed gives the same bytes. With 2 cores it takes some six minutes.

    Args:
        folder: gets `step-000000` and so on, Hugging Face folders; `training.csv`, the losses and the accuracy on what
            was held out; texts for analyses; a model card.
        steps: how many batches.
        seed: of weights and texts; 1 is that of the package. The language is the same for all.

    Raises:
        InputError: too few steps, or a negative seed.
    """
    require_whole(steps, 1, f"steps is {steps}: ask for at least 1")
    require_whole(seed, 0, f"seed is {seed}: give a whole number, 0 or more")
    language, rows = Language(), list[dict[str, int | float]]()
    at = [*range(0, steps, BETWEEN), steps]
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    try:

        def seen(step: int, model: SmallModel, progress: Progress | None) -> None:
            write_checkpoint(model, language, folder / f"step-{step:06d}")
            shares = {name: float(found.mean()) for name, found in right(model, language, n=CHECKED).items()}
            rows.append({"step": step, **(asdict(progress) if progress else {}), **shares})

        train(language, steps=steps, seed=seed, at=at, seen=seen)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    with (folder / CURVE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows({name: round(value, 4) for name, value in row.items()} for row in rows)
    write_texts(language, folder)
    (folder / CARD).write_text(_card(rows, steps, seed), encoding="utf-8")


def _card(rows: list[dict[str, int | float]], steps: int, seed: int) -> str:
    """The model card."""
    held_out = "".join(f"| {name} | {value:.1%} |\n" for name, value in rows[-1].items() if name in KINDS)
    return f"""# icl-small

A language model of a million parameters that learns labels in context. It has 4 layers of 4 heads, in the shape of
Qwen 2 (rotary embedding, RMS norms, gated neurons).

It was trained by `icl-circuits train-small` for {steps:,} steps with seed {seed}. It knows a made-up language of whole
words in classes: sentences, lists, facts, and prompts such as `dog : foo` and `apple : bar`, each on a line of its own.

<!-- --8<-- [start:held_out] -->
How often the likeliest next token is the right label, after 4 demonstrations of each of two labels
({CHECKED} prompts a row; half of them would be right by guessing one of the two):

| what is new in the prompt | right |
| --- | --- |
{held_out}
Unseen words, labels and classes were in no prompt of training, neither in demonstrations nor in word pairs of facts.
The two classes of an unseen pair met in none.
<!-- --8<-- [end:held_out] -->

`{CURVE}` holds the losses (nats) and these shares at every checkpoint. Each `step-` folder is a Hugging Face model.
The tokenizer is what its `tokenizer.json` says. `load_model` of icl_circuits reads it so. transformers' `AutoTokenizer`
takes that of Qwen 2 for it, so use `PreTrainedTokenizerFast`.

The weights may be used under the licence of icl_circuits. The model knows nothing of the world.
"""
