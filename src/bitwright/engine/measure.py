"""How far one model folder is from another, on the same text."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import torch

from bitwright.engine import machine
from bitwright.engine.parallel import in_order
from bitwright.engine.plan import CACHED
from bitwright.events import Event, Progress, Started
from bitwright.files.compressed_tensors import decode_by_library
from bitwright.files.folder import QuantizedCheckpoint
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder
from bitwright.models.language.evaluate import Comparison, compare


def decoder_of(folder: Path, *, exact: bool = False) -> Decoder:
    """A decoder over `folder` in float32; quantized matrices go through the compressed-tensors library.

    The library rounds them to the scale's dtype; `exact` takes our own decode, unrounded, as a float32 runtime does.
    """
    arch = Architecture.open(folder)
    checkpoint = arch.checkpoint
    read: Callable[[str], torch.Tensor] = checkpoint.read
    if isinstance(checkpoint, QuantizedCheckpoint):
        quantized = checkpoint

        def read(name: str) -> torch.Tensor:
            if name not in quantized.quantized:
                return quantized.read(name)
            if exact:
                decoded: torch.Tensor = quantized.qtensor(name).decode()
                return decoded
            return _by_library(quantized, name)

    return Decoder(arch, read)


def _by_library(checkpoint: QuantizedCheckpoint, name: str) -> torch.Tensor:
    """A quantized matrix as the compressed-tensors library decodes it, in pieces: its unpacking takes 24 bytes each."""
    entry, (_, scheme) = checkpoint.entry(name), checkpoint.quantized[name]
    step = max(1, CACHED // entry.shape[1] // scheme.rows_per_word) * scheme.rows_per_word
    decoded = torch.empty(entry.shape, dtype=entry.dtype)

    def work(start: int) -> None:
        decoded[start : start + step] = decode_by_library(checkpoint.parts(name, start, start + step), scheme)

    in_order(work, range(0, entry.shape[0], step), lambda _: None)
    return decoded


def measure_folders(
    a: Path,
    b: Path,
    windows: torch.Tensor,
    *,
    budget: int | None = None,
    spill: Path | None = None,
    phase: str = "compare",
) -> Generator[Event, None, Comparison]:
    """Compare the float model in `a` with the one in `b` on token `windows` [count, length], block by block.

    `budget` bounds the hidden states kept in memory (a quarter of what is free unless given); `spill` is the folder
    for the rest. Raises what opening either folder raises, and DataError where they cannot be compared.
    """
    yield Started(phase, f"{len(windows)} windows of {windows.shape[1]} tokens through both models")
    room = machine.default_ceiling() // 4 if budget is None else budget
    steps = compare(decoder_of(a), decoder_of(b), windows, budget=room, folder=spill)
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield Progress(phase, done, total, "comparing on held-out text")
