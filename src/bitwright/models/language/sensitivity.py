"""Which matrices lose the most quality, and what a language model loses as a whole, on calibration text."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

import torch

from bitwright.events import Event, Progress, Started
from bitwright.files.folder import open_checkpoint
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.cache import read_back
from bitwright.models.language.compare import compare_decoders, decoder_of
from bitwright.models.language.sink import FolderSink, sink_of
from bitwright.models.language.text import Text
from bitwright.models.language.watch import Rounding
from bitwright.models.model import Drop, Plan

WINDOWS = 16
"""Calibration windows on which a loss of quality is measured."""
LOOK = 4
"""Calibration windows that rank the matrices."""

Read = Callable[[str], torch.Tensor]


def drop(plan: Plan, arch: Architecture, text: Text) -> Generator[Event, None, Drop]:
    """How much perplexity rises on calibration text, in percent, with the plan's matrices quantized."""
    p = decoder_of(plan.source)
    written, network = open_checkpoint(sink_of(plan).folder), Architecture.open(plan.source)
    kept = read_back(written, network) if isinstance(written, QuantizedCheckpoint) else None
    q = Decoder(network, _reader(plan, arch), rounding=_rounding(plan), kept=kept)
    found = yield from compare_decoders(
        p, q, text.calibration[:WINDOWS], budget=None, spill=plan.partial, phase="compare"
    )
    before, after = found.perplexity
    return Drop("perplexity", 100 * (after / before - 1), "%", "rises")


def _reader(plan: Plan, arch: Architecture) -> Read:
    """Tensors as the output would hold them: the plan's matrices decoded, all others the source's."""
    assert isinstance(plan.sink, FolderSink)
    written, sink = arch.divide(open_checkpoint(plan.sink.folder)), plan.sink

    def read(name: str) -> torch.Tensor:
        item = plan.items.get(name)
        if item is None or arch.apart(item.part):
            return arch.checkpoint.read(name)
        weight = f"{sink.module(item)}.weight"
        if isinstance(written, QuantizedCheckpoint) and weight in written.quantized:
            decoded: torch.Tensor = written.qtensor(weight).decode()
            return decoded
        return written.read(weight)

    return read


def _rounding(plan: Plan) -> Rounding:
    """How the output's runtime rounds the inputs of the plan's matrices."""
    assert isinstance(plan.sink, FolderSink)
    written, sink = open_checkpoint(plan.sink.folder), plan.sink

    def rounding(name: str, x: torch.Tensor) -> torch.Tensor:
        if name not in plan.items or not isinstance(written, QuantizedCheckpoint):
            return x
        return written.round_inputs(f"{sink.module(plan.items[name])}.weight", x)

    return rounding


def rank(plan: Plan, arch: Architecture, text: Text) -> Generator[Event, None, list[str]]:
    """The plan's matrices by how much of their block's output error is gone when they alone stay float.

    Each block gets the float model's own inputs, and its error is held against the power of what the block adds to
    them, so that blocks can be compared; an embedding's is that of the first block's input. One run of a block for each
    of its matrices, on a few windows.
    """
    yield Started("rank", f"{len(plan.items)} matrices by what they cost")
    decoder, read = Decoder(Architecture.open(plan.source)), _reader(plan, arch)
    passage = Passage(text.calibration[:LOOK])
    hidden = decoder.enter(passage)
    scores: dict[str, float] = dict.fromkeys(plan.items, 0.0)
    done = 0
    for name in (item.name for item in plan.items.values() if item.part.lookup):

        def one_rounded(wanted: str, name: str = name) -> torch.Tensor:
            return read(wanted) if wanted == name else decoder.read(wanted)

        rounded = Decoder(Architecture.open(plan.source), one_rounded)
        error = rounded.enter(Passage(passage.ids)) - hidden
        scores[name] = float(error.double().square().sum()) / (float(hidden.double().square().sum()) or 1.0)
        rounded.close()
        done += 1
        yield Progress("rank", done, len(plan.items), name)
    for block in range(arch.count):
        mine = [e.name for e in arch.tensors_of(block) if e.name in plan.items]

        def run(floats: set[str], passage: Passage, block: int = block, x: torch.Tensor = hidden) -> torch.Tensor:
            names = [e.name for e in arch.tensors_of(block)]
            weights = {name: arch.checkpoint.read(name) if name in floats else read(name) for name in names}
            with decoder.loaded(block, weights):
                return decoder.run(block, x, passage)

        before = replace(passage)
        exact = run(set(mine), passage)
        power = float((exact - hidden).double().square().sum()) or 1.0

        def noise(y: torch.Tensor, exact: torch.Tensor = exact) -> float:
            return float((y - exact).double().square().sum())

        every = noise(run(set(), replace(before))) if mine else 0.0
        for name in mine:
            scores[name] = (every - noise(run({name}, replace(before)))) / power
            done += 1
            yield Progress("rank", done, len(plan.items), name)
        hidden = exact
    return sorted(scores, key=lambda name: -scores[name])
