import numpy as np


def quantize_column(w, u, column, scale, bits):
    half = 2 ** (bits - 1)
    scaled = w[:, column] / scale
    codes = np.clip(np.rint(scaled), -half, half - 1)
    error = (scaled - codes) / u[column, column]
    new = w.copy()
    new[:, column] = scale * codes
    new[:, column + 1 :] -= np.outer(error, u[column, column + 1 :])
    return codes.astype(np.int8), new
