"""GGUF files whose every byte has its place before anything is written.

Header, metadata and the list of tensors are written by the package `gguf`; then come the tensors, each on a multiple of
the alignment (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Large models are split: all files name the
number of files and tensors (`split.*`), the first one holds the metadata.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter, Keys, naming_convention

from bitwright.errors import ModelError, TensorError
from bitwright.files.containers.gguf.header import Facts
from bitwright.files.gguf import AGAIN, ENDING, SCALARS
from bitwright.files.reserved import Reserved

Bytes = np.ndarray[Any, Any]
"""Rows as they are stored, uint8 [rows, bytes per row]."""
Rows = np.ndarray[Any, Any]
PIECE = 1 << 24
"""Bytes that are read at once."""


@dataclass(frozen=True)
class Spec:
    """A tensor to be written: its shape has the longest run last, all other axes count as rows."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        weights, _ = GGML_QUANT_SIZES[self.type]
        if self.columns % weights:
            raise TensorError(
                f"{self.columns} weights per row are no whole blocks of {self.type.name}, which has {weights} in each",
                where=self.name,
                fix=f"Choose a type with blocks that divide {self.columns}",
            )

    @property
    def columns(self) -> int:
        """Weights per row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Rows; a tensor of one axis has one."""
        return prod(self.shape[:-1])

    @property
    def row_size(self) -> int:
        """Bytes per row."""
        weights, size = GGML_QUANT_SIZES[self.type]
        return self.columns // weights * size

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.row_size


