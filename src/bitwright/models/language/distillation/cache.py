"""What a teacher says of a text, in one file: a header, then piece by piece its answers, each piece with its checksum.

    4096 bytes   the header as JSON, spaces to its end
    piece        the records of CHUNK windows, fewer in the last, and their CRC-32 in 4 bytes, the lowest first

A record holds a window of `length` tokens, numbers with their lowest byte first:

    drawn   words [length, count] of 2 or 3 bytes, shares [length, count] of 2 bytes in units of 1/65535 (what
            `core.distillation.draw` and `in_units` find), and 4 bytes: the window's mean entropy, float32
    exact   the hidden states [length, width] after the last block, float32: all that its head makes logits of
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from bitwright.core.distillation import UNITS
from bitwright.errors import FileError, RecipeError
from bitwright.files.plain import parse, require_regular

HEADER = 4096
"""Bytes before the first piece."""
CHUNK = 32
"""Windows whose answers are made, and checked, together."""
VERSION = 1
"""To be raised when the same header would mean other bytes."""
SHORT = 1 << 16
"""Words whose numbers take two bytes."""
Kind = Literal["drawn", "exact"]


@dataclass(frozen=True)
class Header:
    """What decides the bytes of a cache; hashes are SHA-256 in hex.

    `teacher` is its name and its hash that of its weights and config; `text` that of the windows' tokens, `tokenizer`
    that of its words. `size` is the number of words drawn at a position, or the width of the hidden states, and
    `words` that of the vocabulary. An exact cache has temperature 1 and seed 0, which nothing in it depends on.
    """

    kind: Kind
    teacher: str
    teacher_hash: str
    tokenizer: str
    text: str
    windows: int
    length: int
    words: int
    size: int
    temperature: float = 1.0
    seed: int = 0
    version: int = VERSION

    @property
    def record(self) -> int:
        """Bytes of a window."""
        return self.layout.itemsize

    @property
    def layout(self) -> np.dtype[Any]:
        """A window's record."""
        shape = (self.length, self.size)
        if self.kind == "exact":
            return np.dtype([("hidden", "<f4", shape)])
        wide = 2 if self.words <= SHORT else 3
        return np.dtype([("words", "u1", (*shape, wide)), ("shares", "<u2", shape), ("entropy", "<f4")])

    @property
    def total(self) -> int:
        """Bytes of the whole file."""
        return HEADER + self.windows * self.record + 4 * -(-self.windows // CHUNK)

    def encode(self) -> bytes:
        """As it stands at the beginning of the file."""
        text = json.dumps({"bitwright": "teacher cache", **asdict(self)}).encode()
        assert len(text) < HEADER
        return text.ljust(HEADER - 1) + b"\n"

    @classmethod
    def decode(cls, data: bytes, path: Path) -> Header:
        """Read what `encode` wrote; FileError where it is something else."""
        fix = "Remove the file, or name another"
        try:
            table = parse(data)
            if not isinstance(table, dict) or table.pop("bitwright", None) != "teacher cache":
                raise ValueError
            if table["version"] != VERSION:
                what = f"a teacher's cache of version {table['version']}, not {VERSION}"
                raise FileError(what, where=str(path), fix=fix)
            header = cls(**table)
            if header.kind not in get_args(Kind) or min(header.windows, header.length, header.size) < 1:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise FileError("not a teacher's cache", where=str(path), fix=fix) from error
        return header

    def require_same(self, wanted: Header, path: Path) -> None:
        """Raise RecipeError, which says what differs, unless it is the header of the cache that is needed."""
        if self == wanted:
            return
        if self.teacher_hash != wanted.teacher_hash:
            what = f"holds what another teacher says: {self.teacher} ({self.teacher_hash[:12]}), not {wanted.teacher} "
            what += f"({wanted.teacher_hash[:12]})"
        elif self.tokenizer != wanted.tokenizer:
            what = f"was made with another tokenizer ({self.tokenizer[:12]}, not {wanted.tokenizer[:12]})"
        elif (self.text, self.windows, self.length) != (wanted.text, wanted.windows, wanted.length):
            what = f"is about other text: {self.windows} windows of {self.length} tokens ({self.text[:12]}), not "
            what += f"{wanted.windows} of {wanted.length} ({wanted.text[:12]})"
        else:
            ours, theirs = asdict(self), asdict(wanted)
            key = next(key for key in ours if ours[key] != theirs[key])
            what = f"was made with {key} {ours[key]}, not {theirs[key]}"
        raise RecipeError(what, where=str(path), fix="Name another --cache, or remove this file", key="cache")


@dataclass(frozen=True)
class Drawn:
    """Words [windows, length, count] int64, what each stands for float32, and each window's mean entropy [windows]."""

    words: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float32]
    entropy: npt.NDArray[np.float32]


