"""imatrix files in both forms, and of other models."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from bitwright.errors import FileError
from bitwright.files.containers.gguf.imatrix import Entry, Imatrix, fitting, read, write
from tests.gguf import made

SQUARES = np.float32([[1, 2, 3, 4], [0.5, 0, 0.25, 8]])
GIVEN = Imatrix(
    {"blk.0.ffn_up_exps.weight": Entry(SQUARES, np.float32([4, 8])), "a.weight": Entry(SQUARES[:1], np.float32([6]))},
    chunks=3,
    chunk_size=512,
    dataset="text.txt",
)
SHAPES = {"blk.0.ffn_up_exps.weight": (2, 5, 4), "a.weight": (7, 4), "b.weight": (7, 4)}


def old(*entries: tuple[str, int, list[float]], end: bytes = b"") -> bytes:
    """The older form."""
    data = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        data += struct.pack("<i", len(name)) + name.encode()
        data += struct.pack(f"<ii{len(values)}f", calls, len(values), *values)
    return data + end


def test_what_is_written_reads_the_same_and_other_code_finds_sums_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write(path, GIVEN)
    found = read(path)
    assert (found.chunks, found.chunk_size) == (3, 512)
    assert set(found.entries) == set(GIVEN.entries)
    for name, entry in GIVEN.entries.items():
        assert np.array_equal(found.entries[name].squares, entry.squares)
        assert np.array_equal(found.entries[name].counts, entry.counts)
    reader = GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["text.txt"]
    stored = {tensor.name: tensor.data for tensor in reader.tensors}
    assert np.array_equal(stored["blk.0.ffn_up_exps.weight.in_sum2"], SQUARES * [[4], [8]])
    assert np.array_equal(stored["blk.0.ffn_up_exps.weight.counts"], [[4], [8]])


def test_experts_that_were_never_seen_count_as_ones(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write(path, Imatrix({"a": Entry(SQUARES, np.float32([4, 0]))}, chunks=1))
    assert read(path).entries["a"].squares.tolist() == [[1, 2, 3, 4], [1, 1, 1, 1]]


@pytest.mark.parametrize("end", [b"", struct.pack("<i", 7), struct.pack("<ii", 7, 3) + b"txt"])
def test_the_older_form_holds_means_times_calls(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(old(("a.weight", 4, [4, 8, 12, 16]), ("blk.0.ffn_up_exps.weight", 2, [2.0] * 8), end=end))
    found = read(path)
    assert found.entries["a.weight"].squares.tolist() == [[1, 2, 3, 4]]
    assert (found.chunks, found.dataset) == (7 if end else 0, "txt" if len(end) > 4 else "")
    fits = fitting(found, SHAPES, path)
    assert fits["blk.0.ffn_up_exps.weight"].tolist() == [[1] * 4, [1] * 4]


def test_a_quantized_file_says_what_it_was_made_with() -> None:
    assert {key: fact.value for key, fact in GIVEN.facts("i.gguf").items()} == {
        "quantize.imatrix.file": "i.gguf",
        "quantize.imatrix.dataset": "text.txt",
        "quantize.imatrix.entries_count": 2,
        "quantize.imatrix.chunks_count": 3,
    }


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"a.weight": (7, 4)}, "blk.0.ffn_up_exps.weight: the imatrix of another model: this one has no such tensor"),
        (
            SHAPES | {"a.weight": (4, 7)},
            "a.weight: the imatrix of another model: 1 x 4 columns, and this one has 1 x 7",
        ),
        (SHAPES | {"a.weight": (2, 7, 2)}, None),
        (SHAPES | {"blk.0.ffn_up_exps.weight": (8, 5, 1)}, "2 x 4 columns, and this one has 8 x 1"),
    ],
)
def test_the_imatrix_of_another_model_is_named(shapes: dict[str, tuple[int, ...]], says: str | None) -> None:
    if says is None:  # the older form does not say how many matrices there are
        assert fitting(GIVEN, shapes, Path("i.gguf"))["a.weight"].shape == (2, 2)
        return
    with pytest.raises(FileError) as error:
        fitting(GIVEN, shapes, Path("i.gguf"))
    assert says in str(error.value)
    assert str(error.value).startswith("i.gguf: ")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cut off"),
        (old(), "no entries"),
        (old(("a", 1, [1.0]))[:-1], "cut off"),
        (struct.pack("<ii", 1, -5), "-5 letters"),
        (struct.pack("<i", 1 << 30), "cut off"),
        (old(("a", 1, [float("nan")])), "a: mean squares that are negative"),
        (old(("a", 1, [-1.0])), "a: mean squares that are negative"),
        (made({"a": (0, (4,), bytes(16))}), "a GGUF file of the type 'model'"),
        (b"GGUF", "header ends early"),
    ],
)
def test_damaged_and_foreign_files_are_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "imatrix"
    path.write_bytes(data)
    with pytest.raises(FileError) as error:
        read(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_counts_that_are_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write(path, GIVEN)
    path.write_bytes(path.read_bytes().replace(b"a.weight.counts", b"a.weight.count_"))
    with pytest.raises(FileError, match=r"a.weight: its counts are missing"):
        read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "none")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="not a regular file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("form", ["gguf", "old"])
def test_a_file_that_ends_anywhere_is_refused_or_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "imatrix"
    if form == "gguf":
        write(path, GIVEN)
    else:
        path.write_bytes(
            old(("a.weight", 4, [4.0] * 4), ("b.weight", 1, [2.0] * 4), end=struct.pack("<ii", 7, 1) + b"t")
        )
    whole = path.read_bytes()
    names = set(read(path).entries)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            assert set(read(path).entries) == names
        except FileError as error:
            assert str(path) in str(error)


def test_numbers_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write(path, Imatrix({"a": Entry(np.float32([[1e30]]), np.float32([1]))}, chunks=1))
    path.write_bytes(path.read_bytes().replace(np.float32(1).tobytes(), np.float32(1e-38).tobytes()))
    with pytest.raises(FileError, match="a: mean squares that are negative, infinite"):
        read(path)
