"""Values survive the way in and out; what differs is named; nothing that is sent can hurt who reads it."""

# ruff: noqa: E501 - programs and rows of tables stand in one line

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from bitwright.judge import pool, values
from bitwright.judge.checker import compare
from bitwright.judge.problem import Check
from bitwright.judge.values import Array, Other, Unreadable, decode, encode, encode_items, inside, show

EXACT, NUMERIC = Check("exact"), Check("numeric", 1e-9, 1e-6)
SAME_DTYPE, UNORDERED = Check("numeric", 1e-9, 1e-6, True), Check("unordered")
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
)
KEY = st.one_of(st.integers(), st.text(max_size=9), st.tuples(st.integers(), st.text(max_size=3)))
VALUE = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(KEY, max_size=5),
        st.dictionaries(KEY, inner, max_size=4),
    ),
    max_leaves=20,
)
DTYPES = st.sampled_from(
    ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "uint64", "bool", ">f8", ">i4"]
)
ARRAY = DTYPES.flatmap(
    lambda dtype: nps.arrays(dtype, nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["array", "set", "dict", "tuple", "bytes", "other", "random", "x"]), inner, max_size=2
        ),
        st.tuples(
            st.sampled_from(["float64", "int8", "float9"]),
            st.lists(inner, max_size=3),
            st.text(max_size=8),
            st.just("numpy"),
        ).map(lambda four: {"array": list(four)}),
    ),
    max_leaves=25,
)


def sent(value: Any) -> Any:
    """A value as it arrives on the other side."""
    return json.loads(json.dumps(encode(value)))


@given(VALUE)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    back = decode(sent(value))
    assert back == value
    assert type(back) is type(value)
    assert compare(value, back, EXACT) is None


@given(ARRAY)
def test_an_array_comes_back_as_it_went(array: np.ndarray) -> None:
    back = inside(sent(array))
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.tobytes() == array.astype(back.dtype).tobytes() or array.dtype.kind == "f"
    np.testing.assert_array_equal(back, array)
    outside = decode(sent(array))
    assert compare(outside, decode(sent(back)), EXACT) is None
    assert compare(outside, outside, NUMERIC) is None


@given(ARRAY.filter(lambda array: array.ndim == 0))
def test_a_scalar_comes_back_as_it_went(array: np.ndarray) -> None:
    scalar = array[()].astype(array.dtype.newbyteorder("="))
    back = inside(sent(scalar))
    assert type(back) is type(scalar)
    np.testing.assert_array_equal(back, scalar)


@given(VALUE, VALUE)
def test_what_differs_is_found_and_said(one: Any, other: Any) -> None:
    found = compare(one, other, EXACT)
    if found is None:
        assert one == other
    else:
        assert found.text.endswith(".")
        json.dumps(found.__dict__, allow_nan=False).encode()


@given(JSON, st.sampled_from([EXACT, NUMERIC, SAME_DTYPE, UNORDERED]), VALUE)
@settings(max_examples=300)
def test_whatever_is_sent_is_read_or_refused(wire: Any, check: Check, expected: Any) -> None:
    """No answer makes the judge fail: it is a value, or it is unreadable."""
    try:
        yours = decode(wire)
    except Unreadable:
        return
    assert len(show(wire, 80)) <= 80
    for wanted in (expected, yours):
        found = compare(wanted, yours, check)
        if found:
            json.dumps(found.__dict__, allow_nan=False).encode()


SAID = st.one_of(
    st.none(), st.integers(-1, 9), st.text(max_size=3), st.lists(st.just("x"), max_size=3), st.just([["f", 3, "x"]])
)
NAMES = [
    "error",
    "results",
    "steps",
    "uses",
    "cut",
    "type",
    "text",
    "line",
    "phase",
    "stack",
    "variables",
    "event",
    "function",
]


@given(st.recursive(SAID, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=6), max_leaves=12))
@settings(max_examples=200)
def test_whatever_a_program_says_has_a_form(said: Any) -> None:
    try:
        found = pool._formed(said)
    except (ValueError, TypeError, KeyError, AttributeError):
        return
    assert set(found) <= {"error", "results", "steps", "uses", "cut"}


@given(st.floats(), st.floats(), st.floats(0, 1), st.floats(0, 1))
def test_tolerance_is_what_numpy_says(wanted: float, got: float, absolute: float, relative: float) -> None:
    same = compare(wanted, got, Check("numeric", absolute, relative)) is None
    with np.errstate(all="ignore"):
        assert same == bool(np.isclose(got, wanted, rtol=relative, atol=absolute, equal_nan=True))


