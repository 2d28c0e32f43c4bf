"""Identities that analyses rest on, each compared with the model's own activations before it is believed.

An analysis names the identities it needs and a prompt to check them on: the longest of those at hand. They are compared
at every position of every layer, and remembered for prompts of up to that length while the model stays as it is. Where
one fails, the error names it and the layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from jaxtyping import Int
from torch import Tensor

from icl_circuits.costs import uncounted
from icl_circuits.errors import InputError, Unfit, in_one_line
from icl_circuits.models.block import NotAlgebraError
from icl_circuits.models.facts import (
    computation_of,
    hook_points,
    hooks_set_aside,
    is_parallel,
    kv_heads,
    mlp_sites,
    n_kv_heads,
    probe_tokens,
    require_one_device,
)
from icl_circuits.models.hooks import HookPair, attached
from icl_circuits.models.lens import LensModel
from icl_circuits.models.norms import block_norms, readout
from icl_circuits.models.precision import at_least_float32, rows_agree, step_tolerance
from icl_circuits.models.reading import read_block
from icl_circuits.models.sites import ReadSite, hook_name
from icl_circuits.models.weights import attention_weights, mlp_weights

Identity = Literal[
    "heads", "neurons", "layers", "readout", "values", "projections", "value_projection", "scores", "activations"
]

CLAIMS: dict[Identity, str] = {
    "heads": "its heads' z W_O, with their biases, add up to attn_out",
    "neurons": "its neurons' activations times their output directions, with the bias, add up to mlp_out",
    "layers": "its attn_out and mlp_out add up to what a layer changes of the residual stream",
    "readout": "the final norm and the unembedding make its logits",
    "values": "z is attention times the values of the head's key-value head, and attention sees nothing later",
    "projections": "q and k are the normed state times W_Q and W_K",
    "value_projection": "v is the normed state times W_V",
    "scores": "attention is the softmax of the scores that its queries and keys make",
    "activations": "what its MLPs' neurons read is the normed state times W_in, or gated W_gate",
}
"""What each identity says of a model."""

SITES: dict[Identity, tuple[ReadSite, ...]] = {
    "heads": ("z", "attn_out"),
    "neurons": ("mlp_post", "mlp_out"),
    "layers": ("resid_pre", "attn_out", "mlp_out"),
    "readout": (),
    "values": ("pattern", "v", "z"),
    "projections": ("resid_pre", "q", "k"),
    "value_projection": ("resid_pre", "v"),
    "scores": ("q", "k", "pattern"),
    "activations": ("resid_pre", "attn_out", "mlp_pre"),
}
"""What is read in each layer to check it, besides the state that leaves the layer."""

Seen = dict[str, Tensor]
"""One layer's activations of the one prompt by site, without a batch axis, in float32 or wider; `left` is the state
that the layer before left."""


class _FailedError(Exception):
    """An identity does not hold. The message says where and by how much."""


@torch.no_grad()
def require_identities(
    model: LensModel,
    tokens: Int[Tensor, "batch pos"],
    last: Int[Tensor, " batch"],
    *identities: Identity,
    layers: Sequence[int] | None = None,
) -> None:
    """Check identities on the longest prompt, unless that was done before on one as long and nothing has changed since.

    Args:
        model: the model, with whatever hooks are on it.
        tokens: the prompts at hand.
        last: the last position of each.
        identities: which of `CLAIMS`.
        layers: those that are rested on, where hooks are on the model. Without hooks all are checked, once.

    Raises:
        Unfit: one does not hold for this model. The message names it and the layer.
    """
    require_one_device(model)
    row = int(last.argmax())
    n_pos = int(last[row]) + 1
    if any(point.fwd_hooks for point in hook_points(model).values()):  # hooks, of this batch, make another model of it
        with uncounted():
            _check(model, tokens, row, n_pos, list(identities), layers)
        return
    state = computation_of(model)
    checked: dict[Any, int] = getattr(model, "icl_identities", {})
    wanted = [name for name in identities if checked.get((name, state), 0) < n_pos]
    if wanted:
        with uncounted():
            _check(model, tokens[row : row + 1, :n_pos], 0, n_pos, wanted, None)
        cast(Any, model).icl_identities = checked | dict.fromkeys([(name, state) for name in wanted], n_pos)


def require_identities_of_model(model: LensModel, n_pos: int, *identities: Identity) -> None:
    """Check identities on `n_pos` tokens from all over the vocabulary, hooks set aside: where no prompts are at hand.

    Raises:
        Unfit: one does not hold for this model.
    """
    tokens = probe_tokens(model, n_pos)
    with hooks_set_aside(model):
        require_identities(model, tokens, torch.tensor([tokens.shape[1] - 1], device=tokens.device), *identities)


def _check(
    model: LensModel,
    tokens: Int[Tensor, "batch pos"],
    row: int,
    n_pos: int,
    wanted: list[Identity],
    layers: Sequence[int] | None,
) -> None:
    """Run prompts once and compare one of them layer by layer, holding one layer's activations at a time."""
    sites = dict.fromkeys(site for name in wanted for site in _sites(model, name))
    checks = [name for name in wanted if name in CHECKS]
    seen: Seen = {}

    def keep(site: ReadSite, layer: int) -> HookPair:
        def read(activation: Tensor, hook: object) -> None:
            of_prompt = activation.detach()[row]
            seen[site] = at_least_float32(of_prompt[:, :n_pos, :n_pos] if site == "pattern" else of_prompt[:n_pos])

        return hook_name(site, layer), read

    def compare(layer: int) -> HookPair:
        def read(resid_post: Tensor, hook: object) -> None:
            seen["resid_post"] = at_least_float32(resid_post.detach()[row, :n_pos])
            for name in checks if layers is None or layer in layers else []:
                with _naming(model, name, f"layer {layer}"):
                    for site in _sites(model, name):
                        _require_shape(model, layer, site, seen.get(site), n_pos)
                    CHECKS[name](model, layer, seen)
            left = seen["resid_post"]
            seen.clear()
            seen["left"] = left

        return hook_name("resid_post", layer), read

    pairs = [keep("final_normed", 0)]
    for layer in range(model.cfg.n_layers):
        pairs += [keep(site, layer) for site in sites] + [compare(layer)]
    with attached(model, pairs):
        logits = at_least_float32(model(tokens)[row, n_pos - 1])
    if "readout" in wanted:
        with _naming(model, "readout", "the last position"):
            _readout(model, seen, logits)


