"""The reference decoder: all that it takes to read a matrix of the trellis container. NumPy alone.

A matrix [rows, columns] of `bits` bits per weight is stored as

    weight_trellis  uint8 [rows, ceil(columns * bits / 8)]   codes, each row's from its first byte's lowest bit on
    weight_scale    float16 [rows, 1]
    weight_shape    int64 [3]: rows, columns, bits

and 256 rows after 256 rows are one path; see docs/trellis.md.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

TABLE = np.array([NormalDist().inv_cdf((i + 0.5) / 4096) for i in range(4096)], np.float32)


def decode(packed: np.ndarray, scale: np.ndarray, columns: int, bits: int) -> np.ndarray:
    """The matrix, float32 [rows, columns]; of a part of it where the part begins at a multiple of 256 rows."""
    out = np.empty((len(packed), columns), np.float32)
    ones = np.unpackbits(packed, axis=1, count=columns * bits, bitorder="little")
    codes = ones.reshape(len(packed), columns, bits) @ (1 << np.arange(bits))
    for first in range(0, len(codes), 256):
        block = codes[first : first + 256]
        row, column = np.indices(block.shape)
        order = np.lexsort((row.ravel(), (row + column).ravel()))  # along anti-diagonals
        code = block.ravel()[order]
        history, before = np.zeros_like(code), code
        for place in range(0, 12, bits):  # the twelve bits before each code, the nearest lowest
            before = np.concatenate([[0], before[:-1]])
            history |= before << place
        index = (0x9E3779B1 * (history % 4096 + 1) + (code << (32 - bits))) % 2**32 >> 20
        value = np.empty(block.size, np.float32)
        value[order] = TABLE[index]
        out[first : first + 256] = value.reshape(block.shape) * scale[first : first + 256].astype(np.float32)
    return _turn_back(out)


def _turn_back(x: np.ndarray) -> np.ndarray:
    """Undo the Hadamard transform of the rows, in runs of the largest power of two in their length, and its signs."""
    rows, n = x.shape
    size, step = n & -n, 1
    while step < size:
        x = x.reshape(rows, -1, 2, step)
        x = np.stack([x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]], axis=2).reshape(rows, n)
        step *= 2
    return x * np.float32(size**-0.5) * np.array([_sign(i + 1) for i in range(n)], np.float32)


def _sign(h: int) -> int:
    """By the last bit of MurmurHash3's finaliser (Appleby)."""
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    return -1 if (h ^ h >> 16) & 1 else 1
