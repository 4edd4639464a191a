"""Streams: channels that run through a network and whose scale can be moved without changing the function.

Multiplying channel c by s > 0 where it is written and dividing by s where it is read changes nothing, as long as all
between is positively homogeneous in it: f(s x) = s f(x) for Relu, sums, pooling, concatenation (Nagel et al. 2019,
arXiv 1906.04721, section 4.1; here for any number of writers and readers). Channels are followed one by one, so slices,
concatenations and padded shortcuts are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx

from bitwright.files.layers import Index, Layer, Stream, attribute
from bitwright.models.network.graph import Graph

HOMOGENEOUS = {
    "Relu",
    "LeakyRelu",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "Dropout",
}
GATES = {"Sigmoid", "HardSigmoid", "Softmax"}


class _Ties:
    """Union-find over channels; element 0 stands for all that must not be scaled."""

    def __init__(self) -> None:
        self.parent = [0]
        self.first: dict[tuple[str, int], Index] = {}

    def of(self, tensor: str, axis: int, count: int) -> Index:
        """The elements of `tensor` along `axis`."""
        if (tensor, axis) not in self.first:
            begin = len(self.parent)
            self.parent.extend(range(begin, begin + count))
            self.first[tensor, axis] = np.arange(begin, begin + count)
        return self.first[tensor, axis]

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def tie(self, a: Iterable[int], b: Iterable[int]) -> None:
        for i, j in zip(a, b, strict=True):
            low, high = sorted((self.root(int(i)), self.root(int(j))))
            self.parent[high] = low

    def freeze(self, a: Iterable[int]) -> None:
        for i in a:
            self.parent[self.root(int(i))] = 0


def find_streams(graph: Graph) -> list[Stream]:
    """All streams of `graph` with at least one layer that writes and one that reads, in the order of the graph."""
    ties = _Ties()
    writers, readers = _layers(graph)
    open_: list[tuple[str, int]] = [(layer.output, axis) for layer, axis in writers]
    open_ += [(layer.input, axis) for layer, axis in readers]
    writes = {layer.output: axis for layer, axis in writers}
    inner = {name for layer, _ in writers for name in layer.nodes}
    reads = {(layer.name, layer.input): axis for layer, axis in readers}
    seen: set[tuple[str, int]] = set()
    while open_:
        tensor, axis = open_.pop()
        if (tensor, axis) in seen:
            continue
        seen.add((tensor, axis))
        count = _size(graph, tensor, axis)
        if count is None:
            # Elements of unknown number cannot be followed; whoever asks for them finds them frozen.
            continue
        elements = ties.of(tensor, axis, count)
        producer = graph.producers.get(tensor)
        if tensor in graph.pinned or producer is None:
            ties.freeze(elements)
        elif producer.name in inner:
            if writes.get(tensor) != axis:
                ties.freeze(elements)
        else:
            open_ += _step(graph, ties, producer, tensor, axis)
        for node in graph.consumers.get(tensor, []):
            if (node.name, tensor) in reads:
                if reads[node.name, tensor] != axis or list(node.input).count(tensor) > 1:
                    ties.freeze(elements)
            elif node.name in inner:
                ties.freeze(elements)
            elif node.op_type not in ("Shape", "Size"):
                open_ += _step(graph, ties, node, tensor, axis)
    return _collect(graph, ties, writers, readers)


def _layers(graph: Graph) -> tuple[list[tuple[Layer, int]], list[tuple[Layer, int]]]:
    """(layer, channel axis of its output) and (layer, channel axis of its input)."""
    writers, readers = [], []
    for layer in graph.layers:
        if graph.shared(layer.weight):
            continue  # a weight that others read cannot take the factors of one layer
        rank = _rank(graph, layer.output)
        axis = 1 if layer.op in ("Conv", "ConvTranspose", "Gemm") else rank - 1
        if axis > 0:
            if layer.activation in (None, "Relu"):
                writers.append((layer, axis))
            before = _rank(graph, layer.input)
            readers.append((layer, 1 if layer.op != "MatMul" else before - 1))
    for node in graph.model.graph.node:
        if node.op_type == "LayerNormalization" and node.input[1] in graph.constants:
            rank = _rank(graph, node.output[0])
            along, shape = attribute(node, "axis", -1), graph.constant(node.input[1]).shape
            single = not graph.shared(node.input[1]) and len(node.output) == 1
            bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
            if (
                rank
                and along in (-1, rank - 1)
                and len(shape) == 1
                and single
                and (bias is None or bias in graph.constants)
            ):
                layer = Layer(node.name, "LayerNormalization", node.input[0], node.input[1], (shape[0], shape[0]),
                              node.output[0], node.output[0], bias, nodes=(node.name,))  # fmt: skip
                writers.append((layer, rank - 1))
    return writers, readers


def _size(graph: Graph, tensor: str, axis: int) -> int | None:
    shape = graph.values.get(tensor, ("", None))[1]
    return shape[axis] if shape is not None and axis < len(shape) else None


def _rank(graph: Graph, tensor: str) -> int:
    """The rank of `tensor`; 0 where nobody knows it, too."""
    return len(graph.values.get(tensor, ("", None))[1] or ())


def _step(graph: Graph, ties: _Ties, node: onnx.NodeProto, tensor: str, axis: int) -> list[tuple[str, int]]:
    """Tie the channels of `tensor` along `axis` to those of the other tensors of `node`; the pairs reached.

    Freezes them where `node` is not positively homogeneous or its effect on single channels is not known.
    """
    count = _size(graph, tensor, axis)
    assert count is not None
    mine = ties.of(tensor, axis, count)
    reached = _mapped(graph, ties, node, axis, tensor)
    if reached is None:
        ties.freeze(mine)
        return []
    return reached


def _mapped(graph: Graph, ties: _Ties, node: onnx.NodeProto, axis: int, tensor: str) -> list[tuple[str, int]] | None:
    """What `_step` reaches through `node`, or None where the channels must be frozen."""
    op, data, out = node.op_type, node.input[0], node.output[0]
    if node.domain or (sum(1 for name in node.output if name) > 1 and op != "Split"):
        return None

    def tied(a: tuple[str, int], b: tuple[str, int]) -> bool:
        sizes = _size(graph, *a), _size(graph, *b)
        if sizes[0] is None or sizes[0] != sizes[1]:
            return False
        ties.tie(ties.of(*a, sizes[0]), ties.of(*b, sizes[0]))
        return True

    pooled = "Pool" in op and axis != 1
    if op in HOMOGENEOUS and not pooled:
        return [(data, axis), (out, axis)] if tied((data, axis), (out, axis)) else None
    if op == "Add":
        if any(name in graph.constants for name in node.input):
            return None
        pairs = [(name, axis) for name in node.input]
        return [*pairs, (out, axis)] if all(tied(pair, (out, axis)) for pair in pairs) else None
    if op == "Mul":
        through = [name for name in node.input if name not in graph.constants and not _gate(graph, name)]
        if len(through) != 1 or (tensor not in (through[0], out)):
            return None
        return [(through[0], axis), (out, axis)] if tied((through[0], axis), (out, axis)) else None
    if op == "Concat":
        rank = _rank(graph, out)
        along = attribute(node, "axis", 0)
        assert isinstance(along, int)
        if rank == 0 or any(name in graph.constants for name in node.input):
            return None
        if along % rank != axis:
            pairs = [(name, axis) for name in node.input]
            return [*pairs, (out, axis)] if all(tied(pair, (out, axis)) for pair in pairs) else None
        sizes = [_size(graph, name, axis) for name in node.input]
        total = _size(graph, out, axis)
        if total is None or any(size is None for size in sizes):
            return None
        elements, begin = ties.of(out, axis, total), 0
        for name, size in zip(node.input, sizes, strict=True):
            ties.tie(ties.of(name, axis, size or 0), elements[begin : begin + (size or 0)])
            begin += size or 0
        return [*((name, axis) for name in node.input), (out, axis)]
    if op == "Transpose":
        perm = attribute(node, "perm", ())
        order = [int(i) for i in perm] or list(range(_rank(graph, data)))[::-1]  # type: ignore[attr-defined]
        if axis >= len(order):
            return None
        pair = (data, order[axis]) if tensor == out else (data, axis)
        after = (out, order.index(pair[1]))
        return [pair, after] if tied(pair, after) else None
    if op in ("Slice", "Pad", "Flatten", "Reshape", "Squeeze"):
        return _windowed(graph, ties, node, axis, tensor)
    return None


def _gate(graph: Graph, name: str) -> bool:
    """Whether tensor `name` is a gate: a factor that no stream scales."""
    producer = graph.producers.get(name)
    return producer is not None and producer.op_type in GATES


def _windowed(graph: Graph, ties: _Ties, node: onnx.NodeProto, axis: int, tensor: str) -> list[tuple[str, int]] | None:
    """Slice, Pad with zeros, and reshapes that leave the channels in place (also [N, C, 1, 1] -> [N, C])."""
    data, out = node.input[0], node.output[0]
    before, after = graph.values.get(data, ("", None))[1], graph.values.get(out, ("", None))[1]
    if before is None or after is None or axis >= min(len(before), len(after)):
        return None
    old, new = before[axis], after[axis]
    if old is None or new is None:
        return None
    a, b = ties.of(data, axis, old), ties.of(out, axis, new)
    if node.op_type == "Slice":
        if not all(name in graph.constants for name in node.input[1:] if name):
            return None
        starts, ends = (graph.constant(name).reshape(-1) for name in node.input[1:3])
        rank = len(before)
        axes = (
            graph.constant(node.input[3]).reshape(-1)
            if len(node.input) > 3 and node.input[3]
            else np.arange(len(starts))
        )
        steps = (
            graph.constant(node.input[4]).reshape(-1) if len(node.input) > 4 and node.input[4] else np.ones(len(starts))
        )
        for start, end, along, step in zip(starts, ends, axes, steps, strict=True):
            if int(along) % rank == axis:
                a = a[slice(int(start), int(end) if abs(int(end)) < 2**31 - 1 else None, int(step))]
        if len(a) != len(b):
            return None
        ties.tie(a, b)
    elif node.op_type == "Pad":
        pads = node.input[1] if len(node.input) > 1 else ""
        value = node.input[2] if len(node.input) > 2 else ""
        constant = attribute(node, "mode", b"constant") == b"constant"
        zero = not value or (value in graph.constants and not float(graph.constant(value).item()))
        if pads not in graph.constants or not constant or not zero or (len(node.input) > 3 and node.input[3]):
            return None
        begin = int(graph.constant(pads).reshape(-1)[axis])
        if begin < 0 or begin + old > new:
            return None
        ties.tie(a, b[begin : begin + old])
    elif node.op_type in ("Flatten", "Reshape", "Squeeze"):
        rest = before[axis + 1 :], after[axis + 1 :]
        sizes = [int(np.prod([n if n is not None else -1 for n in part], dtype=np.int64)) for part in rest]
        known = all(n is not None for part in rest for n in part)
        if axis != 1 or not known or (before[:1] != after[:1] and None not in (*before[:1], *after[:1])):
            return None
        if old == new and sizes[0] == sizes[1]:
            ties.tie(a, b)
        elif sizes[1] == 1 and new == old * sizes[0]:
            ties.tie(np.repeat(a, sizes[0]), b)  # [N, C, H, W] -> [N, C * H * W]
        else:
            return None
    return [(data, axis), (out, axis)]


def _collect(
    graph: Graph, ties: _Ties, writers: list[tuple[Layer, int]], readers: list[tuple[Layer, int]]
) -> list[Stream]:
    """Channels joined into streams: two belong together where one layer writes or reads both."""

    def roots(tensor: str, axis: int, count: int) -> Index:
        elements = ties.first.get((tensor, axis))
        if elements is None or len(elements) != count:
            return np.zeros(count, np.int64)
        return np.array([ties.root(int(i)) for i in elements])

    ends = [(layer, roots(layer.output, axis, layer.outputs), True) for layer, axis in writers]
    ends += [(layer, roots(layer.input, axis, layer.inputs), False) for layer, axis in readers]
    groups = _Ties()
    number: dict[int, int] = {}
    for _, index, _ in ends:
        ids = [number.setdefault(int(i), len(number) + 1) for i in index if i]
        for i in ids:
            while len(groups.parent) <= i:
                groups.parent.append(len(groups.parent))
        groups.tie(ids[:-1], ids[1:])
    members: dict[int, list[int]] = defaultdict(list)
    for element, i in number.items():
        members[groups.root(i)].append(element)
    streams = []
    for elements in members.values():
        place = {element: i for i, element in enumerate(elements)}
        # A channel that stays as it is (root 0) keeps the whole layer's index valid: such layers are left out.
        mine = [(layer, index, writes) for layer, index, writes in ends if any(int(i) in place for i in index)]
        if any(0 in index for _, index, _ in mine):
            continue

        def positions(index: Index, place: dict[int, int] = place) -> Index:
            return np.array([place[int(i)] for i in index])

        producers = tuple((layer, positions(index)) for layer, index, writes in mine if writes)
        consumers = tuple((layer, positions(index)) for layer, index, writes in mine if not writes)
        tensors = {}
        for (tensor, axis), first in ties.first.items():
            index = np.array([ties.root(int(i)) for i in first])
            if len(index) and all(int(i) in place for i in index):
                tensors[tensor] = (axis, positions(index))
        if producers and consumers:
            streams.append(Stream(len(elements), producers, consumers, tensors))
    return streams
