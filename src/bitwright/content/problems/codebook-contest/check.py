import numpy as np


def check(arguments, expected, yours):
    """None where `yours` decodes within the rules and well enough; otherwise what is wrong."""
    w, target = arguments
    if not isinstance(yours, tuple) or len(yours) != 2 or not all(isinstance(part, np.ndarray) for part in yours):
        return "The result must be a tuple of two arrays, codes and levels."
    codes, levels = yours
    if codes.dtype != np.uint8 or codes.shape != w.shape:
        return f"Codes must be uint8 of shape {w.shape}, yours are {codes.dtype} of shape {codes.shape}."
    if levels.dtype != np.float64 or levels.ndim != 1 or not 1 <= len(levels) <= 256:
        return f"Levels must be float64 of shape (m,) with m from 1 to 256, yours are {levels.dtype}, {levels.shape}."
    if not np.isfinite(levels).all():
        return "A level is not finite."
    if codes.max() >= len(levels):
        return f"Code {codes.max()} has no level: there are {len(levels)}."
    noise = np.sum((w - levels[codes]) ** 2)
    reached = np.inf if noise == 0 else 10 * np.log10(np.sum(w**2) / noise)
    return (
        None if reached >= target - 1e-9 else f"The decoded weights reach {reached:.2f} dB, asked are {target:.2f} dB."
    )
