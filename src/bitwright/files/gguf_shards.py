"""Shards: a GGUF model in several files, named, marked and cut as llama.cpp's `gguf-split` does it.

Sources: llama.cpp, `llama_split_path` (names), `tools/gguf-split` (what each file says, order) and
`llama-model-loader.cpp` (what is read). The first shard has all metadata; it may have no tensors.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
"""What every shard says: which it is, from 0 on; how many there are; and how many tensors they have together."""
MOST = (1 << 16) - 1
"""Shards of a model at most: both numbers have 16 bits."""
NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")


def name_of(stem: str, number: int, count: int) -> str:
    """The name of a shard.

    >>> name_of("model", 0, 3)
    'model-00001-of-00003.gguf'
    """
    return f"{stem}-{number + 1:05d}-of-{count:05d}.gguf"


def stem_of(path: Path) -> str:
    """What a file's name is made of: without its ending, and without a shard's number."""
    found = NAME.fullmatch(path.name)
    return found["stem"] if found else path.stem


def named_by(path: Path) -> list[Path]:
    """All shards, the first one first, of the model that a file's name makes it a shard of; else the file alone."""
    found = NAME.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    return [path.with_name(name_of(found["stem"], number, count)) for number in range(count)] or [path]


def is_later(path: Path) -> bool:
    """Whether a file's name is that of a shard that is not the first."""
    found = NAME.fullmatch(path.name)
    return found is not None and int(found["number"]) > 1


def lying(out: Path) -> list[Path]:
    """The shards that lie where those of an output named `out` would: in their order, however many it has."""
    found = out.parent.glob(f"{glob.escape(stem_of(out))}-*-of-*.gguf")
    return sorted(path for path in found if NAME.fullmatch(path.name) and stem_of(path) == stem_of(out))


def entry_size(name: str, axes: int) -> int:
    """Bytes of a tensor's entry in a header: its name, its shape, its type and where it lies."""
    return 8 + len(name.encode()) + 4 + 8 * axes + 4 + 8


def cut(tensors: Sequence[tuple[int, int]], heads: tuple[int, int], most: int, align: int) -> list[list[int]]:
    """Which tensors each shard has, in their order, so that no file is larger than `most` bytes.

    `tensors` are bytes of the entry and of the data, `heads` the bytes of a header without entries: of the first shard,
    and of any other. A tensor that is larger than that alone has its own shard, and so have metadata.
    """
    shards: list[list[int]] = [[]]
    head, data = heads[0], 0
    for number, (entry, size) in enumerate(tensors):
        grown = padded(head + entry, align) + data + padded(size, align)
        if grown > most and (shards[-1] or len(shards) == 1):
            shards.append([])
            head, data = heads[1], 0
        shards[-1].append(number)
        head, data = head + entry, data + padded(size, align)
    return shards


def padded(size: int, align: int) -> int:
    """Bytes up to the next multiple of the alignment."""
    return size + -size % align
