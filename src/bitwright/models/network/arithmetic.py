"""Arithmetic with constants in the form that costs least; the function stays the same.

A chain of Mul, Div, Add, Sub and Neg with constants (and of batch norm) is one line y = a x + b, for all values or per
channel. A positive factor moves through products, Relu and Clip, so that x * clip(x + 3, 0, 6) / 6, in whatever order
it is spelled, is x * clip(x / 6 + 1 / 2, 0, 1), as HardSwish is. A line goes into the layer before it or those after
it; one that is left among a convolution's channels becomes a depthwise 1 x 1 convolution, which runs in integers.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from bitwright.files.layers import attribute, names_read
from bitwright.models.network.store import Store, Vector, scale_outputs

CONVOLUTIONS = ("Conv", "ConvTranspose")
LAYERS = (*CONVOLUTIONS, "Gemm", "MatMul")
INTEGER = {
    "Add", "AveragePool", "Clip", "Concat", "Conv", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "PRelu", "Relu",
    "Sigmoid",
}  # fmt: skip
"""Operators that keep the channels of an image and that integer kernels can surround with integers."""
THROUGH = INTEGER | {"BatchNormalization", "Div", "HardSigmoid", "HardSwish", "Pad", "Resize", "Slice", "Sub"}
Normals = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""{tensor: (mean, standard deviation) of each channel} of what a folded batch norm wrote: beta, |gamma|."""


@dataclass(eq=False)
class Item:
    """A node of the graph; or a line, out = factor * data + offset, whose `source` it still is while nothing changed.

    factor and offset are [1], or one for each channel along `axis`. A line that comes from an operator without integer
    kernel has to be `convolved`. `position` is that of the node in the graph.
    """

    nodes: list[onnx.NodeProto]
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    factor: Vector | None = None
    offset: Vector = field(default_factory=lambda: np.zeros(1))
    axis: int | None = None
    convolved: bool = False
    position: int = 0

    @property
    def node(self) -> onnx.NodeProto:
        """The node, where it is no line."""
        return self.nodes[0]

    def op(self, *names: str) -> bool:
        """Whether it is a standard operator of one of these names."""
        return self.factor is None and self.node.op_type in names and self.node.domain in ("", "ai.onnx")

    @property
    def scaling(self) -> bool:
        """Whether it is a positive factor for all values and nothing else."""
        return self.factor is not None and self.axis is None and bool(self.factor[0] > 0) and not self.offset.any()


