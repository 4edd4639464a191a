"""Checks a quantized ONNX file from any tool, and measures its error against the float network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bitwright.core.measure import Error
from bitwright.errors import BitwrightError, ModelError
from bitwright.events import Event, Finding, Row
from bitwright.files import qoperator
from bitwright.files.layers import PRODUCTS, RECURRENT, Floats, to_matrix
from bitwright.files.onnx import decode, decode_layers, read
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
    and weights decode, and how many products take integers; weights that are not decoded here get no verdict. Raises
    only for an unreadable `against`.
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
    if source is not None:
        yield from _compare(_float(source, model, str(against)), model, decoded, path, str(against))


def _float(source: onnx.ModelProto, model: onnx.ModelProto, where: str) -> Graph:
    """The float network, its open sizes left open, with the constant inputs that the quantized one names."""
    shapes = {name: shape for name, (_, shape) in inputs_of(source).items()}
    loose = {f"{name}.{i}": None for name, shape in shapes.items() for i, size in enumerate(shape) if size is None}
    kept = [entry for entry in model.metadata_props if entry.key.startswith(CONSTANT)]
    constant = {entry.key.removeprefix(CONSTANT): float(entry.value) for entry in kept}
    return Graph(source, bind=loose, constant=constant, where=where)


def _compare(
    graph: Graph, model: onnx.ModelProto, decoded: Mapping[str, Floats], path: Path, against: str
) -> Iterator[Event]:
    """A Row for each layer whose weight the quantized file holds; ModelError where it has decoded none of them."""
    best, rows, found = -math.inf, 0, decode_layers(model, graph.matrices)
    for layer in graph.matrices:
        names = (f"{layer.weight}{end}" for end in NAMED)
        stored = found.get(layer.weight, next((decoded[name] for name in names if name in decoded), None))
        back = None if stored is None else without_padding(stored, tuple(layer.shape))
        if back is None:
            continue
        rows += 1
        before, after = graph.matrix(layer), to_matrix(layer, back)
        error = Error.between(before, after)
        best = max(best, error.sqnr)
        yield Row(
            name=layer.name, format="decoded", method="", rows=before.shape[0], columns=before.shape[1],
            stored_bits=0, mse=error.mse, psnr=error.psnr(), sqnr=error.sqnr, cosine=error.cosine,
        )  # fmt: skip
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
