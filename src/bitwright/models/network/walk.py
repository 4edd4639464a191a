"""Carry samples through a float network and its quantized twin side by side, one node after another.

When the walk comes to a layer, both inputs of it are known: what the float network feeds it and what the quantized one
does, with every error made before. Whoever walks then decides the layer's weight and bias, and the walk goes on with
them. One pass serves every method that learns from samples, for any operator that ONNX Runtime knows. The quantized
twin is our own simulation: weights as we decode them, activations rounded by `core.observe.Affine`, all else in float.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper

from bitwright.core.observe import Affine
from bitwright.files.layers import Layer, Placement, spared
from bitwright.models.language.activations import Activations
from bitwright.models.network.graph import Graph
from bitwright.models.network.prepare import captured
from bitwright.models.network.recurrent import dynamic_lstm, rows_of
from bitwright.models.network.session import Session

Array = npt.NDArray[Any]
BUDGET = 1 << 26
"""Bytes of one tensor, over all batches, that stay in memory; the rest goes to a temporary file."""


class Column:
    """One tensor of all batches, for both networks; the quantized one shares the float one's until they differ.

    A value comes back with the rank it had: a scalar is no array of one. Strings and sequences stay in memory.
    """

    def __init__(self, folder: Path | None, split: bool) -> None:
        self.split = split
        self._float = Activations(BUDGET, folder)
        self._quantized = Activations(BUDGET, folder) if split else self._float
        self._others: list[tuple[Any, Any]] = []

    def append(self, x: Any, x_hat: Any) -> None:
        """Add a batch."""
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "biufc":
            self._others.append((x, x_hat))
            return
        self._float.append(torch.from_numpy(np.require(x, requirements=("C", "W"))))
        if self.split:
            self._quantized.append(torch.from_numpy(np.require(x_hat, requirements=("C", "W"))))

    def get(self, i: int, quantized: bool) -> Any:
        """Batch `i` of one of the networks."""
        if self._others:
            return self._others[i][quantized]
        return (self._quantized if quantized else self._float)[i].numpy()


class Step:
    """The walk has come to `layer`: look at its inputs, then `settle` what the quantized network computes."""

    def __init__(self, walk: Walk, layer: Layer) -> None:
        self.layer, self._walk = layer, walk

    @property
    def count(self) -> int:
        """Number of batches."""
        return self._walk.count

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        """The layer's input, batch by batch: (of the float network, of the quantized one).

        Of a recurrent layer they are the rows that it multiplies, [directions, rows, columns].
        """
        layer, walk = self.layer, self._walk
        reader = walk.nodes[layer.node]
        for i in range(walk.count):
            if layer.recurrent:
                yield walk.rows(layer, i, False), walk.rows(layer, i, True)
            else:
                yield walk.value(layer.input, i), walk.seen(layer.input, i, reader)

    def beside(self) -> Iterator[tuple[Array, Array] | None]:
        """What the layer's answer is added to, batch by batch: (of the float network, of the quantized one).

        None for a batch where it is added to nothing, or to what is not known before the layer's own codes are.
        """
        found = self._walk.graph.added(self.layer)
        for i in range(self._walk.count):
            if found is None or not self._walk.knows(found[0]):
                yield None
                continue
            other, add = found
            yield self._walk.value(other, i), self._walk.seen(other, i, add)

    def settle(self, weight: Array | None = None, bias: Array | None = None) -> None:
        """Give the quantized network its weight (in the stored shape) and bias; None leaves one as it is."""
        if weight is not None:
            self._walk.twin[self.layer.weight] = np.ascontiguousarray(weight, np.float32)
        if bias is not None and self.layer.bias is not None:
            self._walk.twin[self.layer.bias] = np.ascontiguousarray(bias, np.float32)

    def outputs(self) -> Iterator[tuple[Array, Array]]:
        """The product with the settled weight and bias, batch by batch: (float, quantized), before any activation."""
        layer, nodes = self.layer, self._walk.nodes
        if layer.recurrent:
            before = self._walk.graph.constant(layer.weight)
            after = self._walk.twin.get(layer.weight, before)
            for x, x_hat in self:
                yield np.hstack([*(x @ before.swapaxes(1, 2))]), np.hstack([*(x_hat @ after.swapaxes(1, 2))])
            return
        first = nodes[layer.name]
        second = nodes[layer.nodes[1]] if layer.op == "MatMul" and layer.bias is not None else None
        for i in range(self._walk.count):
            given = None
            x, x_hat = self._walk.value(layer.input, i), self._walk.seen(layer.input, i, first)
            if x.shape != x_hat.shape:  # as many rows as the values before decided: only the layer's own error is left
                given = {layer.input: x_hat}
            pair = []
            for quantized in (False, True):
                y = self._walk.compute(first, i, quantized, given)[0]
                if second is not None:
                    y = self._walk.compute(second, i, quantized, {first.output[0]: y})[0]
                pair.append(y)
            yield pair[0], pair[1]


class Walk:
    """A walk over `feeds` (batches of {input name: array}); `affines` are applied where `placement` says."""

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        affines: Mapping[str, Affine],
        feeds: Sequence[Mapping[str, Array]],
        folder: Path | None = None,
    ) -> None:
        self.graph, self.placement, self.affines, self.feeds, self.folder = graph, placement, affines, feeds, folder
        self.count = len(feeds)
        self.nodes = {node.name: node for node in graph.model.graph.node}
        others = spared(graph.matrices, placement)
        self.exact = {(la.node, name) for la in graph.matrices if la.name in others for name in (la.weight, la.bias)}
        """Nodes and constants that they read as they were."""
        self.twin: dict[str, Array] = {}
        """Constants in which the quantized network differs."""
        self._learnt = {name for layer in graph.matrices for name in (layer.weight, layer.bias) if name}
        """Constants in which the networks may differ."""
        self._sessions: dict[str, Session] = {}
        self._columns: dict[str, Column] = {}

    def steps(self) -> Generator[Step, None, dict[str, list[tuple[Array, Array]]]]:
        """Yield a Step before each layer; returns {output name: [(float, quantized) of each batch]}."""
        layers: dict[str, list[Layer]] = {}
        for layer in self.graph.matrices:
            layers.setdefault(layer.node, []).append(layer)
        left = self._uses()
        self._columns.clear()
        for name in self.graph.inputs:
            column = self._columns[name] = Column(self.folder, False)
            for batch in self.feeds:
                column.append(batch[name], batch[name])
        for node in self.nodes.values():
            for layer in layers.get(node.name, ()):
                yield Step(self, layer)
            self._execute(node)
            self._sessions.pop(node.name, None)
            for name in set(self._reads(node)):
                left[name] -= 1
                if not left[name]:
                    self._columns.pop(name, None)
        outputs = {
            name: [(self._output(name, i, False), self._output(name, i, True)) for i in range(self.count)]
            for name in self.graph.outputs
        }
        self._columns.clear()
        return outputs

    def _output(self, name: str, i: int, quantized: bool) -> Array:
        """Batch `i` of a network output; one that is a constant is the same in both networks."""
        return np.asarray(self._columns[name].get(i, quantized) if name in self._columns else self.graph.constant(name))

    def knows(self, name: str) -> bool:
        """Whether the walk has come by a tensor, and somebody is still to read it."""
        return name in self._columns

    def value(self, name: str, i: int) -> Any:
        """Batch `i` of a tensor of the float network."""
        return self._columns[name].get(i, False)

    def seen(self, name: str, i: int, reader: onnx.NodeProto) -> Any:
        """Batch `i` of a tensor as `reader` finds it in the quantized network."""
        x = self._columns[name].get(i, True)
        affine = self.affines.get(name)
        # Where an integer node wrote it, it is rounded for all; otherwise integer readers alone round it.
        if affine is not None and reader.name in self.placement.nodes:
            return np.asarray(affine.fake(x), np.float32)
        return x

    def rows(self, layer: Layer, i: int, quantized: bool) -> Array:
        """Batch `i` of what a recurrent `layer` multiplies, [directions, rows, columns], in one of the networks.

        What R multiplies is made by the node itself, with the matrices as far as they are settled.
        """
        node = self.nodes[layer.node]
        values = {name: self._operand(name, i, quantized, node) for name in node.input if name}
        if layer.slot == 2:
            values[node.output[0]] = self.compute(node, i, quantized)[0]
        return rows_of(layer, node, values, quantized and node.name in self.placement.dynamic)

    def _operand(self, name: str, i: int, quantized: bool, reader: onnx.NodeProto) -> Any:
        """Batch `i` of an input of `reader`, constants included; None for one that is left out."""
        if name in self._columns:
            return self.seen(name, i, reader) if quantized else self.value(name, i)
        if quantized and name in self.twin and (reader.name, name) not in self.exact:
            return self.twin[name]
        return self.graph.constant(name) if name else None

    def compute(
        self, node: onnx.NodeProto, i: int, quantized: bool, given: Mapping[str, Array] | None = None
    ) -> list[Array]:
        """The outputs of one node on batch `i`, in one of the networks; `given` replaces tensors."""
        if quantized and node.name in self.placement.dynamic:
            made = dynamic_lstm(node, [self._operand(name, i, True, node) for name in node.input])
            return [y for y, name in zip(made, node.output, strict=False) if name]
        values: dict[str, Array] = {}
        names = self._reads(node)
        for name in names:
            if given is not None and name in given:
                values[name] = given[name]
            elif name in self._columns:
                values[name] = self.seen(name, i, node) if quantized else self.value(name, i)
            elif quantized and name in self.twin and (node.name, name) not in self.exact:
                values[name] = self.twin[name]
            elif name in self._learnt:
                values[name] = self.graph.constant(name)
        if node.name not in self._sessions:
            fixed = [name for name in names if name not in values]
            self._sessions[node.name] = self._session(node, values, fixed)
        found = self._sessions[node.name].run(values)
        return [found[name] for name in node.output if name]

    def _execute(self, node: onnx.NodeProto) -> None:
        integer = node.name in self.placement.nodes
        outputs = [name for name in node.output if name]
        split = any(self._columns[n].split for n in self._reads(node) if n in self._columns)
        split = split or any(n in self.twin for n in node.input) or integer or node.name in self.placement.dynamic
        columns = {name: Column(self.folder, split) for name in outputs}
        for i in range(self.count):
            exact = self.compute(node, i, False)
            rounded = self.compute(node, i, True) if split else exact
            for name, x, x_hat in zip(outputs, exact, rounded, strict=True):
                affine = self.affines.get(name) if integer else None
                columns[name].append(x, np.asarray(affine.fake(x_hat), np.float32) if affine is not None else x_hat)
        self._columns.update(columns)

    def _reads(self, node: onnx.NodeProto) -> list[str]:
        """Names of the tensors a node reads, its subgraphs included."""
        names = [name for name in node.input if name]
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        if bodies:
            shell = helper.make_graph([node], "shell", [], [])
            names += sorted(captured(shell) & (set(self._columns) | self.graph.constants))
        return list(dict.fromkeys(names))

    def _uses(self) -> dict[str, int]:
        """How many nodes read each tensor; a network output counts once more, so that it stays."""
        left: dict[str, int] = dict.fromkeys(self.graph.outputs, 1)
        known = set(self.graph.inputs) | set(self.graph.producers)
        self._columns = dict.fromkeys(known)  # type: ignore[assignment]  # so that `_reads` knows all tensors
        for node in self.nodes.values():
            for name in set(self._reads(node)):
                left[name] = left.get(name, 0) + 1
        return left

    def _session(self, node: onnx.NodeProto, values: Mapping[str, Any], fixed: Sequence[str]) -> Session:
        """A model of this node alone; weights are inputs too, so that one session serves both networks.

        The other constants are `fixed`, as some operators need them to be. Shapes are left open: they may change from
        batch to batch.
        """
        inputs = [onnx.ValueInfoProto(name=name, type=_type(x)) for name, x in values.items()]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        stored = [numpy_helper.from_array(self.graph.constant(name), name) for name in fixed]
        body = helper.make_graph([node], "node", inputs, outputs, stored)
        model = helper.make_model(body, opset_imports=self.graph.model.opset_import)
        model.ir_version = self.graph.model.ir_version
        return Session(model, optimize=False, where=node.name)


def _type(x: Any) -> onnx.TypeProto:
    """The ONNX type of a value: a tensor of open shape, or a sequence of such."""
    if isinstance(x, list):
        return helper.make_sequence_type_proto(_type(x[0] if x else np.zeros((), np.float32)))
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(x.dtype), None)


def simulate(
    graph: Graph,
    placement: Placement,
    affines: Mapping[str, Affine],
    twin: Mapping[str, Array],
    feeds: Iterable[Mapping[str, Array]],
) -> dict[str, list[Array]]:
    """The outputs of the quantized network by our own arithmetic, {output name: [of each batch]}."""
    walk = Walk(graph, placement, affines, list(feeds))
    walk.twin.update(twin)
    steps = walk.steps()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return {name: [pair[1] for pair in pairs] for name, pairs in end.value.items()}
