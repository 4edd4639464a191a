import numpy as np


def lsq_backward(v: np.ndarray, grad: np.ndarray, step: float, qn: int, qp: int) -> tuple[float, np.ndarray]:
    """Gradients of the loss in the step, scaled as in LSQ, and in `v`, for the gradient `grad` in the output."""
    u = v / step
    inside = (-qn < u) & (u < qp)
    slope = np.where(inside, np.rint(u) - u, np.clip(u, -qn, qp))
    step_grad = float((grad * slope).sum() / np.sqrt(v.size * qp))
    v_grad = grad * inside
    return step_grad, v_grad
