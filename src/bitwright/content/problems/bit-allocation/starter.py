import numpy as np


def allocate_bits(sizes: np.ndarray, bits: np.ndarray, errors: np.ndarray, budget: int) -> np.ndarray | None:
    """The bits (int64) of each layer that minimise the total error within the budget, or None if nothing fits."""
    raise NotImplementedError
