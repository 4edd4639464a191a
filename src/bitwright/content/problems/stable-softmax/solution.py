import numpy as np


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    """Shares of the logits along one axis; a slice that is masked everywhere is zero."""
    peak = logits.max(axis=axis, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    powers = np.exp(logits - peak)
    total = powers.sum(axis=axis, keepdims=True)
    return powers / np.where(total > 0, total, 1.0)
