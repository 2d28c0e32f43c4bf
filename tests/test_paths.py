"""Path patching equals three passes of plain hooks, edge by edge; attribution equals gradient times difference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import tiny_config
from conftest import loaded, save_model, save_tokenizer
from test_engine import twin_of
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions import Interchange, ScaleScores, Zero, intervene
from icl_circuits.models import LensModel, attention_weights, is_parallel, kv_head, n_kv_heads
from icl_circuits.patching import Cell, Paths, Sweep, agreement, attribute, attribute_paths, path_patch, run_each, sweep
from icl_circuits.prompts import PromptBatch, Rows, encode, sample_prompts, zero_shot
from icl_circuits.residual import Edge, Embedding, Head, Logits, Mlp

SENDERS = (Embedding(), Head(0, 1), Mlp(0), Head(1, 3), Mlp(1))


class Plain:
    """The three passes of path patching for one edge, with hooks and nothing else."""

    def __init__(self, model: LensModel, base: PromptBatch, source: PromptBatch | None, at: Tensor) -> None:
        self.model, self.batch, self.at = model, base, at
        self.rows = torch.arange(len(base))[:, None]
        with torch.no_grad():
            _, self.cache = model.run_with_cache(base.tokens)
            self.other = None if source is None else model.run_with_cache(source.tokens)[1]

    def run(self, hooks: list[tuple[str, Any]]) -> Tensor:
        with torch.no_grad():
            return self.model.run_with_hooks(self.batch.tokens, fwd_hooks=hooks)

    def value(self, name: str) -> Tensor:
        """A replacement of a whole activation: the other run's, or zero, at the chosen positions."""
        new = self.cache[name].clone()
        new[self.rows, self.at] = 0.0 if self.other is None else self.other[name][self.rows, self.at]
        return new

    def frozen(self, sender: Any, through_mlps: bool) -> list[tuple[str, Any]]:
        """Second pass: the sender replaced, every other head (and MLP) as in the base run."""
        hooks: list[tuple[str, Any]] = []
        if sender == Embedding():
            hooks.append(("blocks.0.hook_resid_pre", lambda x, hook: self.value("blocks.0.hook_resid_pre")))
        for layer in range(self.model.cfg.n_layers):
            z_name, mlp_name = f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_mlp_out"
            z = self.cache[z_name].clone()
            if isinstance(sender, Head) and sender.layer == layer:
                z[:, :, sender.head] = self.value(z_name)[:, :, sender.head]
            hooks.append((z_name, lambda x, hook, z=z: z.clone()))
            if sender == Mlp(layer):
                value = self.value(mlp_name)
                hooks.append((mlp_name, lambda x, hook, value=value: value))
            elif not through_mlps:
                hooks.append((mlp_name, lambda x, hook, value=self.cache[mlp_name]: value.clone()))
        return hooks

    def edge(self, edge: Edge, kind: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The answer logits with the edge patched, and the receiver's z in the third pass."""
        hooks = self.frozen(edge.sender, kind == "through_mlps")
        last = (torch.arange(len(self.batch)), self.batch.last)
        if isinstance(edge.receiver, Logits):
            return self.run(hooks)[last], {}
        name = f"blocks.{edge.receiver.layer}.attn.hook_{edge.input}"
        seen: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: object) -> None:
            seen[edge.input or ""] = x.clone()

        self.run([*hooks, (name, keep)])
        head = edge.receiver.head

        def put(x: Tensor, hook: object) -> Tensor:
            x = x.clone()
            x[self.rows, self.at, head] = seen[edge.input or ""][self.rows, self.at, head]
            return x

        def keep_z(x: Tensor, hook: object) -> None:
            seen["z"] = x.clone()

        logits = self.run([(name, put), (f"blocks.{edge.receiver.layer}.attn.hook_z", keep_z)])
        return logits[last], seen


def difference(logits: Tensor, batch: PromptBatch) -> Tensor:
    return (1 - 2 * batch.gold) * (logits[:, batch.label_tokens[0]] - logits[:, batch.label_tokens[1]])


