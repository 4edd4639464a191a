"""Versions of the ONNX operator set: which we read, and how a model is raised to a newer one."""

from __future__ import annotations

import onnx
import onnx.version_converter

from bitwright.errors import FileError

OLDEST, NEWEST = 13, 25
"""Operator sets that need no conversion: per-channel scales came with 13, and newer ones than 25 are unchecked."""
CONVERTED_FROM = 7
"""The oldest operator set that onnx.version_converter is trusted with."""
INT4 = 21
"""The operator set that brought 4-bit integers and blocks (with IR version 10)."""
RESIZED = 11
"""The operator set that gave Resize its choice of coordinates."""


def opset(model: onnx.ModelProto) -> int:
    """The version of the default operator set that `model` imports; 0 where it imports none."""
    return max((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def upgrade(model: onnx.ModelProto, version: int, where: str = "model") -> onnx.ModelProto:
    """`model` at operator set `version` (itself where it is there already), through onnx.version_converter.

    Raises FileError naming `where` if the converter refuses.
    """
    if opset(model) >= version:
        return model
    try:
        raised = onnx.version_converter.convert_version(model, version)
        if opset(model) < RESIZED <= version:
            _resize_as_before(raised.graph)
    except (RuntimeError, ValueError, TypeError) as error:
        raise FileError(
            f"opset {opset(model)} cannot be raised to {version} ({str(error).strip().splitlines()[-1][:200]})",
            where=where,
            fix=f"Export the model again with opset {version} or newer",
        ) from error
    if version >= INT4:
        raised.ir_version = max(raised.ir_version, 10)
    raised.metadata_props.MergeFrom(model.metadata_props if not raised.metadata_props else [])
    return raised


def _resize_as_before(graph: onnx.GraphProto) -> None:
    """Upsample, and Resize before opset 11, put pixel i at i / scale; the converter leaves the newer default there.

    Nearest took the pixel before, or the one after where it made things smaller (ONNX Runtime, upsamplebase.h).
    """
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            stored[node.output[0]] = onnx.numpy_helper.to_array(value)
    for node in graph.node:
        if node.op_type != "Resize" or any(a.name == "coordinate_transformation_mode" for a in node.attribute):
            continue
        node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        scales = stored.get(node.input[2]) if len(node.input) > 2 else None
        smaller = scales is not None and bool((scales < 1).any())
        node.attribute.append(onnx.helper.make_attribute("nearest_mode", "ceil" if smaller else "floor"))
