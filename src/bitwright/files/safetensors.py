"""Safetensors checkpoints: a lazy reader that checks everything first, and a writer whose layout is known beforehand.

Both use plain reads and writes at offsets, never a memory map: mapped pages count as resident memory, and the
ceiling of `--max-ram` must hold for files of any size. Format: an unsigned 64-bit little-endian header length, a JSON
header {name: {dtype, shape, data_offsets}}, then the tensors (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import difflib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch

from bitwright.errors import FileError, ModelError, TensorError
from bitwright.files.gguf import hint
from bitwright.files.held import Held
from bitwright.files.plain import parse, read_text, require_regular
from bitwright.files.reserved import Reserved

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FOREIGN = ("F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2", "U16", "U32", "U64", "C64")
"""Dtypes of the format that are not read here."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class Entry:
    """One stored tensor: where it is and what it is. `offset` counts from the start of the file, sizes are bytes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    path: Path
    offset: int
    size: int
    part_of: Entry | None = None
    """The stored tensor that this is a run of rows of, where it is no tensor of its own."""

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def row_size(self) -> int:
        """Bytes of one slice along the first dimension."""
        return self.size // max(self.shape[0], 1) if self.shape else self.size


def read_header(path: Path) -> tuple[list[Entry], dict[str, str]]:
    """The tensors of one file and its metadata, after checking the header against the file's size.

    Raises FileError for a missing, truncated or corrupt file, TensorError for a dtype that Bitwright cannot read.
    """
    try:
        require_regular(path)
        total = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            if not 2 <= length <= min(MAX_HEADER, total - 8):
                raise FileError(
                    f"not a whole safetensors file: header length {length}, file {total} bytes",
                    where=str(path),
                    fix="Download or copy it again",
                )
            header = parse(file.read(length))
    except OSError as error:
        raise FileError(
            error.strerror or str(error), where=str(path), fix="Check the path and its permissions"
        ) from error
    except ValueError as error:
        raise FileError(
            f"corrupt safetensors header ({error})", where=str(path), fix="Download or copy it again"
        ) from error
    if not isinstance(header, dict):
        raise FileError("corrupt safetensors header (not a table)", where=str(path), fix="Download or copy it again")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise FileError(
            "corrupt safetensors header (metadata is not a table)", where=str(path), fix="Download or copy it again"
        )
    entries = [_entry(path, name, info, 8 + length, total) for name, info in header.items()]
    entries.sort(key=lambda entry: entry.offset)
    for before, after in zip(entries, entries[1:], strict=False):
        if before.offset + before.size > after.offset:
            raise FileError(f"tensors {before.name} and {after.name} overlap", where=str(path), fix="Download it again")
    return entries, metadata


def _entry(path: Path, name: str, info: Any, start: int, total: int) -> Entry:
    where = f"{path}: {name}"
    try:
        kind, shape = str(info["dtype"]), tuple(info["shape"])
        begin, end = info["data_offsets"]
        if not all(isinstance(n, int) for n in (*shape, begin, end)):
            raise TypeError("not whole numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise FileError("corrupt safetensors header entry", where=where, fix="Download or copy it again") from error
    if kind not in DTYPES:
        raise TensorError(
            f"dtype {kind} is not supported",
            where=where,
            fix=f"Supported: {', '.join(DTYPES)}; convert the tensor first",
            foreign=kind in FOREIGN,
        )
    size = prod(shape) * DTYPES[kind].itemsize
    if begin < 0 or end - begin != size or any(n < 0 for n in shape):
        raise FileError(
            f"corrupt header: shape {list(shape)} of {kind} needs {size} bytes, the header gives {end - begin}",
            where=where,
            fix="Download or copy it again",
        )
    if start + end > total:
        raise FileError(
            f"truncated: the tensor ends at byte {start + end}, the file at {total}",
            where=where,
            fix="Download or copy it again",
        )
    return Entry(name, DTYPES[kind], shape, path, start + begin, size)


def view_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor in main memory, not copied."""
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def read_bytes(path: Path, offset: int, into: torch.Tensor) -> None:
    """Fill the uint8 tensor `into` from `path` at `offset`; FileError where the file ends early."""
    view, done = view_bytes(into), 0
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while done < len(view):
            got = file.readinto(view[done : done + (1 << 28)])
            if not got:
                raise FileError(f"ends at byte {offset + done}", where=str(path), fix="Download or copy it again")
            done += got