def _sites(model: LensModel, name: Identity) -> list[ReadSite]:
    """What is read to check an identity, of the sites that the model has."""
    return [site for site in SITES[name] if site != "mlp_out" or site in mlp_sites(model)]


@contextmanager
def _naming(model: LensModel, name: Identity, where: str) -> Iterator[None]:
    """Say of a failure inside the block which identity it is of, and where."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # parts of other shapes than the equations' stop them anywhere
        why = str(error) if isinstance(error, _FailedError | NotAlgebraError) else in_one_line(error)
        raise Unfit(
            f"this analysis cannot be done on {model.cfg.model_name!r}: it rests on the identity {name!r} "
            f"({CLAIMS[name]}), which fails at {where}: {why}"
        ) from error


def _heads(model: LensModel, layer: int, seen: Seen) -> None:
    heads, bias = attention_weights(model, layer).added(seen["z"])
    _require_close(model, "attn_out", heads.sum(-2) + bias, seen["attn_out"])


def _neurons(model: LensModel, layer: int, seen: Seen) -> None:
    weights = mlp_weights(model, layer)
    _require_close(model, "mlp_out", weights.added(seen["mlp_post"]), seen["mlp_out"])


def _layers(model: LensModel, layer: int, seen: Seen) -> None:
    if layer:
        _require_close(model, "resid_pre", seen["left"], seen["resid_pre"])
    written = sum((seen[site] for site in mlp_sites(model)), seen["resid_pre"] + seen["attn_out"])
    _require_close(model, "resid_post", written, seen["resid_post"])


def _values(model: LensModel, layer: int, seen: Seen) -> None:
    pattern, mixed = seen["pattern"], torch.empty_like(seen["z"])
    later = 0.0
    for head, of in enumerate(kv_heads(model)):  # one after another: all of a long prompt's attention is large
        later = max(later, float(pattern[head].triu(1).abs().max()))
        mixed[:, head] = pattern[head] @ seen["v"][:, of]
    if later > 0:
        raise _FailedError(f"a position attends to a later one with probability {later:.2g}")
    _require_close(model, "z", mixed, seen["z"])


def _projections(model: LensModel, layer: int, seen: Seen) -> None:
    weights = attention_weights(model, layer)
    _require_projected(model, layer, seen, "q", weights.W_Q, weights.b_Q)
    _require_projected(model, layer, seen, "k", weights.W_K, weights.b_K)


def _value_projection(model: LensModel, layer: int, seen: Seen) -> None:
    weights = attention_weights(model, layer)
    _require_projected(model, layer, seen, "v", weights.W_V, weights.b_V)


def _require_projected(model: LensModel, layer: int, seen: Seen, site: ReadSite, W: Tensor, b: Tensor) -> None:
    norm, resid = block_norms(model, layer).ln1, seen["resid_pre"]
    normed = norm.linear(resid, norm.scale(resid)) + norm.bias
    expected = seen[site] if site == "q" else seen[site][:, kv_heads(model)]
    _require_close(model, site, torch.einsum("pm,hmd->phd", normed, at_least_float32(W)) + b, expected)


def _scores(model: LensModel, layer: int, seen: Seen) -> None:
    q, k, pattern = (seen[site] for site in ("q", "k", "pattern"))
    n_pos = len(q)
    block, positions = read_block(model, layer, n_pos), torch.arange(n_pos, device=q.device)[None]
    q, k = (block.turned(name, x[None], positions)[0] for name, x in (("q", q), ("k", k)))
    visible = block.visible(positions, positions)[0]
    floor = torch.finfo(model.unembed.W_U.dtype).eps  # what is less likely is rounded away
    for head, of in enumerate(kv_heads(model)):  # one after another: all of a long prompt's attention is large
        scores = at_least_float32(block.scores(q[:, head], k[:, of]))
        log_probs = scores.masked_fill(~visible, -torch.inf).log_softmax(-1)
        likely = (log_probs.exp() > floor) | (pattern[head] > floor)
        found, expected = (torch.where(likely, x, 0.0).nan_to_num() for x in (log_probs, pattern[head].log()))
        size = scores.masked_fill(~visible, 0.0).abs().amax(-1, keepdim=True).clamp(min=1.0)  # of what is rounded
        _require_close(model, "log-attention", found, expected, size)


def _activations(model: LensModel, layer: int, seen: Seen) -> None:
    read = seen["resid_pre"] if is_parallel(model) else seen["resid_pre"] + seen["attn_out"]
    norm, (W, b) = block_norms(model, layer).before_mlp, mlp_weights(model, layer).read_by("gate")
    normed = norm.linear(read, norm.scale(read)) + norm.bias
    _require_close(model, "mlp_pre", normed @ at_least_float32(W) + b, seen["mlp_pre"])


def _readout(model: LensModel, seen: Seen, logits: Tensor) -> None:
    out, final = readout(model), seen["left"]
    normed = out.norm.linear(final, out.norm.scale(final)) + out.norm.bias
    _require_close(model, "final norm", normed, seen["final_normed"])
    _require_close(model, "log-probabilities", out.unembed(normed[-1]).log_softmax(-1), logits.log_softmax(-1))


CHECKS: dict[Identity, Callable[[LensModel, int, Seen], None]] = {
    "heads": _heads,
    "neurons": _neurons,
    "layers": _layers,
    "values": _values,
    "projections": _projections,
    "value_projection": _value_projection,
    "scores": _scores,
    "activations": _activations,
}


def _require_shape(model: LensModel, layer: int, site: ReadSite, activation: Tensor | None, n_pos: int) -> None:
    cfg = model.cfg
    if activation is None:
        raise _FailedError(f"its hook on {site} did not fire there")
    if site == "pattern":
        expected: tuple[int, ...] = (cfg.n_heads, n_pos, n_pos)
    elif site in ("z", "q", "k", "v"):
        expected = (n_pos, n_kv_heads(model) if site in ("k", "v") else cfg.n_heads, cfg.d_head)
    elif site in ("mlp_pre", "mlp_post"):
        expected = (n_pos, mlp_weights(model, layer).W_out.shape[0])
    else:
        expected = (n_pos, cfg.d_model)
    if activation.shape != expected:
        raise _FailedError(f"its {site} has the shape {list(activation.shape)}, not {list(expected)}")


def _require_close(model: LensModel, what: str, found: Tensor, expected: Tensor, size: Tensor | None = None) -> None:
    """Compare position by position, or each number beside `size`."""
    tolerance = max(1e-4, step_tolerance(model.unembed.W_U.dtype))  # some norms round to float32 in float64
    error = (found - expected).abs()
    if not (rows_agree(found, expected, tolerance) if size is None else (error <= tolerance * size).all()):
        largest = float(expected.abs().max())
        raise _FailedError(f"{what} is off by {float(error.max()):.2g}, where values reach {largest:.2g}")
