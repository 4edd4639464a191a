"""Rows of GGUF tensors are gguf-py's floats, and levels are counted from the blocks themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants

from bitwright.core.formats import named
from bitwright.errors import FileError
from bitwright.files.containers.gguf import reader
from bitwright.files.containers.gguf.blocks import LAYOUTS
from bitwright.files.containers.gguf.reader import VECTORS, rows, usage
from bitwright.files.gguf import TYPES, Gguf, read
from tests import gguf

NUMBERS = {kind.name: number for number, kind in TYPES.items()}
FLOATS = ["F32", "F16", "BF16"]
READ = [*FLOATS, *(name.upper() for name in LAYOUTS), *sorted(VECTORS)]


def blocks(name: str, count: int, seed: int = 0) -> np.ndarray:
    """Random blocks, uint8 [count, bytes], whose scales are ordinary numbers."""
    rng, kind = np.random.default_rng(seed), TYPES[NUMBERS[name]]
    if name in FLOATS:
        x = torch.from_numpy(rng.normal(0, 1, (count, 1)).astype(np.float32))
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[name]
        return x.to(dtype).view(torch.uint8).numpy()
    raw = rng.integers(0, 256, (count, kind.size), dtype=np.uint8)
    for at in kind.halves:
        raw[:, at : at + 2] = rng.normal(0, 0.01, (count, 1)).astype(np.float16).view(np.uint8)
    if name == "MXFP4":
        raw[:, 0] = np.minimum(raw[:, 0], 200)
    if name == "IQ1_M":  # the fp16 scale lies in the upper four bits of four words
        raw[:, 49:56:2] = raw[:, 49:56:2] & 15 | np.array([0, 0, 0, 0x20], np.uint8)
    return raw


def written(path: Path, name: str, shape: tuple[int, ...], raw: np.ndarray) -> Gguf:
    path.write_bytes(gguf.made({"other": (0, (3,), bytes(12)), "w": (NUMBERS[name], shape, raw.tobytes())}))
    return read(path)


@pytest.mark.parametrize("name", READ)
def test_rows_are_those_of_gguf_py(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = 2 * TYPES[NUMBERS[name]].weights
    raw = blocks(name, 2 * 3 * 5)
    found = written(tmp_path / "m.gguf", name, (columns, 3, 5), raw)
    tensor = found.tensors[1]
    theirs = next(t for t in GGUFReader(tmp_path / "m.gguf").tensors if t.name == "w")
    wanted = quants.dequantize(np.asarray(theirs.data), GGMLQuantizationType[name]).reshape(15, columns)
    for piece in (1, 4 * columns, reader.PIECE):
        monkeypatch.setattr(reader, "PIECE", piece)
        for start, stop in ((0, 15), (4, 11), (14, 15), (3, 3)):
            ours = rows(found, tensor, start, stop)
            assert ours.shape == (stop - start, columns) and ours.dtype == torch.float32
            assert np.array_equal(ours.numpy().view(np.int32), wanted[start:stop].view(np.int32))
    for start, stop in ((-1, 2), (3, 2), (0, 16)):
        with pytest.raises(ValueError, match="of 15"):
            rows(found, tensor, start, stop)


@pytest.mark.parametrize("name", sorted(NUMBERS.keys() - READ))
def test_types_without_floats_are_named(name: str, tmp_path: Path) -> None:
    kind = TYPES[NUMBERS[name]]
    found = written(tmp_path / "m.gguf", name, (kind.weights,), np.zeros(kind.size, np.uint8))
    with pytest.raises(FileError, match=rf"m.gguf: w: {name} is no type of weights that Bitwright reads"):
        rows(found, found.tensors[1], 0, 1)


def test_an_unknown_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf.made({"w": (99, (32,), bytes(18))}))
    found = read(tmp_path / "m.gguf")
    with pytest.raises(FileError, match="w: type 99 is not known here") as caught:
        rows(found, found.tensors[0], 0, 1)
    assert caught.value.foreign and usage(found, found.tensors[0]) is None


@pytest.mark.parametrize("name", LAYOUTS)
def test_levels_are_counted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With scales of one size, a level is one of the values that a block decodes to."""
    kind = TYPES[NUMBERS[name.upper()]]
    raw = blocks(name.upper(), 5)
    raw[2:] &= 0x77  # so that not all levels are as frequent
    for at in kind.halves:
        raw[:, at : at + 2] = np.array([1], np.float16).view(np.uint8)
    found = written(tmp_path / "m.gguf", name.upper(), (kind.weights, 5), raw)
    monkeypatch.setattr("bitwright.files.gguf.PIECE", 2)
    counted, code = usage(found, found.tensors[1]), named(name).code
    assert counted is not None and counted.levels == code.levels
    if name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "tq1_0", "tq2_0"):
        shift = 0 if named(name).shift is None else 1
        decoded = rows(found, found.tensors[1], 0, 5).flatten() - shift
        values = getattr(code, "values", ())
        there = Counter(decoded.tolist())
        assert counted.counts.tolist() == [there[value] for value in values]
    else:
        assert counted.total == 5 * kind.weights


def test_types_without_a_code_for_each_weight_are_not_counted(tmp_path: Path) -> None:
    assert NUMBERS.keys() >= VECTORS and not VECTORS & {name.upper() for name in LAYOUTS}
    (tmp_path / "m.gguf").write_bytes(gguf.made({"f": (0, (4, 1), bytes(16)), "v": (16, (256, 1), bytes(66))}))
    found = read(tmp_path / "m.gguf")
    assert [usage(found, tensor) for tensor in found.tensors] == [None, None]
