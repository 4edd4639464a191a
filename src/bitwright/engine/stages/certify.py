"""The certificate of a stage's output, and the last steps to its final name."""

from __future__ import annotations

import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import bitwright
from bitwright import machine
from bitwright.engine import card, journal, partial
from bitwright.engine.certify import earlier, origin
from bitwright.events import Event, Finished, Progress, Started, plain
from bitwright.files.folder import sync
from bitwright.files.plain import hashes
from bitwright.models.stage import Stage


def certify(stage: Stage, data: Any, record: journal.Journal) -> Generator[Event, None, dict[str, Any]]:
    """Complete the output under its partial name, read it back and compare; returns the certificate.

    It has what every certificate has; no matrix of it is quantized, so `rows` is empty, and "stages" says what was
    done, to its source too where that came out of one. Raises CertificationError.
    """
    yield Started("certify", str(stage.partial))
    files = stage.finish()
    sums = {name: crc for entry in record.done.values() for name, crc in entry["sums"].items()}
    with ThreadPoolExecutor(1) as pool:
        # Hashing needs no interpreter lock: it runs beside the comparisons.
        sources, outputs = pool.submit(hashes, stage.source_files()), pool.submit(hashes, files)
        yield from stage.verify(sums)
        judged = yield from stage.judge(data)
        yield Progress("certify", 1, 1, "hashing")
        size = sum(file.stat().st_size for file in files)
        return plain(  # type: ignore[no-any-return]
            {
                "bitwright": bitwright.__version__,
                "kind": stage.kind.name,
                "container": "float",
                "study": False,
                "decoder": stage.decoders(),
                "runtimes": stage.runtimes(),
                "source": {**origin(stage.source), "sha256": sources.result(), "bytes": stage.before.bytes},
                "output": {"sha256": outputs.result(), "bytes": size},
                "recipe": {"sha256": stage.asked, "stage": stage.name, **stage.settings.model_dump(mode="json")},
                "stages": [
                    *earlier(stage.kind, stage.source, sources.result()),
                    {
                        "name": stage.name,
                        "words": stage.words,
                        "lines": stage.lines(),
                        "before": stage.before._asdict(),
                        "after": stage.after._asdict(),
                        **stage.facts(),
                        "tables": [asdict(table) for table in stage.tables(record)],
                    },
                ],
                "stored_bits_per_weight": 8 * size / max(stage.after.parameters, 1),
                "quantized_weights": 0,
                "parameters": stage.after.parameters,
                "bits_per_parameter": 8 * size / max(stage.after.parameters, 1),
                **judged,
                "kept_float": {},
                "peak_memory_bytes": machine.resident("VmHWM"),
                "notes": stage.notes,
                "rows": [],
            }
        )


def publish(stage: Stage, certificate: dict[str, Any]) -> Finished:
    """Give the output, certificate and card their final names, durably; remove what only resuming needs last."""
    written = json.dumps(certificate, indent=1, allow_nan=False, default=float) + "\n"
    stage.kind.certificate(stage.partial).write_text(written, "utf-8")
    stage.kind.card(stage.partial).write_text(card.of_stage(stage, certificate, written), "utf-8")
    stage.clean()
    sync(path for path in stage.partial.rglob("*") if path.is_file())
    for name in (journal.NAME, partial.MARK):
        (stage.partial / name).unlink(missing_ok=True)
    stage.partial.rename(stage.out)
    return Finished(str(stage.out), certificate)
