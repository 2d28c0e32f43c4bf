"""Broken inputs out of good ones: bytes of files, and plain values as JSON has them."""

import gzip
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

HUGE = "9" * 5000
"""More digits than Python makes a number of."""
RAW = {
    "<huge>": HUGE,
    "<inf>": "1e999",
    "<nan>": "NaN",
    "<minus>": "-Infinity",
    "<deep list>": "[" * 100_000 + "]" * 100_000,
    "<deep object>": '{"a":' * 20_000 + "1" + "}" * 20_000,
}
"""What stands in a file for a text that json.dumps cannot write."""
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**64), 10**12, 10**30, 1.5, -0.0, 1e308,
    "", " ", "a", "1", "\0", "a\nb", "\u2028", "\u202e", "\ud800", "a\udc00b", "é", "😀", "a" * 5000, "=1+1",
    [], {}, [[]], [None], [0], [0, 1], [-1, 2], [1, 0], [0, 10**12], [0.5, 1], ["a"], ["a", "\ud800"], {"a": 1},
    {"": {}}, {"head": 0}, {"kind": "head"}, {"$array": "nowhere"}, *RAW,
)  # fmt: skip
"""Wrong types and odd values for any place."""
NAMES = ("", "a", "text", "label", "head", "relation", "\ud800", "a\nb", "a" * 3000, "$array", "../a", "/etc/x")
PIECES = (
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b'"',
    b'""', b"'", b"\\", b"\\u0000", b"\\ud800", b"\r", b"\r\n", b"\n", b"\n\n", b"\t", b"\t\t", b",", b";", b"|", b" ",
    b"  ", b"#", b"# text = ", b"# sent_id = a\r", b"# global.columns = ID FORM", b"_", b"-", b"1-2", b"2-1", b"1.1",
    b"0", b"-1", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null", b"true", b"[", b"]", b"{", b"}", b"[[[[",
    b"<method_0>", b"<method_99>", b"<method_" + HUGE.encode() + b">", HUGE.encode(), b"1" + b"0" * 30,
    "\u2028".encode(), "\x85".encode(), "\u202e".encode(), "\u3000".encode(), b"\x0b", b"\x0c", b"\x1b[2J", b"\x1c",
    b"\x1f\x8b", b"PK\x03\x04",
    b"a" * 200_000, b"[" * 100_000, b"a:" * 500, b"|" * 2000, b"=" * 2000,
)  # fmt: skip
"""What is put into a file at any place, or in the place of anything."""
ENCODINGS = (
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-le",
    "utf-8-sig",
    "latin-1",
    "cp1252",
    "utf-7",
    "cp037",
)

Change = Callable[[DrawFn, bytes], bytes]


def _place(draw: DrawFn, data: Sequence[Any]) -> int:
    return draw(st.integers(0, max(len(data) - 1, 0)))


def flip(draw: DrawFn, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4)) if found else 0):
        found[_place(draw, found)] = draw(st.integers(0, 255))
    return bytes(found)


def truncate(draw: DrawFn, data: bytes) -> bytes:
    return data[: _place(draw, data)]


def cut_out(draw: DrawFn, data: bytes) -> bytes:
    start = _place(draw, data)
    return data[:start] + data[start + draw(st.integers(1, 40)) :]


def put_in(draw: DrawFn, data: bytes) -> bytes:
    start = _place(draw, data)
    return data[:start] + draw(st.sampled_from(PIECES)) + data[start:]


def replace_number(draw: DrawFn, data: bytes) -> bytes:
    return _replace_match(draw, data, rb"-?\d+", PIECES)


def replace_word(draw: DrawFn, data: bytes) -> bytes:
    return _replace_match(draw, data, rb"\w+", (*PIECES, b""))


def _replace_match(draw: DrawFn, data: bytes, pattern: bytes, pieces: tuple[bytes, ...]) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    start, stop = found[_place(draw, found)].span()
    return data[:start] + draw(st.sampled_from(pieces)) + data[stop:]


def drop_line(draw: DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    del lines[_place(draw, lines)]
    return b"\n".join(lines)


def repeat_line(draw: DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines.insert(_place(draw, lines), lines[_place(draw, lines)])
    return b"\n".join(lines)


def swap_lines(draw: DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    i, j = _place(draw, lines), _place(draw, lines)
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def change_column(draw: DrawFn, data: bytes) -> bytes:
    """Delete, repeat or empty a column: of one line, or of all."""
    delimiter = b"\t" if b"\t" in data else b","
    lines = [line.split(delimiter) for line in data.split(b"\n")]
    column, how = draw(st.integers(0, 9)), draw(st.sampled_from(["delete", "repeat", "empty"]))
    where = lines if draw(st.booleans()) else [lines[_place(draw, lines)]]
    for line in where:
        if column < len(line):
            line[column : column + 1] = {"delete": [], "repeat": [line[column]] * 2, "empty": [b""]}[how]
    return b"\n".join(delimiter.join(line) for line in lines)


def change_ends(draw: DrawFn, data: bytes) -> bytes:
    """Other ends of lines, all alike or mixed."""
    lines = data.split(b"\n")
    kinds = draw(st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\r", b"\n\n"]), min_size=1, max_size=5))
    return b"".join(line + kinds[i % len(kinds)] for i, line in enumerate(lines))


def encode_anew(draw: DrawFn, data: bytes) -> bytes:
    encoding = draw(st.sampled_from(ENCODINGS))
    return data.decode("utf-8", "replace").encode(encoding, "replace")


def pack(draw: DrawFn, data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def empty(draw: DrawFn, data: bytes) -> bytes:
    return draw(st.sampled_from([b"", b"\n", b" ", b"\r", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfe\0\0", b"\x1f\x8b"]))


def json_line(draw: DrawFn, data: bytes) -> bytes:
    """Something else at any place of the JSON on one line, or of all of it."""
    lines = data.split(b"\n")
    i = _place(draw, lines)
    try:
        lines[i] = as_json(changed_value(draw, json.loads(lines[i])))
    except (ValueError, RecursionError):
        return put_in(draw, data)
    return b"\n".join(lines)


CHANGES: tuple[Change, ...] = (
    flip, truncate, cut_out, put_in, put_in, replace_number, replace_word, drop_line, repeat_line, swap_lines,
    change_column, change_ends, encode_anew, pack, empty,
)  # fmt: skip


@st.composite
def files(draw: DrawFn, good: Sequence[bytes], *, json_lines: bool = False) -> bytes:
    """Bytes of a file that are one to four changes away from a good one."""
    data = draw(st.sampled_from(good))
    changes = (*CHANGES, *[json_line] * 12) if json_lines else CHANGES
    for change in draw(st.lists(st.sampled_from(changes), min_size=1, max_size=4)):
        data = change(draw, data)
    return data


@st.composite
def values(draw: DrawFn, good: Sequence[Any]) -> Any:
    """A plain value that is one to three changes away from a good one."""
    value = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, 3))):
        value = changed_value(draw, value)
    return value


def changed_value(draw: DrawFn, value: Any) -> Any:
    """A copy of a value with one place of it changed."""
    places = list(_places(value, ()))
    *above, last = (None, *places[_place(draw, places)])
    copy = {None: _copied(value)}
    holder: Any = copy
    for key in above:
        holder = holder[key]
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat", "nest", "rename"]))
    if how == "replace" or (how in ("remove", "repeat", "rename") and holder is copy):
        holder[last] = draw(odd_values)
    elif how == "remove":
        del holder[last]
    elif how == "nest":
        holder[last] = [holder[last]] if draw(st.booleans()) else {"a": holder[last]}
    elif isinstance(holder, list):
        holder.insert(last, _copied(holder[last]))
    else:
        holder[draw(st.sampled_from(NAMES))] = holder.pop(last) if how == "rename" else _copied(holder[last])
    return copy[None]


odd_values = st.one_of(st.sampled_from(ODD_VALUES), st.text(max_size=5), st.integers(-5, 5), st.floats(width=16))


def as_json(value: Any) -> bytes:
    """A value as JSON, with the texts of RAW in it put as they are."""
    text = json.dumps(value, ensure_ascii=True)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