@given(st.lists(st.integers(-3, 3), max_size=8), st.randoms())
def test_order_does_not_matter_where_it_should_not(items: list[int], random: Any) -> None:
    mixed = items[:]
    random.shuffle(mixed)
    assert compare(items, mixed, UNORDERED) is None
    assert compare(items, [*mixed, 1], UNORDERED) is not None


A = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("expected", "yours", "check", "kind", "text"),
    [
        (4, 5, EXACT, "value", "Expected 4, yours is 5."),
        (4, 4.0, EXACT, "type", "Expected an int, yours is a float."),
        (4, True, EXACT, "type", "Expected an int, yours is a bool."),
        (1, True, NUMERIC, "type", "Expected an int, yours is a bool."),
        (True, 1, EXACT, "type", "Expected a bool, yours is an int."),
        (4, "4", EXACT, "type", "Expected an int, yours is a str."),
        (4, None, EXACT, "type", "Expected an int, yours is None."),
        (4.0, 4, NUMERIC, None, ""),
        (1.0, math.nan, NUMERIC, "nan", "Expected 1, yours is nan."),
        (math.nan, math.nan, NUMERIC, None, ""),
        (math.inf, 1.0, NUMERIC, "value", "Expected inf, yours is 1."),
        (1.0, 10**400, NUMERIC, "value", "Expected 1, yours is an integer of 401 digits."),
        (10**400, 10**400 + 1, NUMERIC, "value", "Expected an integer of 401 digits"),
        (5e-324, 1e308, NUMERIC, "value", "off by 1e+308"),
        (1e308, -1e308, NUMERIC, "value", "Expected 1e+308, yours is -1e+308."),
        ([1, 2], (1, 2), EXACT, "type", "Expected a list, yours is a tuple."),
        ([1, 2], [1, 2, 3], EXACT, "length", "Expected 2 items, yours has 3."),
        ([1, 2, 3], [1, 5, 6], EXACT, "value", "Expected 2 at [1], yours is 5. 2 of 3 places differ."),
        ([1, [2, 3]], [1, [2, 4]], EXACT, "value", "Expected 3 at [1][1], yours is 4. 1 of 2 places differ."),
        ([1, 2, 3], [9, 2.0, True], EXACT, "value", "3 of 3 places differ."),
        ({1: 2}, {1: 3}, EXACT, "value", "Expected 2 at [1], yours is 3."),
        ({1: 2}, {1.0: 2}, EXACT, "keys", "Yours misses the key 1."),
        ({1: 2}, {True: 2}, EXACT, "keys", "Yours misses the key 1."),
        ({1: 2}, {1: 2, 3: 4}, EXACT, "keys", "Yours should not have the key 3."),
        ({1, 2}, {1, 2.0}, EXACT, "value", "Expected {1, 2}, yours is {1, 2.0}."),
        ([1, 1], [1.0, True], UNORDERED, "count", "Yours misses 1 (2 times)."),
        ([[1, 2], [3]], [[3], [1, 2]], UNORDERED, None, ""),
        ([0.0], [-0.0], UNORDERED, None, ""),
        (A, A[0], NUMERIC, "shape", "Expected shape (2, 2), yours is (2,)."),
        (A, A.astype("float32"), SAME_DTYPE, "dtype", "Expected dtype float64, yours is float32."),
        (A, A.astype("float32"), NUMERIC, None, ""),
        (A, A.tolist(), NUMERIC, "type", "Expected an array of float64 with shape (2, 2), yours is a list."),
        (A, A * [[1, 1], [1, 2]], NUMERIC, "value", "Expected 4 at [1, 1], yours is 8: off by 4, allowed 4e-06. 1 of 4 places differ."),
        (A > 2, A, NUMERIC, "dtype", "Expected dtype bool, yours is float64."),
        (A, np.float64(1), NUMERIC, "shape", "Expected shape (2, 2), yours is a single number."),
        (1.0, A[:1, :1], NUMERIC, "shape", "Expected a number, yours is an array of float64 with shape (1, 1)."),
        (A, object(), NUMERIC, "type", "yours is a builtins.object."),
        (1.0, np.float32(1), NUMERIC, None, ""),
        (np.float64(1), 1.0, NUMERIC, None, ""),
        (np.float64(1), np.float32(1), SAME_DTYPE, "dtype", "Expected float64, yours is float32."),
        ((A, 2), (A, 3), NUMERIC, "value", "Expected 2 at result 1, yours is 3"),
    ],
)  # fmt: skip
def test_a_difference_is_named(expected: Any, yours: Any, check: Check, kind: str | None, text: str) -> None:
    found = compare(decode(sent(expected)), decode(sent(yours)), check)
    assert (found.kind if found else None) == kind, found
    assert found is None or text in found.text


