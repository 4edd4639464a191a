"""Packing codes of 1 to 8 bits, least significant bit first."""

from __future__ import annotations

from bitwright.core.array import Array, namespace


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
    per_byte = 8 // bits if 8 % bits == 0 else 0
    lanes = per_byte or 8
    short = -n % lanes
    if short:
        codes = xp.concat([codes, xp.zeros((rows, short), dtype=xp.uint8, device=codes.device)], axis=1)
    lane = xp.reshape(codes, (rows, -1, lanes))
    if per_byte:
        out = lane[..., 0]
        for i in range(1, per_byte):
            out = out | (lane[..., i] << (i * bits))
        return out[:, : packed_size(n, bits)]
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


def unpack(packed: Array, bits: int, count: int) -> Array:
    """The inverse of `pack`: uint8 [rows, bytes] -> uint8 [rows, count]."""
    xp = namespace(packed)
    if bits == 8:
        return packed[:, :count]
    rows = packed.shape[0]
    mask = 2**bits - 1
    if 8 % bits == 0:
        lanes = [(packed >> (i * bits)) & mask for i in range(8 // bits)]
        return xp.reshape(xp.stack(lanes, axis=-1), (rows, -1))[:, :count]
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
