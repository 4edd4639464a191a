"""The loop for ONNX networks: a plan becomes a certified file, told as a stream of events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from bitwright.engine.integer.certify import certify, parts, publish
from bitwright.engine.integer.plan import Plan, require_out
from bitwright.engine.integer.quantize import prepare, quantize
from bitwright.engine.integer.sensitivity import fall_back
from bitwright.events import Event, Finished, Note, plain


def run(plan: Plan) -> Iterator[Event]:
    """Quantize, certify and rename; ends with `Finished`. Nothing is left behind where it stops before.

    Raises TensorError for values that are not finite, DataError, ResourceError, CertificationError.
    """
    require_out(plan)
    folders = [plan.partial.parent, *(folder for folder in plan.out.parents if not folder.exists())]
    plan.partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        batches = list(plan.samples[0]) if plan.samples else []
        feeds = [batch.feeds for batch in batches]
        seen = yield from prepare(plan, feeds)
        made = yield from quantize(plan, batches, seen)
        kept: list[str] = []
        limit = plan.recipe.network.max_drop
        if limit is not None:
            made, kept = yield from fall_back(plan, seen, made, batches, limit)
        for row in made.rows:
            for note in row.notes:
                yield Note(f"{row.name}: {note}")
        certificate: dict[str, Any] = plain(
            (yield from certify(plan, made, kept, list(plan.samples[1]) if plan.samples else []))
        )
        publish(plan, certificate)
    finally:
        for path in parts(plan.partial):
            path.unlink(missing_ok=True)
        for folder in folders:
            with suppress(OSError):  # it holds the output, or what is not ours
                folder.rmdir()
    yield Finished(str(plan.out), certificate)