class Cache:
    """A finished cache, whose windows are read as they are needed."""

    def __init__(self, path: Path) -> None:
        """Open it. FileError where it is none, or not finished."""
        self.path, self.header = path, read_header(path)
        size = path.stat().st_size
        if size != self.header.total:
            what = f"has {size:,} bytes, and all its windows take {self.header.total:,}"
            raise FileError(what, where=str(path), fix="Run what began it again, or remove it")

    def _records(self, windows: list[int]) -> Any:
        found = np.empty(len(windows), self.header.layout)
        with self.path.open("rb") as file:
            for i, window in enumerate(windows):
                file.seek(HEADER + window * self.header.record + 4 * (window // CHUNK))
                found[i] = np.frombuffer(file.read(self.header.record), self.header.layout)[0]
        return found

    def drawn(self, windows: list[int]) -> Drawn:
        """The words that were drawn for some windows, by their numbers."""
        records = self._records(windows)
        raw = records["words"].astype(np.int64)
        words = sum(raw[..., place] << (8 * place) for place in range(raw.shape[-1]))
        return Drawn(words, records["shares"].astype(np.float32) / UNITS, records["entropy"])

    def hidden(self, windows: list[int]) -> npt.NDArray[np.float32]:
        """The teacher's last hidden states [windows, length, width] of some windows, by their numbers."""
        found: npt.NDArray[np.float32] = self._records(windows)["hidden"]
        return found


def pack_drawn(header: Header, words: Any, units: Any, entropy: Any) -> bytes:
    """The records of windows: `words` and `units` [windows, length, count] whole numbers, `entropy` [windows]."""
    records = np.empty(len(words), header.layout)
    for place in range(records["words"].shape[-1]):
        records["words"][..., place] = (words >> (8 * place)) & 0xFF
    records["shares"], records["entropy"] = units, entropy
    return records.tobytes()


def pack_exact(header: Header, hidden: Any) -> bytes:
    """The records of windows: `hidden` [windows, length, width]."""
    records = np.empty(len(hidden), header.layout)
    records["hidden"] = hidden
    return records.tobytes()


def read_header(path: Path) -> Header:
    """The header of a cache, finished or not; FileError where it cannot be read."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            data = file.read(HEADER)
    except OSError as error:
        raise FileError(f"it cannot be read ({error.strerror})", where=str(path), fix="Name another --cache") from error
    return Header.decode(data, path)


def fill(path: Path, header: Header, answer: Callable[[range], bytes]) -> Iterator[int]:
    """Make the cache at `path`, or what is left of it; yields how many windows it holds, at first and as they grow.

    `answer(windows)` gives the records of some. What is there is kept as far as its checksums agree, so that whenever
    this is stopped, the next call goes on to the same bytes. Raises RecipeError where another cache is there.
    """
    done = 0
    if path.exists() and path.stat().st_size >= HEADER:
        read_header(path).require_same(header, path)
        done = _intact(path, header)
    else:  # stopped before it began
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header.encode())
    yield done
    if path.stat().st_size == header.total and done == header.windows:
        return
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "Wait until it is done, or name another --cache"
            raise RecipeError("another process is writing it", where=str(path), fix=fix, key="cache") from error
        file.truncate(HEADER + done * header.record + 4 * -(-done // CHUNK))
        file.seek(0, os.SEEK_END)
        while done < header.windows:
            windows = range(done, min(done + CHUNK, header.windows))
            records = answer(windows)
            assert len(records) == len(windows) * header.record
            file.write(records + zlib.crc32(records).to_bytes(4, "little"))
            file.flush()
            os.fsync(file.fileno())
            done = windows.stop
            yield done


def _intact(path: Path, header: Header) -> int:
    """How many windows from the first on have the checksums that were written."""
    with path.open("rb") as file:
        file.seek(HEADER)
        for first in range(0, header.windows, CHUNK):
            count = min(CHUNK, header.windows - first)
            left, crc = count * header.record, 0
            while left and (piece := file.read(min(left, 1 << 24))):
                crc, left = zlib.crc32(piece, crc), left - len(piece)
            if left or file.read(4) != crc.to_bytes(4, "little"):
                return first
    return header.windows
