"""Packing codes of 1 to 8 bits, least significant bit first."""

from __future__ import annotations

from typing import Any

from bitwright.core.array import Array, contiguous, namespace


def packed_size(count: int, bits: int, word: int = 8) -> int:
    """Words of `word` bits that hold `count` codes of `bits` bits, the last one padded with zeros."""
    return -(-count * bits // word)


def pack(codes: Array, bits: int) -> Array:
    """Pack each row of `codes` (uint8 [rows, n], values below 2^bits) into bytes (uint8 [rows, ceil(n * bits / 8)]).

    Code i of a row fills bits [i * bits, (i + 1) * bits) of the row's bit string, least significant first; a row
    starts at a byte. Eight codes always fill `bits` whole bytes, so every width takes the same road.

    >>> import numpy as np
    >>> pack(np.array([[1, 2, 3, 4]], np.uint8), 4)
    array([[33, 67]], dtype=uint8)
    """
    xp = namespace(codes)
    rows, n = codes.shape
    if bits == 8:
        return codes
    lanes = 8 // bits if 8 % bits == 0 else 8
    short = -n % lanes
    if short:
        codes = xp.concat([codes, xp.zeros((rows, short), dtype=xp.uint8, device=codes.device)], axis=1)
    if 8 % bits == 0:
        # The codes of one byte are the bytes of one word: folded in half until the lowest byte holds them all.
        word = xp.reshape(contiguous(codes), (-1,)).view(_word(xp, lanes))
        for fold in range(lanes.bit_length() - 1):
            word = word | word >> ((8 - bits) << fold)
        return xp.reshape(xp.astype(word, xp.uint8), (rows, -1))
    lane = xp.reshape(codes, (rows, -1, lanes))
    parts = []
    for byte in range(bits):
        value = xp.zeros(lane.shape[:2], dtype=xp.uint8, device=codes.device)
        for i in range(8):
            shift = i * bits - byte * 8
            if -bits < shift < 8:
                value = value | (lane[..., i] << shift if shift >= 0 else lane[..., i] >> -shift)
        parts.append(value)
    packed = xp.reshape(xp.stack(parts, axis=-1), (rows, -1))
    return packed[:, : packed_size(n, bits)]


def _word(xp: Any, size: int) -> Any:
    """The integer type of `size` bytes (2, 4 or 8)."""
    return {2: xp.int16, 4: xp.int32, 8: xp.int64}[size]


def unpack(packed: Array, bits: int, count: int) -> Array:
    """The inverse of `pack`: uint8 [rows, bytes] -> uint8 [rows, count]."""
    xp = namespace(packed)
    if bits == 8:
        return packed[:, :count]
    rows = packed.shape[0]
    mask = 2**bits - 1
    if 8 % bits == 0:
        # The folds of `pack` in reverse: each spreads the lower half of every lane's codes over the upper half.
        lanes_per_byte = 8 // bits
        word = xp.reshape(xp.astype(contiguous(packed), _word(xp, lanes_per_byte)), (-1,))
        for fold in reversed(range(lanes_per_byte.bit_length() - 1)):
            kept = sum((2 ** (bits << fold) - 1) << i for i in range(0, 8 * lanes_per_byte, 8 << fold))
            word = (word | word << ((8 - bits) << fold)) & kept
        return xp.reshape(word.view(xp.uint8), (rows, -1))[:, :count]
    short = -packed.shape[1] % bits
    if short:
        packed = xp.concat([packed, xp.zeros((rows, short), dtype=xp.uint8, device=packed.device)], axis=1)
    group = xp.reshape(packed, (rows, -1, bits))
    lanes = []
    for i in range(8):
        byte, offset = divmod(i * bits, 8)
        value = group[..., byte] >> offset
        if offset + bits > 8:
            value = value | (group[..., byte + 1] << (8 - offset))
        lanes.append(value & mask)
    return xp.reshape(xp.stack(lanes, axis=-1), (rows, -1))[:, :count]
