"""Which axis of an input counts samples, and which outputs are the state of the next call."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from bitwright.errors import RecipeError
from bitwright.models.network.axes import batch_axes
from bitwright.models.network.state import find_states

Shape = list[Any]


def axes(declared: dict[str, int | None] | None = None, **shapes: Shape) -> dict[str, int | None]:
    """The axes of inputs of these shapes."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    return batch_axes(inputs, declared or {}, "net")


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ({"x": ["batch", 3], "y": ["batch", 5]}, [0, 0]),
        ({"x": ["batch", "time"], "state": [2, "batch", 128], "rate": []}, [0, 1, None]),
        ({"x": [None, None], "state": [2, None, 128]}, [0, 1]),
        ({"x": ["?", 3, "?"], "state": [2, "?", 128], "mask": [4, 4]}, [0, 1, None]),
        ({"x": [1, 576], "state": [2, 1, 128]}, [0, 1]),
        ({"x": [4, 576], "anchors": [100, 5], "state": [2, 4, 8]}, [0, None, 1]),
        ({"x": ["n", 3], "y": ["m", 3]}, [0, 0]),
        ({"x": ["n", 3], "y": [5, "time"]}, [0, None]),
        ({"rate": [], "x": ["n", 3]}, [None, 0]),
        ({"rate": []}, [None]),
    ],
)
def test_axes_are_found_by_name_by_size_or_as_the_only_open_one(shapes: dict[str, Shape], found: list[Any]) -> None:
    assert list(axes(**shapes).values()) == found


def test_what_is_declared_comes_first() -> None:
    assert axes({"x": 1}, x=["time", "batch", 3], y=["batch", 4]) == {"x": 1, "y": 0}
    assert axes({"x": None}, x=["time", 3], y=["batch", 4]) == {"x": None, "y": 0}
    with pytest.raises(RecipeError, match="no input is called 'z'"):
        axes({"z": 0}, x=["n", 3])
    with pytest.raises(RecipeError, match="input 'x' has 2 axes, none is number 2"):
        axes({"x": 2}, x=["n", 3])


F = ("float32", (1, None, 128))


@pytest.mark.parametrize(
    ("inputs", "outputs", "found"),
    [
        (["x", "state"], ["y", "stateN"], {"state": "stateN"}),
        (["x", "h", "c"], ["y", "hn", "cn"], {"h": "hn", "c": "cn"}),
        (["x", "h_in"], ["y", "h_out"], {"h_in": "h_out"}),
        (["ids", "past_key_values.0.key"], ["y", "present.0.key"], {"past_key_values.0.key": "present.0.key"}),
        (["x", "prev_state"], ["y", "next_state"], {"prev_state": "next_state"}),
        (["x", "cache_0"], ["y", "new_cache_0"], {"cache_0": "new_cache_0"}),
        (["input_1", "other"], ["output_1", "output"], {}),
        (["input"], ["output"], {}),
    ],
)
def test_states_are_found_by_their_names(inputs: list[str], outputs: list[str], found: dict[str, str]) -> None:
    assert find_states(dict.fromkeys(inputs, F), dict.fromkeys(outputs, F), {}, "net") == found


def test_states_that_do_not_fit_are_none_and_declared_ones_come_first() -> None:
    other: Any = ("float32", (1, None, 64))
    assert find_states({"h": F}, {"hn": other}, {}, "net") == {}
    assert find_states({"h": F, "g": F}, {"y": F, "hn": F}, {"g": "hn", "h": "none"}, "net") == {"g": "hn"}
    with pytest.raises(RecipeError, match="no tensor is called 'hm'"):
        find_states({"h": F}, {"hn": F}, {"h": "hm"}, "net")
    with pytest.raises(RecipeError, match="'y' does not fit into 'h'"):
        find_states({"h": F}, {"y": other}, {"h": "y"}, "net")
