import numpy as np


def psnr_and_sqnr(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """PSNR with the peak max|x|, and SQNR, in dB, of the original `x` and its reconstruction `y`."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    signal = float((x**2).sum())
    noise = float(((x - y) ** 2).sum())
    if noise == 0:
        return np.inf, np.inf
    if signal == 0:
        return -np.inf, -np.inf
    peak = float(np.abs(x).max())
    psnr = float(10 * np.log10(peak**2 * x.size / noise))
    sqnr = float(10 * np.log10(signal / noise))
    return psnr, sqnr
