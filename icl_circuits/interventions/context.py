"""Apply interventions to a model for the length of a `with` block."""

from collections.abc import Iterator
from contextlib import contextmanager

from icl_circuits.models import LensModel, attached
from icl_circuits.residual import Hooked, hooks_of

Intervention = Hooked
"""A change to a model's computation, as the hooks that carry it out."""


@contextmanager
def intervene(model: LensModel, *interventions: Intervention) -> Iterator[LensModel]:
    """Run `model` under `interventions` inside the block.

    Hooks that others put on the model stay as they are, and afterwards, also after an exception, the model is as it
    was. Interventions apply in the order given. Positions count the tokens of a forward pass, so `generate` needs
    `use_past_kv_cache=False`: with a cache each pass has one token.

    Raises:
        InputError: a head, layer or position that does not exist, or a value of the wrong shape. At the end of the
            block: a hook that never fired.
        Unfit: the model lacks what an intervention changes, or computes without it.
    """
    with attached(model, hooks_of(model, interventions)):
        yield model
