"""Which axis of each input of a network counts the samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from bitwright.errors import RecipeError

NAMELESS = {"", "?", "*", "-1", "None"}
"""What exporters write where a dimension has no name: equal ones are not the same dimension."""


def name_of(size: onnx.TensorShapeProto.Dimension) -> str:
    """The name of an open dimension; "" where it has none."""
    return "" if size.dim_param in NAMELESS else size.dim_param


def is_open(size: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether a dimension has no size yet."""
    return not size.HasField("dim_value") or size.dim_value <= 0


def opened(given: Mapping[str, int | str], word: str) -> dict[str, int | None]:
    """Numbers by name, None where the recipe has `word`."""
    return {name: None if number == word else int(number) for name, number in given.items()}


def batch_axes(
    inputs: Sequence[onnx.ValueInfoProto], declared: Mapping[str, int | None], where: str
) -> dict[str, int | None]:
    """{input: axis that counts samples, or None where all samples of a batch share one value}.

    `declared` comes first. The first input that is no scalar leads: its axis 0 counts samples. Another input has them
    on the axis of the same name or size, or else on axis 0 if that is open, or on its only open axis if it is nameless.
    Raises RecipeError where `declared` names an input or axis that is not there.
    """
    shapes = {value.name: list(value.type.tensor_type.shape.dim) for value in inputs}
    for name, axis in declared.items():
        if name not in shapes:
            raise RecipeError(f"no input is called {name!r}", where=where, fix=f"It has: {', '.join(shapes) or 'none'}",
                              key="network.batch")  # fmt: skip
        if axis is not None and axis >= len(shapes[name]):
            raise RecipeError(f"input {name!r} has {len(shapes[name])} axes, none is number {axis}", where=where,
                              fix="Count axes from 0", key="network.batch")  # fmt: skip
    lead = next((name for name, shape in shapes.items() if shape and declared.get(name, 0) is not None), None)
    if lead is None:
        return dict.fromkeys(shapes)
    first = declared.get(lead, 0)
    assert first is not None
    found = {name: _like(shapes[lead][first], shape) for name, shape in shapes.items()}
    return {**found, lead: first, **declared}


def _like(lead: onnx.TensorShapeProto.Dimension, shape: Sequence[onnx.TensorShapeProto.Dimension]) -> int | None:
    """The axis of `shape` that is the dimension `lead`."""
    if not shape:
        return None
    loose = [axis for axis, size in enumerate(shape) if is_open(size)]
    if not is_open(lead):
        same = [axis for axis, size in enumerate(shape) if size.dim_value == lead.dim_value]
        return 0 if 0 in [*same, *loose] else same[0] if len(same) == 1 else None
    named = [axis for axis in loose if name_of(lead) and name_of(shape[axis]) == name_of(lead)]
    if named or 0 in loose:
        return [*named, 0][0]
    return loose[0] if len(loose) == 1 and not name_of(shape[loose[0]]) else None