@pytest.mark.parametrize("kind", ["direct", "through_mlps"])
@pytest.mark.parametrize(("positions", "inputs"), [("last", ("q", "k", "v")), ("labels", ("k", "v")), ("all", ("q",))])
@pytest.mark.parametrize("replacement", ["zero", "run"])
def test_every_edge_equals_three_passes(
    model: LensModel, words: Rows, kind: Any, positions: Any, inputs: Any, replacement: str
) -> None:
    clean, corrupted = twin_of(model, words)
    source = corrupted if replacement == "run" else None
    found = path_patch(
        model,
        clean,
        senders=SENDERS,
        inputs=inputs,
        logits=True,
        positions=positions,
        replacement=Zero() if source is None else Interchange(source),
        kind=kind,
    )
    at = {"last": clean.last[:, None], "labels": clean.label_positions}.get(
        positions, torch.arange(clean.tokens.shape[1]).repeat(5, 1)
    )
    plain = Plain(model, clean, source, at)
    below = {0: 1, 1: 3, 2: 5}  # senders that reach each layer
    n_heads = {name: model.cfg.n_heads if name == "q" else n_kv_heads(model) for name in inputs}
    assert len(found.edges) == 5 + sum(below[layer] * n_heads[name] for layer in range(3) for name in inputs)
    chosen = [i for i, edge in enumerate(found.edges) if isinstance(edge.receiver, Logits) or edge.receiver.head == 1]
    moved = 0.0
    for i in chosen[::2] + chosen[-1:]:
        logits, seen = plain.edge(found.edges[i], kind)
        expected = difference(logits, clean).numpy()
        np.testing.assert_allclose(
            found.values[i], expected, atol=1e-4 * found.logit_scale, err_msg=str(found.edges[i])
        )
        moved = max(moved, np.abs(found.effect[i]).max())
        if seen:
            _require_effects_on_the_receiver(model, clean, plain, found, i, seen)
    assert moved > (0 if positions == "all" or replacement == "run" else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["direct", "through_mlps"])
@pytest.mark.parametrize("name", ["Gemma2ForCausalLM", "Olmo2ForCausalLM", "GraniteForCausalLM"])
def test_paths_lead_through_post_norms_and_multipliers(tmp_path: Path, words: Rows, name: str, kind: Any) -> None:
    """A head's change goes through the post-norm as it is, not as if the norm were linear."""
    save_model(tmp_path, tiny_config(name, save_tokenizer(tmp_path)))
    model = loaded(tmp_path, "bridge")
    clean, corrupted = twin_of(model, words)
    receivers = [Head(2, 1), Head(3, 0)]
    found = path_patch(
        model,
        clean,
        senders=SENDERS,
        receivers=receivers,
        logits=True,
        positions="all",
        replacement=Interchange(corrupted),
        kind=kind,
    )
    plain = Plain(model, clean, corrupted, torch.arange(clean.tokens.shape[1]).repeat(len(clean), 1))
    for edge, values in zip(found.edges, found.values, strict=True):
        logits, _ = plain.edge(edge, kind)
        expected = difference(logits, clean).numpy()
        np.testing.assert_allclose(values, expected, atol=1e-4 * found.logit_scale, err_msg=str(edge))
    assert np.abs(found.effect).max() > 1e-3


def _require_effects_on_the_receiver(
    model: LensModel, batch: PromptBatch, plain: Plain, found: Paths, i: int, seen: dict[str, Tensor]
) -> None:
    edge, rows = found.edges[i], torch.arange(len(batch))
    assert isinstance(edge.receiver, Head)
    layer = edge.receiver.layer
    own = [edge.receiver.head] if edge.input == "q" else [
        head for head in range(model.cfg.n_heads) if kv_head(model, head) == edge.receiver.head
    ]  # fmt: skip
    change = (seen["z"] - plain.cache[f"blocks.{layer}.attn.hook_z"])[rows, batch.last]
    written = torch.einsum("bhd,hdm->bm", change[:, own], attention_weights(model, layer).W_O[own])
    np.testing.assert_allclose(found.output[i], written.norm(dim=-1).numpy(), atol=1e-4)
    if edge.input == "v":
        assert (found.score[i] == 0).all()


