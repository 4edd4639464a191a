import numpy as np


def psnr_and_sqnr(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """PSNR with the peak max|x|, and SQNR, in dB, of the original `x` and its reconstruction `y`."""
    raise NotImplementedError
