import numpy as np


def quantize_groups(w: np.ndarray, group: int, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (int8), scales (float64, one for each group of a row) and decoded values (float64) of `w`."""
    raise NotImplementedError
