"""Certified output: it gets its final name only after independent decoders have read its bytes back correctly."""

from __future__ import annotations

import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bitwright
from bitwright import machine
from bitwright.engine import card, journal, partial
from bitwright.engine.report.certificate import read
from bitwright.engine.write import Writer
from bitwright.errors import ModelError
from bitwright.events import Event, Finished, Progress, Started, plain
from bitwright.files import hub
from bitwright.files.plain import hashes
from bitwright.models import Kind, precision
from bitwright.models.model import Plan

BINS = 96
"""Bins of the histogram that a certificate holds of the worst part."""


def certify(writer: Writer, data: Any) -> Generator[Event, None, dict[str, Any]]:
    """Complete the output under its partial name, read it back and compare; returns the certificate.

    The model's kind says who reads it back and how the whole is judged. Raises CertificationError.
    """
    plan, model, rows = writer.plan, writer.plan.model, writer.rows
    yield Started("certify", str(plan.partial))
    files = model.finish(plan)
    with ThreadPoolExecutor(1) as pool:
        # Hashing needs no interpreter lock: it runs beside the comparisons.
        sources, outputs = pool.submit(hashes, model.files), pool.submit(hashes, files)
        yield from model.verify(plan, rows, writer.sums)
        judged = yield from model.judge(plan, data)
        yield Progress("certify", 1, 1, "hashing")
        worst = min(rows.values(), key=lambda row: row.sqnr)
        return plain(  # type: ignore[no-any-return]
            {
                "bitwright": bitwright.__version__,
                "kind": model.kind.name,
                "container": plan.container.name,
                "study": plan.container.study,
                "decoder": plan.container.decoders(),
                "runtimes": model.runtimes(plan),
                "source": {**origin(plan.source), "sha256": sources.result(), "bytes": model.source_bytes},
                "output": {"sha256": outputs.result(), "bytes": sum(file.stat().st_size for file in files)},
                "effort": plan.effort.summary(),
                **({} if plan.spent is None else {"budget": plan.spent}),
                "recipe": {"sha256": plan.recipe.hash, **plan.recipe.model_dump(mode="json")},
                "stored_bits_per_weight": plan.stored_bits,
                "quantized_weights": plan.weights,
                "precision": precision.mean([rows[item.name] for item in plan.matrices]),
                "parameters": model.parameters,
                "bits_per_parameter": 8 * sum(file.stat().st_size for file in files) / max(model.parameters, 1),
                **judged,
                "kept_float": plan.floats,
                "peak_memory_bytes": machine.resident("VmHWM"),
                "notes": plan.notes,
                **({"stages": stages} if (stages := earlier(model.kind, plan.source, sources.result())) else {}),
                "rows": [row.json() for row in rows.values()],
                "histogram": model.histogram(plan, worst.name, BINS),
            }
        )


def origin(source: Path) -> dict[str, str]:
    """What a source is called, and where it was downloaded from."""
    found = hub.origin(source)
    return {"folder": hub.title(source), **({"hub": str(found)} if found else {})}


def earlier(kind: Kind, source: Path, sums: dict[str, str]) -> list[dict[str, Any]]:
    """The stages that a source came through, if its files, of SHA-256 `sums` by name, are those that were certified."""
    path = kind.certificate(source)
    if not path.is_file():
        return []
    try:
        found = read(path)
    except ModelError:  # of a foreign tool, or damaged: it says nothing of these files
        return []
    stages: list[dict[str, Any]] = found.get("stages", []) if found["output"]["sha256"] == sums else []
    return stages


def publish(plan: Plan, certificate: dict[str, Any]) -> Finished:
    """Give the output, certificate and card their final names, durably; remove what only resuming needs last."""
    written = json.dumps(certificate, indent=1, allow_nan=False, default=float) + "\n"
    plan.model.seal(plan, written, card.of(plan, certificate, written))
    for name in (journal.NAME, partial.MARK):
        (plan.partial / name).unlink(missing_ok=True)
    plan.model.publish(plan)
    return Finished(str(plan.model.written(plan)), certificate)
