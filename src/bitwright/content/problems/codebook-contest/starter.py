import numpy as np


def encode(w: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,) uint8 and levels (m,) float64 that decode w with at least `target` dB."""
    raise NotImplementedError
