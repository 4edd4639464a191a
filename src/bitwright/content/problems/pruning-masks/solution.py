import numpy as np


def pruning_mask(weights: np.ndarray, keep: int, group: int | None) -> np.ndarray:
    """True where a weight is among the `keep` largest of its group, or of the matrix."""
    sets = np.abs(weights).reshape(-1, group or weights.size)
    ranking = np.argsort(-sets, axis=1, kind="stable")
    mask = np.zeros(sets.shape, dtype=bool)
    np.put_along_axis(mask, ranking[:, :keep], True, axis=1)
    return mask.reshape(weights.shape)
