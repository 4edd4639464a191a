import numpy as np


def pack_unpack(codes: np.ndarray, words: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`codes` (int8, -8 to 7) packed into uint32 words, and the first `count` codes (int8) that `words` hold."""
    raise NotImplementedError
