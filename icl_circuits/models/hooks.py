"""Hook functions on a model's hook points for the length of a block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, no_type_check

from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models.facts import hook_point, hook_points
from icl_circuits.models.lens import LensModel

Hook = Callable[..., Tensor | None]
"""`hook(activation, hook=hook_point)`, the signature TransformerLens calls; None leaves the activation as it is."""

HookPair = tuple[str, Hook]
"""A hook function and the name of the hook point it goes on."""


@contextmanager
def attached(model: LensModel, pairs: Sequence[HookPair]) -> Iterator[LensModel]:
    """Put hooks on `model` inside the block, in order; hooks that others put there stay as they are.

    Afterwards, also after an exception, the model is as it was.

    Raises:
        Unfit: the model has no hook point of a name.
        InputError: at the end of the block, a hook that never fired.
    """
    fired = [False] * len(pairs)
    points = hook_points(model)  # once: TransformerBridge puts them together each time
    with ExitStack() as stack:
        for index, (name, hook) in enumerate(pairs):
            point = points[name] if name in points else hook_point(model, name)  # which says what is missing
            stack.enter_context(_attached(point, hook, fired, index))
        yield model
        for (name, _), did_fire in zip(pairs, fired, strict=True):
            if not did_fire:
                raise InputError(
                    f"the hook on {name!r} never fired: no forward pass reached it inside the block, so the "
                    "intervention changed nothing"
                )


@contextmanager
def _attached(point: Any, run: Hook, fired: list[bool], index: int) -> Iterator[None]:
    """The hook `run` on a hook point, noting in `fired[index]` that it ran."""

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