class Layout(Reserved):
    """Where each tensor will lie, to the byte.

    Rows may be written in any order, an interrupted run can go on in the same files, and the finished bytes do not
    depend on how often it was interrupted.
    """

    def __init__(self, file: str, facts: Facts, specs: Iterable[Spec], max_shard: int = 0) -> None:
        """Fill the file `file`, or `NAME-00001-of-0000N.gguf` of at most `max_shard` bytes of tensors each.

        A larger tensor gets a file of its own. ModelError for a fact that GGUF cannot store.
        """
        super().__init__()
        _require_storable(facts)
        self.specs = list(specs)
        self.place: dict[str, tuple[str, int, Spec]] = {}
        with tempfile.TemporaryDirectory() as folder:
            several = sum(spec.size for spec in self.specs) > max_shard
            writer = GGUFWriter(None, "", split_max_size=max_shard if several else 0)
            writer.kv_data = [dict(facts)]
            if (alignment := facts.get(Keys.General.ALIGNMENT)) is not None:
                writer.data_alignment = alignment.value
            for spec in self.specs:
                writer.add_tensor_info(spec.name, spec.shape, np.dtype(np.float32), spec.size, spec.type)
            writer.write_header_to_file(Path(folder) / file)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            writer.close()
            paths = writer.format_shard_names(Path(folder) / file)
            for path, tensors in zip(paths, writer.tensors, strict=True):
                self._place(path, list(tensors), writer.data_alignment)

    def _place(self, path: Path, names: list[str], align: int) -> None:
        """Take the header of one file, and place its tensors behind it."""
        head = path.read_bytes()
        head += bytes(-len(head) % align)
        specs, offset = {spec.name: spec for spec in self.specs}, len(head)
        for name in names:
            self.place[name] = (path.name, offset, specs[name])
            offset += specs[name].size + -specs[name].size % align
        self.files[path.name] = (head, offset)

    def write(self, folder: Path, name: str, data: Bytes, places: int | Rows = 0, total: int = 0) -> int:
        """Write rows from row `places` on, or each to its own of them.

        Returns `total` with the sum of these rows, which does not depend on the order in which rows are written.
        """
        file, offset, spec = self.place[name]
        raw = np.ascontiguousarray(data).reshape(len(data), -1).view(np.uint8) if len(data) else data
        rows = np.arange(places, places + len(raw)) if isinstance(places, int) else places
        if raw.dtype != np.uint8 or raw.shape != (len(rows), spec.row_size):
            raise TensorError(
                f"{list(data.shape)} of {data.dtype} for {len(rows)} rows of {spec.row_size} bytes", where=name
            )
        if len(rows) and not 0 <= rows.min() <= rows.max() < spec.rows:
            raise TensorError(f"rows {rows.min()} ... {rows.max()} of {spec.rows}", where=name)
        order = np.argsort(rows)  # whole heads then make one run
        raw, rows = raw[order], rows[order]
        with (folder / file).open("r+b", buffering=0) as out:
            for first, last in _runs(rows):
                out.seek(offset + int(rows[first]) * spec.row_size)
                rest = raw[first:last].reshape(-1).data
                while rest:
                    rest = rest[out.write(rest) :]
        return total + _sum(raw, rows)

    def read(self, folder: Path, name: str, start: int = 0, stop: int | None = None) -> Bytes:
        """Rows [start, stop) of tensor `name` as they lie in `folder`. TensorError where the file ends before."""
        file, offset, spec = self.place[name]
        rows = len(range(spec.rows)[start:stop])
        found = np.fromfile(folder / file, np.uint8, rows * spec.row_size, offset=offset + start * spec.row_size)
        if found.size != rows * spec.row_size:
            raise TensorError("the file ends within it", where=f"{folder / file}: {name}", fix=AGAIN)
        return found.reshape(rows, spec.row_size)

    def checksum(self, folder: Path, name: str, rows: Rows | None = None) -> int:
        """The sum of all rows of tensor `name` as they lie in `folder`, or of some: what `write` gave for them."""
        _, _, spec = self.place[name]
        step, total = max(1, PIECE // max(spec.row_size, 1)), 0
        for start in range(0, spec.rows, step):
            here = np.arange(start, min(start + step, spec.rows))
            chosen = here if rows is None else rows[(rows >= start) & (rows < start + step)]
            if len(chosen):
                total += _sum(self.read(folder, name, start, start + step)[chosen - start], chosen)
        return total


def _require_storable(facts: Facts) -> None:
    """Raise ModelError for a fact that is not of its type: a folder's settings may hold anything."""
    for key, fact in facts.items():
        many = fact.type is GGUFValueType.ARRAY
        try:
            kinds = {GGUFValueType.get_type(value) for value in fact.value} if many else {fact.type}
            if len(kinds) > 1:
                raise ValueError("values of several types")
            for value in fact.value if many else [fact.value]:
                _require(value, *kinds)
        except (struct.error, ValueError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the value {str(fact.value)[:40]!r} cannot be stored as {fact.type.name} ({error})",
                where=key,
                fix="Correct it in the model card, config.json, generation_config.json or the tokenizer's files",
            ) from error


def _require(value: Any, kind: GGUFValueType) -> None:
    """Raise one of four errors for a value that is not of its type."""
    if kind is GGUFValueType.STRING:
        if not isinstance(value, bytes):
            value.encode()
    else:
        struct.pack(f"<{SCALARS[kind]}", value)


def _runs(rows: Rows) -> list[tuple[int, int]]:
    """[first, last) of runs of neighbouring rows."""
    if not len(rows):
        return []
    ends = np.flatnonzero(np.diff(rows) != 1) + 1
    return [*zip([0, *ends.tolist()], [*ends.tolist(), len(rows)], strict=True)]


def _sum(raw: Bytes, rows: Rows) -> int:
    """The checksums of rows, each with its number, summed."""
    return sum(zlib.crc32(row, number) for row, number in zip(raw, rows.tolist(), strict=True))


def file_name(facts: Facts, encoding: str) -> str:
    """What a file with these facts is called by GGUF's convention, e.g. `smollm2-135M-Q4_K_M.gguf`."""
    general = Keys.General
    keys = (general.NAME, general.BASENAME, general.FINETUNE, general.VERSION, general.SIZE_LABEL)
    model, base, finetune, version, size = (facts[key].value if key in facts else None for key in keys)
    return f"{naming_convention(model, base, finetune, version, size, encoding)}{ENDING}"
