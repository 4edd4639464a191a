import numpy as np


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def distillation_loss(student, teacher, labels, temperature, alpha):
    log_p = log_softmax(teacher / temperature)
    log_q = log_softmax(student / temperature)
    soft = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean() * temperature**2
    rows = np.flatnonzero(labels != -100)
    hard = -log_q[rows, labels[rows]].mean() if len(rows) else 0.0
    return float(alpha * soft + (1 - alpha) * hard)
