import numpy as np


def lloyd(x: np.ndarray, levels: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels (float64) after so many of Lloyd's rounds on `x`, and the code (int64) of every weight."""
    codes = nearest(x, levels)
    for _ in range(rounds):
        count = np.bincount(codes, minlength=len(levels))
        total = np.bincount(codes, weights=x, minlength=len(levels))
        levels = np.where(count > 0, total / np.maximum(count, 1), levels)
        codes = nearest(x, levels)
    return levels, codes


def nearest(x: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The index of the nearest of ascending `levels` for every `x`; ties go to the lower one."""
    middles = (levels[:-1] + levels[1:]) / 2
    return np.searchsorted(middles, x)
