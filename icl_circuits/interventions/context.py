"""Apply interventions to a model for the length of a `with` block, and read activations the same way."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.interventions.hooks import Hook, Intervention, Patch
from icl_circuits.models import Head, LensModel, hook_point
from icl_circuits.prompts import PromptBatch


@contextmanager
def intervene(model: LensModel, *interventions: Intervention) -> Iterator[LensModel]:
    """Run `model` under `interventions` inside the block.

    Hooks that others put on the model stay as they are, and afterwards, also after an exception, the model is as it
    was. Interventions apply in the order given.

    Raises:
        InputError: a head, layer or position that does not exist, a value of the wrong shape, or, at the end of the
            block, a hook that never fired.
    """
    late = sorted(interventions, key=lambda part: isinstance(part, Patch) and part.site == "resid_mid")
    planned = [pair for intervention in late for pair in intervention.hooks(model)]  # its parts are patched before it
    fired = [False] * len(planned)
    with ExitStack() as stack:
        for index, (name, hook) in enumerate(planned):
            stack.enter_context(_attached(model, name, hook, fired, index))
        yield model
        for (name, _), did_fire in zip(planned, fired, strict=True):
            if not did_fire:
                raise InputError(
                    f"the hook on {name!r} never fired: no forward pass reached it inside the block, so the "
                    "intervention changed nothing"
                )


@contextmanager
def _attached(model: LensModel, name: str, run: Hook, fired: list[bool], index: int) -> Iterator[None]:
    """The hook `run` on the hook point `name`, noting in `fired[index]` that it ran."""
    point = hook_point(model, name)

    @no_type_check  # made for every hook of every run: checking it in tests costs more than the run
    def noting(activation: Tensor, hook: object) -> Tensor | None:
        fired[index] = True
        return run(activation, hook=hook)

    point.add_hook(noting)
    handle = point.fwd_hooks[-1]
    try:
        yield
    finally:
        handle.hook.remove()
        if handle in point.fwd_hooks:  # reset_hooks() inside the block has taken it already
            point.fwd_hooks.remove(handle)


@dataclass(frozen=True)
class Capture:
    """Read activations by hook name while the model runs; changes nothing.

    With `positions`, keep some positions of each prompt only: one, `[batch]`, which makes `[batch pos ...]` into
    `[batch ...]`, or several, `[batch chosen]`, which makes it `[batch chosen ...]`. Of attention, `[batch head pos
    src_pos]`, these are query positions, which come first too: `[batch chosen head src_pos]`.
    """

    names: Sequence[str]
    positions: Int[Tensor, "batch *chosen"] | None = None
    found: dict[str, Tensor] = field(default_factory=dict)

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""
        return [(name, self._reader(name)) for name in self.names]

    def _reader(self, name: str) -> Hook:
        @no_type_check  # as above
        def read(activation: Tensor, hook: object) -> None:
            if self.positions is None:
                self.found[name] = activation.detach()
                return
            batch = torch.arange(activation.shape[0], device=activation.device)
            rows = batch.view(-1, *[1] * (self.positions.ndim - 1))
            if name.endswith(("hook_pattern", "hook_attn_scores")):
                self.found[name] = activation.detach()[rows, :, self.positions]
            else:
                self.found[name] = activation.detach()[rows, self.positions]

        return read


@dataclass(frozen=True)
class _AnswerOnly:
    """Keep the normed final state at the answer position only, so that no other position is unembedded."""

    last: Tensor

    def hooks(self, model: LensModel) -> list[tuple[str, Hook]]:
        """The hooks on `model` that do this."""

        def keep(normed: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch 1 d_model"]:
            return normed[torch.arange(normed.shape[0], device=normed.device), self.last][:, None]

        return [("unembed.hook_in", keep)]


class _StoppedError(Exception):
    """Ends a forward pass that has gone far enough."""


@torch.no_grad()
def embedding(model: LensModel, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
    """The residual state that enters the first layer: the forward pass, stopped there."""
    found: list[Tensor] = []

    def stop(x: Tensor, hook: object) -> None:
        found.append(x.detach())
        raise _StoppedError

    with suppress(_StoppedError), _attached(model, "blocks.0.hook_resid_pre", stop, [False], 0):
        model(tokens)
    return found[0]


def answer_logits(
    model: LensModel, batch: PromptBatch, *interventions: Intervention, grad: bool = False
) -> Float[Tensor, "batch d_vocab"]:
    """The logits at each prompt's answer position, under `interventions` if any.

    One forward pass; the other positions are never unembedded. With `grad`, the graph is kept for a backward pass.

    Raises:
        InputError: NaN logits, naming the first prompt that has them, and whatever `intervene` raises.
    """
    with torch.set_grad_enabled(grad), intervene(model, *interventions, _AnswerOnly(batch.last)):
        logits: Tensor = model(batch.tokens)[:, 0]
    bad = torch.isnan(logits).any(-1)
    if bad.any():
        raise InputError(
            f"{model.cfg.model_name!r} gives NaN logits for prompt {int(bad.nonzero()[0])}: its weights are corrupt or "
            "its dtype is too narrow; load it with dtype=torch.float32"
        )
    return logits


@torch.no_grad()
def mean_z(model: LensModel, batch: PromptBatch, heads: Sequence[Head]) -> dict[Head, Float[Tensor, " d_head"]]:
    """The mean of each head's z over all positions of all prompts: mean ablation is `ReplaceHeads(mean_z(...))`."""
    capture = Capture(tuple({f"blocks.{head.layer}.attn.hook_z": None for head in heads}))
    answer_logits(model, batch, capture)
    return {
        head: capture.found[f"blocks.{head.layer}.attn.hook_z"][:, :, head.head][batch.is_text].mean(0)
        for head in heads
    }
