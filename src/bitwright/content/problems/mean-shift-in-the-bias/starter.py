import numpy as np


def correct_bias(w: np.ndarray, wq: np.ndarray, bias: np.ndarray | None, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The bias (float64) that gives `wq` the mean output of `w` over the real tokens of `x`."""
    raise NotImplementedError
