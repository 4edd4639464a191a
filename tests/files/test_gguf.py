"""GGUF headers: what is whole is described, what is damaged is named."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_writer import GGUFWriter
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import FileError
from bitwright.files.gguf import TYPES, Gguf, read
from tests import gguf

ONE = b"\0\x3c"
"""1 in float16."""
NAN = b"\0\x7e"


def test_types_are_those_of_gguf_py() -> None:
    sizes = {kind.value: (kind.name, *size) for kind, size in GGML_QUANT_SIZES.items()}
    assert {number: (kind.name, kind.weights, kind.size) for number, kind in TYPES.items()} == sizes


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


def test_scales_that_are_no_halves_are_looked_at(tmp_path: Path) -> None:
    """MXFP4's byte, the fp16 scale that IQ1_M scatters over four words, and the float32 of Q8_K."""
    nan = np.array([0x7E12], np.uint16)
    words = np.concatenate([nan & 15, nan >> 4 & 15, nan >> 8 & 15, nan >> 12]).astype(np.uint16) << 12 | 0xABC
    wrong = {39: b"\xff", 29: bytes(48) + words.tobytes(), 15: np.array([np.nan], np.float32).tobytes()}
    path = tmp_path / "model.gguf"
    for number, start in wrong.items():
        kind = TYPES[number]
        raw = bytes(kind.size) + start + bytes(kind.size - len(start))
        path.write_bytes(gguf.made({"w": (number, (kind.weights * 2,), raw)}))
        found = read(path)
        assert found.bad_halves(found.tensors[0]) == "nan in block 1", kind.name
    assert np.isnan(dequantize(np.frombuffer(wrong[29], np.uint8)[None], GGMLQuantizationType.IQ1_M)).any()


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


