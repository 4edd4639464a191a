"""imatrix files of llama.cpp: the mean square of what each column of each matrix was multiplied with.

Source: llama.cpp, `tools/imatrix/imatrix.cpp` (`save_imatrix`, `save_imatrix_legacy`) and `common/imatrix-loader.cpp`.
A GGUF file holds sums of squares and counts of tokens per matrix, the older form the means times a count of chunks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, Keys
from gguf.gguf_writer import GGUFValue

from bitwright.errors import FileError
from bitwright.files import gguf
from bitwright.files.containers.gguf.header import Facts
from bitwright.files.containers.gguf.layout import Layout, Spec
from bitwright.files.plain import require_regular

Array = np.ndarray[Any, Any]
SUMS, COUNTS = ".in_sum2", ".counts"
F32 = GGMLQuantizationType.F32
FIX = "Make it again with llama-imatrix, from this model"


@dataclass(frozen=True)
class Entry:
    """One tensor: mean squares float32 [matrices, columns] (one matrix, or the experts), and how often each was seen.

    Counts are of tokens; in the older form of chunks, one for all matrices. Where a matrix was never seen, its squares
    are 1, as llama.cpp takes them.
    """

    squares: Array
    counts: Array


@dataclass(frozen=True)
class Imatrix:
    """All entries by the name of their tensor in GGUF files, and how many chunks of how many tokens were read."""

    entries: Mapping[str, Entry]
    chunks: int
    chunk_size: int = 0
    dataset: str = ""

    def facts(self, file: str) -> Facts:
        """What a quantized file says of the imatrix `file` that it was made with."""
        found = {
            "quantize.imatrix.file": GGUFValue(file, GGUFValueType.STRING),
            "quantize.imatrix.dataset": GGUFValue(self.dataset, GGUFValueType.STRING),
            "quantize.imatrix.entries_count": GGUFValue(len(self.entries), GGUFValueType.UINT32),
            "quantize.imatrix.chunks_count": GGUFValue(self.chunks, GGUFValueType.UINT32),
        }
        return {key: value for key, value in found.items() if value.value}


def read(path: Path) -> Imatrix:
    """Read either form. FileError for what is damaged, cut off, or no imatrix."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            new = file.read(len(gguf.MAGIC)) == gguf.MAGIC
        found = _read_gguf(path) if new else _Old(path.read_bytes(), path).read()
    except OSError as error:
        raise FileError(error.strerror or str(error), where=str(path), fix="Check the path") from error
    if not found.entries:
        raise _wrong(path, "it has no entries")
    for name, entry in found.entries.items():
        if not np.isfinite(entry.squares).all() or (entry.squares < 0).any():
            raise _wrong(path, "mean squares that are negative, infinite or no numbers", name)
    return found


def fitting(found: Imatrix, shapes: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, Array]:
    """The mean squares [matrices, columns] of the tensors (name -> shape) that have any.

    FileError, which names the tensor, where the imatrix is another model's.
    """
    fits = {}
    for name, entry in found.entries.items():
        if name not in shapes:
            raise _wrong(path, "the imatrix of another model: this one has no such tensor", name)
        shape = shapes[name]
        matrices, columns = prod(shape[:-2]), shape[-1] if shape else 1
        if entry.squares.size != matrices * columns or len(entry.squares) not in (1, matrices):
            stored = f"{len(entry.squares)} x {entry.squares.shape[1]}"
            needed = f"{matrices} x {columns}"
            raise _wrong(path, f"the imatrix of another model: {stored} columns, and this one has {needed}", name)
        fits[name] = entry.squares.reshape(matrices, columns)
    return fits


def write(path: Path, given: Imatrix) -> None:
    """Write the GGUF form, which llama.cpp reads."""
    facts = {
        Keys.General.TYPE: GGUFValue("imatrix", GGUFValueType.STRING),
        "imatrix.datasets": GGUFValue([given.dataset], GGUFValueType.ARRAY),
        "imatrix.chunk_count": GGUFValue(given.chunks, GGUFValueType.UINT32),
        "imatrix.chunk_size": GGUFValue(given.chunk_size, GGUFValueType.UINT32),
    }
    stored = {}
    for name, entry in sorted(given.entries.items()):
        counts = entry.counts.astype(np.float32).reshape(-1, 1)
        stored[f"{name}{SUMS}"] = (entry.squares * counts).astype(np.float32)
        stored[f"{name}{COUNTS}"] = counts
    layout = Layout(path.name, facts, [Spec(name, F32, values.shape) for name, values in stored.items()])
    layout.create(path.parent)
    for name, values in stored.items():
        layout.write(path.parent, name, values)


def _read_gguf(path: Path) -> Imatrix:
    head = gguf.read(path)
    if head.facts.get(Keys.General.TYPE) != "imatrix":
        raise _wrong(path, f"no imatrix, but a GGUF file of the type {head.facts.get(Keys.General.TYPE, 'model')!r}")
    values = {tensor.name: _values(path, tensor) for tensor in head.tensors}
    entries = {}
    for name in (name.removesuffix(SUMS) for name in values if name.endswith(SUMS)):
        sums, counts = values[f"{name}{SUMS}"], values.get(f"{name}{COUNTS}")
        if counts is None or counts.size != len(sums):
            raise _wrong(path, "its counts are missing, or not one for each matrix", name)
        counts = counts.ravel()
        with np.errstate(all="ignore"):  # what comes of damage is refused after
            squares = np.where(counts[:, None] > 0, sums / counts[:, None], 1).astype(np.float32)
        entries[name] = Entry(squares, counts)
    chunks, size = (head.facts.get(f"imatrix.chunk_{what}", 0) for what in ("count", "size"))
    return Imatrix(entries, int(chunks), int(size))


def _values(path: Path, tensor: gguf.Tensor) -> Array:
    """Float32 [matrices, columns]."""
    if tensor.number != F32:
        raise _wrong(path, "no float32 numbers", tensor.name)
    columns = tensor.shape[0] if tensor.shape else 1
    count = prod(tensor.shape)
    return np.fromfile(path, np.float32, count, offset=tensor.offset).reshape(count // max(columns, 1), columns)


class _Old:
    """Reads the form that llama.cpp wrote before October 2025, from its beginning to its end."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def read(self) -> Imatrix:
        entries = {}
        for _ in range(self.number("entries")):
            name = self.text()
            calls, size = self.number("calls"), self.number("values")
            values = np.frombuffer(self.take(4 * size), np.float32).reshape(1, -1)
            with np.errstate(all="ignore"):
                values = values / np.float32(max(calls, 1))
            entries[name] = Entry(values, np.full(1, calls, np.float32))
        rest = len(self.data) - self.at
        chunks = self.number("chunks") if rest else 0
        return Imatrix(entries, chunks, dataset=self.text() if rest > 4 else "")

    def text(self) -> str:
        return self.take(self.number("letters")).decode("utf-8", "replace")

    def number(self, what: str) -> int:
        value: int = struct.unpack("<i", self.take(4))[0]
        if value < 0:
            raise _wrong(self.path, f"no imatrix, or a damaged one: {value} {what}")
        return value

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise _wrong(self.path, "no imatrix, or one that was cut off")
        self.at += count
        return self.data[self.at - count : self.at]


def _wrong(path: Path, what: str, name: str = "") -> FileError:
    return FileError(what, where=f"{path}: {name}" if name else str(path), fix=FIX)