class Arithmetic:
    """The nodes of a graph as items, and the rules that simplify them."""

    def __init__(self, store: Store, pinned: set[str], normals: Normals) -> None:
        self.store, self.pinned, self.normals = store, pinned, normals
        self.items: dict[Item, None] = {}
        self.writer: dict[str, Item] = {}
        self.readers: defaultdict[str, list[Item]] = defaultdict(list)
        self.folded = self.written = 0
        for node in store.graph.node:
            for item in self._read(node):
                item.position = len(self.items)
                self._put(item)

    # --- reading

    def _read(self, source: onnx.NodeProto) -> Iterator[Item]:
        node = onnx.NodeProto()
        node.CopyFrom(source)
        line = self._line(node)
        if line is not None:
            yield line
        elif (clip := self._limit(node)) is not None:
            yield clip
        elif node.op_type in ("HardSigmoid", "HardSwish") and not node.domain and self._channels(node.input[0]):
            yield from self._hard(node)
        else:
            yield Item([node], node.name, list(node.input), list(node.output))

    def _line(self, node: onnx.NodeProto) -> Item | None:
        """The line that `node` computes, if it is arithmetic with a constant."""
        op, inputs = node.op_type, list(node.input)
        if node.domain or not inputs:
            return None
        if op == "Neg" and self.store.shape(inputs[0]):
            return Item([node], node.name, inputs, list(node.output), np.array([-1.0]))
        if op == "BatchNormalization":
            normal = self.store.normal(node)
            return normal and Item([node], node.name, inputs[:1], list(node.output), *normal, axis=1, convolved=True)
        if op not in ("Add", "Div", "Mul", "Sub") or sum(name in self.store.stored for name in inputs) != 1:
            return None
        second = inputs[1] in self.store.stored
        data, constant = inputs if second else inputs[::-1]
        shape, found = self.store.shape(data), self._along(constant, data)
        if not shape or found is None or (op == "Div" and (not second or not found[0].all())):
            return None
        value, axis = found
        one, zero = np.ones_like(value), np.zeros_like(value)
        factor, offset = {
            "Add": (one, value),
            "Sub": (one, -value) if second else (-one, value),
            "Mul": (value, zero),
            "Div": (1 / value if op == "Div" else one, zero),
        }[op]
        return Item([node], node.name, [data], list(node.output), factor, offset, axis)

    def _limit(self, node: onnx.NodeProto) -> Item | None:
        """Max or Min with one constant, as Clip."""
        names = list(node.input)
        if node.op_type not in ("Max", "Min") or node.domain or len(names) != 2:
            return None
        constants = [name for name in names if name in self.store.stored]
        if len(constants) != 1 or self.store.stored[constants[0]].data_type != onnx.TensorProto.FLOAT:
            return None
        data = names[1 - names.index(constants[0])]
        value, shape = self.store.value(constants[0]), self.store.shape(data)
        if value.size != 1 or shape is None or value.ndim > len(shape):
            return None
        limit = self.store.constant(f"{node.name}.limit", value.reshape(()))
        inputs = [data, limit] if node.op_type == "Max" else [data, "", limit]
        clip = helper.make_node("Clip", inputs, list(node.output), node.name)
        return Item([clip], node.name, inputs, list(node.output))

    def _along(self, constant: str, data: str) -> tuple[Vector, int | None] | None:
        """The values of `constant` (finite float32) and the one axis of `data` they run along, None where it is one."""
        value, shape = numpy_helper.to_array(self.store.stored[constant]), self.store.shape(data)
        if shape is None or value.dtype != np.float32 or value.ndim > len(shape) or not np.isfinite(value).all():
            return None
        full = (1,) * (len(shape) - value.ndim) + value.shape
        axes = [i for i, size in enumerate(full) if size != 1]
        if not axes:
            return value.reshape(1).astype(np.float64), None
        if len(axes) > 1 or full[axes[0]] != shape[axes[0]]:
            return None
        return value.reshape(-1).astype(np.float64), axes[0]

    def _hard(self, node: onnx.NodeProto) -> Iterator[Item]:
        """clip(alpha x + beta, 0, 1), and times x for HardSwish."""
        swish, name = node.op_type == "HardSwish", node.name
        alpha, beta = (1 / 6, 0.5) if swish else (attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5))
        data, line = node.input[0], self.store.tensor(f"{name}.line", node.input[0])
        cut = self.store.tensor(f"{name}.gate", node.input[0]) if swish else node.output[0]
        limits = [self.store.constant(f"{name}.low", 0.0), self.store.constant(f"{name}.high", 1.0)]
        factor, offset = np.full(1, alpha, np.float64), np.full(1, beta, np.float64)
        yield Item([], name, [data], [line], factor, offset, convolved=True)
        clip = helper.make_node("Clip", [line, *limits], [cut], f"{name}.clip")
        yield Item([clip], clip.name, list(clip.input), [cut])
        if swish:
            yield Item([helper.make_node("Mul", [data, cut], list(node.output), name)], name, [data, cut],
                       list(node.output))  # fmt: skip

    def _channels(self, name: str) -> int | None:
        """The number of channels (axis 1) of an image or signal; None where it is none, or the number is open."""
        shape = self.store.shape(name)
        return shape[1] if shape is not None and len(shape) > 2 else None

    # --- the items and who reads whom

    def _put(self, item: Item) -> None:
        self.items[item] = None
        for name in filter(None, item.outputs):  # an output that is left out has no name
            self.writer[name] = item
        for name in item.inputs:
            self.readers[name].append(item)

    def _take(self, item: Item) -> None:
        del self.items[item]
        for name in filter(None, item.outputs):
            del self.writer[name]
        for name in item.inputs:
            self.readers[name].remove(item)

    def _change(self, item: Item, inputs: list[str], outputs: list[str]) -> None:
        """Give `item` other inputs and outputs."""
        self._take(item)
        item.inputs, item.outputs = inputs, outputs
        if item.factor is not None:
            item.nodes = []
        else:
            del item.node.input[:], item.node.output[:]
            item.node.input.extend(inputs)
            item.node.output.extend(outputs)
        self._put(item)

    def _alone(self, name: str) -> Item | None:
        """What writes `name`, if one item reads it once and nobody else does."""
        return self.writer.get(name) if len(self.readers[name]) == 1 and name not in self.pinned else None

    # --- the rules

    def run(self) -> None:
        """Apply the rules until none does anything."""
        rules = (self._compose, self._back, self._forward, self._up, self._across)
        changed = True
        while changed:
            changed = False
            for item in list(self.items):
                if item not in self.items:
                    continue
                changed |= self._merge(item) if item.factor is None else any(rule(item) for rule in rules)

    def _compose(self, line: Item) -> bool:
        """A line behind a line is one."""
        before = self._alone(line.inputs[0])
        assert line.factor is not None
        if before is None or before.factor is None:
            return False
        if line.axis is not None and before.axis not in (None, line.axis):
            return False
        source = self.writer.get(before.inputs[0])
        if source is not None and source.op("MatMul") and not self._takes(source, line, before.inputs[0]):
            return False  # the line before is the product's bias
        line.offset = line.factor * before.offset + line.offset
        line.factor = line.factor * before.factor
        line.axis = before.axis if line.axis is None else line.axis
        line.convolved |= before.convolved
        nodes = [*before.nodes, *line.nodes] if before.nodes and line.nodes else []
        self._take(before)
        self._change(line, before.inputs, line.outputs)
        line.nodes = nodes
        return True

    def _takes(self, item: Item, line: Item, between: str) -> bool:
        """Whether the layer `item` can take up the factor of `line`, which is all that becomes of its output."""
        if not item.op(*LAYERS) or self._alone(between) is not item or line.factor is None:
            return False
        rank = len(self.store.shape(between) or ())
        axis = rank - 1 if item.op("MatMul") else 1
        return self._own(item.inputs[1]) and (line.axis is None or line.axis == axis) and self._bias(item) is not None

    def _own(self, name: str) -> bool:
        """Whether `name` is a constant float32 matrix or kernel that one node reads."""
        weight = self.store.stored.get(name)
        own = weight is not None and len(self.readers[name]) == 1 and name not in self.pinned
        return own and weight is not None and weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1

    def _bias(self, item: Item) -> Vector | None:
        """The constant bias [outputs] of a layer, [1] zero where it has none; None where it is something else."""
        name = item.inputs[2] if len(item.inputs) > 2 else ""
        if not name:
            return np.zeros(1)
        known = name in self.store.stored and list(self.store.stored[name].dims) == [self._outputs(item)]
        return self.store.value(name) if known else None

    def _outputs(self, item: Item) -> int:
        """How many outputs the matrix of a layer has."""
        dims = self.store.stored[item.inputs[1]].dims
        if item.op("ConvTranspose"):
            groups = attribute(item.node, "group", 1)
            assert isinstance(groups, int)
            return int(dims[1]) * groups
        return int(dims[0 if item.op("Conv") or attribute(item.node, "transB", 0) else 1])

    def _back(self, line: Item) -> bool:
        """A line behind a layer goes into its weight and bias; of a MatMul, which has no bias, only the factor."""
        before = self._alone(line.inputs[0])
        if before is None or not self._takes(before, line, line.inputs[0]):
            return False
        assert line.factor is not None
        product = before.op("MatMul")
        if product and (line.factor == 1).all():
            return False
        out = line.outputs[0]
        weight = before.inputs[1]
        self.store.set(weight, scale_outputs(self.store.value(weight), before.node, line.factor))
        if product and line.offset.any():
            line.factor = np.ones(1)
            self._change(line, line.inputs, line.outputs)
        else:
            bias = self._bias(before)
            assert bias is not None
            if not product and (bias.any() or line.offset.any() or len(before.inputs) > 2):
                self._set_bias(before, bias * line.factor + line.offset)
            mean, deviation = self.normals.pop(line.inputs[0], (None, None))
            if mean is not None and deviation is not None:
                self.normals[out] = _float(mean * line.factor + line.offset), _float(deviation * abs(line.factor))
            self._take(line)
            self._change(before, before.inputs, [out])
        self.folded += 1
        return True

    def _set_bias(self, item: Item, value: Vector) -> None:
        """Give a layer the bias `value`, spread over its outputs."""
        name = item.inputs[2] if len(item.inputs) > 2 else ""
        value = np.broadcast_to(value, self._outputs(item))
        if name and len(self.readers[name]) == 1 and name not in self.pinned:
            self.store.set(name, value)
            return
        self._change(item, [*item.inputs[:2], self.store.constant(f"{item.name}.bias", value)], item.outputs)

    def _forward(self, line: Item) -> bool:
        """A line for all values goes into the layers that read it; its offset only where no padding stands for 0."""
        out, readers = line.outputs[0], self.readers[line.outputs[0]]
        assert line.factor is not None
        if line.axis is not None or line.convolved or out in self.pinned or not readers:
            return False
        for item in readers:
            if not item.op(*LAYERS) or item.inputs[0] != out or not self._own(item.inputs[1]):
                return False
            if self._bias(item) is None or attribute(item.node, "transA", 0):
                return False
            if line.offset.any() and not (item.op("Gemm") or (item.op("Conv") and not _padded(item.node))):
                return False
        for item in list(readers):
            if line.offset.any():
                bias = self._bias(item)
                assert bias is not None
                self._set_bias(item, bias + line.offset * self._sums(item))
            self.store.set(item.inputs[1], self.store.value(item.inputs[1]) * line.factor)
            self._change(item, [line.inputs[0], *item.inputs[1:]], item.outputs)
        self._take(line)
        self.folded += 1
        return True

    def _sums(self, item: Item) -> Vector:
        """The sum of the weights of each output of a convolution or Gemm."""
        w = self.store.value(item.inputs[1])
        along = tuple(range(1, w.ndim)) if item.op("Conv") or attribute(item.node, "transB", 0) else 0
        return np.asarray(w.sum(axis=along))

    def _up(self, line: Item) -> bool:
        """A positive factor behind Relu or Clip goes before it, where another line or a layer can take it up."""
        clip = self._alone(line.inputs[0])
        if not line.scaling or clip is None or not self._clips(clip):
            return False
        before = self._alone(clip.inputs[0])
        if before is None or not (before.factor is not None or self._takes(before, line, clip.inputs[0])):
            return False
        assert line.factor is not None
        data, out = clip.inputs[0], line.outputs[0]
        scaled = self.store.tensor(f"{clip.name}.scaled", data)
        limits = [
            self.store.constant(f"{clip.name}.limit", self.store.value(name) * line.factor[0]) if name else ""
            for name in clip.inputs[1:]
        ]
        self._change(line, [clip.outputs[0]], [scaled])  # out of the way: it writes `out` no longer
        self._change(clip, [scaled, *limits], [out])
        self._change(line, [data], [scaled])
        return True

    def _clips(self, item: Item) -> bool:
        """Whether `item` is a Relu, or a Clip with constant limits."""
        return item.op("Relu") or (
            item.op("Clip") and all(name in self.store.stored for name in item.inputs[1:] if name)
        )

    def _merge(self, clip: Item) -> bool:
        """Two limits in a row are one Clip."""
        before = self._alone(clip.inputs[0]) if clip.inputs and self._clips(clip) else None
        if before is None or not self._clips(before):
            return False
        low, high = self._limits(clip)
        ends = np.clip(self._limits(before), low, high)
        limits = [self.store.constant(f"{clip.name}.limit", end) if np.isfinite(end) else "" for end in ends]
        data, out = before.inputs[0], clip.outputs
        self._take(before)
        clip.nodes = [helper.make_node("Clip", [data, *limits], out, clip.name)]
        self._change(clip, [data, *limits], out)
        return True

    def _limits(self, clip: Item) -> tuple[float, float]:
        """The limits of a Relu or Clip."""
        if clip.op("Relu"):
            return 0.0, np.inf
        names = [*clip.inputs[1:], "", ""][:2]
        low, high = (
            self.store.value(name).item() if name else end for name, end in zip(names, (-np.inf, np.inf), strict=True)
        )
        return low, high

    def _across(self, line: Item) -> bool:
        """A positive factor on a product, or on one side of it, goes to the side that is clipped."""
        if not line.scaling:
            return False
        product, out = self._alone(line.inputs[0]), line.outputs[0]
        if product is not None and (side := self._clipped(product)) is not None:
            operand = product.inputs[side]
            scaled = self.store.tensor(f"{product.name}.scaled", operand)
            self._change(line, [operand], [scaled])
            self._change(product, [scaled if i == side else name for i, name in enumerate(product.inputs)], [out])
            return True
        product = self.readers[out][0] if self._alone(out) is line else None
        if product is None or (side := self._clipped(product)) is None or product.inputs[side] == out:
            return False
        data, operand = line.inputs[0], product.inputs[side]
        if (source := self.writer.get(data)) is not None and self._clips(source):
            return False  # both sides are clipped, and it is on one of them
        self._change(product, [out if i == side else data for i in (0, 1)], product.outputs)
        self._change(line, [operand], [out])
        return True

    def _clipped(self, product: Item) -> int | None:
        """Which side of a product of two tensors is clipped for it alone."""
        if not product.op("Mul") or any(name in self.store.stored for name in product.inputs):
            return None
        for side, name in enumerate(product.inputs):
            operand = self._alone(name)
            if operand is not None and self._clips(operand):
                return side
        return None

    # --- writing

    def nodes(self) -> list[onnx.NodeProto]:
        """All nodes, each behind those that it reads."""
        images: set[str] = set()
        found: list[onnx.NodeProto] = []
        for item in self._ordered():
            if item.factor is not None:
                image = item.inputs[0] in images
                found += self._write(item, image)
            else:
                found.append(item.node)
                image = item.op(*CONVOLUTIONS) or (item.op(*THROUGH) and any(name in images for name in item.inputs))
            if image:
                images.update(item.outputs)
        return found

    def _ordered(self) -> list[Item]:
        """The items, each behind those that it reads; otherwise as they were."""
        reads = {item: [name for name in self._reads(item) if name in self.writer] for item in self.items}
        waiting = {item: len(names) for item, names in reads.items()}
        behind: defaultdict[Item, list[Item]] = defaultdict(list)
        for item, names in reads.items():
            for name in names:
                behind[self.writer[name]].append(item)
        heap = [(item.position, item) for item, count in waiting.items() if not count]
        heapq.heapify(heap)
        found: list[Item] = []
        while heap:
            found.append(heapq.heappop(heap)[1])
            for item in behind[found[-1]]:
                waiting[item] -= 1
                if not waiting[item]:
                    heapq.heappush(heap, (item.position, item))
        return found

    def _reads(self, item: Item) -> list[str]:
        """What an item reads, subgraphs included."""
        if item.factor is None and any(a.HasField("g") or a.graphs for a in item.node.attribute):
            return sorted(names_read(onnx.GraphProto(node=[item.node])))
        return item.inputs

    def _write(self, line: Item, image: bool) -> list[onnx.NodeProto]:
        """A line as a depthwise convolution, as the nodes it came from, or as Mul and Add."""
        assert line.factor is not None
        data, out = line.inputs[0], line.outputs[0]
        if line.convolved or (image and self._surrounded(line)):
            self.written += 1
            channels = self._channels(data) or len(line.factor)
            factor, offset = (np.broadcast_to(v, channels) for v in (line.factor, line.offset))
            return [self.store.depthwise(line.name, data, factor, offset, out)]
        if line.nodes:
            return line.nodes
        rank = len(self.store.shape(data) or ())
        shape = [] if line.axis is None else [-1] + [1] * (rank - line.axis - 1)
        steps = [("Mul", line.factor, 1.0), ("Add", line.offset, 0.0)]
        steps = [step for step in steps if (step[1] != step[2]).any()] or steps[1:]
        found = []
        for i, (op, value, _) in enumerate(steps):
            after = out if i == len(steps) - 1 else self.store.tensor(f"{line.name}.scaled", data)
            constant = self.store.constant(f"{line.name}.constant", value.reshape(shape))
            found.append(helper.make_node(op, [data, constant], [after], line.name if i == 0 else f"{line.name}.add"))
            data = after
        return found

    def _surrounded(self, line: Item) -> bool:
        """Whether integer operators write what the line reads, and read what it writes."""
        data, out = line.inputs[0], line.outputs[0]
        before, axis = self.writer.get(data), line.axis in (None, 1)
        if before is None or out in self.pinned or not axis or not self._channels(data):
            return False
        integer = before.factor is not None or before.op(*INTEGER)
        return integer and any(reader.factor is not None or reader.op(*INTEGER) for reader in self.readers[out])


def _padded(node: onnx.NodeProto) -> bool:
    """Whether a convolution pads its input."""
    return attribute(node, "auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER") or any(attribute(node, "pads", ()))  # type: ignore[arg-type]


def _float(x: Vector) -> npt.NDArray[np.float32]:
    return np.asarray(x, np.float32)


def simplify(graph: onnx.GraphProto, pinned: set[str], normals: Normals) -> tuple[int, int]:
    """Apply all rules, in place: (lines that went into layers, operators written as depthwise convolutions).

    `pinned` are tensors that somebody besides nodes reads, `normals` what folded batch norms wrote; they are kept true.
    Shapes must have been inferred before, and again after.
    """
    work = Arithmetic(Store(graph), pinned, normals)
    work.run()
    nodes = work.nodes()
    del graph.node[:]
    graph.node.extend(nodes)
    known = {name for node in nodes for name in node.output}
    for i in reversed(range(len(graph.value_info))):
        if graph.value_info[i].name not in known:
            del graph.value_info[i]
    return work.folded, work.written
