"""The codes of ONNX tensors, counted: which levels of their type are in use."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bitwright.core.grid import E4M3, E5M2, FP4
from bitwright.core.measure import Usage
from bitwright.files.container import Counted

INTEGERS = {
    "INT2": (2, -2), "UINT2": (2, 0), "INT4": (4, -8), "UINT4": (4, 0), "INT8": (8, -128), "UINT8": (8, 0),
    "INT16": (16, -(1 << 15)), "UINT16": (16, 0),
}  # fmt: skip
"""ONNX types of codes: their bits and lowest number."""
FLOATS = {"FLOAT8E4M3FN": E4M3, "FLOAT8E5M2": E5M2, "FLOAT4E2M1": FP4}


def levels(kind: int) -> int | None:
    """How many values an ONNX type of codes has; None for another type."""
    name = TensorProto.DataType.Name(kind)
    return 1 << INTEGERS[name][0] if name in INTEGERS else FLOATS[name].levels if name in FLOATS else None


def count(codes: TensorProto, scale: TensorProto | None, zero: TensorProto | None, group: int = 0) -> Counted | None:
    """How finely a weight of such codes is stored, with a scale for each `group` where that is not 0.

    None for tensors of other types.
    """
    name = TensorProto.DataType.Name(codes.data_type)
    if name in INTEGERS:
        bits, low = INTEGERS[name]
        usage = Usage.whole(numpy_helper.to_array(codes), low, low + (1 << bits) - 1)
    elif name in FLOATS:
        usage = Usage.of(numpy_helper.to_array(codes).view(np.uint8), FLOATS[name])
    else:
        return None
    shared = "" if scale is None else f" g{group}" if group else " tensor" if prod(scale.dims) == 1 else " channel"
    bits = sum(size(tensor) for tensor in (codes, scale, zero) if tensor is not None)
    return Counted(f"{name.lower()}{shared}", tuple(codes.dims), bits, usage)


def size(tensor: TensorProto) -> int:
    """Bits that a tensor takes."""
    name = TensorProto.DataType.Name(tensor.data_type)
    wide = 8 * int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)
    each = INTEGERS[name][0] if name in INTEGERS else FLOATS[name].bits if name in FLOATS else wide
    return int(prod(tensor.dims) * each)
