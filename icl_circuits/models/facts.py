"""Facts about a model: its layers, heads and hook points, and which of its hooks act on what it computes."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_circuits.errors import InputError, Unfit
from icl_circuits.models.lens import LensModel, backend_of, device_of, source_config
from icl_circuits.models.precision import at_least_float32
from icl_circuits.models.sites import Site, hook_name


def hook_points(model: LensModel) -> Mapping[str, Any]:
    """The model's hook points by name.

    No member of `LensModel`: `TransformerBridge` puts the dictionary together each time it is asked for, and a run-time
    check of the protocol asks for every member.
    """
    points: Mapping[str, Any] = cast(Any, model).hook_dict
    return points


def hook_point(model: LensModel, name: str) -> Any:
    """The hook point `name`. Raises `Unfit` where the model has none of that name."""
    try:
        return hook_points(model)[name]
    except KeyError:
        why = ""
        if name.endswith("resid_mid") and is_parallel(model):
            why = ": its blocks compute attention and MLP in parallel, so there is no state between them"
        raise Unfit(f"model {model.cfg.model_name!r} has no hook point {name!r}{why}") from None


def require_per_head_z(model: LensModel) -> None:
    """Raise `Unfit` unless every layer of `model` shows the z of its heads, each head's apart.

    It is tried once, on a few tokens. Multi-head latent attention (DeepSeek) and layers of their own sizes (Gemma 4)
    split z into what are no heads.
    """
    if getattr(model, "icl_per_head_z", False):
        return
    points = hook_points(model)
    for layer in range(model.cfg.n_layers):
        name = hook_name("z", layer)
        if name not in points:
            raise Unfit(
                f"model {model.cfg.model_name!r} has no per-head z in layer {layer} (no {name!r}): head analyses need "
                "a transformer with attention in every layer"
            )
    shapes: dict[int, tuple[int, ...]] = {}

    def read(layer: int) -> Any:
        def note(z: Tensor, hook: object) -> None:
            shapes[layer] = tuple(z.shape[2:])

        return note

    with torch.no_grad(), hooks_set_aside(model):
        places = [(hook_name("z", layer), read(layer)) for layer in range(model.cfg.n_layers)]
        model.run_with_hooks(probe_tokens(model), fwd_hooks=places)
    heads = (model.cfg.n_heads, model.cfg.d_head)
    for layer in range(model.cfg.n_layers):
        if shapes.get(layer) != heads:
            raise Unfit(
                f"layer {layer} of {model.cfg.model_name!r} does not show {heads[0]} heads of size {heads[1]} (its z "
                f"is {list(shapes.get(layer, ()))}), so its heads cannot be told apart"
            )
    cast(Any, model).icl_per_head_z = True


def computation_of(model: LensModel) -> tuple[object, ...]:
    """What may change how a model computes, but for its weights.

    That is mode, dtype and configuration, the hooks of torch on its modules, and functions put in place of their own.
    """
    modules = list(cast(torch.nn.Module, model).modules())
    hooks = [id(hook) for m in modules for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    forwards = [(id(type(module).forward), id(vars(module).get("forward"))) for module in modules]
    return cast(Any, model).training, model.unembed.W_U.dtype, repr(vars(model.cfg)), tuple(hooks), tuple(forwards)


def require_causal(model: LensModel) -> None:
    """Raise `Unfit` where a position sees what comes later (BERT), tried once on a few tokens.

    Prompts of different lengths run together, padded behind, which only a causal model does not notice.
    """
    if getattr(model, "icl_is_causal", False):
        return
    name = model.cfg.model_name
    if model.cfg.n_ctx < 2:
        raise Unfit(f"{name!r} reads one token alone, so there is no context to learn in")
    tokens = probe_tokens(model)
    other = torch.cat([tokens[:, :-1], tokens[:, :1]], 1)
    with torch.no_grad(), hooks_set_aside(model):
        one, two = (at_least_float32(model(each)[:, :-1]) for each in (tokens, other))
    if not (torch.isfinite(one).all() and torch.isfinite(two).all()):
        raise InputError(f"{name!r} gives NaN or infinite logits: its weights are corrupt or its dtype is too narrow")
    if not (one - two).abs().max() <= 5e-2 * one.abs().max():
        if cast(Any, model).training:
            raise InputError(f"{name!r} is in training mode, where dropout computes at random: call model.eval()")
        raise Unfit(
            f"{name!r} sees what comes later: it is an encoder, not a decoder that predicts the next "
            "token; use a causal language model"
        )
    cast(Any, model).icl_is_causal = True


def require_alike(model: LensModel, lengths: Int[Tensor, " batch"], width: int) -> None:
    """Raise `InputError` where prompts of these lengths, padded to `width`, are turned as none of them is alone.

    Longrope and dynamic rotary angles change for all positions once a prompt is longer than the model was trained on.
    """
    found = getattr(source_config(model), "rope_parameters", None) or {}
    for rope in [found, *(part for part in found.values() if isinstance(part, dict))]:
        if rope.get("rope_type") not in ("dynamic", "longrope"):
            continue
        known = rope.get("original_max_position_embeddings") or source_config(model).max_position_embeddings
        short = int(lengths.min())
        if short <= known < width:
            raise InputError(
                f"prompts of {short} to {width} tokens cannot run together on {model.cfg.model_name!r}: beyond {known} "
                "tokens it turns all positions by other angles; run the shorter and the longer ones apart"
            )


def require_one_device(model: LensModel) -> None:
    """Raise `Unfit` where layers lie on several devices: analyses compute with the activations of all of them."""
    n_devices = int(getattr(model.cfg, "n_devices", None) or 1)
    if n_devices > 1:
        raise Unfit(
            f"{model.cfg.model_name!r} lies on {n_devices} devices (n_devices), and analyses compute with the "
            "activations of all layers on one: load it on one device, in bfloat16 if need be, and give each process "
            "a device and a share of the work"
        )


def require_layer(model: LensModel, layer: int) -> None:
    """Raise `InputError` unless `model` has the layer."""
    if not 0 <= layer < model.cfg.n_layers:
        raise InputError(
            f"layer {layer} does not exist: {model.cfg.model_name!r} has layers 0..{model.cfg.n_layers - 1}"
        )


def has_mlp(model: LensModel) -> bool:
    """Whether layers have an MLP behind their attention."""
    return not getattr(model.cfg, "attn_only", False)


def mlp_sites(model: LensModel) -> tuple[Site, ...]:
    """The site of what MLPs write, where layers have one."""
    return ("mlp_out",) if has_mlp(model) else ()


def is_parallel(model: LensModel) -> bool:
    """Whether blocks add attention and MLP to the same input (GPT-J, GPT-NeoX), so that no resid_mid exists."""
    return bool(model.cfg.parallel_attn_mlp)


def kv_head(model: LensModel, head: int) -> int:
    """The key-value head that query head `head` reads: itself, or its group's under grouped-query attention."""
    return head // (model.cfg.n_heads // n_kv_heads(model))


