"""GGUF files, as llama.cpp writes them: what they hold, and the scales and codes that are looked at without decoding.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; types and their block sizes: llama.cpp's
gguf-py/gguf/constants.py, where the fp16 scales lie in a block: ggml-common.h (block_q4_0 ... block_q6_K).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bitwright.core.measure import Usage
from bitwright.errors import FileError
from bitwright.files.gguf_codes import CODES

MAGIC, ENDING = b"GGUF", ".gguf"
VERSIONS = (2, 3)
MOST = 1 << 20
"""Entries of metadata, tensors and axes, and bytes of a name: more means that the file is no GGUF."""
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
    35: Type("TQ2_0", 256, 66, (64,)), 39: Type("MXFP4", 32, 17),
}  # fmt: skip
PIECE = 1 << 16
"""Blocks that are looked at at once."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: its type's number and where it lies; `shape` has the longest run in memory first."""

    name: str
    number: int
    shape: tuple[int, ...]
    offset: int

    @property
    def type(self) -> Type | None:
        """How it is stored; None for a type that is not known here."""
        return TYPES.get(self.number)

    @property
    def blocks(self) -> int:
        """Blocks of a known type."""
        assert self.type is not None
        return prod(self.shape) // self.type.weights


@dataclass
class Gguf:
    """The header of a file. `facts` are its metadata; of a list only the length is kept."""

    path: Path
    version: int
    facts: dict[str, Any] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)

    def usage(self, tensor: Tensor) -> Usage | None:
        """How often each level of a tensor's codes is used; None where its weights have no code each."""
        if tensor.type is None or tensor.type.name not in CODES:
            return None
        code, codes_in = CODES[tensor.type.name]
        total = Usage.of(np.zeros(0, np.uint8), code)
        for _, raw in self._pieces(tensor):
            total += Usage.of(codes_in(raw), code)
        return total

    def _pieces(self, tensor: Tensor) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """The bytes of a tensor of a known type [blocks, bytes], a piece at a time, each with its first block."""
        assert tensor.type is not None
        size = tensor.type.size
        for first in range(0, tensor.blocks, PIECE):
            count = min(PIECE, tensor.blocks - first)
            raw = np.fromfile(self.path, np.uint8, count * size, offset=tensor.offset + first * size)
            yield first, raw.reshape(count, size)

    def bad_halves(self, tensor: Tensor) -> str | None:
        """What is wrong with the float16 numbers, or the float32 weights, of a tensor of a known type; else None."""
        assert tensor.type is not None
        for first, raw in self._pieces(tensor):
            for values in _numbers(raw, tensor.type):
                bad = ~np.isfinite(values)
                if bad.any():
                    return f"{values[bad][0]} in block {first + int(np.argmax(bad))}"
        return None


def _numbers(raw: np.ndarray[Any, Any], kind: Type) -> Iterator[np.ndarray[Any, Any]]:
    """The floating-point numbers of blocks [blocks, bytes], one array for each place in a block."""
    for at in kind.halves:
        yield np.ascontiguousarray(raw[:, at : at + 2]).view(np.float16).ravel()
    if kind.name in ("F32", "F64"):
        yield raw.view(np.float32 if kind.size == 4 else np.float64).ravel()
    if kind.name == "BF16":
        yield (np.ascontiguousarray(raw).view(np.uint16).astype(np.uint32) << 16).view(np.float32).ravel()


def is_gguf(path: Path) -> bool:
    """Whether a path is named like one."""
    return path.suffix.lower() == ENDING


def read(path: Path) -> Gguf:
    """The header, after holding it against the size of the file. Raises FileError for what is damaged or cut off."""
    try:
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
            found.facts[key] = self.value(*self.numbers("I"))
        entries = [self.tensor() for _ in range(self.bounded(tensors, "tensors"))]
        align = found.facts.get("general.alignment", 32)
        if not isinstance(align, int) or align < 1:
            raise self.wrong(f"alignment {align!r}")
        begin = -(-self.file.tell() // align) * align
        for name, shape, number, offset in entries:
            tensor = Tensor(name, number, shape, begin + offset)
            self.require(tensor)
            found.tensors.append(tensor)
        return found

    def require(self, tensor: Tensor) -> None:
        """Raise FileError for a tensor that is not whole."""
        if tensor.type is None:
            return
        if tensor.shape and tensor.shape[0] % tensor.type.weights:
            raise self.wrong(
                f"{tensor.shape[0]} weights per row are no whole blocks of {tensor.type.name}", tensor.name
            )
        end = tensor.offset + tensor.blocks * tensor.type.size
        if end > self.size:
            raise self.wrong(f"truncated: the tensor ends at byte {end}, the file at {self.size}", tensor.name)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text()
        (axes,) = self.numbers("I")
        shape = self.numbers("Q" * self.bounded(axes, "axes"))
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
        data = self.file.read(count) if count <= self.size else b""
        if len(data) != count:
            raise self.wrong("truncated, or not a GGUF file: the header ends early")
        return data

    def skip(self, count: int) -> None:
        if self.file.tell() + count > self.size:
            raise self.wrong("truncated, or not a GGUF file: the header ends early")
        self.file.seek(count, 1)

    def wrong(self, what: str, name: str = "", *, foreign: bool = False) -> FileError:
        where = f"{self.path}: {name}" if name else str(self.path)
        return FileError(what, where=where, fix=AGAIN, foreign=foreign)
