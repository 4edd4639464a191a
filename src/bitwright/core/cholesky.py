"""Cholesky factors of matrices that rounding may have left indefinite."""

from __future__ import annotations

from bitwright.core.array import Array, namespace


def cholesky(matrix: Array) -> Array | None:
    """The lower factor of a matrix [..., n, n], or None where it, or one of a stack, is not positive definite."""
    xp = namespace(matrix)
    try:
        lower = xp.linalg.cholesky(matrix)
    except (ValueError, RuntimeError) as error:  # of NumPy's and of torch's LinAlgError one each
        if "LinAlgError" not in type(error).__name__:
            raise
        return None
    return lower if bool(xp.all(xp.isfinite(lower))) and bool(xp.all(xp.linalg.diagonal(lower) > 0)) else None
