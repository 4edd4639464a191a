import numpy as np


def pack_unpack(codes: np.ndarray, words: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`codes` (int8, -8 to 7) packed into uint32 words, and the first `count` codes (int8) that `words` hold."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)

    stored = np.zeros(-(-len(codes) // 8) * 8, dtype=np.uint32)
    stored[: len(codes)] = codes + 8
    packed = np.bitwise_or.reduce(stored.reshape(-1, 8) << shifts, axis=1)

    fields = (words[:, None] >> shifts) & 15
    unpacked = fields.ravel()[:count].astype(np.int8) - 8
    return packed, unpacked
