import numpy as np


def log_softmax(logits):
    peak = logits.max(axis=-1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(axis=-1, keepdims=True))


def compare_models(reference, model, text, real):
    log_p, log_q = log_softmax(reference[:, :-1]), log_softmax(model[:, :-1])
    targets, counts = text[:, 1:], real[:, :-1] & real[:, 1:]
    surprise = -np.take_along_axis(log_q, targets[..., None], axis=-1)[..., 0] / np.log(2)
    divergence = (np.exp(log_q) * (log_q - log_p)).sum(axis=-1) / np.log(2)
    bits = surprise[counts].mean()
    return float(bits), float(2.0**bits), float(divergence[counts].mean())
