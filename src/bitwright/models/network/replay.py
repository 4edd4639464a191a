"""An ONNX network as a torch module: the same function, but its weights can learn and every tensor can be rounded.

Learned steps need gradients, which ONNX Runtime's inference build has not. `Replay` runs the nodes of a prepared graph
one after the other with torch's functions (operator semantics: https://onnx.ai/onnx/operators/). It covers what
convolutional and dense networks are made of; another operator is a ModelError that names it, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitwright.errors import ModelError
from bitwright.files.layers import Layer

Rounding = Callable[[Tensor], Tensor]
Attributes = Mapping[str, Any]


class Prepared(Protocol):
    """What is needed of `models.network.graph.Graph`."""

    @property
    def model(self) -> onnx.ModelProto: ...

    @property
    def layers(self) -> Sequence[Layer]: ...


class Replay(nn.Module):
    """The float network of `graph`; the weights and biases of its layers are parameters, under their ONNX names.

    `weights` maps a weight's name to what rounds it; `activations` maps a tensor's name to what rounds it before any
    node reads it. Both start empty: then the module computes what the file computes.
    """

    def __init__(self, graph: Prepared) -> None:
        super().__init__()
        proto = graph.model.graph
        self.layers = tuple(graph.layers)
        self.nodes = tuple(proto.node)
        self.inputs = tuple(
            value.name for value in proto.input if value.name not in {tensor.name for tensor in proto.initializer}
        )
        self.outputs = tuple(value.name for value in proto.output)
        self.weights: dict[str, Rounding] = {}
        self.activations: dict[str, Rounding] = {}
        learnt = {layer.weight for layer in self.layers} | {layer.bias for layer in self.layers if layer.bias}
        self._parameters_by_name: dict[str, nn.Parameter] = {}
        self._constants: dict[str, Tensor] = {}
        for tensor in proto.initializer:
            value = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            if tensor.name in learnt:
                parameter = nn.Parameter(value)
                self.register_parameter(f"p{len(self._parameters_by_name)}", parameter)  # a name may hold dots
                self._parameters_by_name[tensor.name] = parameter
            else:
                self._constants[tensor.name] = value
        self._attributes: list[Attributes] = []
        for node in self.nodes:
            self._attributes.append(attributes_of(node))
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise ModelError(
                    f"operator {node.op_type} cannot learn", where=node.name or node.output[0], fix="Use another method"
                )

    def parameter(self, name: str) -> nn.Parameter:
        """The weight or bias called `name` in the file."""
        return self._parameters_by_name[name]

    def forward(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{input name: tensor} -> {output name: tensor}."""
        return {name: value for name, value in self.run(feeds).items() if name in self.outputs}

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every activation by name, as its readers see it; {input name: tensor} -> {tensor name: tensor}."""
        known: dict[str, Tensor] = {}
        constants = dict(self._constants)
        for name, parameter in self._parameters_by_name.items():
            constants[name] = self.weights[name](parameter) if name in self.weights else parameter
        for name in self.inputs:
            known[name] = self._seen(name, feeds[name])
        for node, attributes in zip(self.nodes, self._attributes, strict=True):
            values = [known[name] if name in known else constants[name] if name else None for name in node.input]
            out = OPERATORS[node.op_type](attributes, *values)
            for name, value in zip(node.output, out if isinstance(out, tuple) else (out,), strict=False):
                known[name] = self._seen(name, value)
        return known

    def _seen(self, name: str, value: Tensor) -> Tensor:
        rounding = self.activations.get(name)
        return value if rounding is None else rounding(value)

    def never_negative(self) -> set[str]:
        """Tensors that cannot be negative whatever the input, because of the operators they come from."""
        found: set[str] = set()
        for node in self.nodes:
            data = [name for name in node.input[: 1 if node.op_type in MOVES else None] if name]
            if node.op_type in POSITIVE or (node.op_type in KEEPS and all(name in found for name in data)):
                found.update(node.output)
        return found


POSITIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax"}
MOVES = {"MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose",
         "ReduceMean", "Identity", "Dropout", "Slice"}  # fmt: skip
"""Operators whose first input alone is data."""
KEEPS = MOVES | {"Add", "Mul", "Concat"}
"""Operators that make nothing negative of what is not."""


def attributes_of(node: onnx.NodeProto) -> Attributes:
    """The attributes of a node by name, as its function wants them."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {"num_outputs": len(node.output), **found} if node.op_type == "Split" else found