def test_change_of_score(model: LensModel, words: Rows, request: pytest.FixtureRequest) -> None:
    """The change of the attention score is what `hook_attn_scores` shows in the third pass."""
    if "gptj-bridge" in request.node.name:
        return  # its hook_attn_scores carries the pattern
    batch = twin_of(model, words)[0]
    for name, positions in (("q", "last"), ("k", "labels")):
        found = path_patch(
            model, batch, senders=[Head(0, 1)], receivers=[Head(2, 1)], inputs=[name], positions=positions
        )
        at = batch.last[:, None] if name == "q" else batch.label_positions
        plain = Plain(model, batch, None, at)
        scores: list[Tensor] = []
        seen = plain.edge(found.edges[0], "direct")[1][name]

        def put(x: Tensor, hook: object, plain: Plain = plain, seen: Tensor = seen) -> Tensor:
            x = x.clone()
            x[plain.rows, plain.at, 1] = seen[plain.rows, plain.at, 1]
            return x

        def keep(x: Tensor, hook: object, scores: list[Tensor] = scores) -> None:
            scores.append(x.clone())

        on_scores = ("blocks.2.attn.hook_attn_scores", keep)
        plain.run([(f"blocks.2.attn.hook_{name}", put), on_scores])
        plain.run([on_scores])
        rows = torch.arange(len(batch))[:, None]
        change = (scores[0] - scores[1])[rows, :, batch.last[:, None], batch.label_positions]
        heads = [1] if name == "q" else [head for head in range(4) if kv_head(model, head) == 1]
        np.testing.assert_allclose(found.score[0], change[:, :, heads].mean(-1).numpy(), atol=1e-4)
        assert np.abs(found.score[0]).max() > 1e-4


def test_frozen_norms_are_linear(gpt2: LensModel, words: Rows) -> None:
    """Twice the change of the sender is twice the change of the receiver's score."""
    batch = twin_of(gpt2, words)[0]
    both = [
        path_patch(gpt2, batch, senders=senders, receivers=[Head(2, 1)], norm=norm).score  # type: ignore[arg-type]
        for norm in ("frozen", "exact")
        for senders in ([Head(0, 1)], [Head(0, 2)], [Head(0, 1), Head(0, 2)])
    ]
    np.testing.assert_allclose(both[2].sum(0), (both[0] + both[1]).sum(0), atol=1e-5)
    assert np.abs(both[0] - both[3]).max() > 1e-4


def test_transformer_lens_direct_path_patching(gpt2: LensModel, words: Rows, request: pytest.FixtureRequest) -> None:
    """The exact edge of TransformerLens 4 (its 3.9 linearises the norm, and is right for the frozen one alone)."""
    from transformer_lens import ActivationCache, patching

    clean, corrupted = twin_of(gpt2, words)
    get_act_patch_direct_path = getattr(patching, "get_act_patch_direct_path", None)
    if get_act_patch_direct_path is None:
        pytest.skip("this TransformerLens has no exact get_act_patch_direct_path")
    caches = [gpt2.run_with_cache(batch.tokens)[1] for batch in (clean, corrupted)]
    assert all(isinstance(cache, ActivationCache) for cache in caches)
    rows = torch.arange(len(corrupted))
    for name in ("q", "k", "v"):
        theirs = get_act_patch_direct_path(
            gpt2,
            corrupted.tokens,
            *caches,
            lambda logits: difference(logits[rows, corrupted.last], corrupted).mean(),
            src_layer=0,
            src_head=1,
            component=name,
            verbose=False,
        )
        ours = path_patch(
            gpt2, corrupted, senders=[Head(0, 1)], inputs=[name], positions="all", replacement=Interchange(clean)
        )
        for edge, value in zip(ours.edges, ours.values, strict=True):
            assert isinstance(edge.receiver, Head)
            assert value.mean() == pytest.approx(float(theirs[edge.receiver]), abs=1e-4)


