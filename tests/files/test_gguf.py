"""GGUF headers: what is whole is described, what is damaged is named."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import FileError
from bitwright.files.gguf import TYPES, Gguf, read
from tests import gguf

ONE = b"\0\x3c"
"""1 in float16."""
NAN = b"\0\x7e"


def blocks(number: int, count: int = 2, half: bytes = ONE) -> bytes:
    """Blocks of zeros with a number at every place of a float16."""
    kind = TYPES[number]
    raw = bytearray(kind.size * count)
    for at in kind.halves:
        raw[at : at + 2] = half
        raw[kind.size * (count - 1) + at : kind.size * (count - 1) + at + 2] = half
    return bytes(raw)


def whole(tmp_path: Path, **options: int) -> tuple[Path, Gguf]:
    path = tmp_path / "model.gguf"
    held = {f"t{number}": (number, (kind.weights * 2, 1), blocks(number)) for number, kind in TYPES.items()}
    path.write_bytes(gguf.made(held, **options))
    return path, read(path)


@pytest.mark.parametrize("align", [32, 64])
def test_every_type_is_measured(align: int, tmp_path: Path) -> None:
    path, found = whole(tmp_path, align=align)
    assert (found.version, found.facts["general.architecture"]) == (3, "llama")
    assert (found.facts["tokenizer.ggml.tokens"], found.facts["tokenizer.ggml.scores"]) == (2, 2)
    assert [tensor.number for tensor in found.tensors] == list(TYPES)
    for tensor in found.tensors:
        assert tensor.type is not None
        assert path.read_bytes()[tensor.offset :].startswith(blocks(tensor.number))
        assert found.bad_halves(tensor) is None


@pytest.mark.parametrize("number", [number for number, kind in TYPES.items() if kind.halves])
def test_a_scale_that_is_not_finite(number: int, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    raw = blocks(number)[: TYPES[number].size] + blocks(number, 1, NAN)
    path.write_bytes(gguf.made({"w": (number, (TYPES[number].weights * 2,), raw)}))
    found = read(path)
    assert found.bad_halves(found.tensors[0]) == "nan in block 1"


@pytest.mark.parametrize(("number", "dtype"), [(0, np.float32), (28, np.float64)])
def test_floats_are_looked_at(number: int, dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf.made({"w": (number, (3,), np.array([1, 2, np.inf], dtype).tobytes())}))
    found = read(path)
    assert found.bad_halves(found.tensors[0]) == "inf in block 2"


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    path, _ = whole(tmp_path)
    data, cut = path.read_bytes(), tmp_path / "cut.gguf"
    for keep in (0, 3, 10, 100, 500, len(data) - 1):
        cut.write_bytes(data[:keep])
        with pytest.raises(FileError, match=r"truncated|not a GGUF file"):
            read(cut)
    cut.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60))
    with pytest.raises(FileError, match="metadata entries in the header"):
        read(cut)
    cut.write_bytes(gguf.made({"w": (2, (31,), bytes(18))}))
    with pytest.raises(FileError, match=r"w: 31 weights per row are no whole blocks of Q4_0"):
        read(cut)
    cut.write_bytes(gguf.made({}, version=9))
    with pytest.raises(FileError, match="GGUF version 9") as caught:
        read(cut)
    assert caught.value.foreign
    cut.write_bytes(gguf.made({"w": (99, (32,), bytes(18))}))
    assert read(cut).tensors[0].type is None
