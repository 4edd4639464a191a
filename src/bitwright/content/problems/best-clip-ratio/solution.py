import numpy as np


def best_clip(x: np.ndarray, bits: int, ratios: np.ndarray) -> tuple[float, float]:
    """The ratio of max|x| to clip at for the smallest mean squared error, and that error."""
    top = 2 ** (bits - 1) - 1
    peak = np.abs(x).max()
    if peak == 0:
        return float(ratios[0]), 0.0
    best, least = 0.0, np.inf
    for ratio in ratios:
        scale = ratio * peak / top
        codes = np.clip(np.rint(x / scale), -top, top)
        mse = np.mean((x - scale * codes) ** 2)
        if mse < least:
            best, least = float(ratio), float(mse)
    return best, least
