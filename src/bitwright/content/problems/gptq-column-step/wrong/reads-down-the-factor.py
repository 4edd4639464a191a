import numpy as np


def quantize_column(w, u, column, scale, bits):
    half = 2 ** (bits - 1)
    codes = np.clip(np.rint(w[:, column] / scale), -half, half - 1)
    error = (w[:, column] - scale * codes) / u[column, column]
    new = w.copy()
    new[:, column] = scale * codes
    new[:, column + 1 :] -= np.outer(error, u[column + 1 :, column])
    return codes.astype(np.int8), new
