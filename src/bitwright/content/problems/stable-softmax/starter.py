import numpy as np


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    """Shares of the logits along one axis; a slice that is masked everywhere is zero."""
    raise NotImplementedError
