"""Files of ONNX Runtime's quantizers: what they are is said, what can be decoded is, the rest has no verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from bitwright.core.measure import PLENTY
from bitwright.errors import ModelError
from bitwright.files.onnx import counted, decode
from bitwright.library import check
from bitwright.models.network.graph import Graph
from tests import networks


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """A few random samples."""

    def __init__(self, path: Path) -> None:
        rng, inputs = np.random.default_rng(0), Graph.open(path).inputs
        self.feeds = [
            {n: rng.normal(size=[2 if d is None else d for d in s]).astype(np.float32) for n, (_, s) in inputs.items()}
            for _ in range(4)
        ]

    def get_next(self) -> Any:
        return self.feeds.pop() if self.feeds else None


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "float.onnx"
    onnx.save(networks.KINDS["residual"](), path)
    return path


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("form", [QuantFormat.QOperator, QuantFormat.QDQ])
def test_static_files_decode(form: QuantFormat, per_channel: bool, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    quantize_static(source, out, Reader(source), quant_format=form, per_channel=per_channel)
    found = check(out, source, watch=False)
    assert found.sound is True, str(found)
    assert len(found.rows) == 6 and all(row.sqnr > 35 for row in found.rows)
    assert ("QLinearConv" in str(found)) == (form is QuantFormat.QOperator)
    # Against another network nothing can be compared.
    other = onnx.load(source)
    for tensor in other.graph.initializer:
        tensor.name += "x"
    for node in other.graph.node:
        node.name += "x"
        for i, name in enumerate(node.input):
            node.input[i] = f"{name}x" if f"{name}x" in {t.name for t in other.graph.initializer} else name
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="nothing could be compared: it has none of the quantized layers"):
        check(out, tmp_path / "other.onnx", watch=False)


def test_a_dynamic_file_gets_no_verdict(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    quantize_dynamic(source, out, weight_type=QuantType.QUInt8)
    found = check(out, source, watch=False)
    assert found.sound is None and not found.rows
    assert "6 of 6 products quantized (5 ConvInteger, 1 MatMulInteger)" in str(found)
    assert "nothing could be compared" in str(found) and "not sound" not in str(found)


def test_a_bad_scale_of_an_operator(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    quantize_static(source, out, Reader(source), quant_format=QuantFormat.QOperator)
    model = onnx.load(out)
    node = next(node for node in model.graph.node if node.op_type == "QLinearConv")
    (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == node.input[4]]
    scale.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(scale)), scale.name))
    onnx.save(model, out)
    found = check(out, watch=False)
    assert found.sound is False and f"{scale.name} is zero" in str(found)


@pytest.mark.parametrize("form", [QuantFormat.QOperator, QuantFormat.QDQ])
def test_levels_of_anyones_file_are_its_unique_codes(form: QuantFormat, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    quantize_static(source, out, Reader(source), quant_format=form, weight_type=QuantType.QInt8)
    found = check(out, source, watch=False)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    codes = [x for name, x in stored.items() if name.endswith("_quantized") and x.dtype == np.int8 and x.ndim > 1]
    wanted = {x.size: len(np.unique(x)) for x in codes}
    assert {p.rows * p.columns: p.levels_used for p in found.precision} == wanted
    assert {row.rows * row.columns: row.levels_used for row in found.rows} == wanted
    for p in (*found.precision, *found.rows):
        assert (p.levels, p.input_levels, p.format) == (256, 256, "int8 tensor")
        assert 0 < p.entropy < np.log2(p.levels_used) and p.stored_bits >= 8 * p.rows * p.columns
    assert {row.name for row in found.rows} == {layer.name for layer in Graph.open(source).layers}
    assert "of 256 used, the mean of 6 weights; entropy" in str(found)


def test_levels_of_a_dynamic_file_and_where_they_are_wasted(source: Path, tmp_path: Path) -> None:
    """Weights of three values in 8-bit codes: no decoder is needed to see it."""
    model, out = onnx.load(source), tmp_path / "out.onnx"
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            x = np.sign(np.round(onnx.numpy_helper.to_array(tensor) * 5))
            tensor.CopyFrom(onnx.numpy_helper.from_array(x.astype(np.float32) / 5, tensor.name))
    onnx.save(model, tmp_path / "three.onnx")
    quantize_dynamic(tmp_path / "three.onnx", out, weight_type=QuantType.QInt8)
    found = check(out, watch=False)
    assert [p.levels_used for p in found.precision] == [3] * 6
    large = [p for p in found.precision if p.rows * p.columns >= PLENTY * 256]
    assert "3 of 256 levels used: 2 bits would hold its codes" in str(found)
    assert large and str(found).count("would hold") == 1


@pytest.mark.parametrize(("kind", "bits"), [("FLOAT8E4M3FN", 8), ("INT4", 4), ("UINT4", 4), ("FLOAT8E5M2", 8)])
def test_levels_of_other_types(kind: str, bits: int, tmp_path: Path) -> None:
    """A MatMul behind DequantizeLinear, decoded and counted by its type."""
    number = onnx.TensorProto.DataType.Value(kind)
    values = [0, 1, 2, 3, 1, 1] if kind == "UINT4" else [0, 1, -2, 3, 1, 1]
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], "dq"),
                helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
            ],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2])],
            [
                helper.make_tensor("codes", number, [3, 2], values),
                helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [0.5]),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    levels = {"FLOAT8E4M3FN": 253, "FLOAT8E5M2": 247, "INT4": 16, "UINT4": 16}[kind]
    (found,) = counted(model).values()
    assert (found.usage.levels, found.usage.used, found.bits, found.shape) == (levels, 4, 6 * bits + 32, (3, 2))
    assert np.array_equal(decode(model)["w"], np.array(values, np.float32).reshape(3, 2) / 2)
