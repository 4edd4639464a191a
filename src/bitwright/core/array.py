"""The few array operations on which NumPy and torch differ, so that all else is written once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import array_api_compat
import numpy as np

Array = Any
"""A NumPy or torch array; every function of `core` and `methods` takes either and returns the same kind."""


def namespace(x: Array) -> Any:
    """The array-API namespace of `x` (numpy or torch, through array-api-compat)."""
    return array_api_compat.array_namespace(x)


def like(values: Any, x: Array, dtype: Any = None) -> Array:
    """`values` (a sequence or array) as an array of `x`'s library, on `x`'s device; float32 unless `dtype` says."""
    xp = namespace(x)
    return xp.asarray(values, dtype=xp.float32 if dtype is None else dtype, device=array_api_compat.device(x))


def float32(x: Array) -> Array:
    """`x` as float32 (no copy when it is already)."""
    xp = namespace(x)
    return x if x.dtype == xp.float32 else xp.astype(x, xp.float32)


def contiguous(x: Array) -> Array:
    """`x` with its elements in row-major order in memory (no copy when they are already)."""
    return x.contiguous() if array_api_compat.is_torch_array(x) else np.ascontiguousarray(x)


@contextmanager
def short_factors(x: Array) -> Iterator[None]:
    """float32 products made inside run on bfloat16 units where `x`, before its cast to float32, was bfloat16.

    Nothing is lost: a product of two bfloat16 numbers is exact in float32, and so are the sums.
    """
    if not array_api_compat.is_torch_array(x):
        yield
        return
    xp = namespace(x)
    before = xp.get_float32_matmul_precision()
    xp.set_float32_matmul_precision("medium" if x.dtype == xp.bfloat16 else before)
    try:
        yield
    finally:
        xp.set_float32_matmul_precision(before)


def subtract_product(out: Array, a: Array, b: Array) -> None:
    """out -= a @ b, in place; torch does it without making the product first."""
    if array_api_compat.is_torch_array(out):
        out.addmm_(a, b, alpha=-1)
    else:
        out -= a @ b


def divide(part: Array, lower: Array) -> Array:
    """part (L L^T)^-1, for `part` [..., rows, d] and a lower triangular L [..., d, d]."""
    if array_api_compat.is_torch_array(part):
        return namespace(part).cholesky_solve(part.mT, lower).mT
    return np.linalg.solve(lower.mT, np.linalg.solve(lower, part.mT)).mT


def absmax(x: Array, axis: int | None = None) -> Array:
    """max|x| along `axis` without allocating |x|."""
    xp = namespace(x)
    return xp.maximum(xp.max(x, axis=axis), -xp.min(x, axis=axis))


LIGHT = 4096
"""Rows up to which a loop over columns runs faster in NumPy: a step costs it a third of torch's overhead."""


def light(x: Array, rows: int) -> Array:
    """`x` as a NumPy view where it is a torch tensor in main memory and the work has few rows; else `x` itself."""
    if rows <= LIGHT and array_api_compat.is_torch_array(x) and x.device.type == "cpu":
        return x.numpy()
    return x
