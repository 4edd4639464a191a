"""Randomised Hadamard transform along rows: what it spreads looks normally distributed, whatever it was.

Source: Chee et al. 2023 (QuIP, arXiv 2307.13304) for incoherence by random rotations, Tseng et al. 2024 (QuIP#, arXiv
2402.04396) for the Hadamard transform.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from bitwright.core.array import Array, like, namespace


def rotate(x: Array) -> Array:
    """x S H for `x` float32 [..., n]: S a diagonal of signs, H the Hadamard matrix of the largest power of two in n.

    H is orthogonal and stands n / size times on the diagonal. S and H depend on n alone, so that nothing is stored.
    """
    return hadamard(x * like(signs(x.shape[-1]), x))


def rotate_back(x: Array) -> Array:
    """The inverse of `rotate`, which is its transpose."""
    return hadamard(x) * like(signs(x.shape[-1]), x)


def hadamard(x: Array) -> Array:
    """x H: sums and differences of elements 1, 2, 4, ... apart, then one factor (Sylvester's construction)."""
    xp = namespace(x)
    n = int(x.shape[-1])
    size = n & -n
    step = 1
    while step < size:
        pairs = xp.reshape(x, (*x.shape[:-1], n // (2 * step), 2, step))
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        x = xp.reshape(xp.stack([first + second, first - second], axis=-2), x.shape)
        step *= 2
    return x * np.float32(1 / math.sqrt(size)).item()


@cache
def signs(n: int) -> np.ndarray:
    """n signs, float32: -1 where the last bit of the mixed index is set (the finaliser of MurmurHash3, Appleby)."""
    h = np.arange(1, n + 1, dtype=np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    h ^= h >> np.uint32(16)
    return (1 - 2.0 * (h & np.uint32(1))).astype(np.float32)
