import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithms of the shares along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def distillation_loss(
    student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, temperature: float, alpha: float
) -> float:
    """Divergence from the teacher at a temperature, mixed with cross-entropy at the labels."""
    log_p = log_softmax(teacher / temperature)
    log_q = log_softmax(student / temperature)
    soft = np.sum(np.exp(log_p) * (log_p - log_q), axis=-1).mean()
    labelled = labels != -100
    picked = log_softmax(student)[labelled, labels[labelled]]
    hard = -picked.mean() if labelled.any() else 0.0
    return float(alpha * temperature**2 * soft + (1 - alpha) * hard)
