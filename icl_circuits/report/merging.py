"""What several parts give is put together; nothing of one hides what another gives."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from icl_circuits.errors import InputError

T = TypeVar("T")


def together(parts: Iterable[Mapping[str, T]], what: str) -> dict[str, T]:
    """The entries of all `parts`, in their order.

    Raises:
        InputError: two parts have an entry of one name; `what` says of which kind.
    """
    found: dict[str, T] = {}
    for part in parts:
        for name, value in part.items():
            if name in found:
                raise InputError(f"two studies give a {what} {name!r}: name it otherwise in one of them")
            found[name] = value
    return found


def merged(old: Any, new: Any, where: str) -> Any:
    """Two values that stand at `where` as one: dicts key by key, lists of the same length entry by entry.

    Raises:
        InputError: two values of one name that cannot be put together.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        both = {key: merged(old[key], new[key], f"{where}.{key}") for key in new if key in old}
        return {**old, **new, **both}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [merged(a, b, f"{where}.{i}") for i, (a, b) in enumerate(zip(old, new, strict=True))]
    raise InputError(f"two studies give {where}: name it otherwise in one of them")
