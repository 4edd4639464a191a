"""How far one model folder is from another, on the same text."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch

from bitwright import machine
from bitwright.events import Event, Progress, Started
from bitwright.files.quantized import QuantizedCheckpoint, same_bytes
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, read_as
from bitwright.models.language.cache import read_back
from bitwright.models.language.evaluate import Comparison, compare
from bitwright.models.language.memory import CACHED
from bitwright.models.language.text import Text, read_heldout, require_fit
from bitwright.parallel import in_order


def decoder_of(
    folder: Path, *, exact: bool = False, rounded: bool = True, like: Decoder | None = None, device: str = "cpu"
) -> Decoder:
    """A decoder over `folder` in float32; quantized matrices go through the container's independent decoder.

    That may round them to the scale's dtype; `exact` takes our own decode, unrounded, as a float32 runtime does.
    Inputs are `rounded` where the runtime computes in 8 bits, and so are keys and values where it holds them so. An
    embedding and a head whose stored bytes are those of `like`'s folder are held once for both.
    """
    arch = Architecture.open(folder)
    checkpoint, held = arch.checkpoint, {} if like is None else _held(arch, like)

    def read(name: str) -> torch.Tensor:
        if name in held:
            return held[name]
        if not isinstance(checkpoint, QuantizedCheckpoint) or name not in checkpoint.quantized:
            return read_as(checkpoint, name, torch.float32)
        if exact:
            decoded: torch.Tensor = checkpoint.qtensor(name).decode()
            return decoded
        return _by_library(checkpoint, name)

    def rounding(name: str, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(checkpoint, QuantizedCheckpoint)
        return checkpoint.round_inputs(name, x) if name in checkpoint.quantized else x

    if not rounded or not isinstance(checkpoint, QuantizedCheckpoint):
        return Decoder(arch, read, device=device)
    rounder = rounding if checkpoint.rounds else None
    return Decoder(arch, read, rounding=rounder, kept=read_back(checkpoint, arch), device=device)


def _held(arch: Architecture, like: Decoder) -> dict[str, torch.Tensor]:
    """The embedding and the head of `arch`, where `like` holds the very same ones already."""
    found, params = {}, dict(like.model.named_parameters(remove_duplicate=False))
    for name in (arch.embedding, arch.head):
        if name is None or like.arch.targets.get(name) != arch.targets[name]:
            continue
        if same_bytes(like.arch.checkpoint, arch.checkpoint, name):
            found[name] = params[arch.targets[name]].data
    return found


def _by_library(checkpoint: QuantizedCheckpoint, name: str) -> torch.Tensor:
    """A quantized matrix as the independent decoder gives it, in float32; in pieces, as it takes 24 bytes a weight."""
    entry, least = checkpoint.entry(name), checkpoint.step(name)
    step = max(1, CACHED // entry.shape[1] // least) * least
    decoded = torch.empty(entry.shape)

    def work(start: int) -> None:
        decoded[start : start + step] = checkpoint.by_library(name, start, start + step)

    in_order(work, range(0, entry.shape[0], step), lambda _: None)
    return decoded


def compare_folders(
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
    p = decoder_of(a)
    q = decoder_of(b, like=p)
    try:
        return (yield from compare_decoders(p, q, windows, budget=budget, spill=spill, phase=phase))
    finally:
        p.close()
        q.close()


def compare_decoders(
    p: Decoder, q: Decoder, windows: torch.Tensor, *, budget: int | None, spill: Path | None, phase: str
) -> Generator[Event, None, Comparison]:
    """The same for two decoders."""
    yield Started(phase, f"{len(windows)} windows of {windows.shape[1]} tokens through both models")
    room = machine.default_ceiling() // 4 if budget is None else budget
    steps = compare(p, q, windows, budget=room, folder=spill)
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield Progress(phase, done, total, "comparing on held-out text")


def compare_on_text(
    a: Path, b: Path, text: Text, budget: int, more: Mapping[str, Any]
) -> Generator[Event, None, dict[str, Any]]:
    """The verdict on a written folder `b`: on the held-out windows of a job's text, and on each further source.

    `budget` bounds the hidden states in memory, in bytes; the rest spills below `b`. `more` is said of it besides.
    """
    comparison = yield from compare_folders(a, b, text.heldout, budget=budget, spill=b, phase="certify")
    verdict: dict[str, Any] = {**comparison.summary(), **more}
    others: list[dict[str, Any]] = []
    for source, windows in text.others.items():
        comparison = yield from compare_folders(a, b, windows, budget=budget, spill=b, phase="certify")
        others.append({"source": source, **comparison.summary()})
    return verdict | ({"others": others} if others else {})


def compare_on(a: Path, b: Path, heldout: str, count: int, length: int) -> Generator[Event, None, Comparison]:
    """The same on `count` windows of `length` tokens of a text source."""
    windows = read_heldout(a, heldout, count, length)
    require_fit(b, windows.ids)
    return (yield from compare_folders(a, b, windows.ids))
