import numpy as np


def pruning_mask(weights: np.ndarray, keep: int, group: int | None) -> np.ndarray:
    """True where a weight is among the `keep` largest of its group, or of the matrix."""
    raise NotImplementedError