def _pads(a: Attributes, x: Tensor, kernel: Sequence[int]) -> list[int]:
    """The padding of a window operator as torch's `pad` wants it: last axis first, (begin, end)."""
    rank = len(kernel)
    mode = a.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
        out: list[int] = []
        for i in reversed(range(rank)):
            size = x.shape[2 + i]
            total = max(0, (-(-size // strides[i]) - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size)
            less = total // 2
            out += [less, total - less] if mode == b"SAME_UPPER" else [total - less, less]
        return out
    pads = a.get("pads", [0] * (2 * rank)) if mode == b"NOTSET" else [0] * (2 * rank)
    return [pads[i + side * rank] for i in reversed(range(rank)) for side in (0, 1)]


def _conv(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank = w.ndim - 2
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    pads = _pads(a, x, w.shape[2:])
    even = pads[::2] == pads[1::2]
    if not even:
        x = functional.pad(x, pads)
    padding = tuple(reversed(pads[::2])) if even else 0
    strides, dilations = tuple(a.get("strides", [1] * rank)), tuple(a.get("dilations", [1] * rank))
    out: Tensor = run(x, w, b, strides, padding, dilations, a.get("group", 1))
    return out


def _gemm(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    x, w = x.T if a.get("transA") else x, w.T if a.get("transB") else w
    out: Tensor = a.get("alpha", 1.0) * (x @ w)
    return out if b is None else out + a.get("beta", 1.0) * b


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    rank = len(kernel)
    run = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    x = functional.pad(x, _pads(a, x, kernel), value=-math.inf)
    strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    out: Tensor = run(x, kernel, strides, 0, dilations, bool(a.get("ceil_mode", 0)))
    return out


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    rank = len(kernel)
    run: Callable[..., Tensor] = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    pads = _pads(a, x, kernel)
    ceil, strides = bool(a.get("ceil_mode", 0)), a.get("strides", [1] * rank)
    out = run(functional.pad(x, pads), kernel, strides, 0, ceil)
    if any(pads) and not a.get("count_include_pad", 0):
        out = out / run(functional.pad(torch.ones_like(x[:1, :1]), pads), kernel, strides, 0, ceil)
    return out


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sizes = [int(n) for n in shape]
    if not a.get("allowzero", 0):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


def _clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x if low is None and high is None else torch.clip(x, low, high)


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    return x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1)


def _mean(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = [int(i) for i in axes] if axes is not None else list(a.get("axes", range(x.ndim)))
    return x.mean(given, keepdim=bool(a.get("keepdims", 1)))


def _squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(int(i) for i in axes))


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(int(i) % rank for i in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(
    a: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    along = range(starts.numel()) if axes is None else [int(i) for i in axes]
    by = [1] * starts.numel() if steps is None else [int(i) for i in steps]
    for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), by, strict=True):
        if step < 0:
            raise ModelError("a Slice with a negative step cannot learn", fix="Use another method")
        x = x.index_select(axis, torch.arange(x.shape[axis])[start:end:step])
    return x


def _pad(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    along = range(x.ndim) if axes is None else [int(i) % x.ndim for i in axes]
    begins, ends = pads.view(2, -1).tolist()
    ordered = {axis: (begin, end) for axis, begin, end in zip(along, begins, ends, strict=True)}
    if a.get("mode", b"constant") != b"constant":
        raise ModelError("a Pad that does not fill with a constant cannot learn", fix="Use another method")
    sizes = [n for axis in reversed(range(x.ndim)) for n in ordered.get(axis, (0, 0))]
    return functional.pad(x, sizes, value=0.0 if value is None else float(value))


def _conv_transpose(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank = w.ndim - 2
    run = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[rank - 1]
    if a.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in a:
        raise ModelError("a ConvTranspose without padding of its own cannot learn", fix="Use another method")
    strides, dilations = tuple(a.get("strides", [1] * rank)), tuple(a.get("dilations", [1] * rank))
    more = tuple(a.get("output_padding", [0] * rank))
    out: Tensor = run(x, w, b, strides, 0, more, a.get("group", 1), dilations)
    pads = a.get("pads", [0] * (2 * rank))
    for i in range(rank):
        out = out.narrow(2 + i, pads[i], out.shape[2 + i] - pads[i] - pads[rank + i])
    return out


def _layer_norm(a: Attributes, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    shape = x.shape[a.get("axis", -1) % x.ndim :]
    wide = shift if shift is None else shift.expand(shape)
    return functional.layer_norm(x, shape, scale.expand(shape), wide, a.get("epsilon", 1e-5))


def _gather(a: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    flat = x.index_select(axis, index.reshape(-1).long() % x.shape[axis])
    return flat.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _sum_over(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = [int(i) for i in axes] if axes is not None else list(range(x.ndim))
    if axes is None and a.get("noop_with_empty_axes", 0):
        return x
    return x.sum(along, keepdim=bool(a.get("keepdims", 1)))


def _split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    each = [int(n) for n in sizes] if sizes is not None else -(-x.shape[axis] // a["num_outputs"])
    return torch.split(x, each, axis)


def _resize(a: Attributes, x: Tensor, *rest: Tensor | None) -> Tensor:
    """Every value several times, as nearest neighbours by whole factors are."""
    scales, sizes = (rest[i] if len(rest) > i else None for i in (1, 2))
    if sizes is not None and sizes.numel():
        factors = [int(n) / m for n, m in zip(sizes, x.shape, strict=True)]
    else:
        factors = [] if scales is None else scales.tolist()
    rule = a.get("coordinate_transformation_mode", b"half_pixel"), a.get("nearest_mode", b"round_prefer_floor")
    nearest = a.get("mode", b"nearest") == b"nearest" and "axes" not in a and rule in REPEATS
    if not nearest or len(factors) != x.ndim or any(f != int(f) or f < 1 for f in factors):
        raise ModelError("a Resize that does not repeat values cannot learn", fix="Use another method")
    for axis, factor in enumerate(factors):
        x = x.repeat_interleave(int(factor), axis)
    return x


REPEATS = {(b"half_pixel", b"round_prefer_floor"), (b"asymmetric", b"floor")}
"""Coordinates and roundings by which a Resize to a multiple of the size repeats every value equally often."""
OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda a, x, y: x @ y,
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "Relu": lambda a, x: x.relu(),
    "LeakyRelu": lambda a, x: functional.leaky_relu(x, a.get("alpha", 0.01)),
    "Clip": _clip,
    "PRelu": lambda a, x, slope: torch.where(x < 0, slope * x, x),
    "Elu": lambda a, x: functional.elu(x, a.get("alpha", 1.0)),
    "Gelu": lambda a, x: functional.gelu(x, approximate=a.get("approximate", b"none").decode()),
    "Erf": lambda a, x: x.erf(),
    "Exp": lambda a, x: x.exp(),
    "Log": lambda a, x: x.log(),
    "Sqrt": lambda a, x: x.sqrt(),
    "Pow": lambda a, x, y: x.pow(y),
    "Neg": lambda a, x: -x,
    "Abs": lambda a, x: x.abs(),
    "Reciprocal": lambda a, x: 1 / x,
    "Softplus": lambda a, x: functional.softplus(x),
    "Where": lambda a, which, x, y: torch.where(which, x, y),
    "Expand": lambda a, x, shape: x.expand(np.broadcast_shapes(x.shape, tuple(int(n) for n in shape))),
    "Gather": _gather,
    "LayerNormalization": _layer_norm,
    "Sigmoid": lambda a, x: x.sigmoid(),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clip(0, 1),
    "HardSwish": lambda a, x: functional.hardswish(x),
    "Tanh": lambda a, x: x.tanh(),
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "ReduceMean": _mean,
    "ReduceSum": _sum_over,
    "ConvTranspose": _conv_transpose,
    "Resize": _resize,
    "Split": _split,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda a, x: x.permute(a.get("perm", list(range(x.ndim))[::-1])),
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Slice": _slice,
    "Pad": _pad,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Identity": lambda a, x: x,
    "Dropout": lambda a, x, *rest: x,
}
"""ONNX operator (of opset 13 on) -> its function of (attributes, inputs in order); a tuple of its several outputs."""
