"""What each format of each matrix costs in nats per token, to second order, found before anything is solved.

An error E of a matrix costs about tr(G E H E^T) / 2: H is the second moment of its inputs, G that of the slopes of the
loss at its outputs (`curvature`). E is that of scale search, of which methods that look at text leave a part. An
embedding, and a head of its own, have no G: there the model is run with that tensor alone rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace

import torch

from bitwright.core.array import Array
from bitwright.core.stats import Stats
from bitwright.events import Event, Progress, Started
from bitwright.methods import registry
from bitwright.models.costs import lies, searched
from bitwright.models.effort import Effort
from bitwright.models.language import memory
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, read_as
from bitwright.models.language.compare import compare_decoders, decoder_of
from bitwright.models.language.evaluate import Comparison
from bitwright.models.language.text import Text
from bitwright.models.language.turns import Turns
from bitwright.models.model import Cost, Item, Plan, Turn
from bitwright.recipe import Layer

LOOK = 4
"""Calibration windows on which a rounded embedding is judged."""
WEIGHING = 16
"""Calibration windows that G is learnt from, at most."""

CORRECTED, LOOKED, WHOLE = 0.25, 0.35, 0.55
"""What is left of the cost of scale search once a method that looks at text has solved a matrix: of a block, with
earlier errors made up for and without, and outside the blocks. Fitted to docs18m's KL under budgets (docs/log.md)."""

SPREAD = 2.0
"""The factor within which a KL was that was predicted so: docs18m within 1.1, SmolLM2 with a quarter of the text per
column 1.7 (docs/log.md)."""

FITTING = 1.2e-7
"""Seconds per weight and format that scale search and its cost take, of one thread."""


def seconds(choices: Mapping[str, Sequence[Item]]) -> float:
    """What measuring takes beside learning how much outputs count, about."""
    return FITTING * sum(form.rows * form.columns for forms in choices.values() for form in forms)


def measure(
    plan: Plan,
    arch: Architecture,
    device: str,
    text: Text,
    choices: Mapping[str, Sequence[Item]],
    known: Callable[[str], bool],
) -> Generator[Event | Cost, None, None]:
    """What the forms among `choices` cost, of all matrices that are not `known`; matrices in blocks come first."""
    yield Started("measure", f"what formats of {len(choices)} matrices cost")
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
                    yield Cost(item.name, _nats(plan, turn, choices[item.name]))
        elif isinstance(turn, Progress):
            yield replace(turn, phase="measure")
        elif isinstance(turn, Event):
            yield turn
    for item in plan.items.values():
        if item.part.block is None and not known(item.name):
            yield (yield from _alone(plan, text, choices[item.name]))


def _nats(plan: Plan, turn: Turn, forms: Sequence[Item]) -> dict[str, float] | None:
    """Of a matrix in a block."""
    stats: Stats | None = turn.seen[0].stats
    if stats is None:
        return None
    found, step = dict.fromkeys((form.format.name for form in forms), 0.0), plan.model.piece_rows(plan, forms[0])
    rounded = [form for form in forms if not lies(plan, form)]
    for start in range(0, forms[0].rows, step):
        w = plan.model.rows(forms[0], start, start + step)
        g = turn.curvature(forms[0], start, start + len(w))
        if g is None:  # no gradient reaches these outputs: nothing of them reaches the loss
            continue
        for form in rounded:
            e = w - searched(w, form, stats)
            found[form.format.name] += _left(plan, form) * second_order(e, stats.hessian, g)
    return found


def second_order(e: Array, h: Array, g: Array) -> float:
    """Nats per token that an error e [outputs, inputs] of a matrix costs: tr(G E H E^T) / 2, to second order."""
    return float(((e @ h) * (g @ e)).sum()) / 2


def _left(plan: Plan, form: Item) -> float:
    """What a matrix's method leaves of the cost of scale search."""
    if form.method.needs == "nothing":
        return 1.0
    if form.part.block is None:
        return WHOLE
    return CORRECTED if plan.effort.corrects else LOOKED


def _alone(plan: Plan, text: Text, forms: Sequence[Item]) -> Generator[Event, None, Cost]:
    """Of a tensor outside the blocks: what the model loses with it alone rounded."""
    name, found = forms[0].name, {}
    w = plan.model.rows(forms[0], 0, forms[0].rows)
    p = decoder_of(plan.source)
    try:
        for form in forms:
            if lies(plan, form):
                found[form.format.name] = 0.0
                continue
            q = _rounded(plan, name, searched(w, form, None))
            try:
                steps = compare_decoders(
                    p, q, text.calibration[:LOOK], budget=memory.activation_budget(plan) // 2, spill=plan.partial,
                    phase="measure",
                )  # fmt: skip
                comparison = yield from _unannounced(steps)
            finally:
                q.close()
            found[form.format.name] = _left(plan, form) * comparison.kl.value
    finally:
        p.close()
    return Cost(name, found)


def _unannounced(steps: Generator[Event, None, Comparison]) -> Generator[Event, None, Comparison]:
    """The same steps without a line for each of many like them."""
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            found: Comparison = end.value
            return found
        if not isinstance(event, Started):
            yield event


def _rounded(plan: Plan, name: str, rounded: torch.Tensor) -> Decoder:
    """The model with one tensor replaced."""
    arch = Architecture.open(plan.source)
    return Decoder(arch, lambda wanted: rounded if wanted == name else read_as(arch.checkpoint, wanted, torch.float32))