def kv_heads(model: LensModel) -> list[int]:
    """The key-value head of each query head."""
    return [kv_head(model, head) for head in range(model.cfg.n_heads)]


def n_kv_heads(model: LensModel) -> int:
    """How many key-value heads a layer's hooks show: as many as heads, or fewer under grouped-query attention.

    `set_ungroup_grouped_query_attention(True)` makes a `HookedTransformer` show each query head's own copy.
    """
    if backend_of(model) == "hooked" and getattr(model.cfg, "ungroup_grouped_query_attention", False):
        return int(model.cfg.n_heads)
    return int(getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads)


def unmasked(scores: Float[Tensor, "*rows src_pos"]) -> Bool[Tensor, "*rows src_pos"]:
    """Where attention scores are not masked: masked ones are minus infinity, or near the least number."""
    return scores > torch.finfo(scores.dtype).min / 2


def scores_are_live(model: LensModel) -> bool:
    """Whether the model computes with the attention scores that its hooks show.

    Some `TransformerBridge` attentions (GPT-J's) compute z apart from them. `load_model` tries it; a model that came
    another way is tried when first asked.
    """
    if not hasattr(model, "icl_scores_are_live"):
        note_live_scores(model)
    return bool(cast(Any, model).icl_scores_are_live)


def require_live_scores(model: LensModel) -> None:
    """Raise `Unfit` where hooks on attention scores would change nothing."""
    if not scores_are_live(model):
        raise Unfit(
            f"{type(model).__name__} of {model.cfg.model_name!r} does not compute with the attention scores that its "
            "hooks show, so an intervention on them would change nothing: load the model with backend='hooked'"
        )


def note_live_scores(model: LensModel) -> None:
    """Try on a few tokens whether z moves when layer 0 attends evenly instead, and note it on the model.

    Hooks that are on the model are set aside for this: the answer is the model's own.
    """
    z_name, scores_name = hook_name("z", 0), hook_name("attn_scores", 0)
    if scores_name not in hook_points(model):
        cast(Any, model).icl_scores_are_live = False
        return
    tokens = probe_tokens(model)
    seen: list[Tensor] = []

    def record(z: Tensor, hook: object) -> None:
        seen.append(z.detach().clone())

    def attend_evenly(scores: Tensor, hook: object) -> Tensor:
        return torch.where(unmasked(scores), 0.0, scores)

    with torch.no_grad(), hooks_set_aside(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # TransformerLens 4 warns where the change is lost
        model.run_with_hooks(tokens, fwd_hooks=[(z_name, record)])
        model.run_with_hooks(tokens, fwd_hooks=[(z_name, record), (scores_name, attend_evenly)])
    cast(Any, model).icl_scores_are_live = not torch.equal(seen[0], seen[1])


def probe_tokens(model: LensModel, n_pos: int = 8) -> Int[Tensor, "batch pos"]:
    """A prompt of `n_pos` tokens from all over the vocabulary, or as many as the model reads."""
    return torch.linspace(0, model.cfg.d_vocab - 1, min(n_pos, model.cfg.n_ctx), device=device_of(model)).long()[None]


@contextmanager
def hooks_set_aside(model: LensModel) -> Iterator[None]:
    """Take every hook off the model's hook points inside the block, and put them back in their order."""
    aside = []
    for point in hook_points(model).values():
        aside.append((point._forward_hooks, dict(point._forward_hooks)))
        point._forward_hooks.clear()
    try:
        yield
    finally:
        for hooks, then in reversed(aside):
            hooks.update(then)
