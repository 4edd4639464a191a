"""Integer networks as ONNX writes them: QuantizeLinear and DequantizeLinear around the operators (QDQ).

    x^ = scale * (q - zero)     q = clamp(round(x / scale) + zero, qmin, qmax)

A runtime that sees DequantizeLinear -> Conv -> QuantizeLinear replaces the three by one integer kernel; what it fuses
was read in ONNX Runtime's selectors (core/optimizer/qdq_transformer) and is measured in the tests with the runtime.
Operators: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html (per axis from opset 13, 4 bits from 21).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

import bitwright
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import Grid
from bitwright.core.observe import Affine
from bitwright.core.qtensor import QTensor, encode
from bitwright.errors import ModelError, TensorError
from bitwright.files.container import Counted
from bitwright.files.containers.qdq import recurrent
from bitwright.files.containers.qdq.recurrent import DOMAIN, decoding, dynamic_lstm
from bitwright.files.counted import INTEGERS, count
from bitwright.files.layers import Floats, Layer, Network, Placement, attribute, from_matrix, names_read, spared
from bitwright.files.opset import INT4, upgrade

Storage = Literal["int8", "int4"]
INT32 = 2**31 - 1


def weight_format(bits: int, block: Literal["tensor", "channel"] | int = "channel") -> Format:
    """The narrow integers (`int8_narrow`: -127 ... 127), whose scale is always positive, with float32 scales.

    Formats of 7 bits and fewer may keep two's complement and negative scales where the codes are stored as int8.
    """
    return named(f"int{bits}_narrow", group=block, scale="fp32")


def bias_bound(bias: Floats | None, input_scale: float) -> Floats | None:
    """The least scale [outputs] of each weight row for which the int32 code of its bias fits; None without a bias."""
    if bias is None:
        return None
    # A margin of 2^-6 leaves the accumulator room for the products themselves.
    return (np.abs(np.asarray(bias, np.float64)) / (input_scale * INT32 * (1 - 2**-6))).astype(np.float32)


def fit_bias(tensor: QTensor, matrix: Floats, bias: Floats | None, input_scale: float) -> QTensor:
    """`tensor`, with the scale of every row raised so far that round(bias / (input_scale * scale)) fits int32.

    Rows of (nearly) dead channels have scales so small that their bias overflows; they are encoded again from
    `matrix` [outputs, columns], which loses nothing that the bias did not drown. The same object if nothing is raised.
    """
    least = bias_bound(bias, input_scale)
    scale = np.asarray(tensor.scale, np.float32)
    if least is None or scale.ndim != 2 or scale.shape[1] != 1:
        return tensor
    need = least[:, None] if scale.shape[0] > 1 else np.max(least, keepdims=True)[:, None]
    if (np.abs(scale) >= need).all():
        return tensor
    raised = np.where(np.abs(scale) >= need, scale, need * np.float32(1 + 2**-20)).astype(np.float32)
    return encode(np.asarray(matrix, np.float32), tensor.format, raised)


def to_qdq(
    graph: Network,
    placement: Placement,
    weights: Mapping[str, QTensor],
    activations: Mapping[str, Affine],
    *,
    storage: Storage = "int8",
    float_bias: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A new model in which `placement.nodes` compute on integers; everything else as it was.

    `weights` maps weight names to QTensors [outputs, inputs per group * kernel]; layers that are not in
    `placement.nodes` may be given too and are then stored small and computed in float. `activations` holds an Affine of
    8 bits for each of `placement.activations`. `storage` "int4" writes codes of 4 bits or fewer as INT4 (opset 21: half
    the size, but ONNX Runtime's CPU then computes in float), "int8" as bytes (integer kernels). Biases become int32
    with scale s_x * s_w and zero 0 unless `float_bias` (TensorRT). Weights behind DequantizeLinear keep their names.

    Raises TensorError where a code does not fit its type, ModelError where a tensor or weight is missing.
    """
    return _Writer(graph, placement, weights, activations, storage, float_bias).write(metadata or {})


