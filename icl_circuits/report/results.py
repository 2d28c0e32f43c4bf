"""Results as a file: the arrays by name, and beside them how they fit together, so that objects come back as they were.

The file is safetensors. Arrays are named by the path to them (`groups.random.answers.top1`); what is not an array
(heads, labels, settings) stands as JSON in the file's metadata.
"""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from cattrs import BaseValidationError, Converter
from jaxtyping import AbstractArray, Shaped, jaxtyped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from icl_circuits.circuits import node_of, plain_node
from icl_circuits.errors import InputError
from icl_circuits.residual import Edge, Head, HeadInput

T = TypeVar("T")
FILE = "results.safetensors"
"""Its name in a folder of results."""
STRUCTURE = "icl_circuits"
"""The entry of the file's metadata that says how the arrays fit together."""
ARRAY = "$array"
DAMAGED = (
    SafetensorError, BaseValidationError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, OSError,
    RecursionError, MemoryError,
)  # fmt: skip
"""What a file of another kind or version, or one that was tampered with, may make its readers raise."""


@dataclass(frozen=True)
class Results:
    """What studies found, as it stands in a file."""

    about: Mapping[str, Any]
    """`provenance`, `settings`, `job`: every option asked for, and `described`: what was run, in a sentence."""
    values: Mapping[str, Any]
    """Result objects, and plain arrays, by name."""


def write_results(results: Results, path: Path, kinds: Iterable[type]) -> None:
    """Write `results`, whole or not at all. Equal results are equal files.

    Raises:
        TypeError: a value that is neither an array nor of one of `kinds`.
        InputError: `path` holds something else than results, or cannot be written.
    """
    known, arrays = {np.ndarray, *kinds}, dict[str, np.ndarray]()
    parts = {}
    for name, value in results.values.items():
        kind = type(value)
        if kind not in known:
            raise TypeError(f"{name} is a {kind.__name__}, which files do not hold")
        structure = _take_arrays(CONVERTER.unstructure(value), name, arrays)
        parts[name] = {"kind": "array" if kind is np.ndarray else kind.__name__, "value": structure}
    text = json.dumps({"about": results.about, "values": parts}, default=_plain)
    begun = path.parent / f".icl-circuits-{os.getpid()}"
    try:
        if os.path.lexists(path) and not _holds_results(path):
            raise InputError(f"{str(path)!r} exists and holds no results: name another file")
        save_file(arrays, begun, metadata={STRUCTURE: text})
        begun.replace(path)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {str(path)!r} ({why}): name another file") from error
    finally:
        with suppress(OSError):
            begun.unlink()


def _holds_results(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as opened:
            return STRUCTURE in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_results(path: str | Path, kinds: Iterable[type]) -> Results:
    """Read results back.

    Args:
        path: a folder of results, or the file of results in one.
        kinds: the classes that result objects may be of.

    Raises:
        InputError: nothing there, or no results of this version.
    """
    written = "a folder that a study of `icl-circuits` wrote, or its .safetensors file"
    path = Path(path)
    try:
        file = path / FILE if path.is_dir() else path
        is_there = file.is_file()
        if is_there:
            file.open("rb").close()
    except (OSError, ValueError) as error:  # a name that no disk takes, a file that may not be read
        raise InputError(f"no results at {str(path)!r} ({error}): give {written}") from error
    if not is_there:
        raise InputError(f"no results at {str(path)!r}: give {written}")
    by_name: dict[str, Any] = {"array": np.ndarray} | {kind.__name__: kind for kind in kinds}
    try:
        with safe_open(file, framework="numpy") as opened:
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
            structure = json.loads((opened.metadata() or {})[STRUCTURE])
        values: dict[str, Any] = {
            name: CONVERTER.structure(_put_arrays(part["value"], arrays), by_name[part["kind"]])
            for name, part in structure["values"].items()
        }
        require_shapes(tuple(values.values()))
        about = {"described": ""} | CONVERTER.structure(structure["about"], dict[str, Any])
        return Results(about | {"described": _exactly(about["described"], str)}, values)
    except DAMAGED as error:
        raise InputError(
            f"{str(file)!r} holds no results that this version of icl_circuits can read "
            f"({type(error).__name__}): give {written}, or run that again"
        ) from error


def _converter() -> Converter:
    """Takes frozen dataclasses apart and puts them together; arrays stay as they are."""
    converter = Converter()

    def is_array(kind: Any) -> bool:
        return isinstance(kind, type) and issubclass(kind, np.ndarray | AbstractArray)

    def an_array(value: Any, _: Any) -> np.ndarray:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{value!r} is not an array")
        return value

    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _exactly)
    converter.register_unstructure_hook(Head, list)
    converter.register_structure_hook(Head, lambda value, _: Head(*(_exactly(number, int) for number in value)))
    converter.register_unstructure_hook(
        Edge, lambda edge: [plain_node(edge.sender), plain_node(edge.receiver), edge.input]
    )
    converter.register_structure_hook(Edge, _edge)
    converter.register_unstructure_hook_func(is_array, lambda array: array)
    converter.register_structure_hook_func(is_array, an_array)
    return converter


def from_plain(value: Any, kind: type[T]) -> T:
    """A frozen dataclass of plain values, as JSON has it, put together. Raises one of `DAMAGED` for what is none."""
    found: T = CONVERTER.structure(value, kind)
    return found


def _exactly(value: Any, kind: Any) -> Any:
    """A number or text of that kind, and no other that Python would make one of."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    if kind is int and not -(2**31) <= value < 2**31:
        raise ValueError("a number is out of range")
    return kind(value)


def _edge(value: Any, _: Any) -> Edge:
    sender, receiver, name = value
    if name not in (None, *get_args(HeadInput)):
        raise TypeError(f"{name!r} is no input of a head")
    return Edge(node_of(sender), node_of(receiver), name)


def require_shapes(value: Any) -> None:
    """Raise `TypeError` unless the arrays of result objects have the types and axes that their classes say.

    Where an axis is named as a list is, `edge` beside `edges`, it is as long.
    """
    if isinstance(value, tuple):
        for item in value:
            require_shapes(item)
    if is_dataclass(value):
        with jaxtyped("context"):
            for field in fields(value):
                found: Any = getattr(value, field.name)
                if isinstance(found, np.ndarray) and not isinstance(found, field.type):  # type: ignore[arg-type]
                    raise TypeError(f"{type(value).__name__}.{field.name} has shape {found.shape} of {found.dtype}")
                axis = Shaped[np.ndarray, field.name.removesuffix("s")]
                if isinstance(found, tuple) and not isinstance(np.empty(len(found)), axis):
                    raise TypeError(f"{type(value).__name__}.{field.name} are {len(found)}, but its arrays have others")
        for field in fields(value):
            require_shapes(getattr(value, field.name))


CONVERTER = _converter()


def _take_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` with its arrays moved to `arrays`, each by the path to it."""
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value)
        return {ARRAY: path}
    if isinstance(value, dict):
        return {key: _take_arrays(item, f"{path}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_arrays(item, f"{path}.{i}", arrays) for i, item in enumerate(value)]
    return value


def _put_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `_take_arrays`."""
    if isinstance(value, dict):
        return arrays[value[ARRAY]] if ARRAY in value else {k: _put_arrays(item, arrays) for k, item in value.items()}
    if isinstance(value, list):
        return [_put_arrays(item, arrays) for item in value]
    return value


def _plain(value: Any) -> Any:
    """A numpy scalar as JSON knows it."""
    return value.item()
