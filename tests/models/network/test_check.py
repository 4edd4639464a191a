"""Files of ONNX Runtime's quantizers: what they are is said, what can be decoded is, the rest has no verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from bitwright.errors import ModelError
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
