"""Small files for the tests of samples: images, WAV files, folders of both."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.errors import BitwrightError
from bitwright.recipe import Data, Picture, Sound

IMAGE = {"image": ("float32", (None, 3, 4, 6))}
WAVE = {"wave": ("float32", (None, 1, None))}


def table(**keys: Any) -> Data:
    """A `[data]` table; keys of the two inner tables may be given as dicts."""
    inner = {"image": Picture(**keys.pop("image", {})), "audio": Sound(**keys.pop("audio", {}))}
    return Data(**keys, **inner)


def save_image(path: Path, height: int = 4, width: int = 6, mode: str = "RGB", seed: int = 0, **options: Any) -> Path:
    """Random pixels as PNG, or whatever the suffix says."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    image.fromarray(pixels, mode if mode in ("RGB", "RGBA", "CMYK", "L", "LA") else None).save(path, **options)
    return path


def pixels_of(path: Path, mode: str = "RGB") -> Any:
    """The pixels of a file, uint8 [h, w(, channels)]."""
    with pytest.importorskip("PIL.Image").open(path) as image:
        return np.asarray(image.convert(mode))


def image_folder(root: Path, counts: dict[str, int]) -> Path:
    """root/class/number.png, every image another."""
    seed = 0
    for name, count in counts.items():
        for number in range(count):
            save_image(root / name / f"{number:03}.png", seed=seed)
            seed += 1
    return root


def save_wav(path: Path, codes: Any, rate: int = 8000, width: int = 2) -> Path:
    """Integer codes [frames] or [frames, channels] as PCM of `width` bytes, written by the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codes = np.asarray(codes, np.int64)
    codes = codes[:, None] if codes.ndim == 1 else codes
    with wave.open(str(path), "wb") as file:
        file.setnchannels(codes.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        bytes_ = (codes + (128 if width == 1 else 0)).astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width]
        file.writeframes(bytes_.tobytes())
    return path


def riff(kind: int, channels: int, rate: int, bits: int, body: bytes, extensible: bool = False) -> bytes:
    """A WAV file by hand, for what the standard library does not write."""
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", 0xFFFE if extensible else kind, channels, rate, rate * frame, frame, bits)
    if extensible:
        head += struct.pack("<HHIH", 22, bits, 0, kind) + bytes.fromhex("000000001000800000aa00389b71")
    chunks = b"fmt " + struct.pack("<I", len(head)) + head + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tone(count: int = 400, scale: float = 8000, pitch: float = 0.05) -> Any:
    """Integer codes of a sine wave."""
    return np.round(scale * np.sin(np.arange(count) * 2 * np.pi * pitch)).astype(np.int64)


def fails(action: Callable[[], Any], *words: Any) -> BitwrightError:
    """The error that `action` raises: one line, with a fix, that holds every one of `words`."""
    with pytest.raises(BitwrightError) as caught:
        action()
    error = caught.value
    for word in words:
        assert str(word) in str(error), f"{word!r} not in {error}"
    assert "\n" not in str(error)
    assert error.fix
    return error
