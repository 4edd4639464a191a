"""Expected against yours: the first difference, said in a sentence. Runs outside the walls, on decoded values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .problem import Check
from .values import Array, Other, show_plain
from .verdict import Difference

MOST = 60


def compare(expected: Any, yours: Any, check: Check, place: str = "") -> Difference | None:
    """The first difference between two decoded values, None where they agree as `check` asks."""
    if check.kind == "unordered":
        return _unordered(expected, yours)
    if isinstance(expected, Array) and expected.kind != "scalar":
        return _arrays(expected, yours, check, place)
    if _is_number(expected):
        return _number(expected, yours, check, place)
    if isinstance(expected, list | tuple):
        return _sequence(expected, yours, check, place)
    if isinstance(expected, dict):
        return _dict(expected, yours, check, place)
    if type(expected) is not type(yours):
        return _type(expected, yours, place)
    return None if expected == yours else _value(place, expected, yours)


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, Array) and value.kind == "scalar" and value.dtype != "bool"
    )


def _plain(value: Any) -> Any:
    """A number without NumPy around it."""
    if isinstance(value, Array) and not value.shape:
        return bool(value.items[0]) if value.dtype == "bool" else value.items[0]
    return value


def kind_name(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Array):
        return f"{'a' if value.kind == 'scalar' else 'an array of'} {value.dtype}" + (
            f" with shape {_shape(value)}" if value.kind != "scalar" else ""
        )
    if isinstance(value, Other):
        return f"a {value.type}"
    names = {
        type(None): "None",
        bool: "a bool",
        int: "an int",
        float: "a float",
        str: "a str",
        list: "a list",
        tuple: "a tuple",
        set: "a set",
        dict: "a dict",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _shape(array: Array) -> str:
    return f"({', '.join(map(str, array.shape))}{',' if len(array.shape) == 1 else ''})"


def _short(value: Any) -> str:
    if isinstance(value, Array):
        return show_plain(_plain(value)) if value.kind == "scalar" else kind_name(value)
    text = show_plain(value)
    return text if len(text) <= MOST else text[: MOST - 1] + "…"


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def _type(expected: Any, yours: Any, place: str) -> Difference:
    text = f"Expected {kind_name(expected)}{_at(place)}, yours is {kind_name(yours)}."
    return Difference("type", text, place, kind_name(expected), kind_name(yours))


def _value(place: str, expected: Any, yours: Any) -> Difference:
    text = f"Expected {_short(expected)}{_at(place)}, yours is {_short(yours)}."
    return Difference("value", text, place, _short(expected), _short(yours))


def _number(expected: Any, yours: Any, check: Check, place: str) -> Difference | None:
    wanted, got = _plain(expected), _plain(yours)
    if isinstance(got, Array) and got.shape and math.prod(got.shape) == 1 and check.kind == "numeric":
        return Difference(
            "shape", f"Expected a number{_at(place)}, yours is {kind_name(got)}.", place, "a number", kind_name(got)
        )
    if isinstance(got, bool) or not isinstance(got, int | float):
        return _type(expected, yours, place)
    if check.kind == "exact" and isinstance(wanted, int) != isinstance(got, int):
        return _type(expected, yours, place)
    if check.dtype and isinstance(expected, Array) and (not isinstance(yours, Array) or yours.dtype != expected.dtype):
        told = yours.dtype if isinstance(yours, Array) else type(yours).__name__
        return Difference(
            "dtype", f"Expected {expected.dtype}{_at(place)}, yours is {told}.", place, expected.dtype, told
        )
    return None if _close(wanted, got, check) else _apart(wanted, got, check, place)


def _close(wanted: float, got: float, check: Check) -> bool:
    if wanted != wanted or got != got:
        return wanted != wanted and got != got
    if wanted == got:
        return True
    if math.isinf(wanted) or math.isinf(got):
        return False
    return bool(abs(wanted - got) <= check.absolute + check.relative * abs(wanted))


def _apart(wanted: float, got: float, check: Check, place: str) -> Difference:
    if (wanted != wanted) != (got != got):
        text = f"Expected {_short(wanted)}{_at(place)}, yours is {_short(got)}."
        return Difference("nan", text, place, _short(wanted), _short(got))
    absolute = abs(wanted - got) if math.isfinite(wanted) and math.isfinite(got) else None
    relative = absolute / abs(wanted) if absolute is not None and wanted else None
    tolerance = (
        check.absolute + check.relative * abs(wanted) if math.isfinite(wanted) and check.kind == "numeric" else None
    )
    text = f"Expected {_short(wanted)}{_at(place)}, yours is {_short(got)}"
    text += f": off by {absolute:.3g}, allowed {tolerance:.3g}." if absolute is not None and tolerance else "."
    return Difference("value", text, place, _short(wanted), _short(got), absolute, relative, tolerance)


def _arrays(expected: Array, yours: Any, check: Check, place: str) -> Difference | None:
    if not isinstance(yours, Array) or yours.kind != expected.kind:
        if isinstance(yours, Array) and yours.kind == "scalar":
            return Difference(
                "shape",
                f"Expected shape {_shape(expected)}{_at(place)}, yours is a single number.",
                place,
                _shape(expected),
                "()",
            )
        return _type(expected, yours, place)
    if expected.shape != yours.shape:
        text = f"Expected shape {_shape(expected)}{_at(place)}, yours is {_shape(yours)}."
        return Difference("shape", text, place, _shape(expected), _shape(yours))
    if (
        check.dtype or check.kind == "exact" or "bool" in (expected.dtype, yours.dtype)
    ) and expected.dtype != yours.dtype:
        text = f"Expected dtype {expected.dtype}{_at(place)}, yours is {yours.dtype}."
        return Difference("dtype", text, place, expected.dtype, yours.dtype)
    if expected.items == yours.items:
        return None
    pairs = zip(expected.items, yours.items, strict=True)
    wrong = [i for i, (wanted, got) in enumerate(pairs) if not _close(wanted, got, check)]
    if not wrong:
        return None
    first = wrong[0]
    spot = f"{place} [{', '.join(map(str, expected.at(first)))}]".strip()
    found = _apart(expected.items[first], yours.items[first], check, spot)
    count = len(expected.items)
    text = found.text + (f" {len(wrong)} of {count} places differ." if count > 1 else "")
    return Difference(
        found.kind,
        text,
        spot,
        found.expected,
        found.yours,
        found.absolute,
        found.relative,
        found.tolerance,
        len(wrong),
        count,
    )


def _sequence(expected: list[Any] | tuple[Any, ...], yours: Any, check: Check, place: str) -> Difference | None:
    if type(expected) is not type(yours):
        return _type(expected, yours, place)
    if len(expected) != len(yours):
        text = f"Expected {len(expected)} items{_at(place)}, yours has {len(yours)}."
        return Difference("length", text, place, str(len(expected)), str(len(yours)))
    first, wrong = None, 0
    for i, (wanted, got) in enumerate(zip(expected, yours, strict=True)):
        found = compare(
            wanted, got, check, f"result {i}" if isinstance(expected, tuple) and not place else f"{place}[{i}]"
        )
        if found:
            first, wrong = first or found, wrong + 1
    if first is None:
        return None
    plain = all(not isinstance(one, list | tuple | dict | Array) for one in expected)
    text = first.text + (f" {wrong} of {len(expected)} places differ." if plain and len(expected) > 1 else "")
    return Difference(
        first.kind, text, first.place, first.expected, first.yours, first.absolute, first.relative, first.tolerance,
        wrong if plain else first.wrong, len(expected) if plain else first.places,
    )  # fmt: skip


def _dict(expected: dict[Any, Any], yours: Any, check: Check, place: str) -> Difference | None:
    if not isinstance(yours, dict):
        return _type(expected, yours, place)
    for name, more in (("misses", expected.keys() - yours.keys()), ("should not have", yours.keys() - expected.keys())):
        if more:
            key = _short(min(more, key=repr))
            return Difference(
                "keys",
                f"Yours {name} the key {key}{_at(place)}.",
                place,
                *((key, "") if name == "misses" else ("", key)),
            )
    for key, wanted in expected.items():
        found = compare(wanted, yours[key], check, f"{place}[{_short(key)}]")
        if found:
            return found
    return None


def _items(value: Any) -> Iterator[Any]:
    for one in value:
        yield _frozen(one)


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(one) for one in value)
    return _plain(value) if isinstance(value, Array) and not value.shape else value


def _unordered(expected: Any, yours: Any) -> Difference | None:
    """Lists, tuples or sets with the same items, in any order."""
    if type(expected) is not type(yours):
        return _type(expected, yours, "")
    try:
        wanted, got = Counter(_items(expected)), Counter(_items(yours))
    except TypeError:
        return compare(expected, yours, Check("exact"))
    for name, more in (("misses", wanted - got), ("should not have", got - wanted)):
        if more:
            item, count = min(more.items(), key=repr)
            text = f"Yours {name} {_short(item)}{f' ({count} times)' if count > 1 else ''}."
            return Difference("count", text, "", *((_short(item), "") if name == "misses" else ("", _short(item))))
    return None
