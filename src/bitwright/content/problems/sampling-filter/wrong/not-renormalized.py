import numpy as np


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def sampling_probabilities(logits, temperature, top_k, top_p):
    probabilities = np.zeros_like(logits)
    if temperature == 0:
        probabilities[np.argmax(logits)] = 1.0
        return probabilities
    order = np.argsort(-logits, kind="stable")
    if top_k > 0:
        order = order[:top_k]
    shares = softmax(logits[order] / temperature)
    before = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
    keep = before < top_p
    keep[0] = True
    chosen = shares * keep
    probabilities[order] = chosen
    return probabilities
