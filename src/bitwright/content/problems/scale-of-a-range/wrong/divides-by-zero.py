import numpy as np


def scale_and_zero(x):
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255
    return scale, int(np.rint(-low / scale))
