import numpy as np


def round_to_codebook(w: np.ndarray, codebook: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (uint8), scales (float64, one for each block) and decoded values (float64) of `w`, float64 (n,)."""
    raise NotImplementedError