class Checkpoint:
    """The tensors of a model folder (single file, or shards with an index), read one at a time on demand.

    Everything that can be wrong with the files is found here, before any work: absent shards, an index that names
    tensors no shard holds, truncation, corrupt headers.
    """

    again: ClassVar[bool] = False
    """Whether quantized matrices in it may be quantized again: often no float model is left."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`; raises ModelError or FileError, naming the file and the fix."""
        self.folder = folder
        self.quantized: Mapping[str, Held] = {}
        """Matrices that are held in a container, and how."""
        if folder.is_file():
            raise ModelError("a file, not a folder", where=str(folder), fix=f"Give the model's folder, {folder.parent}")
        if not folder.is_dir():
            raise ModelError("no such folder", where=str(folder), fix=_nearest_folder(folder))
        self.index = _read_index(folder)
        self.files = _files(folder, self.index)
        self.metadata: dict[str, str] = {}
        self.tensors: dict[str, Entry] = {}
        for path in self.files:
            entries, metadata = read_header(path)
            self.metadata.update(metadata)
            for entry in entries:
                first = self.tensors.get(entry.name)
                if first is not None:
                    raise ModelError(
                        f"tensor {entry.name} is stored twice, in {first.path.name} too",
                        where=str(path), fix="Download the index and the shards again, from one revision",
                    )  # fmt: skip
                self.tensors[entry.name] = entry
        for name, file in (self.index or {}).items():
            if name not in self.tensors or self.tensors[name].path.name != file:
                raise ModelError(
                    f"the index names tensor {name} in {file}, which does not hold it",
                    where=str(folder / INDEX),
                    fix="Download the index and the shards again, from one revision",
                )

    @cached_property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.size for entry in self.tensors.values())

    def entry(self, name: str) -> Entry:
        """The entry called `name`; ModelError with the nearest names where there is none."""
        if name not in self.tensors:
            near = difflib.get_close_matches(name, self.tensors, 3)
            raise ModelError(f"no tensor {name}", where=str(self.folder), fix=f"Nearest: {', '.join(near) or 'none'}")
        return self.tensors[name]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows [start, stop) of a tensor, in its stored dtype."""
        return self.read_entry(self.entry(name), start, stop)

    def read_entry(self, entry: Entry, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows [start, stop) of the tensor that lies at `entry`."""
        shape: tuple[int, ...]
        if not entry.shape:
            start, stop, shape = 0, 1, ()
        else:
            stop = entry.shape[0] if stop is None else min(stop, entry.shape[0])
            shape = (stop - start, *entry.shape[1:])
        raw = torch.empty((stop - start) * entry.row_size, dtype=torch.uint8)
        read_bytes(entry.path, entry.offset + start * entry.row_size, raw)
        return raw.view(entry.dtype).reshape(shape)

    def divide(self, name: str, parts: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        """Let the tensor `name` appear as these tensors (name, shape), which lie in it one after another."""
        whole, found, offset = self.tensors[name], {}, self.tensors[name].offset
        for part, shape in parts:
            size = prod(shape) * whole.dtype.itemsize
            found[part] = Entry(part, whole.dtype, shape, whole.path, offset, size, whole)
            offset += size
        if offset != whole.offset + whole.size:
            raise ValueError(f"{name} of {list(whole.shape)} is not what its parts make")
        self.tensors = {
            key: entry
            for key_, entry_ in self.tensors.items()
            for key, entry in (found.items() if key_ == name else [(key_, entry_)])
        }

    def chunks(self, name: str, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, rows) pieces of a tensor with at most `rows` rows each."""
        shape = self.entry(name).shape
        for start in range(0, shape[0] if shape else 1, rows):
            yield start, self.read(name, start, start + rows)


def _nearest_folder(folder: Path) -> str:
    siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, 1)
    if near:
        return f"Did you mean {folder.parent / near[0]}?"
    hub = len(folder.parts) == 2 and not folder.is_absolute()
    return "Give the path of a model folder" + (f", or hub:{folder.as_posix()} to download it" if hub else "")


def _read_index(folder: Path) -> dict[str, str] | None:
    path = folder / INDEX
    if not path.exists():
        return None
    try:
        weights = parse(read_text(path))["weight_map"]
        return {str(name): str(file) for name, file in weights.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError("the index cannot be read", where=str(path), fix="Download it again") from error


def _files(folder: Path, index: dict[str, str] | None) -> list[Path]:
    """The files that hold the model: the single one, or those of the index; transformers reads no others."""
    if index is None:
        if (folder / SINGLE).is_file():
            return [folder / SINGLE]
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        if others:
            raise ModelError(
                f"neither {SINGLE} nor {INDEX}: which of {len(others)} files such as {others[0]} is the model is open",
                where=str(folder), fix=f"Rename a single file to {SINGLE}, or download the index of shards",
            )  # fmt: skip
        raise ModelError(
            "not a model: no .safetensors file",
            where=str(folder),
            fix=hint(folder) or "Give a Hugging Face model folder; convert .bin or .pth weights to safetensors first",
        )
    names = sorted(set(index.values()))
    if (folder / SINGLE).is_file() and names != [SINGLE]:
        raise ModelError(
            f"two sets of weights: {SINGLE}, which transformers reads, and {len(names)} shards of {INDEX}",
            where=str(folder),
            fix="Move away the set that is not meant",
        )
    for name in names:
        if Path(name).name != name:
            raise ModelError(
                f"names {name!r}, which is not a file beside it", where=str(folder / INDEX), fix="Download it again"
            )
        if not (folder / name).is_file():
            raise ModelError(f"shard {name} is listed in the index but absent", where=str(folder), fix="Download it")
    return [folder / name for name in names]


@dataclass(frozen=True)
class Spec:
    """A tensor to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    part_of: Spec | None = None
    """The tensor that it is a part of in the file, which names that one alone; its parts follow one another."""

    @property
    def whole(self) -> Spec:
        """What the file names."""
        return self.part_of or self

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * self.dtype.itemsize


class Layout(Reserved):
    """Where each tensor of an output folder will lie, to the byte, decided before anything runs.

    Because offsets are fixed, tensors may be written in any order, an interrupted run can go on in the same files,
    and the finished bytes do not depend on how often it was interrupted.
    """

    def __init__(self, specs: Iterable[Spec], max_shard: int = 5 * 10**9) -> None:
        """Fill shards of at most `max_shard` bytes in the order given (a larger tensor gets its own)."""
        super().__init__()
        shards: list[list[Spec]] = [[]]
        used = 0
        for spec in specs:
            begun = bool(shards[-1]) and spec.part_of is not None and shards[-1][-1].part_of == spec.part_of
            if shards[-1] and not begun and used + spec.whole.size > max_shard:
                shards.append([])
                used = 0
            shards[-1].append(spec)
            used += spec.size
        self.place: dict[str, tuple[str, int, Spec]] = {}
        for number, shard in enumerate(shards, 1):
            file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            # Widest dtypes first keeps every tensor aligned to its own element size.
            shard = sorted(shard, key=lambda spec: -spec.dtype.itemsize)
            header: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
            offset, offsets = 0, {}
            for spec in shard:
                offsets[spec.name] = offset
                header.setdefault(
                    spec.whole.name,
                    {
                        "dtype": NAMES[spec.dtype],
                        "shape": list(spec.whole.shape),
                        "data_offsets": [offset, offset + spec.whole.size],
                    },
                )
                offset += spec.size
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            head = struct.pack("<Q", len(text)) + text
            self.files[file] = (head, len(head) + offset)
            for spec in shard:
                self.place[spec.name] = (file, len(head) + offsets[spec.name], spec)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.size for _, _, spec in self.place.values())

    def create(self, folder: Path) -> None:
        """Make the files as `Reserved` does, and the index of several."""
        super().create(folder)
        if len(self.files) > 1:
            index = {
                "metadata": {"total_size": self.tensor_bytes},
                "weight_map": dict(sorted((spec.whole.name, file) for file, _, spec in self.place.values())),
            }
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def write(self, folder: Path, name: str, tensor: torch.Tensor, first_row: int = 0, crc: int = 0) -> int:
        """Write `tensor` as rows [first_row, ...) of tensor `name`; returns `crc` carried on over its bytes."""
        file, offset, spec = self.place[name]
        if tensor.dtype != spec.dtype or tuple(tensor.shape[1:]) != spec.shape[1:]:
            raise TensorError(
                f"{tensor.dtype} {list(tensor.shape)} was planned as {spec.dtype} {list(spec.shape)}", where=name
            )
        raw = view_bytes(tensor.contiguous())
        row = spec.size // max(spec.shape[0], 1) if spec.shape else spec.size
        with (folder / file).open("r+b", buffering=0) as out:
            out.seek(offset + first_row * row)
            done = 0
            while done < len(raw):
                done += out.write(raw[done : done + (1 << 28)])
        return zlib.crc32(raw, crc)

    def read(self, folder: Path, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows [start, stop) of tensor `name` as they lie in `folder`."""
        file, offset, spec = self.place[name]
        entry = Entry(name, spec.dtype, spec.shape, folder / file, offset, spec.size)
        rows = len(range(spec.shape[0])[start:stop]) if spec.shape else 1
        raw = torch.empty(rows * entry.row_size, dtype=torch.uint8)
        read_bytes(entry.path, offset + start * entry.row_size, raw)
        return raw.view(spec.dtype).reshape((rows, *spec.shape[1:]) if spec.shape else ())

    def checksum(self, folder: Path, name: str) -> int:
        """CRC-32 of the bytes of tensor `name` as they lie in `folder`."""
        file, offset, spec = self.place[name]
        crc, piece = 0, 1 << 24
        for start in range(0, spec.size, piece):
            raw = torch.empty(min(piece, spec.size - start), dtype=torch.uint8)
            read_bytes(folder / file, offset + start, raw)
            crc = zlib.crc32(view_bytes(raw), crc)
        return crc
