"""The vocabulary projection of values, keys and queries at the positions that matter (arXiv 2402.02872, table 1)."""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, Place, has_mlp, readout, require_identities
from icl_circuits.prompts import PromptBatch, require_labels
from icl_circuits.residual import Capture, Head, HeadLike, answer_logits, final_state, require_some_heads
from icl_circuits.towers.ov import value_outputs


@torch.no_grad()
def tower_tokens(
    model: LensModel, batch: PromptBatch, heads: Sequence[HeadLike], *, prompt: int = 0, n_tokens: int = 10
) -> pd.DataFrame:
    """Top and bottom tokens of what each head reads and moves in one prompt, `bs(.)` under the final frozen scale.

    `value` is `alpha_p vo_p` at a label position. `key` is what earlier attention has moved there, which is
    `h_p - h^0_p - sum MLP_p`. `query` is the same at the answer position. `input` is the whole state that enters the
    layer.

    Args:
        model: the model.
        batch: the prompts.
        heads: the heads to show.
        prompt: which prompt of the batch.
        n_tokens: how many tokens to show at either end.

    Returns:
        One row a head, kind and position: the token there, attention to it, `top` and `bottom`, tuples of token texts.

    Raises:
        InputError: a head or a prompt that does not exist, or prompts that `encode` did not make.
        Unfit: an identity fails that this rests on (`require_identities`).
    """
    require_labels(batch, "to show the tokens at")
    heads = require_some_heads(model, heads)
    if not 0 <= prompt < len(batch):
        raise InputError(f"prompt {prompt} does not exist: there are prompts 0..{len(batch) - 1}")
    one = batch.select([prompt])
    require_identities(model, one.tokens, one.last, "layers", "readout")
    out, depth = readout(model), max(head.layer for head in heads)
    places: list[Place] = [("resid_pre", layer) for layer in range(depth + 1)]
    places += [("mlp_out", layer) for layer in range(depth if has_mlp(model) else 0)]
    capture = Capture([*places, final_state(model)])
    at_last = Capture([("pattern", head.layer) for head in heads], one.last)
    answer_logits(model, one, capture, at_last)
    last, labels = int(one.last[0]), one.label_positions[0].tolist()
    scale = out.norm.scale(capture.at(*final_state(model))[0, last])

    def described(head: Head, kind: str, position: int, vector: Tensor) -> dict[str, object]:
        order = out.project(vector, scale).argsort(descending=True).tolist()
        top, bottom = order[:n_tokens], order[: -n_tokens - 1 : -1]
        return {
            "layer": head.layer,
            "head": head.head,
            "kind": kind,
            "position": position,
            "token": model.tokenizer.decode([int(one.tokens[0, position])]),
            "attention": float(at_last.of(model, "pattern", head)[0, position]),
            "top": tuple(model.tokenizer.decode([token]) for token in top),
            "bottom": tuple(model.tokenizer.decode([token]) for token in bottom),
        }

    rows = []
    for head, (_, of_head) in zip(heads, value_outputs(model, one, heads), strict=True):
        resid_pre = capture.at("resid_pre", head.layer)[0]
        moved = resid_pre - capture.at("resid_pre", 0)[0]
        if has_mlp(model):
            moved = moved - sum(capture.at("mlp_out", layer)[0] for layer in range(head.layer))
        weighted = of_head[0]
        attended = ("key", moved), ("query", moved)  # nothing in layer 0
        at_labels = [("value", weighted), *attended[: 1 if head.layer else 0]]
        rows += [described(head, kind, position, v[position]) for position in labels for kind, v in at_labels]
        at_end = [*attended[1 if head.layer else 2 :], ("input", resid_pre)]
        rows += [described(head, kind, last, v[last]) for kind, v in at_end]
    return pd.DataFrame(rows)


@torch.no_grad()
def value_tokens(
    model: LensModel, batch: PromptBatch, values: Float[Tensor, "batch src_pos d_model"], *, n_tokens: int = 6
) -> list[tuple[tuple[str, ...], ...]]:
    """For each prompt and label position, the tokens that a head's value-output vector there raises most.

    Their order does not depend on the final norm's scale, but a norm that centres takes the mean off.

    Args:
        model: the model.
        batch: the prompts.
        values: the head's raw value-output vectors (`value_output`).
        n_tokens: how many tokens to give.
    """
    at_labels = values[torch.arange(len(batch), device=values.device)[:, None], batch.label_positions]
    logits = readout(model).project(at_labels, torch.ones_like(at_labels[..., :1]))
    best = logits.topk(min(n_tokens, logits.shape[-1])).indices.tolist()
    return [tuple(tuple(model.tokenizer.decode([token]) for token in tokens) for tokens in demos) for demos in best]
