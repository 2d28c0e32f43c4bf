"""Values as bytes and back, exactly: frozen dataclasses, tuples, tables and arrays, nested in any way.

The bytes are safetensors: arrays by number, and beside them, as JSON, how they fit together. Reading runs no code but
the constructors of dataclasses and named tuples that are imported already.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load, save

KIND = "$"
ENTRY = "icl_circuits"
"""The one entry of the metadata: several would stand in any order."""


def packed(value: Any, about: Any = None) -> bytes:
    """`value` as bytes; `about`, which JSON can say, stands in their header. Equal values are equal bytes.

    Raises:
        TypeError: a value of a kind that has no such form.
    """
    structure, arrays = _parts(value)
    return save(arrays, metadata={ENTRY: json.dumps({"about": about, "structure": structure})})


def unpacked(data: bytes) -> Any:
    """The inverse of `packed`. Raises all kinds of errors for bytes that it did not write."""
    return _decoded(json.loads(_entry(data)["structure"]), load(data))


def about_of(begins: Callable[[int], bytes]) -> Any:
    """What `packed` was told of the value, given what reads so many bytes of it, from the first on."""
    length = begins(8)
    return _entry(length + begins(int.from_bytes(length, "little")))["about"]


def _entry(data: bytes) -> Any:
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"][ENTRY])


def digest(value: Any) -> str:
    """A SHA-256 of `value`: equal for equal values, in any process.

    Raises:
        TypeError: as `packed` does.
    """
    found = hashlib.sha256()
    _feed(found.update, value)
    return found.hexdigest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Show a digest `value` part by part: thousands of prompts are never one text."""
    if type(value) in (tuple, list):
        update(f"{type(value).__name__} {len(value)}\n".encode())
        for item in value:
            _feed(update, item)
    elif isinstance(value, Mapping):
        update(f"dict {len(value)}\n".encode())
        for pair in value.items():
            _feed(update, pair)
    elif (names := _names(type(value))) is not None:
        update(f"{_class_name(value)} {len(names)}\n".encode())
        for name in names:
            _feed(update, (name, getattr(value, name)))
    else:
        structure, arrays = _parts(value)
        update(f"{len(structure.encode())}\n{structure}".encode())
        for array in arrays.values():
            update(f"{array.dtype.str}{array.shape}".encode())
            update(array.tobytes())


def _parts(value: Any) -> tuple[str, dict[str, np.ndarray]]:
    arrays = dict[str, np.ndarray]()
    return json.dumps(_encoded(value, arrays)), arrays


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON, its arrays in `arrays`."""
    of = partial(_encoded, arrays=arrays)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [of(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return _array(value, arrays)
    if type(value) is tuple:
        return {KIND: "tuple", "items": [of(item) for item in value]}
    if isinstance(value, Mapping):
        return {KIND: "dict", "items": [[of(key), of(item)] for key, item in value.items()]}
    return _object(value, of)


def _object(value: Any, of: Callable[[Any], Any]) -> Any:
    """A table, a dataclass or a named tuple, its parts taken by `of`."""
    if isinstance(value, pd.DataFrame) and isinstance(value.index, pd.RangeIndex):
        columns = [[of(name), str(value[name].dtype), of(value[name].tolist())] for name in value.columns]
        return {KIND: "table", "columns": columns, "rows": len(value)}
    names = _names(type(value))
    if names is None:
        raise TypeError(f"a {type(value).__name__} cannot be kept")
    parts = {name: of(getattr(value, name)) for name in names}
    return {KIND: "object", "class": _class_name(value), "fields": parts}


def _names(kind: type) -> Sequence[str] | None:
    """The names of the fields of a dataclass or a named tuple; None for what is neither."""
    return [field.name for field in fields(kind)] if is_dataclass(kind) else getattr(kind, "_fields", None)


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _array(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, torch.Tensor):
        return {KIND: "tensor", "array": _array(value.detach().cpu().numpy(), arrays), "device": str(value.device)}
    array, name = np.asarray(value), str(len(arrays))
    if array.dtype.kind == "U":
        return {KIND: "texts", "items": array.ravel().tolist(), "shape": list(array.shape), "dtype": array.dtype.str}
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an array of {array.dtype} cannot be kept")
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    return {KIND: "scalar" if isinstance(value, np.generic) else "array", "name": name}


def _decoded(found: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    of = partial(_decoded, arrays=arrays)
    if isinstance(found, list):
        return [of(item) for item in found]
    if not isinstance(found, dict):
        return found
    if found[KIND] in ("array", "scalar"):
        return arrays[found["name"]][() if found[KIND] == "scalar" else ...]
    return DECODERS[found[KIND]](found, of)


def _table(found: Any, of: Callable[[Any], Any]) -> pd.DataFrame:
    columns = {of(name): pd.Series(of(items), dtype=kind) for name, kind, items in found["columns"]}
    return pd.DataFrame(columns, index=pd.RangeIndex(found["rows"]))


DECODERS: Mapping[str, Callable[[Any, Callable[[Any], Any]], Any]] = {
    "tensor": lambda found, of: torch.from_numpy(of(found["array"])).to(found["device"]),
    "texts": lambda found, _: np.array(found["items"], found["dtype"]).reshape(found["shape"]),
    "tuple": lambda found, of: tuple(of(found["items"])),
    "dict": lambda found, of: {of(key): of(item) for key, item in found["items"]},
    "table": _table,
    "object": lambda found, of: _class(found["class"])(**{name: of(item) for name, item in found["fields"].items()}),
}
"""What puts each kind of value together, given what does so with its parts."""


def _class(name: str) -> Any:
    module, path = name.split(":")
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and (is_dataclass(found) or hasattr(found, "_fields"))):
        raise TypeError(f"{name} holds no plain values")
    return found
