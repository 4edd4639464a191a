import numpy as np


def sampling_probabilities(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities of the next token after temperature, top-k and top-p."""
    raise NotImplementedError
