"""Checks a quantized ONNX file from any tool, and measures its error against the float network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bitwright.core.measure import Error
from bitwright.errors import BitwrightError, ModelError
from bitwright.events import Event, Finding, Precision, Row
from bitwright.files import qoperator
from bitwright.files.container import Counted
from bitwright.files.counted import levels
from bitwright.files.layers import PRODUCTS, RECURRENT, Floats, attribute, to_matrix
from bitwright.files.onnx import counted, decode, decode_layers, read
from bitwright.models import precision
from bitwright.models.network.branches import CONSTANT
from bitwright.models.network.graph import Graph, inputs_of
from bitwright.models.network.pad import without_padding
from bitwright.models.network.session import Session

NAMED = ("", "_quantized", "_DequantizeLinear_Output")
"""What ONNX Runtime's quantizers add to the name of a weight (quantization/quant_utils.py)."""
UNRELATED = 1.0
"""SQNR in dB below which two matrices are not copies of one another: one bit has 4, other weights have -3."""


def check(path: Path, against: Path | None = None) -> Iterator[Event]:
    """Check every part of a quantized ONNX file; yields Findings, and Rows against the float network's file.

    Checks that the file is whole and finite, that `onnx.checker` and ONNX Runtime accept it, that scales are positive
    and weights decode, and how many products take integers; tells the Precision of every quantized weight. Weights that
    are not decoded here get no verdict. Raises only for an unreadable `against`.
    """
    source = None if against is None else read(against)
    try:
        model = read(path)
        yield Finding("file", True, f"{path.stat().st_size / 1e6:,.2f} MB, {len(model.graph.node)} nodes")
        onnx.checker.check_model(str(path), full_check=True)
        Session(path)
    except (BitwrightError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        foreign = isinstance(error, BitwrightError) and error.foreign
        what = "file, onnx.checker and ONNX Runtime"
        yield Finding(what, None if foreign else False, str(error).splitlines()[0])
        return
    yield Finding("onnx.checker and ONNX Runtime", True, "accept it")
    yield from _scales(model)
    decoded = decode(model)
    yield _coverage(model, decoded)
    yield from _unread(model, decoded)
    stored = counted(model) | qoperator.counted(model)
    held = dict(_weights(model, stored))
    yield from held.values()
    yield from precision.findings(list(held.values()), {held[n].name: stored[n].usage for n in held}, "weights")
    if source is not None:
        yield from _compare(_float(source, model, str(against)), model, decoded, held, path, str(against))


PLACES = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,), "LSTM": (1, 2), "GRU": (1, 2), "Gather": (0,),
    "MatMulNBits": (1,), **{op: tuple(weight.codes for weight in weights) for op, weights in qoperator.WEIGHTS.items()},
}  # fmt: skip
"""Operators, and which of their inputs are weights."""
ROWS = {"Conv": 0, "QLinearConv": 0, "ConvInteger": 0, "Gather": 0, "ConvTranspose": 1, "LSTM": 1, "GRU": 1}
"""The axis of a weight that runs over a matrix' rows, where it is not the last."""


def _weights(model: onnx.ModelProto, stored: Mapping[str, Counted]) -> Iterator[tuple[str, Precision]]:
    """How finely every weight that is stored as codes is: its name as `decode` has it, and named by its first node."""
    makers = {out: node for node in model.graph.node for out in node.output if out}
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        places = PLACES.get(node.op_type, ())
        for place in places:
            name = node.input[place].removesuffix("_packed") if node.op_type == "MatMulNBits" else node.input[place]
            if name not in stored or name in seen:
                continue
            seen.add(name)
            usage, rows = stored[name].usage, _rows(node, stored[name].shape)
            yield name, Precision(
                name=node.name if node.name and len(places) == 1 else name, format=stored[name].words, rows=rows,
                columns=int(usage.total) // rows, stored_bits=stored[name].bits, levels=usage.levels,
                levels_used=usage.used, entropy=usage.entropy, input_levels=_input_levels(node, makers, kinds),
            )  # fmt: skip


def _rows(node: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    """Rows of a weight as a matrix: outputs of a product, entries of what is looked up in."""
    axis = 0 if attribute(node, "transB", 0) else ROWS.get(node.op_type, -1)
    return max(shape[axis], 1) if len(shape) > axis else 1


def _input_levels(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], kinds: Mapping[str, int]) -> int | None:
    """Levels that the input of a product is rounded to; None where it stays float."""
    if node.op_type in qoperator.WEIGHTS:
        return 256  # their inputs are int8 or uint8, given or made so as it runs
    maker = makers.get(node.input[0])
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    zero = maker.input[2] if len(maker.input) > 2 else ""
    return levels(kinds[zero]) if zero in kinds else 256  # uint8 is the type of an absent zero point