def header(*entries: bytes, facts: tuple[bytes, ...] = (), data: bytes = bytes(64)) -> bytes:
    """A file of these tensor entries and metadata entries, and data after them."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(facts)) + b"".join((*facts, *entries))
    return head + bytes(-len(head) % 32) + data


def entry(name: str, shape: tuple[int, ...] = (4,), offset: int = 0, number: int = 0) -> bytes:
    return gguf.text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, offset)


def fact(key: str, kind: int, value: bytes) -> bytes:
    return gguf.text(key) + struct.pack("<I", kind) + value


HUGE = 1 << 63
ALIGN = "general.alignment"
LIES = [
    ("w: two tensors have this name", header(entry("w"), entry("w", offset=32))),
    ("b: begins at byte [0-9]+, within a", header(entry("a", (9,)), entry("b", offset=32))),
    ("c: begins at byte [0-9]+, within b", header(entry("b"), entry("c"), data=bytes(16))),
    ("w: begins at byte 4 of the data, which is no multiple of 32", header(entry("w", offset=4))),
    ("a tensor without a name", header(entry(""))),
    ("w: 5 axes", header(entry("w", (1,) * 5))),
    ("w: 4294967295 axes", header(gguf.text("w") + struct.pack("<I", 0xFFFFFFFF))),
    ("w: an axis of length 0", header(entry("w", (4, 0)))),
    ("w: truncated: the tensor ends at byte 340282366920938[0-9]+", header(entry("w", (HUGE, HUGE)))),
    ("w: truncated: the tensor ends at byte 92233720368547758[0-9]+", header(entry("w", offset=HUGE))),
    ("u: truncated: the tensor ends at byte 92233720368547758[0-9]+", header(entry("u", offset=HUGE, number=99))),
    ("9223372036854775808 tensors in the header", b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0)),
    ("9223372036854775808 metadata entries", b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE)),
    ("the header ends early", header(struct.pack("<Q", HUGE))),
    ("the header ends early", header(facts=(fact("a", 9, struct.pack("<IQ", 4, HUGE)),))),
    ("the header ends early", header(facts=(fact("a", 9, struct.pack("<IQ", 8, HUGE)),))),
    ("the header ends early", header(facts=(fact("a", 8, struct.pack("<Q", HUGE)),))),
    ("a list of type 9 in the metadata", header(facts=(fact("a", 9, struct.pack("<IQ", 9, 1)),))),
    ("type 13 in the metadata", header(facts=(fact("a", 13, b""),))),
    ("two entries 'a' in the metadata", header(facts=(fact("a", 0, b"a"), fact("a", 0, b"b")))),
    ("alignment 0, which", header(facts=(fact(ALIGN, 4, struct.pack("<I", 0)),))),
    ("alignment 24, which", header(facts=(fact(ALIGN, 4, struct.pack("<I", 24)),))),
    ("alignment -32, which", header(facts=(fact(ALIGN, 5, struct.pack("<i", -32)),))),
    ("alignment True, which", header(facts=(fact(ALIGN, 7, b"\x01"),))),
    ("w: truncated: ", header(entry("w"), facts=(fact(ALIGN, 4, struct.pack("<I", 1 << 31)),))),
]


@pytest.mark.parametrize(("told", "data"), LIES)
def test_lies_are_named(told: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(FileError, match=told) as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path, found = whole(tmp_path)
    path.write_bytes(path.read_bytes()[: found.tensors[-1].offset + 1])
    with pytest.raises(FileError, match="truncated while it was read"):
        found.bad_halves(found.tensors[-1])
    path.unlink()
    with pytest.raises(FileError, match="No such file"):
        found.bad_halves(found.tensors[-1])
    with pytest.raises(FileError, match="not a regular file"):
        read(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A file of gguf-py, and a path to write others to."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_token_list(["a", "bc", ""])
    writer.add_token_scores([0.0, -1.0, 2.5])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_tensor("norm", np.ones(8, np.float32))
    writer.add_tensor("w", np.zeros((2, 36), np.uint8), raw_dtype=GGMLQuantizationType.Q4_0)
    writer.add_tensor("v", np.zeros((2, 3, 4), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read(path)
    assert [(t.name, t.shape, t.rows, t.columns) for t in found.tensors] == [
        ("norm", (8,), 1, 8), ("w", (64, 2), 2, 64), ("v", (4, 3, 2), 6, 4),
    ]  # fmt: skip
    return path, path.read_bytes()


def outcome(path: Path, data: bytes) -> str:
    """Whole, or what is wrong; every tensor that is said to be whole can be read."""
    path.write_bytes(data)
    try:
        found = read(path)
    except FileError as error:
        return str(error)
    assert found.version in (2, 3)
    for tensor in found.tensors:
        assert tensor.offset + tensor.size <= len(data)
        if tensor.type is not None:
            found.bad_halves(tensor)
    return "whole"


edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
wide = st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1])


@settings(max_examples=400, deadline=None)
@given(changes=edits)
def test_any_bytes_changed_give_a_header_or_an_error(small: tuple[Path, bytes], changes: list[tuple[int, int]]) -> None:
    path, data = small
    raw = bytearray(data)
    for at, byte in changes:
        raw[at % len(raw)] = byte
    assert outcome(path, bytes(raw))


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 10**6), value=wide, size=st.sampled_from([4, 8]))
def test_any_count_changed_gives_a_header_or_an_error(
    small: tuple[Path, bytes], at: int, value: int, size: int
) -> None:
    path, data = small
    raw, at = bytearray(data), at % (len(data) - 8)
    raw[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    assert outcome(path, bytes(raw))


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 10**6), begin=st.integers(0, 10**6), length=st.integers(0, 64))
def test_bytes_cut_off_or_out_give_a_header_or_an_error(
    small: tuple[Path, bytes], cut: int, begin: int, length: int
) -> None:
    path, data = small
    begin, cut = begin % len(data), cut % (len(data) + 1)
    path.write_bytes(data)
    end = max(tensor.offset + tensor.size for tensor in read(path).tensors)  # then comes padding
    assert (outcome(path, data[:cut]) == "whole") == (cut >= end)
    assert outcome(path, data[:begin] + data[begin + length :])


def test_reading_a_header_takes_no_more_memory_than_the_file(small: tuple[Path, bytes]) -> None:
    path, data = small
    raw = bytearray(data)
    at = raw.index(b"general.architecture") - 8
    raw[at : at + 8] = (2**62).to_bytes(8, "little")
    tracemalloc.start()
    assert "ends early" in outcome(path, bytes(raw))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