def test_paths_in_small_budgets_and_frames(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 6, shots=2, seed=1))
    whole = path_patch(gpt2, batch, logits=True)
    parts = path_patch(gpt2, batch, logits=True, budget=1 << 18)
    for budget in (0, -1):
        with pytest.raises(InputError, match=f"the budget is {budget} bytes: give 1 or more"):
            path_patch(gpt2, batch, logits=True, budget=budget)
        with pytest.raises(InputError, match=f"the budget is {budget} bytes: give 1 or more"):
            sweep(gpt2, batch, budget=budget)
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-5)
    np.testing.assert_allclose(parts.score, whole.score, atol=1e-5)
    frame = whole.to_frame()
    assert len(frame) == len(whole.edges) == 4 * 4 + 8 * 4 + 12
    assert set(frame["receiver"]) == {str(Head(layer, head)) for layer in (1, 2) for head in range(4)} | {"logits"}
    assert frame.loc[frame["receiver"] == "logits", "score"].isna().all()


def test_what_has_no_paths_is_named(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    with pytest.raises(InputError, match="head L5H0 does not exist"):
        path_patch(gpt2, batch, senders=[Head(5, 0)])
    with pytest.raises(InputError, match="sender MLP7 does not exist"):
        path_patch(gpt2, batch, senders=[Mlp(7)])
    with pytest.raises(InputError, match="cannot be patched exactly: a hook is on"):  # noqa: SIM117
        with intervene(gpt2, ScaleScores((Head(0, 0),), 0.5)):
            path_patch(gpt2, batch)


def test_key_heads_of_grouped_attention_are_counted(folders: Any, words: Rows) -> None:
    model = loaded(folders["llama"], "bridge")
    batch = encode(model, sample_prompts(words, 2, shots=1))
    with pytest.raises(InputError, match=r"L1H3 has no k: a layer has key-value heads 0\.\.1"):
        path_patch(model, batch, receivers=[Head(1, 3)], inputs=["k"])


# --- attribution ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "pattern", "z"]
)
def test_attribution_is_the_derivative_of_the_sweep(
    model: LensModel, words: Rows, site: Any, request: pytest.FixtureRequest
) -> None:
    """A step of one part in a thousand towards the other run has the effect that the gradient says."""
    clean, corrupted = twin_of(model, words)
    if (site == "resid_mid" and is_parallel(model)) or (site == "pattern" and "gptj-bridge" in request.node.name):
        with pytest.raises(InputError):
            attribute(model, clean, site)
        return
    options: dict[str, Any] = {"positions": "labels", "replacement": Interchange(corrupted)}
    guess = attribute(model, clean, site, **options)
    exact = sweep(model, clean, site, **options)
    assert guess.cells == exact.cells
    np.testing.assert_allclose(guess.base, exact.base, atol=1e-5)
    small = []
    for patch in _towards(model, clean, site, options, 1e-2), _towards(model, clean, site, options, -1e-2):
        small.append(run_each(model, clean, [(p,) for p in patch]).values.numpy())
    derivative = (small[0] - small[1]) / 2e-2
    np.testing.assert_allclose(guess.effect, derivative, atol=2e-3 + 2e-2 * np.abs(derivative).max())


def _towards(model: LensModel, batch: PromptBatch, site: Any, options: Any, share: float) -> Any:
    """The sweep's patches, moved only `share` of the way."""
    from icl_circuits.patching.cells import grid

    there = grid(model, batch, site, "labels", False, options["replacement"], None)[1]
    here = grid(model, batch, site, "labels", False, Interchange(batch), None)[1]
    return [replace(p, value=q.value + share * (p.value - q.value)) for p, q in zip(there, here, strict=True)]


