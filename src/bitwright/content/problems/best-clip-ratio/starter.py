import numpy as np


def best_clip(x: np.ndarray, bits: int, ratios: np.ndarray) -> tuple[float, float]:
    """The ratio of max|x| to clip at for the smallest mean squared error, and that error."""
    raise NotImplementedError
