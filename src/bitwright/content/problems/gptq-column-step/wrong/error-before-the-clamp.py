import numpy as np


def quantize_column(w, u, column, scale, bits):
    half = 2 ** (bits - 1)
    rounded = np.rint(w[:, column] / scale)
    error = (w[:, column] - scale * rounded) / u[column, column]
    codes = np.clip(rounded, -half, half - 1)
    new = w.copy()
    new[:, column] = scale * codes
    new[:, column + 1 :] -= np.outer(error, u[column, column + 1 :])
    return codes.astype(np.int8), new
