import numpy as np


def normalize(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, kind: str, eps: float) -> np.ndarray:
    """Layer norm ("layer") or RMS norm ("rms") of every row of x."""
    centred = x - x.mean(axis=-1, keepdims=True) if kind == "layer" else x
    square = np.mean(centred**2, axis=-1, keepdims=True)
    scaled = centred / np.sqrt(square + eps)
    return scaled * weight if bias is None else scaled * weight + bias
