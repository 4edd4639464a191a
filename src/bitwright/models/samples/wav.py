"""WAV files as bytes: header, samples, and every way in which one can be wrong.

The standard library's `wave` does not read WAVE_FORMAT_EXTENSIBLE (what most programs write for 24 bits) before
Python 3.12, nor float samples; the format is small enough to read whole (Microsoft, Multimedia Programming Interface
and Data Specifications 1.0, 1991; Multiple channel audio data and WAVE files, 2001).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from bitwright.errors import DataError
from bitwright.models.samples.preprocess import Array

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
SILENCE = 1e-4
"""A clip whose largest distance from its mean is below this share of full scale (-80 dB) holds no sound."""


def decode(data: bytes, path: Path) -> tuple[int, Array]:
    """(samples per second, float32 [frames, channels] with full scale 1): PCM of 8, 16, 24 or 32 bits, or float.

    Raises DataError naming `path` for anything that is no such file, is cut off, or holds nothing, NaN or silence.
    """

    def wrong(what: str, fix: str = "Remove it, or replace it by a whole one") -> DataError:
        return DataError(what, where=str(path), fix=fix)

    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise wrong("not a WAV file" if data else "the file is empty")
    header, body = b"", None
    place = 12
    while place + 8 <= len(data) and body is None:
        name, size = struct.unpack_from("<4sI", data, place)
        chunk = data[place + 8 : place + 8 + size]
        if name == b"fmt ":
            header = chunk
        elif name == b"data":
            if len(chunk) < size:
                raise wrong(f"the file is cut off: {size:,} bytes of sound announced, {len(chunk):,} there")
            body = chunk
        place += 8 + size + size % 2  # chunks begin at even offsets
    if len(header) < 16:
        raise wrong("a WAV file without a format")
    if body is None:
        raise wrong("a WAV file without sound data")
    kind, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", header)
    if kind == EXTENSIBLE and len(header) >= 26:
        (kind,) = struct.unpack_from("<H", header, 24)  # the first field of the sub-format's GUID
    if (kind, bits) not in [(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)]:
        raise wrong(f"WAV coding {kind} with {bits} bits is not read", "Save it as PCM of 8, 16, 24 or 32 bits")
    if not channels or not rate or frame != channels * bits // 8:
        raise wrong(
            f"its format contradicts itself ({channels} channels, {rate} Hz, {frame} bytes per frame, {bits} bits)"
        )
    if len(body) % frame:
        raise wrong(f"{len(body):,} bytes of sound are no whole number of frames of {frame}")
    if not body:
        raise wrong("it holds no sound (0 samples)", "Remove it")
    wave = _samples(body, kind, bits).reshape(-1, channels)
    if not np.isfinite(wave).all():
        raise wrong("it holds samples that are NaN or infinite")
    if float(np.abs(wave - wave.mean(axis=0)).max()) < SILENCE:
        raise wrong("it holds only silence", "Remove it")
    return rate, wave


def _samples(body: bytes, kind: int, bits: int) -> Array:
    """Samples as float32 with full scale 1; 8-bit PCM is unsigned, wider ones are signed, all little-endian."""
    if kind == FLOAT:
        return np.frombuffer(body, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / 128
    if bits == 24:
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] >> 8).astype(np.float32) / (1 << 23)
    return (np.frombuffer(body, f"<i{bits // 8}").astype(np.float64) / (1 << (bits - 1))).astype(np.float32)
