"""GGUF files whose every byte has its place before anything is written.

Header, metadata and the list of tensors are written by the package `gguf`; then come the tensors, each on a multiple of
the alignment (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). How a model is cut into shards says
`files.gguf_shards`.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    GGUF_DEFAULT_ALIGNMENT,
    GGMLQuantizationType,
    GGUFValueType,
    GGUFWriter,
    Keys,
    naming_convention,
)
from gguf.gguf_writer import GGUFValue

from bitwright.errors import ModelError, RecipeError, TensorError
from bitwright.files import gguf_shards as shards
from bitwright.files.containers.gguf.header import Facts
from bitwright.files.gguf import AGAIN, ENDING, SCALARS
from bitwright.files.reserved import Reserved
from bitwright.words import megabytes

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

    def __init__(self, file: str, facts: Facts, specs: Iterable[Spec], most: int | None = None) -> None:
        """Fill the file `file`; where it had more than `most` bytes, shards of at most that (`gguf_shards.cut`).

        ModelError for a fact that GGUF cannot store, RecipeError where there would be more shards than GGUF counts.
        """
        super().__init__()
        _require_storable(facts)
        self.specs = list(specs)
        self.place: dict[str, tuple[str, int, Spec]] = {}
        alignment = facts.get(Keys.General.ALIGNMENT)
        self._align = int(alignment.value) if alignment is not None else GGUF_DEFAULT_ALIGNMENT
        head = _header(facts, self.specs)
        self._place(file, head, self.specs)
        if most is not None and self.total_bytes > most:
            self.files.clear()
            self._place_shards(Path(file).stem, facts, len(head), most)

    def _place_shards(self, stem: str, facts: Facts, head: int, most: int) -> None:
        """Place all tensors in shards; `head` are the bytes of a header for all of them."""
        own = {key: fact for key, fact in facts.items() if key == Keys.General.ALIGNMENT}
        sizes = [(shards.entry_size(spec.name, len(spec.shape)), spec.size) for spec in self.specs]
        other = len(_header(own | self._marks(0, 0), ()))
        first = head - sum(entry for entry, _ in sizes) + other - len(_header(own, ()))
        found = shards.cut(sizes, (first, other), most, self._align)
        if len(found) > shards.MOST:
            raise RecipeError(
                f"{len(found):,} shards of {most:,} bytes, and GGUF counts to {shards.MOST:,}", where="max_shard_bytes",
                fix="Choose a larger size", key="max_shard_bytes",
            )  # fmt: skip
        for number, chosen in enumerate(found):
            said = (own if number else facts) | self._marks(number, len(found))
            specs = [self.specs[i] for i in chosen]
            self._place(shards.name_of(stem, number, len(found)), _header(said, specs), specs)

    def _marks(self, number: int, count: int) -> Facts:
        """What a shard says of itself."""
        return {
            shards.NUMBER: GGUFValue(number, GGUFValueType.UINT16),
            shards.COUNT: GGUFValue(count, GGUFValueType.UINT16),
            shards.TENSORS: GGUFValue(len(self.specs), GGUFValueType.INT32),
        }

    def _place(self, file: str, head: bytes, specs: Sequence[Spec]) -> None:
        """Place the tensors of one file behind its header."""
        head += bytes(-len(head) % self._align)
        offset = len(head)
        for spec in specs:
            self.place[spec.name] = (file, offset, spec)
            offset += shards.padded(spec.size, self._align)
        self.files[file] = (head, offset)

    def larger(self, most: int) -> list[str]:
        """The files of more than `most` bytes, a line each."""
        found = []
        for file, (_, size) in self.files.items():
            if size > most:
                alone = next((name for name, place in self.place.items() if place[0] == file), "metadata")
                found.append(f"{file} has {megabytes(size)}: it holds {alone} alone")
        return found

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


def _header(facts: Facts, specs: Sequence[Spec]) -> bytes:
    """What stands before the tensors' bytes, as the package writes it."""
    with tempfile.TemporaryDirectory() as folder:
        writer = GGUFWriter(None, "")
        writer.kv_data = [dict(facts)]
        if (alignment := facts.get(Keys.General.ALIGNMENT)) is not None:
            writer.data_alignment = alignment.value
        for spec in specs:
            writer.add_tensor_info(spec.name, spec.shape, np.dtype(np.float32), spec.size, spec.type)
        path = Path(folder) / "header"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return path.read_bytes()


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
