import numpy as np


def correct_bias(w: np.ndarray, wq: np.ndarray, bias: np.ndarray | None, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The bias (float64) that gives `wq` the mean output of `w` over the real tokens of `x`."""
    old = np.zeros(len(w)) if bias is None else bias
    if not mask.any():
        return old
    mean = x[mask].mean(axis=0)
    shift = (wq - w) @ mean
    return old - shift