def test_integrated_gradients_add_up(gpt2: LensModel, words: Rows) -> None:
    """Over many steps, the embeddings' attributions add up to the whole change (completeness)."""
    clean, corrupted = twin_of(gpt2, words)
    options: dict[str, Any] = {"positions": "all", "replacement": Interchange(corrupted), "layers": [0]}
    whole = sweep(gpt2, clean, "resid_pre", **options).effect[0]
    errors = [
        np.abs(attribute(gpt2, clean, "resid_pre", steps=n, **options).effect[0] - whole).max() for n in (1, 8, 64)
    ]
    assert errors[2] < 0.05 * max(1.0, np.abs(whole).max())
    assert errors[2] < errors[0]


def test_attribution_of_paths(model: LensModel, words: Rows) -> None:
    """To the logits, frozen and direct, the metric is linear in a sender's change: attribution is exact."""
    clean, corrupted = twin_of(model, words)
    options: dict[str, Any] = {"replacement": Interchange(corrupted), "logits": True, "senders": SENDERS}
    guess = attribute_paths(model, clean, norm="frozen", **options)
    exact = path_patch(model, clean, norm="frozen", **options)
    assert guess.edges == exact.edges
    to_logits = [i for i, edge in enumerate(guess.edges) if isinstance(edge.receiver, Logits)]
    np.testing.assert_allclose(guess.effect[to_logits], exact.effect[to_logits], atol=1e-4)
    report = agreement(guess, exact)
    assert report.cells == len(guess.edges)
    assert report.rank_correlation > 0.8  # effects at the level of rounding rank at random
    assert "->" in report.worst


def test_agreement_by_hand() -> None:
    def result(effects: list[float]) -> Sweep:
        values = np.array(effects)[:, None].repeat(2, 1)
        return Sweep("z", "logit_diff", tuple(Cell(0, i, None) for i in range(len(effects))), np.zeros(2), values, 1.0)

    report = agreement(result([1.0, 2.0, -1.0, 0.5]), result([2.0, 1.0, 1.0, 0.0]))
    assert report.cells == 4
    assert report.sign_errors == pytest.approx(1 / 3)
    assert report.worst_error == 2.0
    assert report.worst == "L0H2"
    assert -1 <= report.rank_correlation <= 1
    with pytest.raises(InputError, match="of other places, prompts or metrics"):
        agreement(result([1.0]), result([1.0, 2.0]))


def test_attribution_to_the_logits_alone_and_over_padding(gpt2: LensModel, words: Rows) -> None:
    clean, corrupted = twin_of(gpt2, words)
    guess = attribute_paths(gpt2, clean, receivers=[], logits=True, replacement=Interchange(corrupted))
    assert len(guess.edges) == 12
    rows = clean.last.argsort()[:2].tolist()
    short = clean.select(rows), corrupted.select(rows)
    cut = [replace(batch, tokens=batch.tokens[:, : int(batch.last.max()) + 1]) for batch in short]
    found = [
        attribute(gpt2, base, steps=2, replacement=Interchange(source))
        for base, source in (cut, short, (cut[0], short[1]))
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.values, found[0].values, atol=1e-5)
    with pytest.raises(InputError, match="of other places, prompts or metrics"):
        agreement(attribute(gpt2, clean, metric="log_prob"), sweep(gpt2, clean))


def test_paths_of_zero_shot_prompts(model: LensModel, words: Rows) -> None:
    batch = encode(model, [zero_shot(prompt) for prompt in sample_prompts(words, 3, shots=1)])
    for receivers in (None, []):
        found = path_patch(model, batch, receivers=receivers, logits=True)
        assert found.score.shape == (*found.values.shape, 0)
        assert found.to_frame()["score"].isna().all()
        assert np.isfinite(found.values).all()


def test_attribution_needs_a_gradient_and_a_way(gpt2: LensModel, words: Rows) -> None:
    batch = encode(gpt2, sample_prompts(words, 3, shots=1))
    with pytest.raises(
        InputError, match="metric 'top1' is a count and has no gradient: use logit_diff, log_prob, prob"
    ):
        attribute(gpt2, batch, metric="top1")
    with pytest.raises(InputError, match="steps is 0"):
        attribute(gpt2, batch, steps=0)
    with pytest.raises(InputError, match="integrated gradients walk to a second run"):
        attribute(gpt2, batch, steps=4)
