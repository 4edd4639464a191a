import math

import numpy as np


def lsq_backward(v, grad, step, qn, qp):
    u = v / step
    inside = (-qn <= u) & (u <= qp)
    slope = np.where(inside, np.rint(u) - u, np.clip(u, -qn, qp))
    return float((grad * slope).sum()) / math.sqrt(v.size * qp), grad * inside
