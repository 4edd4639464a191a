"""Expected against yours: the first difference, said in a sentence. Runs outside the walls, on decoded values."""

from __future__ import annotations

import math
from collections import Counter
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
    same = _counted(expected) == _counted(yours) if isinstance(expected, set) else expected == yours
    return None if same else _value(place, expected, yours)


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
    if math.isinf(_real(wanted)) or math.isinf(_real(got)):
        return False
    return bool(abs(wanted - got) <= check.absolute + check.relative * abs(wanted))


def _real(number: float) -> float:
    """As a float; infinity for an integer that is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number > 0 or -1)


def _finite(number: float) -> float | None:
    """Its size, None where that is beyond all bounds, which JSON has no word for."""
    size = abs(_real(number))
    return size if math.isfinite(size) else None


def _apart(wanted: float, got: float, check: Check, place: str) -> Difference:
    if (wanted != wanted) != (got != got):
        text = f"Expected {_short(wanted)}{_at(place)}, yours is {_short(got)}."
        return Difference("nan", text, place, _short(wanted), _short(got))
    absolute = _finite(wanted - got) if math.isfinite(_real(wanted)) and math.isfinite(_real(got)) else None
    relative = _finite(absolute / abs(wanted)) if absolute is not None and wanted else None
    numeric = check.kind == "numeric" and math.isfinite(_real(wanted))
    tolerance = check.absolute + check.relative * abs(wanted) if numeric else None
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
        if type(wanted) is type(got) and type(got) in (int, float) and (first or wanted == got):
            wrong += not _close(wanted, got, check)  # of what is only counted no sentence is made
            continue
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
    wanted_keys, got_keys = ({_key(key): key for key in one} for one in (expected, yours))
    for name, has, lacks in (("misses", wanted_keys, got_keys), ("should not have", got_keys, wanted_keys)):
        if more := has.keys() - lacks.keys():
            key = _short(has[min(more)])
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


def _counted(value: Any) -> Counter[str]:
    """How often a list, tuple or set holds what."""
    return Counter(map(_key, value))


def _key(value: Any) -> str:
    """A text that two items share where they are equal and of one type: 1, 1.0 and True are three things.

    A text, since its hash cannot be foreseen: numbers chosen to collide would make counting them slow.
    """
    value = _plain(value)
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_key, value))})"
    if isinstance(value, set):
        return f"{{{', '.join(sorted(map(_key, value)))}}}"
    if isinstance(value, float):
        return repr(value + 0.0)  # of two zeros one
    if isinstance(value, Array | dict):
        raise TypeError("no key can be made of this")
    return repr(value)


def _unordered(expected: Any, yours: Any) -> Difference | None:
    """Lists, tuples or sets with the same items, in any order."""
    if type(expected) is not type(yours):
        return _type(expected, yours, "")
    try:
        wanted, got = _counted(expected), _counted(yours)
    except TypeError:
        return compare(expected, yours, Check("exact"))
    for name, more in (("misses", wanted - got), ("should not have", got - wanted)):
        if more:
            key, count = min(more.items())
            item = _short(next(one for one in (expected if name == "misses" else yours) if _key(one) == key))
            text = f"Yours {name} {item}{f' ({count} times)' if count > 1 else ''}."
            return Difference("count", text, "", *((item, "") if name == "misses" else ("", item)))
    return None
