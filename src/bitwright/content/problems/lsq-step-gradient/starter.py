import numpy as np


def lsq_backward(v: np.ndarray, grad: np.ndarray, step: float, qn: int, qp: int) -> tuple[float, np.ndarray]:
    """Gradients of the loss in the step, scaled as in LSQ, and in `v`, for the gradient `grad` in the output."""
    raise NotImplementedError
