"""Arguments and results as JSON: what a program is given and what it gives back, without ever unpickling anything.

    None, bool, int, float, str, list      as they are (NaN and Infinity as Python's json writes them)
    tuple, set, bytes                      {"tuple": [...]}, {"set": [...]}, {"bytes": base64}
    dict                                   {"dict": [[key, value], ...]}
    array                                  {"array": [dtype, shape, base64 of widened little-endian items, kind]}
    random generator                       {"random": seed}
    anything else                          {"other": "its type"}

Kind is numpy, torch, or scalar (a NumPy scalar: shape is empty). Items are float64, int64, uint64 or bool. Inside the
walls `decode` makes NumPy's own arrays; outside, where NumPy is not needed, `Array`.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from array import array as items_of
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

DEEPEST = 40
"""Most levels of nesting."""
CODES = {"f": "d", "i": "q", "u": "Q", "b": "B"}
"""Kind of a dtype -> type code of its widened items."""
KINDS = ("numpy", "torch", "scalar")
DTYPE = re.compile(
    r"(?:bool|float(?:16|32|64|96|128)|bfloat16|float[48]_e\w{1,12}|q?u?int(?:1|2|4|8|16|32|64))", re.ASCII
)
"""Names of dtypes that NumPy and torch have; no other is believed."""
MOST_AXES = 64
MOST_BITS = 14000
"""Bits of an integer that may be written in decimal (Python refuses more than 4300 digits)."""


class Unreadable(ValueError):
    """What came is not an encoded value."""


@dataclass(frozen=True)
class Array:
    """An array as it is seen outside: dtype by name, shape, flat items; `kind` as above."""

    dtype: str
    shape: tuple[int, ...]
    items: Any
    kind: str = "numpy"

    def at(self, index: int) -> tuple[int, ...]:
        """The place of flat item `index`."""
        place = []
        for size in reversed(self.shape):
            index, rest = divmod(index, size)
            place.append(rest)
        return tuple(reversed(place))


def kind_of(dtype: str) -> str:
    """f, i, u or b for a dtype's name (float32, bfloat16, int8, uint4, bool)."""
    if not DTYPE.fullmatch(dtype):
        raise Unreadable(f"{dtype[:40]!r} is not a kind of number")
    return {"f": "f", "i": "i", "u": "u", "b": "b"}["f" if "float" in dtype else dtype.removeprefix("q")[0]]


def encode(value: Any, depth: int = 0) -> Any:
    """A value of a program as JSON. Never fails for what it does not know: that is named by its type."""
    if depth > DEEPEST:
        return {"other": f"nested deeper than {DEEPEST} levels"}
    kind = type(value)
    if kind is int and value.bit_length() > MOST_BITS:
        return {"other": f"int of {value.bit_length()} bits"}
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(one, depth + 1) for one in value]
    if kind is tuple:
        return {"tuple": [encode(one, depth + 1) for one in value]}
    if kind in (set, frozenset):
        return {"set": [encode(one, depth + 1) for one in value]}
    if kind is dict:
        return {"dict": [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]}
    if kind in (bytes, bytearray):
        return {"bytes": base64.b64encode(value).decode()}
    found = _encode_array(value)
    if found is not None:
        return found
    plain: Any
    for plain in (int, float, str, list, tuple, dict):
        if isinstance(value, plain):  # a named tuple, an enum, a counter: as what it is made of
            return encode(plain(value), depth + 1)
    return {"other": f"{kind.__module__}.{kind.__qualname__}"}


def _encode_array(value: Any) -> Any:
    np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    kind = "numpy"
    if torch is not None and isinstance(value, torch.Tensor):
        shown, kind = str(value.dtype).removeprefix("torch."), "torch"
        value = value.detach().cpu()
        value = (value.double() if value.dtype.is_floating_point else value).numpy()
    elif np is None or not isinstance(value, np.ndarray | np.generic):
        return None
    elif isinstance(value, np.generic):
        kind = "scalar"
    assert np is not None
    flat = np.asarray(value)
    if kind != "torch":
        shown = flat.dtype.name
    if flat.dtype.kind not in CODES:
        return {"other": f"array of {flat.dtype}"}
    wide = {"f": "<f8", "i": "<i8", "u": "<u8", "b": "|b1"}[flat.dtype.kind]
    data = base64.b64encode(np.ascontiguousarray(flat, wide).tobytes()).decode()
    return {"array": [shown, list(flat.shape), data, kind]}


def encode_items(dtype: str, shape: list[int], items: list[Any], kind: str = "numpy") -> Any:
    """An encoded array of plain numbers. Unreadable where one is none, or does not fit."""
    try:
        code = CODES[kind_of(dtype)]
        data = items_of(code, [float(one) if code == "d" else int(one) for one in items])
    except (TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"not all of it is {dtype} ({error})") from error
    return {"array": [dtype, shape, base64.b64encode(data.tobytes()).decode(), kind]}


def nudged(value: Any, random: Callable[[], float]) -> Any:
    """An encoded value whose finite, non-zero floats are each changed by a unit in the last place, up or down as
    `random` (0 to 1) says; what is no float stays.
    """
    if type(value) is float and value and math.isfinite(value):
        return math.nextafter(value, math.inf if random() < 0.5 else -math.inf)
    if isinstance(value, list):
        return [nudged(one, random) for one in value]
    if isinstance(value, dict) and "array" in value:
        dtype, shape, data, kind = value["array"]
        if dtype != "float64":
            return value
        items = items_of("d", base64.b64decode(data))
        return encode_items(dtype, shape, [nudged(one, random) for one in items], kind)
    return {name: nudged(inner, random) for name, inner in value.items()} if isinstance(value, dict) else value