class _Writer:
    """One conversion: collects initializers and nodes in the order of the graph."""

    def __init__(
        self,
        graph: Network,
        placement: Placement,
        weights: Mapping[str, QTensor],
        activations: Mapping[str, Affine],
        storage: Storage,
        float_bias: bool,
    ) -> None:
        self.model, self.placement, self.weights = graph.model, placement, weights
        self.storage, self.float_bias = storage, float_bias
        self.layers = {layer.name: layer for layer in graph.layers}
        self.spared = spared(graph.matrices, placement)
        self.recurrent: dict[str, list[Layer]] = {}
        for layer in graph.matrices:
            if layer.recurrent and layer.weight in weights and layer.name not in self.spared:
                self.recurrent.setdefault(layer.node, []).append(layer)
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.affine = {name: activations[name] for name in placement.activations if name in activations}
        if missing := [name for name in placement.activations if name not in activations]:
            raise ModelError(f"no quantizer for activation {missing[0]} ({len(missing)} are missing)")
        for name, a in self.affine.items():
            if a.bits != 8 or not a.scale > 0:
                raise TensorError(f"activations need 8 bits and a positive scale, not {a}", where=name)
        for group in placement.shared:
            if len({self.affine[name] for name in group}) > 1:
                raise ModelError(f"{', '.join(group)} must share one quantizer")
        self.nodes: list[onnx.NodeProto] = []
        self.new: dict[str, TensorProto] = {}
        self.used = Counter(name for node in self.model.graph.node for name in node.input)
        self.used.update(value.name for value in self.model.graph.output)  # a weight that is returned stays as it is
        self.written: dict[str, str] = {}
        source = self.model.graph
        self.taken = {*self.constants, *(v.name for v in [*source.input, *source.output]), *self.used}
        self.taken.update(out for node in source.node for out in node.output)
        self.given: dict[str, str] = {}
        self.shapes = {v.name: v.type.tensor_type.shape.dim for v in [*source.value_info, *source.output]}
        products = [layer for layer in graph.layers if layer.name in placement.nodes and layer.op in ("Gemm", "MatMul")]
        self.sums = {layer.nodes[1]: layer for layer in products if layer.op == "MatMul" and layer.bias is not None}
        self.after = {layer.nodes[-1] for layer in products if layer.activation is not None}

    def write(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The whole model."""
        source = self.model.graph
        self._split_activations()
        produced = {out for node in source.node if node.name in self.placement.nodes for out in node.output}
        self.integer = {name for name in self.affine if name in produced}
        for tensor in source.input:
            if tensor.name in self.affine:
                self._quantize(tensor.name)
        for node in source.node:
            self._node(node)
        return self._assemble(metadata)

    def _split_activations(self) -> None:
        """Where a Relu or Clip is not already done by the saturation of its QuantizeLinear, quantize before it too.

        Saturating at the same range first and then cutting at a value of the grid gives the same codes; the layer
        before then still ends in a QuantizeLinear and runs in integers.
        """
        if self.placement.target == "gpu":
            return  # TensorRT fuses the activation whatever the range
        producers = {out: node for node in self.model.graph.node for out in node.output}
        for node in self.model.graph.node:
            raw = node.input[0] if node.input else ""
            if node.name in self.placement.fused and node.output[0] in self.affine and raw in producers:
                a = self.affine[node.output[0]]
                if not self._redundant(node, a):
                    self.affine[raw] = a

    def _redundant(self, node: onnx.NodeProto, a: Affine) -> bool:
        """Whether saturation to the codes of `a` already does what `node` (Relu or Clip) does."""
        if node.op_type == "Relu":
            return a.zero == a.qmin
        low, high = (self._limit(node, i, limit) for i, limit in ((1, -np.inf), (2, np.inf)))
        below = low == -np.inf or round(low / a.scale) + a.zero <= a.qmin
        return below and (high == np.inf or round(high / a.scale) + a.zero >= a.qmax)

    def _limit(self, node: onnx.NodeProto, index: int, default: float) -> float:
        name = node.input[index] if len(node.input) > index else ""
        return float(numpy_helper.to_array(self.constants[name]).item()) if name in self.constants else default

    def _constant(self, name: str, values: npt.NDArray[np.generic], kind: int | None = None) -> str:
        """Store `values` (as ONNX type `kind`, if given) as initializer `name` and return the name."""
        dtype = values.dtype if kind is None else helper.tensor_dtype_to_np_dtype(kind)
        self.new[name] = numpy_helper.from_array(np.asarray(values, order="C").astype(dtype), name)
        return name

    def _name(self, wanted: str) -> str:
        """`wanted`, or it with underscores where the network has a tensor of that name; the same at every call."""
        if wanted not in self.given:
            name = wanted
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            self.given[wanted] = name
        return self.given[wanted]

    def _parameters(self, name: str) -> list[str]:
        """Names of the scale and zero point of activation `name`."""
        a = self.affine[name]
        zero = np.array(a.zero, np.int8 if a.signed else np.uint8)
        return [
            self._constant(self._name(f"{name}_scale"), np.array(a.scale, np.float32)),
            self._constant(self._name(f"{name}_zero_point"), zero),
        ]

    def _quantize(self, name: str, *, codes: str | None = None) -> None:
        """Append QuantizeLinear and DequantizeLinear of activation `name`, whose producer is already written.

        Where an integer kernel produces it, the dequantized tensor takes the name: everyone reads that. Otherwise only
        integer nodes do, and float readers keep the exact values. `codes` names codes that a node wrote directly.
        """
        parameters = self._parameters(name)
        integer = name in self.integer
        codes_of = codes or self._name(f"{name}_quantized")
        if codes is None:
            source = self._name(f"{name}_float") if integer else name
            self.nodes.append(
                helper.make_node("QuantizeLinear", [source, *parameters], [codes_of], f"{name}_QuantizeLinear")
            )
        out = name if integer else self._name(f"{name}_dequantized")
        self.nodes.append(
            helper.make_node("DequantizeLinear", [codes_of, *parameters], [out], f"{name}_DequantizeLinear")
        )

    def _read(self, name: str) -> str:
        """The name under which an integer node reads activation or constant `name`."""
        if name in self.affine:
            return name if name in self.integer else self._name(f"{name}_dequantized")
        return self._quantized_constant(name) if name in self.constants else name

    def _quantized_constant(self, name: str) -> str:
        """A constant operand of Add, Mul or Concat, as 8-bit codes with its own range."""
        values = numpy_helper.to_array(self.constants[name])
        if values.dtype != np.float32:
            return name
        if name not in self.written:
            signed = any(a.signed for a in self.affine.values())
            low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
            scale = np.float32((high - low) / 255) or np.float32(1)
            qmin = -128 if signed else 0
            zero = round(qmin - low / float(scale))
            codes = np.clip(np.rint(values / scale) + zero, qmin, qmin + 255).astype(np.int8 if signed else np.uint8)
            inputs = [
                self._constant(self._name(f"{name}_quantized"), codes),
                self._constant(self._name(f"{name}_scale"), np.asarray(scale)),
                self._constant(self._name(f"{name}_zero_point"), np.array(zero, codes.dtype)),
            ]
            self.written[name] = self._name(f"{name}_dequantized")
            self.nodes.append(
                helper.make_node("DequantizeLinear", inputs, [self.written[name]], f"{name}_DequantizeLinear")
            )
        return self.written[name]

    def _node(self, source: onnx.NodeProto) -> None:
        """Append `source` with its inputs and outputs redirected, and what quantizes its outputs."""
        node = onnx.NodeProto()
        node.CopyFrom(source)
        layer = self.layers.get(source.name)
        if source.name in self.sums and self._joined(self.sums[source.name]):
            return
        if source.name in self.placement.direct and source.input[0] in self.affine:
            self._direct(source, node)
            return
        small = layer is not None and layer.weight in self.weights and layer.name not in self.spared
        if source.name in self.recurrent:
            self._recurrent(self.recurrent[source.name], node)
        elif layer is not None and (small or source.name in self.placement.nodes):
            self._layer(layer, node)
        elif source.name in self.placement.nodes:
            data = MOVES.get(source.op_type)
            for i, name in enumerate(source.input if data is None else source.input[:data]):
                node.input[i] = self._read(name)
        elif source.name in self.sums:
            self._row(self.sums[source.name], node)
        if source.name in self.after and self.placement.target != "gpu" and self._lost(source):
            self._cut(source)
            return
        outputs = list(node.output)
        for i, name in enumerate(outputs):
            if name in self.integer:
                node.output[i] = self._name(f"{name}_float")
        self.nodes.append(node)
        for name in outputs:
            if name in self.affine:
                self._quantize(name)

    def _lost(self, node: onnx.NodeProto) -> bool:
        """Whether the Relu or Clip `node` behind an integer Gemm or MatMul would make that compute in float.

        ONNX Runtime's selector (GetQDQSelection) gives up where no QuantizeLinear makes such a follower redundant.
        """
        a = self.affine.get(node.output[0])
        return node.input[0] not in self.affine and (a is None or not self._redundant(node, a))

    def _cut(self, node: onnx.NodeProto) -> None:
        """Append the Relu or Clip `node` as Max and Min, which no fusion looks for."""
        name, limits = node.input[0], [("Max", -np.inf, 1), ("Min", np.inf, 2)]
        values = [0.0, np.inf] if node.op_type == "Relu" else [self._limit(node, i, least) for _, least, i in limits]
        steps = [(op, value) for (op, least, _), value in zip(limits, values, strict=True) if value != least]
        for i, (op, value) in enumerate(steps or [("Max", -np.inf)]):
            last = i == len(steps or [0]) - 1
            out = node.output[0] if last else self._name(f"{node.output[0]}_{op}")
            limit = self._constant(self._name(f"{node.output[0]}_{op}_limit"), np.array(value, np.float32))
            self.nodes.append(helper.make_node(op, [name, limit], [out], f"{node.name}_{op}"))
            name = out
        if node.output[0] in self.affine:
            self._quantize(node.output[0])

    def _row(self, layer: Layer, node: onnx.NodeProto) -> None:
        """Give the bias that `node` (Add) adds to an integer MatMul the rank of the sum, [1, ..., 1, N].

        ONNX Runtime rewrites MatMul and Add of [N] as Reshape, Gemm, Reshape where all sizes are known, and then no
        longer finds the integers: measured, a tenth of the speed. A row of another rank is left alone.
        """
        assert layer.bias is not None
        shape = self.shapes.get(node.output[0], ())
        if len(shape) < 3 or not all(size.dim_value > 0 for size in shape):
            return
        bias = numpy_helper.to_array(self.constants[layer.bias])
        index = list(node.input).index(layer.bias)
        row = bias.reshape([1] * (len(shape) - 1) + [-1])
        node.input[index] = self._constant(self._name(f"{layer.bias}_row"), row)

    def _direct(self, source: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """`source` (Pad) on the codes: 0 is padded as the code of 0, and no conversion is left around it."""
        node.input[0] = self._name(f"{source.input[0]}_quantized")
        if source.op_type == "Pad" and attribute(source, "mode", b"constant") == b"constant":
            while len(node.input) < 3:
                node.input.append("")
            node.input[2] = self._parameters(source.output[0])[1]
        node.output[0] = self._name(f"{source.output[0]}_quantized")
        self.nodes.append(node)
        self._quantize(source.output[0], codes=node.output[0])

    def _layer(self, layer: Layer, node: onnx.NodeProto) -> None:
        """Redirect input, weight and bias of a layer; its weight alone where it is not an integer node."""
        integer = layer.name in self.placement.nodes
        if layer.weight not in self.weights:
            raise ModelError(f"no quantized weight {layer.weight}", where=layer.name)
        tensor = self.weights[layer.weight]
        scale = self._weight(layer, tensor, integer)
        node.input[1] = self.written[layer.weight]
        if not integer:
            return
        node.input[0] = self._read(layer.input)
        if self._joined(layer):
            node.op_type, node.output[0] = "Gemm", layer.raw
            node.input.append(self._bias(layer, scale))
        elif layer.bias is not None and layer.op != "MatMul" and not self.float_bias:
            node.input[2] = self._bias(layer, scale)

    def _recurrent(self, layers: list[Layer], node: onnx.NodeProto) -> None:
        """Redirect the matrices of an LSTM, GRU or RNN; its output is left out where nobody reads it."""
        if node.output[0] not in self.used:
            node.output[0] = ""

        def keep(name: str, values: npt.NDArray[np.generic], kind: int | None) -> str:
            return self._constant(self._name(name), values, kind)

        codes, kinds = {}, {}
        for layer in layers:
            tensor = self.weights[layer.weight]
            values, scale, zero = whole(tensor, layer.weight)
            if zero is not None or scale.shape[1] > 1:
                raise TensorError("recurrent matrices have one scale per row, without zero", where=layer.weight,
                                  fix="Use block 'channel' and a zero of 'none'")  # fmt: skip
            codes[layer.weight], kinds[layer.weight] = (values, scale), self._kind(tensor, values, zero, layer.weight)
        if node.name in self.placement.dynamic:
            dynamic_lstm(node, layers, codes, keep)
            return
        for layer in layers:
            weight = layer.weight
            if weight not in self.written:
                readers = sum(o.weight == weight for others in self.recurrent.values() for o in others)
                exact = self.used[weight] > readers
                self.written[weight] = self._name(f"{weight}_decoded") if exact else weight
                between = self._name(f"{weight}_cast")
                self.nodes += decoding(layer, codes[weight], kinds[weight], self.written[weight], between, keep)
            node.input[layer.slot] = self.written[weight]

    def _joined(self, layer: Layer) -> bool:
        """Whether MatMul and its bias are written as Gemm.

        ONNX Runtime makes one of them in any case, but with a float bias, for which it has no integer kernel: measured,
        it then decodes the weights at each run.
        """
        return layer.flat and layer.name in self.placement.nodes and not self.float_bias

    def _weight(self, layer: Layer, tensor: QTensor, integer: bool) -> Floats:
        """Store codes, scale and zero of a weight with their DequantizeLinear, once; its scale [rows, groups]."""
        codes, scale, zero = whole(tensor, layer.weight)
        if layer.weight in self.written:
            return scale
        if tuple(codes.shape) != (layer.outputs, int(np.prod(layer.shape)) // layer.outputs):
            raise TensorError(
                f"{list(codes.shape)} codes for a weight of shape {list(layer.shape)}", where=layer.weight
            )
        if integer and zero is not None:
            raise TensorError("integer kernels need symmetric weights", where=layer.weight, fix="Use a zero of 'none'")
        if layer.op == "ConvTranspose" and layer.groups > 1 and scale.size > 1:
            raise TensorError("a grouped ConvTranspose has no axis of outputs", where=layer.weight,
                              fix="Use one scale per tensor (block 'tensor')")  # fmt: skip
        kind = self._kind(tensor, codes, zero, layer.weight)
        attributes: dict[str, Any] = {}
        if scale.shape[1] > 1:
            if len(layer.shape) != 2:
                raise TensorError("groups inside a row need a matrix", where=layer.weight, fix="Use block 'channel'")
            attributes = {"axis": 1 - layer.axis, "block_size": codes.shape[1] // scale.shape[1]}
        elif scale.size > 1 or tensor.format.block == "channel":
            attributes = {"axis": layer.axis}

        def shaped(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
            if "block_size" in attributes:
                return np.ascontiguousarray(values.T) if layer.axis == 1 else values
            return values.reshape(-1) if "axis" in attributes else values.reshape(())

        inputs = [
            self._constant(self._name(f"{layer.weight}_quantized"), from_matrix(layer, codes), kind),
            self._constant(self._name(f"{layer.weight}_scale"), shaped(scale)),
            self._constant(
                self._name(f"{layer.weight}_zero_point"), shaped(np.zeros_like(scale) if zero is None else zero), kind
            ),
        ]
        readers = [o for o in self.layers.values() if o.weight == layer.weight and o.name not in self.spared]
        exact = self.used[layer.weight] > len(readers)
        self.written[layer.weight] = self._name(f"{layer.weight}_dequantized") if exact else layer.weight
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear",
                inputs,
                [self.written[layer.weight]],
                f"{layer.weight}_DequantizeLinear",
                **attributes,
            )
        )
        return scale

    def _kind(
        self, tensor: QTensor, codes: npt.NDArray[np.int64], zero: npt.NDArray[np.int64] | None, where: str
    ) -> int:
        """The ONNX type that holds `codes` and `zero`; TensorError where none does."""
        low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
        if zero is not None:
            low, high = min(low, int(zero.min())), max(high, int(zero.max()))
        if self.storage == "int4" and tensor.format.bits <= 4:
            kind, least, most = TensorProto.INT4, -8, 7
        else:
            kind, least, most = TensorProto.INT8, -128, 127
        if low < least or high > most:
            raise TensorError(
                f"codes {low} to {high} do not fit {TensorProto.DataType.Name(kind)}: a negative scale was negated",
                where=where,
                fix="Use a format with positive scales (files.onnx.weight_format)",
            )
        return kind

    def _bias(self, layer: Layer, scale: Floats) -> str:
        """Store the bias of `layer` as int32 codes of scale s_x * s_w; the name of its DequantizeLinear's output."""
        assert layer.bias is not None
        name = layer.bias if self.used[layer.bias] == 1 else self._name(f"{layer.name}.bias")
        bias = numpy_helper.to_array(self.constants[layer.bias]).astype(np.float64).reshape(-1)
        product = (np.float32(self.affine[layer.input].scale) * scale.reshape(-1)).astype(np.float32)
        codes = np.rint(bias / product.astype(np.float64))
        if (np.abs(codes) > INT32).any():
            row = int(np.argmax(np.abs(codes)))
            raise TensorError(
                f"bias {bias[row]:g} of output {row} needs code {codes[row]:g}, beyond int32",
                where=layer.name,
                fix="Raise that row's weight scale (files.onnx.fit_bias)",
            )
        one = product.size == 1 and bias.size > 1
        inputs = [
            self._constant(self._name(f"{name}_quantized"), codes.astype(np.int32)),
            self._constant(self._name(f"{name}_scale"), product.reshape(()) if one else product),
            self._constant(
                self._name(f"{name}_zero_point"), np.zeros((), np.int32) if one else np.zeros(product.shape, np.int32)
            ),
        ]
        attributes: dict[str, Any] = {} if one else {"axis": 0}
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [name], f"{name}_DequantizeLinear", **attributes)
        )
        return name

    def _assemble(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The model with only the initializers that are still read."""
        out = onnx.ModelProto()
        source = self.model
        out.ir_version = source.ir_version
        out.opset_import.MergeFrom(source.opset_import)
        if self.placement.dynamic and not any(entry.domain == DOMAIN for entry in out.opset_import):
            out.opset_import.add(domain=DOMAIN, version=1)
        out.producer_name, out.producer_version = "bitwright", bitwright.__version__
        out.domain, out.model_version, out.doc_string = source.domain, source.model_version, source.doc_string
        kept = {entry.key: entry.value for entry in source.metadata_props}
        if source.producer_name:
            kept.setdefault("source_producer", f"{source.producer_name} {source.producer_version}".strip())
        for key, value in {**kept, **metadata}.items():
            out.metadata_props.add(key=key, value=value)
        graph = out.graph
        graph.name, graph.doc_string = source.graph.name, source.graph.doc_string
        outputs = {value.name for value in source.graph.output}
        needed = outputs | names_read(onnx.GraphProto(node=self.nodes))
        # Codes that only direct nodes read leave a DequantizeLinear without a reader.
        nodes = [node for node in self.nodes if node.op_type != "DequantizeLinear" or needed & set(node.output)]
        graph.node.extend(nodes)
        graph.input.MergeFrom(source.graph.input)
        graph.output.MergeFrom(source.graph.output)
        read = (names_read(graph) | outputs) - {name for node in nodes for name in node.output}
        graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name in read)
        graph.initializer.extend(tensor for name, tensor in self.new.items() if name in read)
        kinds = {tensor.data_type for tensor in self.new.values()}
        blocks = any(a.name == "block_size" for node in nodes for a in node.attribute)
        return upgrade(out, INT4) if blocks or TensorProto.INT4 in kinds else out


MOVES: dict[str, int | None] = {
    "Slice": 1, "Reshape": 1, "Gather": 1, "GatherElements": 1, "Expand": 1, "Tile": 1, "Squeeze": 1, "Unsqueeze": 1,
    "Resize": 1, "Split": 1, "Pad": 1, "ReduceMax": 1, "ReduceMin": 1, "Relu": 0, "Clip": 0,
}  # fmt: skip
"""How many inputs of an operator are data, where others are indices or shapes; 0: a fused activation reads its raw."""


WHOLE = frozenset(TensorProto.DataType.Value(name) for name in (*INTEGERS, "INT32"))
"""Types of codes that are integers."""


def whole(tensor: QTensor, where: str) -> tuple[npt.NDArray[np.int64], Floats, npt.NDArray[np.int64] | None]:
    """(codes, scale, zero) of a QTensor as signed integers with positive scales: w = scale * (codes - zero).

    Codes [rows, columns], scale and zero [rows, groups]. A negative scale is made positive by negating codes and zero.
    Raises TensorError for grids that are not whole numbers one apart, learned tables and shifts.
    """
    grid = tensor.format.code
    if tensor.shift is not None or not isinstance(grid, Grid) or not grid.uniform or grid.low % 1:
        raise TensorError(f"format {tensor.format.name} cannot be stored in ONNX", where=where, fix="Use int2 to int8")
    codes = np.asarray(tensor.codes).astype(np.int64) + int(grid.low)
    scale = np.asarray(tensor.scale, np.float32)
    zero = None if tensor.zero is None else np.rint(np.asarray(tensor.zero)).astype(np.int64)
    if (scale < 0).any():
        sign = np.where(scale < 0, -1, 1)
        spread = np.repeat(sign, codes.shape[1] // sign.shape[1], axis=1) if sign.size > 1 else sign
        codes = codes * spread
        zero = None if zero is None else zero * sign
        scale = np.abs(scale)
    return codes, scale, zero


def counted(model: onnx.ModelProto) -> dict[str, Counted]:
    """How finely every constant behind a DequantizeLinear of `model` is stored, by the name its readers use."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    out: dict[str, Counted] = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            continue
        zero, group = stored.get(node.input[2]) if len(node.input) > 2 else None, attribute(node, "block_size", 0)
        assert isinstance(group, int)
        if (found := count(stored[node.input[0]], stored.get(node.input[1]), zero, group)) is not None:
            out[node.output[0]] = found
    return out


def decode(model: onnx.ModelProto) -> dict[str, Floats]:
    """The float32 values of every constant behind a DequantizeLinear of `model`, by the name its readers use.

    Per tensor, per axis and in blocks; weights, biases and constants alike; and the matrices of recurrent layers.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    out = recurrent.decode(model)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            continue
        codes = _codes(stored[node.input[0]])
        scale = numpy_helper.to_array(stored[node.input[1]]).astype(np.float32)
        zero = _codes(stored[node.input[2]]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.int64)
        axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
        assert isinstance(axis, int) and isinstance(block, int)

        def spread(values: npt.NDArray[Any], axis: int = axis, block: int = block, rank: int = codes.ndim,
                   size: tuple[int, ...] = codes.shape) -> npt.NDArray[Any]:  # fmt: skip
            if block:
                return np.repeat(values, block, axis).take(range(size[axis]), axis)
            if values.ndim == 0 or rank == 0:
                return values
            return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])

        out[node.output[0]] = ((codes - spread(zero)) * spread(scale)).astype(np.float32)
    return out


def _codes(tensor: TensorProto) -> npt.NDArray[Any]:
    """The values of codes: integers of any width, or floats of 8 bits and fewer."""
    values = numpy_helper.to_array(tensor)
    return values.astype(np.int64 if tensor.data_type in WHOLE else np.float32)
