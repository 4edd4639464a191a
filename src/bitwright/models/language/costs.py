"""What each format of each matrix costs in nats per token, to second order, found before anything is solved.

An error E of a matrix costs about tr(G E H E^T) / 2: H is the second moment of its inputs, G that of the slopes of the
loss at its outputs (`curvature`). E is that of scale search. An embedding, and a head of its own, have no G: there the
model is run with that tensor alone rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace

import torch

from bitwright.core.format import Format
from bitwright.core.stats import Stats
from bitwright.events import Event, Progress, Started
from bitwright.methods import Seen, registry
from bitwright.models.effort import Effort
from bitwright.models.language import memory
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, read_as
from bitwright.models.language.compare import compare_decoders, decoder_of
from bitwright.models.language.text import Text
from bitwright.models.language.turns import Turns
from bitwright.models.model import Cost, Item, Plan, Turn
from bitwright.recipe import Layer

LOOK = 4
"""Calibration windows on which a rounded embedding is judged."""
WEIGHING = 16
"""Calibration windows that G is learnt from, at most."""


def measure(
    plan: Plan,
    arch: Architecture,
    device: str,
    text: Text,
    formats: Mapping[str, Sequence[Format]],
    known: Callable[[str], bool],
) -> Generator[Event | Cost, None, None]:
    """The costs of `formats` by matrix, of all matrices that are not `known`; matrices in blocks come first."""
    yield Started("measure", f"what the formats of {len(formats)} matrices cost")
    method = registry.get(Layer().method)
    items = {
        name: replace(item, method=method, options=method.options()) if item.part.block is not None else item
        for name, item in plan.items.items()
    }
    probe = replace(plan, items=items)
    probe.effort = Effort(weighing=min(WEIGHING, len(text.calibration)))
    for turn in Turns(arch, device, probe, text, known):
        if isinstance(turn, Turn):
            for item in turn.items:
                if item.part.block is not None and not known(item.name):
                    yield Cost(item.name, _nats(plan, item, turn, formats[item.name]))
        elif isinstance(turn, Progress):
            yield replace(turn, phase="measure")
        elif isinstance(turn, Event):
            yield turn
    for item in plan.items.values():
        if item.part.block is None and not known(item.name):
            yield (yield from _alone(plan, item, text, formats[item.name]))


def _nats(plan: Plan, item: Item, turn: Turn, formats: Sequence[Format]) -> dict[str, float] | None:
    """Of a matrix in a block."""
    stats: Stats | None = turn.seen[0].stats
    if stats is None:
        return None
    found, step = dict.fromkeys((format.name for format in formats), 0.0), plan.model.piece_rows(plan, item)
    search = registry.get("mse")
    for start in range(0, item.rows, step):
        w = plan.model.rows(item, start, start + step)
        g = turn.curvature(item, start, start + len(w))
        for format in formats:
            e = w - search.solve(w, format, Seen(stats), search.options()).decode()
            weighed = e @ stats.hessian
            found[format.name] += float((weighed * (e if g is None else g @ e)).sum()) / 2
    return found


def _alone(plan: Plan, item: Item, text: Text, formats: Sequence[Format]) -> Generator[Event, None, Cost]:
    """Of a tensor outside the blocks: what the model loses with it alone rounded."""
    w, search, found = plan.model.rows(item, 0, item.rows), registry.get("mse"), {}
    for format in formats:
        rounded = search.solve(w, format, Seen(), search.options()).decode()
        arch = Architecture.open(plan.source)

        def read(name: str, arch: Architecture = arch, rounded: torch.Tensor = rounded) -> torch.Tensor:
            return rounded if name == item.name else read_as(arch.checkpoint, name, torch.float32)

        p, q = decoder_of(plan.source), Decoder(arch, read)
        try:
            comparison = yield from compare_decoders(
                p, q, text.calibration[:LOOK], budget=memory.activation_budget(plan) // 2, spill=plan.partial,
                phase="measure",
            )  # fmt: skip
        finally:
            p.close()
            q.close()
        found[format.name] = comparison.kl.value
    return Cost(item.name, found)
