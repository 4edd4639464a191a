"""How the weights of a matrix lie before and after, and between which of them the error comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core.measure import Error

Pieces = Iterable[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Rows of a matrix, and the same rows as they come back."""
LEVELS = 64
"""Values up to which a matrix that came back is said to have levels."""


def histogram(pieces: Callable[[], Pieces], bins: int) -> dict[str, Any]:
    """Counts over `bins` bins of the range of a matrix, whose `pieces` are read twice.

    "before" of its weights, "after" of what came back, "errors" each bin's share of the squared error; "levels" are
    the values that came back where they are few, else None.
    """
    ends = [(float(w.min()), float(w.max())) for w, _ in pieces()]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    width = (high - low) / bins or 1.0
    before, after = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    errors, error, levels = np.zeros(bins), Error(), set[float]()

    def place(x: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return np.asarray(np.clip((x.ravel() - low) / width, 0, bins - 1), np.int64)

    for w, decoded in pieces():
        places = place(w)
        before += np.bincount(places, minlength=bins)
        after += np.bincount(place(decoded), minlength=bins)
        errors += np.bincount(places, (w.astype(np.float64) - decoded).ravel() ** 2, bins)
        error += Error.between(w, decoded)
        if len(levels) <= LEVELS:
            levels.update(np.unique(decoded).tolist())
    return {
        "low": low, "high": high, "before": before.tolist(), "after": after.tolist(),
        "errors": (errors / (errors.sum() or 1.0)).tolist(), "sqnr": error.sqnr, "mse": error.mse,
        "levels": sorted(levels) if len(levels) <= LEVELS else None,
    }  # fmt: skip
