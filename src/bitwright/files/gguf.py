"""GGUF files, as llama.cpp writes them: what they hold, and the scales that are looked at without decoding.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and what llama.cpp's `gguf_init_from_file` accepts;
types and their block sizes: gguf-py's constants.py, where the scales lie in a block: ggml-common.h (block_q4_0 ...).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bitwright.errors import FileError
from bitwright.files import gguf_shards as shards
from bitwright.files.plain import require_regular

MAGIC, ENDING = b"GGUF", ".gguf"
VERSIONS = (2, 3)
MOST = 1 << 20
"""Entries of metadata and tensors: more means that the file is no GGUF."""
AXES = 4
"""Axes of a tensor at most (GGML_MAX_DIMS)."""
MARK = {"quantization_config": {"quant_method": "gguf"}}
"""What the config of a model in a GGUF file says besides."""
AGAIN = "Download or convert it again"
TEXT, LIST = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of metadata -> how `struct` calls them."""


class Type(NamedTuple):
    """How a tensor is stored: `weights` in a block of `size` bytes, with float16 numbers at the offsets `halves`."""

    name: str
    weights: int
    size: int
    halves: tuple[int, ...] = ()


TYPES = {
    0: Type("F32", 1, 4), 1: Type("F16", 1, 2, (0,)), 2: Type("Q4_0", 32, 18, (0,)), 3: Type("Q4_1", 32, 20, (0, 2)),
    6: Type("Q5_0", 32, 22, (0,)), 7: Type("Q5_1", 32, 24, (0, 2)), 8: Type("Q8_0", 32, 34, (0,)),
    9: Type("Q8_1", 32, 40), 10: Type("Q2_K", 256, 84, (80, 82)), 11: Type("Q3_K", 256, 110, (108,)),
    12: Type("Q4_K", 256, 144, (0, 2)), 13: Type("Q5_K", 256, 176, (0, 2)), 14: Type("Q6_K", 256, 210, (208,)),
    15: Type("Q8_K", 256, 292), 16: Type("IQ2_XXS", 256, 66, (0,)), 17: Type("IQ2_XS", 256, 74, (0,)),
    18: Type("IQ3_XXS", 256, 98, (0,)), 19: Type("IQ1_S", 256, 50, (0,)), 20: Type("IQ4_NL", 32, 18, (0,)),
    21: Type("IQ3_S", 256, 110, (0,)), 22: Type("IQ2_S", 256, 82, (0,)), 23: Type("IQ4_XS", 256, 136, (0,)),
    24: Type("I8", 1, 1), 25: Type("I16", 1, 2), 26: Type("I32", 1, 4), 27: Type("I64", 1, 8), 28: Type("F64", 1, 8),
    29: Type("IQ1_M", 256, 56), 30: Type("BF16", 1, 2), 34: Type("TQ1_0", 256, 54, (52,)),
    35: Type("TQ2_0", 256, 66, (64,)), 39: Type("MXFP4", 32, 17), 40: Type("NVFP4", 64, 36),
    41: Type("Q1_0", 128, 18, (0,)),
}  # fmt: skip
PIECE = 1 << 16
"""Blocks that are looked at at once."""
Raw = np.ndarray[Any, np.dtype[np.uint8]]
"""Blocks [blocks, bytes]."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: its type's number and where it lies; `shape` has the longest run in memory first."""

    name: str
    number: int
    shape: tuple[int, ...]
    offset: int
    path: Path
    """The file that it lies in."""

    @property
    def type(self) -> Type | None:
        """How it is stored; None for a type that is not known here."""
        return TYPES.get(self.number)

    @property
    def columns(self) -> int:
        """Weights of one row, which lie side by side."""
        return self.shape[0] if self.shape else 1

    @property
    def rows(self) -> int:
        """Rows, over all axes but the first."""
        return prod(self.shape[1:])

    @property
    def blocks(self) -> int:
        """Blocks of a known type."""
        assert self.type is not None
        return self.rows * self.columns // self.type.weights

    @property
    def size(self) -> int:
        """Bytes, of a known type; 0 where that cannot be said."""
        return 0 if self.type is None else self.blocks * self.type.size


