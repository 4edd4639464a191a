"""WAV files: every width the standard library writes, what it does not, and damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.models.samples import wav
from tests.models.samples.sources import fails, riff, save_wav, tone

PATH = Path("clip.wav")


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_pcm(tmp_path: Path, width: int, channels: int) -> None:
    limit = 1 << (8 * width - 1)
    codes = np.random.default_rng(0).integers(-limit, limit, (101, channels))
    codes[:2] = [[-limit], [limit - 1]]
    path = save_wav(tmp_path / "a.wav", codes, 11025, width)
    rate, wave = wav.decode(path.read_bytes(), path)
    assert rate == 11025 and wave.dtype == np.float32
    np.testing.assert_array_equal(wave, (codes / limit).astype(np.float32))


def test_float_and_extensible() -> None:
    values = np.sin(np.arange(50)).astype(np.float32)
    for bits, dtype in ((32, "<f4"), (64, "<f8")):
        for extensible in (False, True):
            _, wave = wav.decode(riff(wav.FLOAT, 1, 8000, bits, values.astype(dtype).tobytes(), extensible), PATH)
            np.testing.assert_array_equal(wave[:, 0], values)
    codes = np.array([1, -2, 3000], "<i4")
    body = codes.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    _, wave = wav.decode(riff(wav.PCM, 1, 8000, 24, body, extensible=True), PATH)
    np.testing.assert_array_equal(wave[:, 0] * (1 << 23), codes)


def good(**keys: Any) -> bytes:
    return riff(**(dict(kind=1, channels=1, rate=8000, bits=16, body=tone().astype("<i2").tobytes()) | keys))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"hello", "not a WAV"),
        (good()[:-10], "cut off"),
        (good()[:20], "without a format"),
        (good()[:36], "without sound"),
        (good(body=b""), "no sound"),
        (good(body=b"\1\2\3"), "whole number of frames"),
        (good(kind=7, bits=8), "coding 7"),
        (good(bits=12), "12 bits"),
        (good(channels=0), "contradicts"),
        (good(rate=0), "contradicts"),
        (good(body=bytes(800)), "silence"),
        (good(body=np.full(400, 7000, "<i2").tobytes()), "silence"),
        (good(body=np.tile(np.array([0, 1], "<i2"), 200).tobytes()), "silence"),
        (good(kind=3, bits=32, body=np.array([0.5, np.nan], "<f4").tobytes()), "NaN"),
        (b"RIFX" + good()[4:], "not a WAV"),
    ],
)
def test_bad_files_are_named(data: bytes, word: str) -> None:
    fails(lambda: wav.decode(data, PATH), PATH, word)
