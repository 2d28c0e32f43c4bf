"""Every public analysis on one model, held to the model's own activations: exact, by the plain path, or refused."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import icl_circuits as icl
from icl_circuits import subvalues, towers
from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, attention_weights, kv_head, mlp_weights, readout
from icl_circuits.prompts import PromptBatch
from icl_circuits.residual import Capture
from icl_circuits.towers.flow import route_edges

CLOSE = 2e-3
"""How far a sum of rounded terms may be off, beside the largest value."""


class Plain:
    """One run of TransformerLens alone: its cache and its logits at the answer positions."""

    def __init__(self, model: LensModel, batch: PromptBatch) -> None:
        with torch.no_grad():
            logits, self.cache = model.run_with_cache(batch.tokens)
        self.rows = torch.arange(len(batch))
        self.logits, self.last = logits[self.rows, batch.last], batch.last

    def at_last(self, name: str) -> Tensor:
        return self.cache[name][self.rows, self.last].double()

    def log_attention(self, batch: PromptBatch, head: icl.Head) -> Tensor:
        pattern = self.cache[f"blocks.{head.layer}.attn.hook_pattern"][:, head.head]
        return pattern[self.rows[:, None], self.last[:, None], batch.label_positions].double().log()


def heads_of(model: LensModel, layer: int) -> list[icl.Head]:
    return [icl.Head(layer, head) for head in range(model.cfg.n_heads)]


def close(found: Any, expected: Any, tolerance: float = CLOSE) -> None:
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-3))


def log_prob_increase(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """From the embedding's own log-probability, the layers' increases lead to the final state's."""
    found, out, last = icl.log_prob_increase(model, batch), readout(model), model.cfg.n_layers - 1
    final = plain.at_last(f"blocks.{last}.hook_resid_post").float()
    start, end = plain.at_last("blocks.0.hook_resid_pre").float(), plain.logits
    scale = out.norm.scale(final)
    end = (end - out.norm.bias @ out.W_U if out.softcap is None else out.log_probs(final, scale)).log_softmax(-1)
    gained = [x[plain.rows, batch.target] for x in (end, out.log_probs(start, scale))]
    close((found.attn + found.mlp).sum(1), gained[0] - gained[1])
    for layer in (0, last):
        before, attn_out = (plain.at_last(f"blocks.{layer}.hook_{s}").float() for s in ("resid_pre", "attn_out"))
        changes = [out.log_probs(state, scale)[plain.rows, batch.target] for state in (before + attn_out, before)]
        close(found.attn[:, layer], changes[0] - changes[1])


