import numpy as np


def scale_and_zero(x):
    if x.min() == x.max():
        return 1.0, 0
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255
    return scale, int(np.rint(-low / scale))
