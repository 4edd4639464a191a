import numpy as np


def encode(w: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
    """The first power of two of levels, placed by Lloyd's iteration, that reaches the target."""
    allowed = np.sum(w**2) / 10 ** (target / 10)
    ordered = np.sort(w)
    for bits in range(9):
        levels = np.unique(np.quantile(ordered, (np.arange(2**bits) + 0.5) / 2**bits))
        for _ in range(30):
            ends = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
            cells = np.split(ordered, ends)
            levels = np.array([cell.mean() if len(cell) else level for cell, level in zip(cells, levels, strict=True)])
        codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, w)
        if np.sum((w - levels[codes]) ** 2) <= allowed:
            break
    return codes.astype(np.uint8), levels