def position_increase(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    heads = [icl.Head(1, 0), icl.Head(model.cfg.n_layers - 1, 3)]
    found = icl.position_increase(model, batch, heads)
    for place, head in enumerate(heads):
        at_labels = np.take_along_axis(found.attention[:, place], batch.label_positions.numpy(), 1)
        close(at_labels, plain.log_attention(batch, head).exp())
    assert np.isfinite(found.increase[0, :, : int(batch.last[0]) + 1]).all()


def value_outputs(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """What all heads of a layer move adds up to what attention writes, but for what no position moves: the biases."""
    for layer in range(model.cfg.n_layers):
        moved = towers.value_outputs(model, batch, heads_of(model, layer))
        weights, z = attention_weights(model, layer), plain.at_last(f"blocks.{layer}.attn.hook_z").float()
        total = sum(weighted.sum(1) for _, weighted in moved) + weights.bias(weights.outlet_scale(z))
        close(total, plain.at_last(f"blocks.{layer}.hook_attn_out"))


def label_features(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """The label logits of a head's value-output vectors, by each vector's own projection."""
    head, out = icl.Head(1, 2), readout(model)
    found = icl.label_features(model, batch, [head])
    raw, _ = icl.value_output(model, batch, head)
    scale = out.norm.scale(plain.at_last(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post").float())
    expected = out.project(raw, scale[:, None])[..., batch.label_tokens]
    text = batch.is_text
    close(found.logits[:, 0][text.numpy()], expected[text])


def same_differences(found: Any, expected: Tensor) -> None:
    """Attention is softmax(score), so differences of scores are differences of log-attention."""
    seen = torch.isfinite(expected).all(-1)
    centred = [x[seen] - x[seen].mean(-1, keepdim=True) for x in (torch.as_tensor(found).double(), expected)]
    if seen.any():
        close(*centred)


def two_towers(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    heads = [head for layer in range(model.cfg.n_layers) for head in heads_of(model, layer)]
    towers = icl.two_towers(model, batch, heads)
    for place, head in enumerate(heads):
        same_differences(towers.score[:, place], plain.log_attention(batch, head))
    assert np.isfinite(icl.metric_learning(towers, draws=2).auc).any()
    assert np.isfinite(icl.qk_spectrum(model, towers).features).all()


def tower_reads(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """What earlier components add to a score adds up to it, on either tower's side."""
    heads = heads_of(model, model.cfg.n_layers - 1)
    reads = icl.tower_reads(model, batch, heads)
    for side in range(2):
        parts = reads.by_component[side].sum(-1)
        close(parts, reads.score)
        for place, head in enumerate(heads):
            same_differences(parts[:, place], plain.log_attention(batch, head))


def tower_tokens(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    assert len(icl.tower_tokens(model, batch, [icl.Head(1, 0)], n_tokens=3))


def ov_circuits(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """The value-output matrix of a head, on the state that one position gives it, is what it moves from there."""
    found = icl.ov_circuits(model, [icl.Head(0, 1)])
    assert -1 <= found.copying_score[0] <= 1


def by_hand(model: LensModel, batch: PromptBatch, hooks: list[Any]) -> Tensor:
    with torch.no_grad():
        return model.run_with_hooks(batch.tokens, fwd_hooks=hooks)[torch.arange(len(batch)), batch.last].double()


def logit_diff(logits: Tensor, batch: PromptBatch) -> Tensor:
    labels = logits[:, batch.label_tokens]
    own = labels.gather(1, batch.gold[:, None])[:, 0]
    others = labels.scatter(1, batch.gold[:, None], -torch.inf)
    return own - others.amax(1)


def sweep(model: LensModel, batch: PromptBatch, plain: Plain) -> str | None:
    """Zeroing each head in one sweep, beside forward passes with hooks."""
    found = icl.sweep(model, batch, "z", positions="all", replacement=icl.Zero())
    frame = found.to_frame()
    for row in (0, 2 * model.cfg.n_heads + 3):
        layer, head = int(frame["layer"][row]), int(frame["head"][row])

        def zero(z: Tensor, hook: Any, head: int = head) -> Tensor:
            z = z.clone()
            z[:, :, head] = 0
            return z

        expected = by_hand(model, batch, [(f"blocks.{layer}.attn.hook_z", zero)])
        close(found.values[row], logit_diff(expected, batch), 1e-3)
    return found.fallback


def attribution(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    found = icl.attribute(model, batch, "z", positions="all", replacement=icl.Zero())
    assert np.isfinite(found.values).all()


def path_patching(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """The path from a head to the logits, by setting the final state by hand."""
    head, last = icl.Head(1, 1), model.cfg.n_layers - 1
    zeroed = icl.path_patch(model, batch, senders=[head], receivers=[], logits=True)
    changed: dict[str, Tensor] = {}

    def zero(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[plain.rows, plain.last, head.head] = 0
        return z

    def read(x: Tensor, hook: Any) -> None:
        changed["attn_out"] = x[plain.rows, plain.last].clone()

    by_hand(model, batch, [(f"blocks.{head.layer}.attn.hook_z", zero), (f"blocks.{head.layer}.hook_attn_out", read)])
    change = changed["attn_out"] - plain.at_last(f"blocks.{head.layer}.hook_attn_out")

    def add(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[plain.rows, plain.last] += change.to(x)
        return x

    expected = by_hand(model, batch, [(f"blocks.{last}.hook_resid_post", add)])
    close(zeroed.values[0], logit_diff(expected, batch), 1e-3)


def without_position(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """With no share of the way gone, nothing changes."""
    heads = tuple(heads_of(model, 1))
    same = icl.answer_logits(model, batch, icl.WithoutPosition(heads, strength=0.0))
    close(same, plain.logits, 1e-4)
    assert torch.isfinite(icl.answer_logits(model, batch, icl.WithoutPosition(heads))).all()


def knock_out(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """Attention to the labels cut: the pattern has none left."""
    edges = route_edges(batch, "labels -> last")
    seen = Capture([("pattern", 1)], batch.last)
    icl.answer_logits(model, batch, icl.KnockOut((1,), edges), seen)
    at_labels = batch.label_positions[:, None].expand(-1, model.cfg.n_heads, -1)
    assert float(seen.found["pattern", 1].gather(2, at_labels).abs().max()) < 1e-6


def gained(model: LensModel, batch: PromptBatch, plain: Plain, before: Tensor, written: Tensor) -> Tensor:
    """What a vector adds to the log-probability of the target, under the final scale."""
    out, final = readout(model), plain.at_last(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post").float()
    with_it, without = (out.log_probs(state, out.norm.scale(final)) for state in (before + written, before))
    return (with_it - without)[plain.rows, batch.target]


def ffn_values(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """FFN neurons of the first and the last layer, each added to the state by hand: two of them, and the best."""
    scores, found, expected = subvalues.score_neurons(model, batch).score, [], []
    for layer in (0, model.cfg.n_layers - 1):
        weights = mlp_weights(model, layer)
        before, attn_out = (plain.at_last(f"blocks.{layer}.hook_{s}").float() for s in ("resid_pre", "attn_out"))
        post = plain.at_last(f"blocks.{layer}.mlp.hook_post").float()
        for neuron in (0, 7, int(np.abs(scores[:, layer]).max(0).argmax())):
            vector = post[:, neuron, None] * weights.W_out[neuron]
            written = weights.outlet.linear(vector, weights.outlet_scale(post))
            found.append(scores[:, layer, neuron])
            expected.append(gained(model, batch, plain, before + attn_out, written).numpy())
    close(found, expected)


def attention_values(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    """The same of attention neurons, at the first and the last source position that all prompts have."""
    scores, found, expected = subvalues.score_neurons(model, batch, "attention").score, [], []
    for layer in (0, model.cfg.n_layers - 1):
        weights, z = attention_weights(model, layer), plain.at_last(f"blocks.{layer}.attn.hook_z").float()
        before = plain.at_last(f"blocks.{layer}.hook_resid_pre").float()
        pattern, v = (plain.cache[f"blocks.{layer}.attn.hook_{site}"].float() for site in ("pattern", "v"))
        best = int(np.abs(np.nan_to_num(scores[:, layer])).max((0, 2)).argmax())
        for number in (0, model.cfg.d_head + 2, best):
            head, dimension = divmod(number, model.cfg.d_head)
            for source in (0, int(batch.last.min())):
                alpha = pattern[plain.rows, head, plain.last, source]
                value = alpha * v[:, source, kv_head(model, head), dimension]
                vector = value[:, None] * weights.W_O[head, dimension]
                written = weights.outlet.linear(vector, weights.outlet_scale(z))
                found.append(scores[:, layer, number, source])
                expected.append(gained(model, batch, plain, before, written).numpy())
    close(found, expected)


def query_importance(model: LensModel, batch: PromptBatch, plain: Plain) -> None:
    for kind in ("ffn", "attention"):
        values = subvalues.top_neurons(model, batch, kind, k=5)
        found = subvalues.query_importance(model, batch, values, k=10)
        for part in (found.embed, found.attn, found.mlp, found.score, found.coefficient):
            assert np.isfinite(part).all()


ANALYSES: dict[str, tuple[Callable[[LensModel, PromptBatch, Plain], str | None], ...]] = {
    "increase": (log_prob_increase, position_increase),
    "label features": (value_outputs, label_features, ov_circuits),
    "two towers": (two_towers, tower_tokens),
    "tower reads": (tower_reads,),
    "sweep": (sweep, attribution),
    "paths": (path_patching,),
    "scores changed": (without_position, knock_out),
    "subvalues": (ffn_values, attention_values, query_importance),
}
"""Each analysis returns why it took the plain path, if it did."""

REASONS = {
    r"identity '(\w+)'": r"\1",
    "no MLP whose neurons could be read": "MLPs",
    "so no FFN neurons": "no MLP",
    "norms its queries and keys": "norms",
    "caps its attention scores": "cap",
    "does not compute with the attention scores": "hooks",
    "no hook point|never fired": "hooks",
    "sees what comes later": "encoder",
    "neither rotary nor learned": "position",
    "cannot be patched exactly|equations|lacks a part|rotary angles|cannot be told apart": "equations",
    "W_Q, W_K, W_V and W_O for each head|the place to write has": "shapes",
}
"""What a refusal says, and the word that the table of the documentation has for it."""


def outcome(model: LensModel, batch: PromptBatch, plain: Plain, group: str) -> str:
    """`exact`, `plain path`, or `refused` and a word for why."""
    words = []
    for analyse in ANALYSES[group]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                words.append("exact" if analyse(model, batch, plain) is None else "plain path")
        except InputError as error:
            words.append(f"refused ({_reason(str(error))})")
    return " / ".join(dict.fromkeys(words))


def _reason(message: str) -> str:
    for pattern, word in REASONS.items():
        found = re.search(pattern, message)
        if found:
            return found.expand(word)
    raise AssertionError(f"a refusal that the table has no word for: {message}")