def decode(value: Any, make: Callable[[Array], Any] = lambda array: array, depth: int = 0) -> Any:
    """An encoded value again; `make` makes what stands for arrays. Unreadable for anything else."""
    if depth > DEEPEST + 2:
        raise Unreadable("nested too deep")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [decode(one, make, depth + 1) for one in value]
    if not isinstance(value, dict) or len(value) != 1:
        raise Unreadable("no value looks like this")
    [(name, inner)] = value.items()
    if name == "array":
        return make(_decode_array(inner))
    if name == "random" and isinstance(inner, int):
        return Seed(inner)
    if name == "other" and isinstance(inner, str):
        return Other(inner[:200])
    if name == "bytes" and isinstance(inner, str):
        try:
            return base64.b64decode(inner)
        except ValueError as error:
            raise Unreadable("bytes are damaged") from error
    if not isinstance(inner, list):
        raise Unreadable(f"{name!r} is not a value")
    parts = [decode(one, make, depth + 1) for one in inner]
    try:
        if name == "tuple":
            return tuple(parts)
        if name == "set":
            return set(_spread(parts))
        if name == "dict":
            _spread([key for key, _ in parts])
            return dict(parts)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{name} cannot be made of this") from error
    raise Unreadable(f"{name!r} is not a value")


def _spread(keys: list[Any]) -> list[Any]:
    """The same, if their hashes differ: numbers made to collide would take a set the square of their count in time."""
    if len(keys) > 64 and 2 * len({hash(key) for key in keys}) < len(keys):
        raise Unreadable("a set or dict of keys that are hardly different")
    return keys


def _decode_array(inner: Any) -> Array:
    match inner:
        case [str(dtype), [*shape], str(data), str(kind)] if (
            kind in KINDS
            and len(shape) <= (0 if kind == "scalar" else MOST_AXES)
            and all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
        ):
            found = items_of(CODES[kind_of(dtype)])
            try:
                found.frombytes(base64.b64decode(data, validate=True))
            except ValueError as error:
                raise Unreadable("an array's items are damaged") from error
            if len(found) != prod(shape):
                raise Unreadable("an array has another number of items than its shape")
            return Array(dtype, tuple(shape), found, kind)
    raise Unreadable("no array looks like this")


@dataclass(frozen=True)
class Seed:
    """Stands for a random generator."""

    value: int


@dataclass(frozen=True)
class Other:
    """Something that is no value: only its type is known."""

    type: str


def inside(value: Any) -> Any:
    """Decode as a program wants its arguments: NumPy's arrays, torch's tensors, random generators."""
    np = sys.modules.get("numpy")

    def make(array: Array) -> Any:
        if np is None:
            raise Unreadable("an array, but there is no NumPy")
        if array.kind == "torch":
            import torch

            return torch.tensor(list(array.items), dtype=getattr(torch, array.dtype)).reshape(array.shape)
        wide = np.frombuffer(
            array.items.tobytes(), {"d": "<f8", "q": "<i8", "Q": "<u8", "B": "|b1"}[array.items.typecode]
        )
        made = wide.reshape(array.shape).astype(array.dtype)
        return made[()] if array.kind == "scalar" else made

    found = decode(value, make)
    if isinstance(found, Seed):
        import random

        return np.random.default_rng(found.value) if np is not None else random.Random(found.value)
    return found


def show(value: Any, width: int = 300) -> str:
    """An encoded value as a person would type it, cut to `width` characters."""
    text = ""
    for piece in _pieces(decode(value), width):
        text += piece
        if len(text) > width:  # no more is made than is shown, however large the value
            return text[: width - 1] + "…"
    return text


def _pieces(value: Any, width: int) -> Iterator[str]:
    if isinstance(value, Array):
        yield from _array(value, width)
    elif isinstance(value, list | tuple | set):
        opening, closing = (
            ("[", "]") if isinstance(value, list) else ("(", ")") if isinstance(value, tuple) else ("{", "}")
        )
        yield opening
        for i, one in enumerate(value):
            if i:
                yield ", "
            yield from _pieces(one, width)
        yield ",)" if isinstance(value, tuple) and len(value) == 1 else closing
    elif isinstance(value, dict):
        yield "{"
        for i, (key, one) in enumerate(value.items()):
            yield f"{', ' if i else ''}{show_plain(key)}: "
            yield from _pieces(one, width)
        yield "}"
    elif isinstance(value, Other):
        yield f"<{value.type}>"
    else:
        yield show_plain(value)


def show_plain(value: Any) -> str:
    """A number as short as it is exact enough to read, anything else as Python writes it."""
    if type(value) is float:
        return f"{value:.7g}" if value == value and abs(value) != float("inf") else str(value)
    if type(value) is int and abs(value) >= 10**40:
        exact = value.bit_length() <= MOST_BITS
        return f"an integer of {len(str(abs(value))) if exact else round(value.bit_length() * 0.30103)} digits"
    return repr(value)


def _array(array: Array, width: int) -> Iterator[str]:
    def block(shape: tuple[int, ...], start: int) -> Iterator[str]:
        if not shape:
            item = array.items[start]
            yield str(bool(item)) if array.dtype == "bool" else show_plain(item)
            return
        step = prod(shape[1:])
        yield "["
        for i in range(shape[0]):
            if i:
                yield ", "
            yield from block(shape[1:], start + i * step)
        yield "]"

    yield from block(array.shape, 0)
    if array.kind != "scalar":
        yield f"  {array.dtype}{list(array.shape)}"
