import numpy as np


def sampling_probabilities(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities of the next token after temperature, top-k and top-p."""
    if temperature == 0:
        temperature, top_k = 1.0, 1
    ranking = np.argsort(-logits, kind="stable")[: top_k or None]
    scaled = logits[ranking] / temperature
    powers = np.exp(scaled - scaled[0])
    shares = powers / powers.sum()
    count = np.searchsorted(np.cumsum(shares), top_p) + 1
    kept = shares[:count]
    probabilities = np.zeros_like(logits)
    probabilities[ranking[:count]] = kept / kept.sum()
    return probabilities
