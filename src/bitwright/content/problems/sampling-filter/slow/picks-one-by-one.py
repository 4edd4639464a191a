import numpy as np


def sampling_probabilities(logits, temperature, top_k, top_p):
    if temperature == 0:
        temperature, top_k = 1.0, 1
    powers = np.exp((logits - logits.max()) / temperature)
    if top_k:
        powers[np.argsort(-logits, kind="stable")[top_k:]] = 0.0
    shares = powers / powers.sum()
    left, probabilities = shares.copy(), np.zeros_like(shares)
    total = 0.0
    for _ in range(len(shares)):
        best = np.argmax(left)
        probabilities[best] = shares[best]
        total += shares[best]
        left[best] = -1.0
        if total >= top_p:
            break
    return probabilities / probabilities.sum()
