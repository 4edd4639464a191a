"""Checks a quantized ONNX file from any tool, and measures its error against the float network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bitwright.core.measure import Error
from bitwright.errors import BitwrightError, ModelError
from bitwright.events import Event, Finding, Row
from bitwright.files.layers import to_matrix
from bitwright.files.onnx import decode, decode_layers, read
from bitwright.models.network.branches import CONSTANT
from bitwright.models.network.graph import Graph, inputs_of
from bitwright.models.network.session import Session


def check(path: Path, against: Path | None = None) -> Iterator[Event]:
    """Check every part of a quantized ONNX file; yields Findings, and Rows against the float network's file.

    Checks that the file is whole and finite, that `onnx.checker` and ONNX Runtime accept it, that scales are positive
    and weights decode, and how many products take integers. Raises only for an unreadable `against`.
    """
    try:
        model = read(path)
        yield Finding("file", True, f"{path.stat().st_size / 1e6:,.2f} MB, {len(model.graph.node)} nodes")
        onnx.checker.check_model(str(path), full_check=True)
        Session(path)
    except (BitwrightError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield Finding("file, onnx.checker and ONNX Runtime", False, str(error).splitlines()[0])
        return
    yield Finding("onnx.checker and ONNX Runtime", True, "accept it")
    yield _scales(model)
    decoded = decode(model)
    yield _coverage(model, decoded)
    if against is not None:
        source = read(against)
        shapes = {name: shape for name, (_, shape) in inputs_of(source).items()}
        loose = {f"{name}.{i}": None for name, shape in shapes.items() for i, size in enumerate(shape) if size is None}
        kept = [entry for entry in model.metadata_props if entry.key.startswith(CONSTANT)]
        constant = {entry.key.removeprefix(CONSTANT): float(entry.value) for entry in kept}
        graph = Graph(source, bind=loose, constant=constant, where=str(against))
        found = decode_layers(model, graph.layers)
        for layer in graph.layers:
            back = found.get(layer.weight)
            if back is None:
                continue
            before, after = graph.matrix(layer), to_matrix(layer, back)
            error_ = Error.between(before, after)
            yield Row(
                name=layer.name, format="decoded", method="", rows=before.shape[0], columns=before.shape[1],
                stored_bits=0, mse=error_.mse, psnr=error_.psnr(), sqnr=error_.sqnr, cosine=error_.cosine,
            )  # fmt: skip
        if decoded and not found:
            what = f"has none of the quantized layers of {path}"
            raise ModelError(what, where=str(against), fix="Give the float network that it was made from")


def _scales(model: onnx.ModelProto) -> Finding:
    """Every scale of a quantizer is finite and positive."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {n.input[1] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    names |= {n.input[2] for n in model.graph.node if n.op_type == "MatMulNBits"}
    bad = []
    for name in sorted(names & stored.keys()):
        scale = np.asarray(numpy_helper.to_array(stored[name]), np.float32)
        # MatMulNBits multiplies whatever the sign; the integer kernels of Q and DQ want positive scales.
        if not np.isfinite(scale).all() or (scale == 0).any():
            bad.append(name)
    return Finding("scales", not bad, f"{bad[0]} is zero or not finite" if bad else f"{len(names)} finite and not zero")


def _coverage(model: onnx.ModelProto, decoded: Mapping[str, object]) -> Finding:
    """How many products take a decoded weight; none means that nothing was quantized."""
    products = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits")]
    done = [n for n in products if n.op_type == "MatMulNBits" or any(name in decoded for name in n.input[1:2])]
    kinds = Counter(n.op_type for n in products if n not in done)
    left = ", ".join(f"{count} {op}" for op, count in kinds.items())
    return Finding(
        "coverage",
        bool(done),
        f"{len(done)} of {len(products)} products quantized" + (f"; float: {left}" if left else ""),
    )
