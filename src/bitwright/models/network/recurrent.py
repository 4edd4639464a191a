"""LSTM, GRU and RNN as products: the rows that their two matrices multiply, and the LSTM that rounds them when it runs.

Operators: https://onnx.ai/onnx/operators/onnx__LSTM.html; com.microsoft.DynamicQuantizeLSTM: ONNX Runtime,
docs/ContribOperators.md. Shapes: x [steps, batch, inputs], y [steps, directions, batch, hidden], state [directions,
batch, hidden], W [directions, gates * hidden, inputs], R [directions, gates * hidden, hidden].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bitwright.files.layers import Layer, attribute

Array = npt.NDArray[Any]


def directions(node: onnx.NodeProto) -> list[bool]:
    """For each direction of a recurrent node, whether it runs backwards."""
    return {b"forward": [False], b"reverse": [True], b"bidirectional": [False, True]}[
        attribute(node, "direction", b"forward")  # type: ignore[index]
    ]


def operands(layer: Layer, node: onnx.NodeProto) -> list[str]:
    """The tensors that `rows_of` needs: x, sequence_lens, and for R the first state and y; "" for what is left out."""
    given = [*node.input, "", ""]
    return [given[0], given[4], *((given[5], node.output[0]) if layer.slot == 2 else ())]


def rows_of(layer: Layer, node: onnx.NodeProto, values: Mapping[str, Array], rounded: bool = False) -> Array:
    """What a recurrent `layer` multiplies, [directions, rows, columns], of tensors by name.

    `rounded` as `dynamic_lstm` rounds it. Backwards, with sequences of several lengths, it does so along other steps.
    """
    x, lengths, *state = [values.get(name) for name in operands(layer, node)]
    if layer.slot == 1:
        assert x is not None
        return input_rows(node, _round(x) if rounded else x, lengths)
    first, y = state
    assert y is not None
    return state_rows(node, y, first, lengths, rounded)


def input_rows(node: onnx.NodeProto, x: Array, lengths: Array | None) -> Array:
    """What W multiplies: [directions, rows, inputs], steps behind the end of a sequence left out."""
    rows = x[_inside(x, lengths)]
    return np.stack([rows] * len(directions(node)))


def state_rows(
    node: onnx.NodeProto, y: Array, first: Array | None, lengths: Array | None, rounded: bool = False
) -> Array:
    """What R multiplies: [directions, rows, hidden], the state before each step; `first` is that before all (or 0).

    Of a GRU that resets its state before the product, the new value's rows of R see a part of that only.
    """
    inside, steps = _inside(y.swapaxes(1, 2), lengths), np.arange(len(y))[:, None]
    last = np.full(y.shape[2], len(y)) if lengths is None else lengths
    found = []
    for d, backwards in enumerate(directions(node)):
        before = np.zeros_like(y[:, d])
        start = np.zeros_like(y[0, d]) if first is None else first[d]
        if backwards:
            before[:-1] = y[1:, d]
            before = np.where((steps == last - 1)[..., None], start, before)
        else:
            before[1:], before[:1] = y[:-1, d], start
        before = np.stack([_round(each) for each in before]) if rounded and len(before) else before
        found.append(before[inside])
    return np.stack(found)


def _inside(x: Array, lengths: Array | None) -> Array:
    """Which steps of which sequences hold something: bool [steps, batch]."""
    if lengths is None:
        return np.ones(x.shape[:2], bool)
    return np.asarray(np.arange(len(x))[:, None] < lengths)


def is_plain(node: onnx.NodeProto) -> bool:
    """Whether an LSTM is one that `dynamic_lstm` computes: with the usual activations, and no limits."""
    usual = [b"Sigmoid", b"Tanh", b"Tanh"] * len(directions(node))
    given = [name.lower() for name in attribute(node, "activations", usual)]  # type: ignore[attr-defined]
    odd = attribute(node, "clip", None) is not None or attribute(node, "input_forget", 0)
    return given == [name.lower() for name in usual] and not odd and not attribute(node, "layout", 0)


def dynamic_lstm(node: onnx.NodeProto, values: Sequence[Array | None]) -> list[Array]:
    """Y, Y_h and Y_c of a plain LSTM whose x and state before each step are rounded to 8 bits by their own range.

    `values` are the inputs of `node`: x, W, R, B, sequence_lens, initial_h, initial_c, P; None where there is none.
    """
    x, w, r, b, lengths, first, cells, peep = [*values, *[None] * 8][:8]
    assert x is not None and w is not None and r is not None
    hidden = r.shape[2]
    if lengths is None:
        lengths = np.full(x.shape[1], len(x))
    y = np.zeros((len(x), len(w), x.shape[1], hidden), np.float32)
    states, memories = [], []
    rounded = _round(x)
    for d, backwards in enumerate(directions(node)):
        h = np.zeros(y.shape[2:], np.float32) if first is None else first[d]
        c = np.zeros(y.shape[2:], np.float32) if cells is None else cells[d]
        bias = 0 if b is None else b[d, : 4 * hidden] + b[d, 4 * hidden :]
        weigh = np.zeros((3, hidden), np.float32) if peep is None else peep[d].reshape(3, hidden)
        product = rounded @ w[d].T + bias
        for step in range(len(x)):
            # Backwards, each sequence begins at its own end.
            at = np.where(step < lengths, lengths - 1 - step, step) if backwards else np.full(len(lengths), step)
            gates = product[at, np.arange(len(at))] + _round(h) @ r[d].T
            i, o, f, g = gates.reshape(len(h), 4, hidden).swapaxes(0, 1)
            new = _sigmoid(f + weigh[2] * c) * c + _sigmoid(i + weigh[0] * c) * np.tanh(g)
            out = _sigmoid(o + weigh[1] * new) * np.tanh(new)
            live = (step < lengths)[:, None]
            h, c = np.where(live, out, h), np.where(live, new, c)
            y[at, d, np.arange(len(at))] = np.where(live, out, 0)
        states.append(h)
        memories.append(c)
    return [y, np.stack(states).astype(np.float32), np.stack(memories).astype(np.float32)]


def _round(x: Array) -> Array:
    """`x` as uint8 codes with one scale hold it, their range that of all values and 0."""
    low, high = min(float(x.min(initial=0)), 0.0), max(float(x.max(initial=0)), 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return np.asarray((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale, np.float32)


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2))
