"""Whether the small model learns in context: prompts with something that those of its training had not."""

import numpy as np
import torch
from jaxtyping import Bool

from icl_circuits.small.language import Language
from icl_circuits.small.model import SmallModel
from icl_circuits.small.texts import Form, questions

KINDS = (
    "as in training",
    "unseen pairs of classes",
    "unseen words",
    "unseen labels",
    "unseen classes",
)
"""What is new in a prompt, beside those of training."""


@torch.no_grad()
def right(
    model: SmallModel, language: Language, *, n: int = 500, shots: int = 4, form: Form = "line", seed: int = 0
) -> dict[str, Bool[np.ndarray, " prompt"]]:
    """By what was held out, whether the likeliest next token of each prompt is the right label."""
    found = {}
    for name, choice in language.choices.items():
        prompts, answers = questions(language, np.random.default_rng([seed, 2]), choice, n, shots, form)
        logits = model(torch.from_numpy(prompts))[:, -1]
        found[name] = logits.argmax(-1).numpy() == answers
    return found