@dataclass
class Gguf:
    """The header of a file, or of all shards of a model. `facts` are its metadata; of a list only the length is kept.

    `path` is the first shard, whose metadata are those of the model.
    """

    path: Path
    version: int
    facts: dict[str, Any] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    lists: set[str] = field(default_factory=set)
    """The facts that are lists."""
    others: list[Path] = field(default_factory=list)
    """The other shards, in their order."""

    @property
    def files(self) -> list[Path]:
        """All files that it lies in."""
        return [self.path, *self.others]

    def raw(self, tensor: Tensor, first: int, count: int) -> Raw:
        """Blocks [first, first + count) of a tensor of a known type, uint8 [count, bytes].

        Raises FileError where the file has become shorter since its header was read, or cannot be read.
        """
        assert tensor.type is not None
        size = tensor.type.size
        try:
            found = np.fromfile(tensor.path, np.uint8, count * size, offset=tensor.offset + first * size)
        except OSError as error:
            raise FileError(error.strerror or str(error), where=str(tensor.path), fix="Check the path") from error
        if len(found) != count * size:
            raise FileError("truncated while it was read", where=f"{tensor.path}: {tensor.name}", fix=AGAIN)
        return found.reshape(count, size)

    def pieces(self, tensor: Tensor) -> Iterator[tuple[int, Raw]]:
        """The blocks of a tensor of a known type, a piece at a time, each with the number of its first block."""
        for first in range(0, tensor.blocks, PIECE):
            yield first, self.raw(tensor, first, min(PIECE, tensor.blocks - first))

    def bad_halves(self, tensor: Tensor) -> str | None:
        """What is wrong with the scales, or the floats, of a tensor of a known type; None where all are finite."""
        assert tensor.type is not None
        for first, raw in self.pieces(tensor):
            for values in _numbers(raw, tensor.type):
                bad = ~np.isfinite(values)
                if bad.any():
                    return f"{values[bad][0]} in block {first + int(np.argmax(bad))}"
        return None


def _numbers(raw: Raw, kind: Type) -> Iterator[np.ndarray[Any, Any]]:
    """The floating-point numbers of blocks [blocks, bytes], one array for each place in a block."""
    for at in kind.halves:
        yield np.ascontiguousarray(raw[:, at : at + 2]).view(np.float16).ravel()
    if kind.name in ("F32", "F64"):
        yield raw.view(np.float32 if kind.size == 4 else np.float64).ravel()
    if kind.name == "BF16":
        yield (np.ascontiguousarray(raw).view(np.uint16).astype(np.uint32) << 16).view(np.float32).ravel()
    if kind.name == "MXFP4":  # a power of two as a byte, of which the last is no number
        yield np.where(raw[:, 0] == 255, np.float32(np.nan), np.float32(1))
    if kind.name == "IQ1_M":  # the uppermost four bits of four words, the lowest first
        words = np.ascontiguousarray(raw[:, 48:56]).view("<u2") >> 12
        yield (words << np.array([0, 4, 8, 12], np.uint16)).sum(axis=1, dtype=np.uint16).view(np.float16)
    if kind.name == "Q8_K":
        yield np.ascontiguousarray(raw[:, :4]).view(np.float32).ravel()


class LaterShardError(FileError):
    """A shard of a model was given that is not the first, which stands for all."""


def is_gguf(path: Path) -> bool:
    """Whether a path is named like one."""
    return path.suffix.lower() == ENDING


def hint(folder: Path) -> str:
    """What to give instead of a folder that holds GGUF files; "" where it holds none."""
    found = min((path for path in folder.iterdir() if is_gguf(path)), default=None)
    return "" if found is None else f"Give the GGUF file itself: {found}"


