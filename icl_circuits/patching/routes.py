"""What reaches a receiver over the paths from its senders: the first two passes of path patching, as algebra.

A sender's changed output reaches a receiver's input through the residual stream, one norm and one matrix, so the inputs
that all senders would give all receivers of a layer are one matrix product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError, Unfit, require_one_of
from icl_circuits.interventions import Positions, PositionsName, Replacement, ValueAt, positions_of, values_at
from icl_circuits.models import (
    Block,
    LensModel,
    Norm,
    NotAlgebraError,
    Place,
    ReadSite,
    Site,
    at_least_float32,
    has_mlp,
    n_kv_heads,
)
from icl_circuits.patching.base_run import run_base
from icl_circuits.patching.bundles import budget_on
from icl_circuits.patching.engine import PROMPT_TOKENS
from icl_circuits.patching.step import BaseRun
from icl_circuits.prompts import TokenBatch
from icl_circuits.residual import (
    Edge,
    Embedding,
    Head,
    HeadInput,
    HeadLike,
    Logits,
    Mlp,
    Sender,
    all_heads,
    head_of,
    layer_of,
    require_heads,
    write_order,
)

EdgeKind = Literal["direct", "through_mlps"]
"""`direct`: everything between sender and receiver stays as in the base run. `through_mlps`: the MLPs between them, at
the same position, are computed again; attention stays."""
NormKind = Literal["exact", "frozen"]
"""`exact`: norms are computed again on the changed state. `frozen`: they keep the base run's scale, which makes the
path linear."""


@dataclass(frozen=True)
class Routes:
    """The edges asked for, and how they are cut out of the model."""

    model: LensModel
    batch: TokenBatch
    senders: tuple[Sender, ...]
    """In the order in which they write to the residual stream."""
    wanted: dict[int, dict[HeadInput, tuple[int, ...]]]
    """The receiving heads of each layer and input."""
    logits: bool
    at: Positions
    value_at: ValueAt
    kind: EdgeKind
    norm: NormKind

    def reaching(self, layer: int) -> tuple[Sender, ...]:
        """The senders below `layer`."""
        return tuple(sender for sender in self.senders if layer_of(sender) < layer)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges in the order of all results: by layer and input, then sender, then receiving head."""
        found = [
            Edge(sender, Head(layer, head), name)
            for layer, inputs in sorted(self.wanted.items())
            for name, heads in inputs.items()
            for sender in self.reaching(layer)
            for head in heads
        ]
        to_logits = [Edge(sender, Logits()) for sender in self.senders if self.logits]
        return (*found, *to_logits)

    def parts(self, budget: int | None) -> Iterator[tuple[int, int]]:
        """Prompts that are run together: as many as the senders' changes leave room for."""
        budget = budget_on(self.at.device, budget)
        width, itemsize = self.model.cfg.d_model, self.model.unembed.W_U.element_size()
        prompts = max(1, budget // (8 * max(1, len(self.senders)) * self.at.shape[1] * width * itemsize))
        return self.batch.parts(min(PROMPT_TOKENS, prompts * self.batch.tokens.shape[1]))


def make_routes(
    model: LensModel,
    batch: TokenBatch,
    *,
    senders: Sequence[Sender | HeadLike] | None,
    receivers: Sequence[HeadLike] | None,
    inputs: Sequence[HeadInput],
    logits: bool,
    positions: PositionsName | Positions,
    replacement: Replacement,
    kind: EdgeKind,
    norm: NormKind,
) -> Routes:
    """The routes between `senders` and `receivers` (see `path_patch`).

    Raises:
        InputError: a sender or receiver that does not exist, and what the replacement raises.
    """
    require_one_of(kind, get_args(EdgeKind), "kind")
    require_one_of(norm, get_args(NormKind), "norm")
    for name in inputs:
        require_one_of(name, get_args(HeadInput), "input")
    ordered = sorted(all_heads(model) if senders is None else map(_sender, senders), key=write_order)
    places = dict.fromkeys(_place(model, sender) for sender in ordered)
    routes = Routes(
        model,
        batch,
        tuple(ordered),
        _wanted_inputs(model, receivers, inputs),
        logits,
        positions_of(batch, positions),
        values_at(model, batch, replacement, list(places), positions),
        kind,
        norm,
    )
    if not routes.edges:
        raise InputError(
            "no sender lies below a receiver, so there is no edge to patch: name others, or ask for logits"
        )
    return routes


@dataclass(frozen=True)
class Arrival:
    """What each sender alone makes of one input of a layer's heads, or of the final normed state.

    Of heads: `[batch chosen head d_head]`, before the rotary embedding; of the final state: `[batch d_model]`, at the
    answer position. `new` has an axis of senders before these.
    """

    layer: int
    input: HeadInput | None
    """None: the final state, which the logits are read from."""
    heads: tuple[int, ...]
    """The receiving heads of the layer."""
    old: Float[Tensor, "*place width"]
    new: Float[Tensor, "sender *place width"]


class Passage:
    """One part of the prompts on its way: the base run, and its activations where paths begin and end."""

    def __init__(self, routes: Routes, start: int, stop: int) -> None:
        """Run the prompts `start` to `stop` once.

        Raises:
            Unfit: the engine has no equations for the model.
        """
        self.routes, self.rows = routes, slice(start, stop)
        self.at = routes.at[start:stop]
        self.here: dict[Place, Tensor] = {}
        """Activations of the base run at the chosen positions, `[batch chosen ...]`."""
        self.at_answer: dict[Place, Tensor] = {}
        """The same at the answer position, `[batch ...]`."""
        name = routes.model.cfg.model_name
        try:
            self.base: BaseRun = run_base(routes.model, routes.batch.part(start, stop), self._keep)
        except NotAlgebraError as error:
            raise Unfit(f"the paths of {name!r} cannot be patched exactly: {error}") from None

    def _keep(self, layer: int, site: ReadSite, activation: Tensor) -> None:
        if site not in ("resid_pre", "resid_mid", "q", "z", "mlp_out", "resid_post"):
            return
        rows = torch.arange(len(self.at), device=self.at.device)
        if activation.shape[1] == 1:  # the last layer, behind its keys: the answer position alone
            self.at_answer[site, layer] = activation[:, 0]
            self.here[site, layer] = activation.expand(-1, self.at.shape[1], *activation.shape[2:])
        else:
            last = self.routes.batch.last[self.rows]
            self.at_answer[site, layer] = activation[rows, last]
            self.here[site, layer] = activation[rows[:, None], self.at]

    def arrivals(self) -> Iterator[Arrival]:
        """What arrives, in the order of `Routes.edges`."""
        routes, blocks = self.routes, self.base.blocks
        first = self.here["resid_pre", 0]
        changes = torch.cat([first.new_zeros(0, *first.shape), *self._written(Embedding, -1)])
        for layer, block in enumerate(blocks):
            state = self.here["resid_pre", layer]
            for name, heads in routes.wanted.get(layer, {}).items() if len(changes) else ():
                old = block.project(name, block.ln1(state))
                yield Arrival(layer, name, heads, old, block.project(name, self._normed(block.ln1, state, changes)))
            by_heads = self._written(Head, layer)
            if block.parallel:
                changes = torch.cat([changes + self._through_mlp(block, state, changes), *by_heads])
            else:
                changes = torch.cat([changes, *by_heads])
                changes = changes + self._through_mlp(block, self.here.get(("resid_mid", layer), state), changes)
            changes = torch.cat([changes, *self._written(Mlp, layer)])
        if routes.logits and len(changes):
            is_answer = (self.at == self.base.batch.last[:, None]).to(changes)
            norm, state = self.base.readout.norm, self.at_answer["resid_post", len(blocks) - 1]
            new = self._normed(norm, state, torch.einsum("sbcd,bc->sbd", changes, is_answer))
            yield Arrival(len(blocks), None, (), norm(state), new)

    def _written(self, sort: type, layer: int) -> list[Float[Tensor, "1 batch chosen d_model"]]:
        """The changes that senders of one sort write in `layer`."""
        found = []
        for sender in self.routes.senders:
            if isinstance(sender, sort) and layer_of(sender) == layer:
                site, at_layer = _place(self.routes.model, sender)
                value = self.routes.value_at(site, at_layer, sender.head if isinstance(sender, Head) else None)
                old = at_least_float32(self.here[site, at_layer])
                value = (value if value.ndim == 1 else value[self.rows]).to(old)
                if isinstance(sender, Head):
                    block = self.base.blocks[layer]
                    change = (value - old[:, :, sender.head]) @ at_least_float32(block.attn.W_O[sender.head])
                    found.append(self._let_out(block.attn_outlet, block.output(old), change)[None])
                else:
                    found.append((value - old)[None])
        return found

    def _normed(self, norm: Norm, state: Tensor, changes: Tensor) -> Tensor:
        """The norm of the changed states."""
        if self.routes.norm == "exact":
            return norm(state + changes)
        return norm(state) + norm.linear(changes, norm.scale(state))

    def _let_out(self, outlet: Norm | None, output: Tensor, change: Tensor) -> Tensor:
        """The change that reaches the residual stream of a change of a sublayer's output, before its post-norm."""
        if outlet is None:
            return change
        if self.routes.norm == "exact":
            return outlet(output + change) - outlet(output)
        return outlet.linear(change, outlet.scale(output))

    def _through_mlp(self, block: Block, state: Tensor, changes: Tensor) -> Tensor | float:
        """What the MLP adds to the changes."""
        if self.routes.kind == "direct" or block.mlp is None or block.ln2 is None or not len(changes):
            return 0.0
        changed = self._normed(block.ln2, state, changes)
        after = block.mlp(changed.flatten(0, 1)).unflatten(0, changed.shape[:2])
        before, after = (at_least_float32(x) for x in (block.mlp(block.ln2(state)), after))
        return self._let_out(block.mlp_outlet, before, after - before)


def _sender(sender: Sender | HeadLike) -> Sender:
    return sender if isinstance(sender, Mlp | Embedding) else head_of(sender)


def _place(model: LensModel, sender: Sender) -> tuple[Site, int]:
    """The site and layer that a sender's output is replaced at.

    Raises:
        InputError: the model has no such sender.
    """
    if isinstance(sender, Embedding):
        return "resid_pre", 0
    if isinstance(sender, Mlp):
        if not 0 <= sender.layer < model.cfg.n_layers or not has_mlp(model):
            raise InputError(
                f"sender {sender} does not exist: {model.cfg.model_name!r} has {model.cfg.n_layers} layers"
                + ("" if has_mlp(model) else " without MLPs")
            )
        return "mlp_out", sender.layer
    require_heads(model, (sender,))
    return "z", sender.layer


def _wanted_inputs(
    model: LensModel, receivers: Sequence[HeadLike] | None, inputs: Sequence[HeadInput]
) -> dict[int, dict[HeadInput, tuple[int, ...]]]:
    """The receiving heads of each layer and input."""
    wanted: dict[int, dict[HeadInput, tuple[int, ...]]] = {}
    for name in inputs:
        n_heads = model.cfg.n_heads if name == "q" else n_kv_heads(model)
        for head in all_heads(model) if receivers is None else require_heads(model, receivers):
            if head.head < n_heads:
                heads = wanted.setdefault(head.layer, {}).setdefault(name, ())
                wanted[head.layer][name] = (*heads, head.head)
            elif receivers is not None:
                raise InputError(f"{head} has no {name}: a layer has key-value heads 0..{n_heads - 1}")
    return wanted
