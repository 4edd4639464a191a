"""The fewest parts that must stay float for quality to fall no further than it may."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from bitwright.engine.write import Writer
from bitwright.events import Event, Note
from bitwright.models.model import Drop, Plan
from bitwright.words import plural


def fall_back(writer: Writer, data: Any) -> Generator[Event, None, Writer]:
    """Keep the fewest of the ranked parts float with which quality drops by at most the recipe's `max_drop`.

    Judged on calibration data, so that the verdict's stay unseen. Returns the writer of the network or model that is
    to be certified; all parts but one are tried before giving up, and a note says what was reached.
    """
    plan, model = writer.plan, writer.plan.model
    limit = plan.recipe.max_drop
    assert limit is not None
    words = model.kind.words
    first = yield from model.drop(plan, data)
    if first.value <= limit:
        return _decided(writer, plan)
    if len(plan.items) < 2:
        plan.notes.append(f"{first.words}, and there is one {words.part} only")
        return _decided(writer, plan)
    order = yield from model.rank(plan, data)
    why = f"so sensitive that float was kept, to lose at most {limit:g} {first.unit}"
    tried: dict[int, tuple[Writer, Drop]] = {}

    def attempt(count: int) -> Generator[Event, None, float]:
        if count not in tried:
            candidate = plan.without(order[:count], why)
            made = Writer(candidate, writer.journal, "" if model.independent else None)
            if not model.independent:
                yield from made.run(data)
            found = yield from model.drop(candidate, data)
            tried[count] = made, found
            note = f"{plural(count, words.part, words.parts)} float: {found.words} on calibration"
            plan.notes.append(note)
            yield Note(note)
        return tried[count][1].value

    low, high, most = 0, 1, len(order) - 1  # one part at least is quantized
    while (yield from attempt(min(high, most))) > limit and high < most:
        low, high = high, high * 2
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if (yield from attempt(middle)) <= limit:
            high = middle
        else:
            low = middle
    best, reached = tried[high]
    if reached.value > limit:
        note = f"even with {plural(high, words.part, words.parts)} float {reached.words} (limit {limit:g})"
        plan.notes.append(note)
        yield Note(note)
    return _decided(writer, best.plan, best)


def _decided(writer: Writer, chosen: Plan, made: Writer | None = None) -> Writer:
    """The writer whose output is the one to certify: where a trial held the codes, they move to their final place."""
    if not writer.plan.model.independent:
        return made or writer
    final = Writer(replace(chosen, decided=True, attempt_of=None), writer.journal, FINAL)
    final.adopt(writer)
    return final


FINAL = "final:"
"""Begins the journal's names of what lies in its final place, where there was a trial."""