def read(path: Path) -> Gguf:
    """The header, after holding it against the size of the file; of a model in shards those of all, given the first.

    Raises FileError for what is damaged or cut off, and for shards that are missing or do not belong together.
    """
    found = _read(path)
    count = found.facts.get(shards.COUNT, 0)
    if type(count) is not int or not 0 <= count <= shards.MOST:
        raise _wrong(path, f"{shards.COUNT} is {count!r}, no number of shards")
    if count > 1:
        _add_shards(found, count)
    return found


def _add_shards(found: Gguf, count: int) -> None:
    """Read the other shards of a model, and add their tensors to those of the first. Raises FileError as `read`."""
    path, stem = found.path, shards.stem_of(found.path)
    number, total = (_count(found, key) for key in (shards.NUMBER, shards.TENSORS))
    if path.name != (name := shards.name_of(stem, number, count)):
        what = f"says that it is shard {number + 1} of {count}, which are found by their names, and is not named so"
        raise FileError(what, where=str(path), fix=f"Name it {name}, and the others alike")
    if number:
        first = path.with_name(shards.name_of(stem, 0, count))
        what = f"is shard {number + 1} of {count} of a model"
        raise LaterShardError(what, where=str(path), fix=f"Give the first: {first}")
    homes = {tensor.name: path for tensor in found.tensors}
    for number in range(1, count):
        other = path.with_name(shards.name_of(stem, number, count))
        if not other.exists():
            what = f"is missing: shard {number + 1} of {count}"
            raise FileError(what, where=str(other), fix=f"Put it beside {path.name}, or download it again")
        shard = _read(other)
        _require_kin(found, shard, number, count)
        for tensor in shard.tensors:
            if tensor.name in homes:
                raise _wrong(other, f"lies in {homes[tensor.name].name}, too", tensor.name)
            homes[tensor.name] = other
        found.tensors += shard.tensors
        found.others.append(other)
    if len(found.tensors) != total:
        raise _wrong(path, f"{shards.TENSORS} is {total}, and its {count} shards hold {len(found.tensors)} tensors")


def _require_kin(first: Gguf, other: Gguf, number: int, count: int) -> None:
    """Raise FileError for a shard that says that it is another one, or one of another model."""
    says = tuple(_count(other, key) for key in (shards.NUMBER, shards.COUNT, shards.TENSORS))
    tensors = first.facts[shards.TENSORS]
    if says[1:] != (count, tensors):
        what = f"belongs to another model: it says {says[1]} shards of {says[2]} tensors, {first.path.name} says "
        raise _wrong(other.path, f"{what}{count} of {tensors}")
    if says[0] != number:
        raise _wrong(other.path, f"says that it is shard {says[0] + 1}, and is named as shard {number + 1}")
    key = "general.architecture"
    if key in other.facts and other.facts[key] != first.facts.get(key):
        what = f"belongs to another model: {key} is {other.facts[key]!r}, in {first.path.name} {first.facts.get(key)!r}"
        raise _wrong(other.path, what)


def _count(found: Gguf, key: str) -> int:
    """A number that a shard says. FileError where it does not."""
    value = found.facts.get(key)
    if type(value) is not int or value < 0:
        said = "nothing" if value is None else repr(value)
        raise _wrong(found.path, f"is a shard, and says {said} as {key}")
    return value