def _float(source: onnx.ModelProto, model: onnx.ModelProto, where: str) -> Graph:
    """The float network, its open sizes left open, with the constant inputs that the quantized one names."""
    shapes = {name: shape for name, (_, shape) in inputs_of(source).items()}
    loose = {f"{name}.{i}": None for name, shape in shapes.items() for i, size in enumerate(shape) if size is None}
    kept = [entry for entry in model.metadata_props if entry.key.startswith(CONSTANT)]
    constant = {entry.key.removeprefix(CONSTANT): float(entry.value) for entry in kept}
    return Graph(source, bind=loose, constant=constant, where=where)


def _compare(
    graph: Graph,
    model: onnx.ModelProto,
    decoded: Mapping[str, Floats],
    held: Mapping[str, Precision],
    path: Path,
    against: str,
) -> Iterator[Event]:
    """A Row for each layer whose weight the quantized file holds; ModelError where it has decoded none of them."""
    best, rows, found = -math.inf, 0, decode_layers(model, graph.matrices)
    nodes = {node.name: node for node in model.graph.node}
    for layer in graph.matrices:
        names = [f"{layer.weight}{end}" for end in NAMED]
        stored = found.get(layer.weight, next((decoded[name] for name in names if name in decoded), None))
        back = None if stored is None else without_padding(stored, tuple(layer.shape))
        if back is None:
            continue
        rows += 1
        before, after = graph.matrix(layer), to_matrix(layer, back)
        error = Error.between(before, after)
        best = max(best, error.sqnr)
        read = [*names, *(nodes[layer.name].input[1:2] if layer.name in nodes else ())]
        known = next((held[name] for name in read if name in held), None)
        precise = asdict(known) if known else {"format": "decoded", "stored_bits": 0}
        place = {"name": layer.name, "rows": before.shape[0], "columns": before.shape[1]}
        yield Row(**precise | place, method="", mse=error.mse, psnr=error.psnr(), sqnr=error.sqnr, cosine=error.cosine)
    if rows and best < UNRELATED:
        detail = f"no layer of {against} is nearer than {best:.1f} dB SQNR: it is not what this was made from"
        yield Finding("against", None, f"nothing could be compared: {detail}")
    if not rows and decoded:
        what = f"nothing could be compared: it has none of the quantized layers of {path}"
        raise ModelError(what, where=against, fix="Give the float network that it was made from")
    if not rows:
        yield Finding("against", None, f"nothing could be compared with {against}: no weight of {path.name} is decoded")


def _scales(model: onnx.ModelProto) -> Iterator[Finding]:
    """Every scale of a quantizer is finite and not zero."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {n.input[1] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    names |= {n.input[2] for n in model.graph.node if n.op_type == "MatMulNBits"}
    names |= {name for node in model.graph.node for name in qoperator.scales(node)}
    known = sorted(names & stored.keys())
    bad = []
    for name in known:
        scale = np.asarray(numpy_helper.to_array(stored[name]), np.float32)
        # MatMulNBits multiplies whatever the sign; the integer kernels of Q and DQ want positive scales.
        if not np.isfinite(scale).all() or (scale == 0).any():
            bad.append(name)
    if known:
        detail = f"{bad[0]} is zero or not finite" if bad else f"{len(known)} finite and not zero"
        yield Finding("scales", not bad, detail)


def _coverage(model: onnx.ModelProto, decoded: Mapping[str, Floats]) -> Finding:
    """How many products take a decoded weight or integers; none means that nothing was quantized."""
    plain = (*PRODUCTS, "MatMulNBits")
    products = [n for n in model.graph.node if n.op_type in plain or n.op_type in qoperator.WEIGHTS]

    def quantized(node: onnx.NodeProto) -> bool:
        packed = node.op_type not in plain or node.op_type == "MatMulNBits"
        return packed or any(name in decoded for name in node.input[1 : 3 if node.op_type in RECURRENT else 2])

    done = [n for n in products if quantized(n)]
    kinds = Counter(n.op_type for n in products if n not in done)
    left = ", ".join(f"{count} {op}" for op, count in kinds.items())
    integers = Counter(n.op_type for n in done if n.op_type not in plain)
    told = ", ".join(f"{count} {op}" for op, count in integers.items())
    return Finding(
        "coverage",
        bool(done),
        f"{len(done)} of {len(products)} products quantized"
        + (f" ({told})" if told else "")
        + (f"; float: {left}" if left else ""),
    )


def _unread(model: onnx.ModelProto, decoded: Mapping[str, Floats]) -> Iterator[Finding]:
    """Products in integers whose weights are not decoded here."""
    left = Counter(
        node.op_type
        for node in model.graph.node
        for weight in qoperator.WEIGHTS.get(node.op_type, ())
        if node.input[weight.codes] not in decoded
    )
    if left:
        told = ", ".join(f"{count} {op}" for op, count in left.items())
        yield Finding("weights", None, f"those of {told} are not decoded here: their error is not known")
