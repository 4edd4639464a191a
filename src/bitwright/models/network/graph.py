"""Facts of a float ONNX network: its layers, their matrices, and which tensors connect them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.errors import ModelError, TensorError
from bitwright.files.layers import RECURRENT, Floats, Layer, Stream, attribute, from_matrix, to_matrix
from bitwright.files.onnx import read
from bitwright.models.network.axes import batch_axes
from bitwright.models.network.branches import fixed_inputs
from bitwright.models.network.names import taken, unused
from bitwright.models.network.pad import WIDTH, pad_channels
from bitwright.models.network.prepare import captured, fed, infer, prepare
from bitwright.words import plural

Shape = tuple[int | None, ...]
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinear", "QGemm", "ConvInteger", "MatMulInteger", "MatMulNBits")
"""Beginnings of operators that only integer networks hold."""


class Graph:
    """A float ONNX network, prepared (see `prepare`: the function is unchanged) and ready to be quantized.

    `model` is private to this object and changes with `set_matrix` and `set_bias`; `notes` says what preparing did,
    `normals` what each folded batch norm wrote: {tensor: (mean, standard deviation) of each channel}.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        bind: Mapping[str, int | None] | None = None,
        batch: Mapping[str, int | None] | None = None,
        constant: Mapping[str, float] | None = None,
        wide: bool = False,
        where: str = "model",
    ) -> None:
        """Take `model` over (it is changed in place).

        `bind` is that of `prepare`, `batch` that of `batch_axes`, `constant` that of `fixed_inputs`. `wide` adds
        channels where integer kernels run faster on more of them (see `pad`).

        Raises ModelError where the model is quantized already, and what those raise.
        """
        self.where = where
        if done := sorted({node.op_type for node in model.graph.node if node.op_type.startswith(QUANTIZED)}):
            what = f"already quantized (it holds {', '.join(done)})"
            raise ModelError(what, where=where, fix="Give the float model it was made from")
        self.axes = batch_axes(fed(model.graph), batch or {}, where)
        """The axis of each input that counts samples; None: all samples of a batch share one value."""
        self.fixed = fixed_inputs({value.name: value for value in fed(model.graph)}, constant or {}, where)
        """Inputs that always have one value, and which nobody reads any more."""
        self.model, self.notes, self.normals = prepare(model, bind, where, self.axes, self.fixed)
        if wide and (count := pad_channels(self.model.graph, set(self.pinned), self.normals)):
            infer(self.model)
            self.notes.append(
                f"{plural(count, 'group')} of channels padded to multiples of {WIDTH} for integer kernels"
            )
        for node in self.model.graph.node:  # what R multiplies is what such a node returns for each step
            if node.op_type in RECURRENT and not node.domain and not node.output[0]:
                node.output[0] = unused(f"{node.name}.Y", taken(self.model.graph))
        self.sizes: dict[str, int] = {}
        """Numbers in each tensor for one sample, as far as a trial has shown them."""
        self._stored = {tensor.name: tensor for tensor in self.model.graph.initializer}

    @classmethod
    def open(
        cls,
        path: str | Path,
        bind: Mapping[str, int | None] | None = None,
        batch: Mapping[str, int | None] | None = None,
        constant: Mapping[str, float] | None = None,
        wide: bool = False,
    ) -> Graph:
        """The network in the file `path`, checked (`files.onnx.read`) and prepared."""
        return cls(read(path), bind=bind, batch=batch, constant=constant, wide=wide, where=str(path))

    @cached_property
    def inputs(self) -> dict[str, tuple[str, Shape]]:
        """{name: (NumPy dtype name, shape with None for a dynamic dimension)} of what the network is fed."""
        return inputs_of(self.model)

    @cached_property
    def outputs(self) -> dict[str, tuple[str, Shape]]:
        """{name: (NumPy dtype name, shape with None for a dynamic dimension)} of what the network returns."""
        return {value.name: facts_of(value) for value in self.model.graph.output}

    @cached_property
    def values(self) -> dict[str, tuple[str, Shape | None]]:
        """{tensor name: (NumPy dtype name, shape or None where its rank is unknown)} wherever the type is known."""
        graph = self.model.graph
        found: dict[str, tuple[str, Shape | None]] = {}
        for value in [*graph.value_info, *graph.input, *graph.output]:
            if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type:
                known = value.type.tensor_type.HasField("shape")
                dtype, shape = facts_of(value)
                found[value.name] = (dtype, shape if known else None)
        for tensor in graph.initializer:
            found[tensor.name] = (_dtype(tensor.data_type), tuple(tensor.dims))
        return found

    @cached_property
    def constants(self) -> frozenset[str]:
        """Names of the initializers."""
        return frozenset(self._stored)

    def constant(self, name: str) -> npt.NDArray[np.generic]:
        """The value of initializer `name`."""
        return numpy_helper.to_array(self._stored[name])

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """{tensor name: the node that writes it}."""
        return {out: node for node in self.model.graph.node for out in node.output if out}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """{tensor name: the nodes that read it, once for each time}; subgraphs are not among them (see `pinned`)."""
        found: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.model.graph.node:
            for name in node.input:
                if name:
                    found[name].append(node)
        return dict(found)

    @cached_property
    def pinned(self) -> frozenset[str]:
        """Tensors that somebody besides nodes reads: network outputs, and what subgraphs capture."""
        return frozenset({value.name for value in self.model.graph.output} | captured(self.model.graph))

    def shared(self, constant: str) -> bool:
        """Whether more than one reader sees `constant`, so that it may not change for one of them."""
        return constant in self.pinned or len(self.consumers.get(constant, [])) > 1

    @cached_property
    def layers(self) -> list[Layer]:
        """The products by a constant float32 matrix, in the order of the graph; those of `recurrent` left aside."""
        found = [self._layer(node) for node in self.model.graph.node]
        return [layer for layer in found if layer is not None]

    @cached_property
    def recurrent(self) -> list[Layer]:
        """The constant float32 matrices of LSTM, GRU and RNN, two for each node, in the order of the graph."""
        return [layer for node in self.model.graph.node for layer in self._recurrent(node)]

    @property
    def matrices(self) -> list[Layer]:
        """All that can be quantized, in the order of the graph."""
        place = {node.name: i for i, node in enumerate(self.model.graph.node)}
        return sorted([*self.layers, *self.recurrent], key=lambda layer: place[layer.node])

    def layer(self, name: str) -> Layer:
        """The layer called `name`; ModelError where there is none."""
        for layer in self.matrices:
            if layer.name == name:
                return layer
        raise ModelError(f"no layer {name}", where=self.where)

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain:
            return None
        weight = self._stored.get(node.input[1])
        rank = 2 if node.op_type in ("Gemm", "MatMul") else 3
        if weight is None or weight.data_type != TensorProto.FLOAT or node.input[0] in self._stored:
            return None
        if len(weight.dims) < rank or (rank == 2 and len(weight.dims) != 2):
            return None
        if node.op_type == "Gemm" and attribute(node, "transA", 0):
            return None
        nodes, raw = [node.name], node.output[0]
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        outputs = int(weight.dims[0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1])
        if node.op_type == "ConvTranspose":
            outputs *= _integer(node, "group", 1)
        if bias is not None and (bias not in self._stored or list(self._stored[bias].dims) != [outputs]):
            return None
        if node.op_type == "MatMul" and (after := self._alone(raw)) is not None and after.op_type == "Add":
            other = after.input[1] if after.input[0] == raw else after.input[0]
            if other in self._stored and list(self._stored[other].dims) == [outputs]:
                bias, raw = other, after.output[0]
                nodes.append(after.name)
        flat = node.op_type == "MatMul" and bias is not None and len(self.values.get(raw, ("", None))[1] or ()) == 2
        output, activation = raw, None
        after = self._alone(raw)
        if after is not None and self.clips(after):
            output, activation = after.output[0], after.op_type
            nodes.append(after.name)
        return Layer(
            name=node.name, op=node.op_type, input=node.input[0], weight=node.input[1], shape=tuple(weight.dims),
            raw=raw, output=output, bias=bias, activation=activation, groups=_integer(node, "group", 1),
            transposed=node.op_type == "Gemm" and not attribute(node, "transB", 0), flat=flat,
            kernel=tuple(weight.dims[2:]), strides=_integers(node, "strides"), pads=_integers(node, "pads"),
            dilations=_integers(node, "dilations"),
            auto_pad=str(attribute(node, "auto_pad", b"NOTSET"), "ascii"), nodes=tuple(nodes),  # type: ignore[call-overload]
        )  # fmt: skip

    def _recurrent(self, node: onnx.NodeProto) -> list[Layer]:
        """W and R of a recurrent node; a matrix that is read in another place, too, is none."""
        if node.op_type not in RECURRENT or node.domain or node.input[0] in self._stored:
            return []
        output = next(name for name in node.output if name)
        found = []
        for slot, letter in ((1, "W"), (2, "R")):
            weight = self._stored.get(node.input[slot])
            if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) != 3:
                continue
            readers = self.consumers[weight.name]
            if all(reader.op_type in RECURRENT and reader.input[slot] == weight.name for reader in readers):
                found.append(Layer(
                    name=f"{node.name}.{letter}", op=node.op_type, input=node.input[0], weight=weight.name,
                    shape=tuple(weight.dims), raw=output, output=output, groups=int(weight.dims[0]),
                    nodes=(node.name,), slot=slot,
                ))  # fmt: skip
        return found

    def _alone(self, name: str) -> onnx.NodeProto | None:
        """The only reader of tensor `name`, if there is just one."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.pinned else None

    def added(self, layer: Layer) -> tuple[str, onnx.NodeProto] | None:
        """The tensor to which the answer of `layer` is added, as it is, and the node that adds."""
        add = self._alone(layer.raw)
        if layer.recurrent or add is None or add.op_type != "Add" or add.domain:
            return None
        other = add.input[1] if add.input[0] == layer.raw else add.input[0]
        return None if other in self._stored else (other, add)

    def clips(self, node: onnx.NodeProto) -> bool:
        """Whether `node` is a Relu or a Clip with constant limits: what saturation can do instead."""
        if node.op_type == "Clip" and not node.domain:
            return all(name in self._stored for name in node.input[1:] if name)
        return node.op_type == "Relu" and not node.domain

    def matrix(self, layer: Layer) -> Floats:
        """The weight of `layer` as float32 [outputs, inputs per group * kernel]."""
        return to_matrix(layer, numpy_helper.to_array(self._stored[layer.weight]))

    def set_matrix(self, layer: Layer, w: npt.ArrayLike) -> None:
        """Replace the weight of `layer` by `w` [outputs, inputs per group * kernel], for all layers that share it."""
        self._set(layer.weight, from_matrix(layer, _finite(w, layer)))

    def bias(self, layer: Layer) -> Floats:
        """The bias of `layer`, float32 [outputs]; zeros where it has none."""
        if layer.bias is None:
            return np.zeros(layer.outputs, np.float32)
        return numpy_helper.to_array(self._stored[layer.bias]).astype(np.float32)

    def set_bias(self, layer: Layer, b: npt.ArrayLike) -> None:
        """Replace the bias of `layer` by `b` [outputs], for this layer alone; adds one where it has none.

        A MatMul without a bias gets an Add after it. `layers` are found anew: fetch layers again by name afterwards.
        """
        value = _finite(b, layer).reshape(layer.outputs)
        node = next(node for node in self.model.graph.node if node.name == layer.name)
        if layer.bias is not None and not self.shared(layer.bias):
            self._set(layer.bias, value)
            return
        name = f"{layer.name}.bias"
        while name in self._stored:
            name += "_"
        self._set(name, value)
        if layer.op != "MatMul":
            while len(node.input) < 3:
                node.input.append("")
            node.input[2] = name
        elif layer.bias is not None:
            add = next(other for other in self.model.graph.node if other.name == layer.nodes[1])
            add.input[list(add.input).index(layer.bias)] = name
        else:
            self._add_after(node, name)
        self._forget()

    def _add_after(self, node: onnx.NodeProto, bias: str) -> None:
        """Insert Add of `bias` after `node`, which keeps its output's name for the sum."""
        out, product = node.output[0], f"{node.name}.product"
        node.output[0] = product
        nodes = self.model.graph.node
        position = [other.name for other in nodes].index(node.name) + 1
        nodes.insert(position, helper.make_node("Add", [product, bias], [out], f"{node.name}.add_bias"))
        _, shape = self.values.get(out, ("float32", None))
        self.model.graph.value_info.append(helper.make_tensor_value_info(product, TensorProto.FLOAT, shape))

    def _set(self, name: str, value: npt.NDArray[np.generic]) -> None:
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        if name not in self._stored:
            self.model.graph.initializer.append(tensor)
            self._stored[name] = self.model.graph.initializer[-1]
        else:
            self._stored[name].CopyFrom(tensor)

    def _forget(self) -> None:
        """Drop what was derived from the nodes."""
        for fact in ("values", "constants", "producers", "consumers", "pinned", "layers", "recurrent"):
            self.__dict__.pop(fact, None)

    def apply(self, stream: Stream, factors: npt.ArrayLike) -> None:
        """Multiply channel i of `stream` by factors[i] > 0 where it is written and divide by it where it is read."""
        s = np.asarray(factors, np.float64)
        if s.shape != (stream.size,) or not (np.isfinite(s).all() and (s > 0).all()):
            raise TensorError(f"a stream of {stream.size} channels needs as many positive factors", where=self.where)
        for layer, index in stream.producers:
            factor = s[index]
            if layer.op == "LayerNormalization":
                self._set(
                    layer.weight, (np.asarray(self.constant(layer.weight), np.float64) * factor).astype(np.float32)
                )
            else:
                self.set_matrix(layer, self.matrix(layer) * factor[:, None])
            if layer.bias is not None:
                self.set_bias(layer, self.bias(layer) * factor)
        for layer, index in stream.consumers:
            self.set_matrix(layer, self.matrix(layer) / columns(layer, s[index]))
        for layer, index in stream.producers:
            if layer.raw in self.normals:
                mean, deviation = self.normals[layer.raw]
                self.normals[layer.raw] = (
                    (mean * s[index]).astype(np.float32),
                    (deviation * s[index]).astype(np.float32),
                )

    def with_outputs(self, names: Sequence[str]) -> onnx.ModelProto:
        """A copy of the model that also returns the tensors `names`; ModelError for a name that no tensor has."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        have = {value.name for value in model.graph.output}
        for name in names:
            if name in have or name in self.inputs:
                continue
            if name not in self.producers:
                raise ModelError(f"no tensor {name!r}", where=self.where, fix="Check the export")
            dtype, shape = self.values.get(name, ("", None))
            value = onnx.ValueInfoProto(name=name)
            if dtype:
                kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
                value = helper.make_tensor_value_info(name, kind, shape)
            model.graph.output.append(value)
            have.add(name)
        return model


def columns(layer: Layer, factor: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`factor` [input channels] spread over the matrix of `layer`: [rows or 1, inputs per group * kernel]."""
    per_group = layer.inputs // layer.groups
    size = int(np.prod(layer.kernel, dtype=np.int64))
    spread = np.repeat(factor.reshape(layer.groups, per_group), size, axis=1)
    return np.repeat(spread, layer.outputs // layer.groups, axis=0)


def inputs_of(model: onnx.ModelProto) -> dict[str, tuple[str, Shape]]:
    """{name: (NumPy dtype name, shape with None for a dynamic dimension)} of what any model, also integer, is fed."""
    return {value.name: facts_of(value) for value in fed(model.graph)}


def _finite(x: npt.ArrayLike, layer: Layer) -> Floats:
    value = np.asarray(x, np.float32)
    if not np.isfinite(value).all():
        raise TensorError("a value that is not finite", where=layer.name)
    return value


def _dtype(kind: int) -> str:
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name)


def facts_of(value: onnx.ValueInfoProto) -> tuple[str, Shape]:
    """(NumPy dtype name, shape with None for a dynamic dimension) of an input or output."""
    kind = value.type.tensor_type
    shape = tuple(int(d.dim_value) if d.dim_value > 0 else None for d in kind.shape.dim)
    return (_dtype(kind.elem_type) if kind.elem_type else "", shape)


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    value = attribute(node, name, default)
    assert isinstance(value, int)
    return value


def _integers(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    value = attribute(node, name, ())
    return tuple(int(i) for i in value)  # type: ignore[attr-defined]