def _read(path: Path) -> Gguf:
    """The header of one file."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            return _Reader(path, file).read()
    except OSError as error:
        raise FileError(error.strerror or str(error), where=str(path), fix="Check the path") from error


class _Reader:
    """Reads a header from its beginning to its end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.size = path, file, path.stat().st_size

    def read(self) -> Gguf:
        if self.take(4) != MAGIC:
            raise self.wrong("not a GGUF file, whatever its name")
        (version,) = self.numbers("I")
        if version not in VERSIONS:
            raise self.wrong(f"GGUF version {version}; {VERSIONS[0]} and {VERSIONS[-1]} are known", foreign=True)
        tensors, facts = self.numbers("QQ")
        found = Gguf(self.path, version)
        for _ in range(self.bounded(facts, "metadata entries")):
            key = self.text()
            if key in found.facts:
                raise self.wrong(f"two entries {key!r} in the metadata")
            (kind,) = self.numbers("I")
            found.facts[key] = self.value(kind)
            if kind == LIST:
                found.lists.add(key)
        entries = [self.tensor() for _ in range(self.bounded(tensors, "tensors"))]
        align = found.facts.get("general.alignment", 32)
        if type(align) is not int or align < 1 or align & (align - 1):
            raise self.wrong(f"alignment {align!r}, which is no power of two")
        begin = -(-self.file.tell() // align) * align
        for name, shape, number, offset in entries:
            if offset % align:
                raise self.wrong(f"begins at byte {offset} of the data, which is no multiple of {align}", name)
            tensor = Tensor(name, number, shape, begin + offset, self.path)
            self.require(tensor)
            found.tensors.append(tensor)
        self.require_apart(found.tensors)
        return found

    def require(self, tensor: Tensor) -> None:
        """Raise FileError for a tensor that is not whole."""
        if tensor.type is not None and tensor.columns % tensor.type.weights:
            raise self.wrong(f"{tensor.columns} weights per row are no whole blocks of {tensor.type.name}", tensor.name)
        end = tensor.offset + tensor.size
        if end > self.size:
            raise self.wrong(f"truncated: the tensor ends at byte {end}, the file at {self.size}", tensor.name)

    def require_apart(self, tensors: list[Tensor]) -> None:
        """Raise FileError for two tensors of one name, or in one place."""
        names: set[str] = set()
        end, before = 0, ""
        for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
            if tensor.name in names:
                raise self.wrong("two tensors have this name", tensor.name)
            if tensor.offset < end:
                raise self.wrong(f"begins at byte {tensor.offset}, within {before}", tensor.name)
            names.add(tensor.name)
            end, before = tensor.offset + tensor.size, tensor.name

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text()
        if not name:
            raise self.wrong("a tensor without a name")
        (axes,) = self.numbers("I")
        if axes > AXES:
            raise self.wrong(f"{axes} axes", name)
        shape = self.numbers("Q" * axes)
        if 0 in shape:
            raise self.wrong("an axis of length 0", name)
        number, offset = self.numbers("IQ")
        return name, shape, number, offset

    def value(self, kind: int) -> Any:
        """A number or text; of a list how many entries it has."""
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            inner, count = self.numbers("IQ")
            if inner in SCALARS:
                self.skip(count * struct.calcsize(f"<{SCALARS[inner]}"))
            elif inner == TEXT:
                for _ in range(count):
                    self.skip(*self.numbers("Q"))
            else:
                raise self.wrong(f"a list of type {inner} in the metadata")
            return count
        if kind not in SCALARS:
            raise self.wrong(f"type {kind} in the metadata")
        return self.numbers(SCALARS[kind])[0]

    def text(self) -> str:
        (length,) = self.numbers("Q")
        return self.take(length).decode("utf-8", "replace")

    def bounded(self, count: int, what: str) -> int:
        if count > MOST:
            raise self.wrong(f"{count} {what} in the header")
        return count

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def take(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.size - self.file.tell() else b""
        if len(data) != count:
            raise self.wrong("truncated, or not a GGUF file: the header ends early")
        return data

    def skip(self, count: int) -> None:
        if self.file.tell() + count > self.size:
            raise self.wrong("truncated, or not a GGUF file: the header ends early")
        self.file.seek(count, 1)

    def wrong(self, what: str, name: str = "", *, foreign: bool = False) -> FileError:
        return _wrong(self.path, what, name, foreign=foreign)


def _wrong(path: Path, what: str, name: str = "", *, foreign: bool = False) -> FileError:
    """The error for what is wrong with a file, or with its tensor `name`."""
    return FileError(what, where=f"{path}: {name}" if name else str(path), fix=AGAIN, foreign=foreign)
