import numpy as np


def sampling_probabilities(logits, temperature, top_k, top_p):
    if temperature == 0:
        temperature, top_k = 1.0, 1
    powers = np.exp((logits - logits.max()) / temperature)
    index = np.arange(len(logits))
    if top_k:
        powers[np.argsort(-logits, kind="stable")[top_k:]] = 0.0
    shares = powers / powers.sum()
    probabilities = np.zeros_like(shares)
    for token in index:
        first = (logits > logits[token]) | ((logits == logits[token]) & (index < token))
        before = shares[first].sum()
        if before < top_p or not first.any():
            probabilities[token] = shares[token]
    return probabilities / probabilities.sum()