@pytest.mark.parametrize(
    "wire",
    [
        {"array": ["float99", [1], "AAAAAAAAAAA=", "numpy"]}, {"array": ["int", [1], "AAAAAAAAAAA=", "numpy"]},
        {"array": ["float64\n", [1], "AAAAAAAAAAA=", "numpy"]}, {"array": ["float64", [2], "AAAAAAAAAAA=", "numpy"]},
        {"array": ["float64", [1], "AAAAAAAAAAA", "numpy"]}, {"array": ["float64", [1], "????AAAAAAA=", "numpy"]},
        {"array": ["float64", [-1, -1], "AAAAAAAAAAA=", "numpy"]}, {"array": ["float64", [True], "AAAAAAAAAAA=", "numpy"]},
        {"array": ["float64", [1.0], "AAAAAAAAAAA=", "numpy"]}, {"array": ["float64", [1], "AAAAAAAAAAA=", "jax"]},
        {"array": ["float64", [1] * 65, "AAAAAAAAAAA=", "numpy"]}, {"array": ["float64", [1 << 70, 0], "", "numpy"]},
        {"array": ["float64", [1], "AAAAAAAAAAA=", "scalar"]}, {"array": ["float64", [1], "AAAAAAAAAAA="]}, {"array": 4},
        {"array": [["float64"], [1], "AAAAAAAAAAA=", "numpy"]}, {"set": [[1]]}, {"set": [{"dict": []}]}, {"dict": [[1]]},
        {"dict": [[1, 2, 3]]}, {"dict": 5}, {"tuple": {"a": 1}}, {"bytes": "a"}, {"bytes": "\u20ac"}, {"random": "x"}, {"other": 4},
        {}, {"a": 1}, {"set": [1], "dict": []}, {"set": [i * (2**61 - 1) for i in range(99)]},
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused(wire: Any) -> None:
    with pytest.raises(Unreadable):
        decode(wire)


def test_nesting_has_an_end() -> None:
    deep: Any = 0
    for _ in range(values.DEEPEST + 5):
        deep = [deep]
    with pytest.raises(Unreadable, match="deep"):
        decode(deep)
    assert "nested deeper" in json.dumps(encode(deep))
    decode(encode(deep))


@pytest.mark.parametrize(
    "wire",
    [
        {"array": ["int64", [10**6] * 40 + [0], "", "numpy"]}, {"array": ["int64", [0], "", "numpy"]},
        [[1] * 1000] * 1000, {"dict": [[i, [i] * 100] for i in range(2000)]}, "x" * 10**6, 10**4000, [{"set": list(range(50000))}] * 3,
    ],
)  # fmt: skip
def test_showing_takes_no_longer_than_what_is_shown(wire: Any) -> None:
    start = time.process_time()
    assert len(show(wire, 300)) <= 300
    assert time.process_time() - start < 1


def test_numbers_that_collide_do_not_slow_the_comparison() -> None:
    numbers = [i * (2**61 - 1) for i in range(20000)]
    start = time.process_time()
    assert compare(numbers, numbers[::-1], UNORDERED) is None
    assert compare([1], numbers, UNORDERED) is not None
    assert time.process_time() - start < 2


def test_many_wrong_places_are_counted_quickly() -> None:
    start = time.process_time()
    found = compare([0] * 400_000, [1] * 400_000, EXACT)
    assert found is not None
    assert found.wrong == 400_000
    assert time.process_time() - start < 2


def test_what_python_has_no_plain_word_for_is_told_by_its_type() -> None:
    from collections import Counter, OrderedDict, namedtuple
    from fractions import Fraction

    Point = namedtuple("Point", "x y")
    assert decode(encode(Point(1, 2))) == (1, 2)
    assert decode(encode(Counter("aab"))) == {"a": 2, "b": 1}
    assert decode(encode(OrderedDict(a=1))) == {"a": 1}
    assert decode(encode(Fraction(1, 2))) == Other("fractions.Fraction")
    assert decode(encode(i for i in ())) == Other("builtins.generator")
    assert decode(encode(10**5000)) == Other("int of 16610 bits")
    assert decode(encode(np.array([None]))) == Other("array of object")


def test_own_input_becomes_the_array_that_it_stands_for() -> None:
    assert decode(encode_items("int8", [2], [1, -1])) == Array(
        "int8", (2,), decode(encode_items("int64", [2], [1, -1])).items
    )
    for dtype, items in (("uint8", [-1]), ("int64", [1 << 70]), ("float64", ["a"]), ("float99", [1])):
        with pytest.raises(Unreadable):
            encode_items(dtype, [1], items)
