import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithms of the shares along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def compare_models(
    reference: np.ndarray, model: np.ndarray, text: np.ndarray, real: np.ndarray
) -> tuple[float, float, float]:
    """Bits per token and perplexity of the model, and its divergence from the reference in bits per token."""
    counts = real[:, :-1] & real[:, 1:]
    log_p = log_softmax(reference[:, :-1][counts])
    log_q = log_softmax(model[:, :-1][counts])
    following = text[:, 1:][counts]
    surprise = -log_q[np.arange(len(following)), following]
    divergence = np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)
    bits = surprise.mean() / np.log(2)
    return float(bits), float(2**bits), float(divergence.mean() / np.log(2))
