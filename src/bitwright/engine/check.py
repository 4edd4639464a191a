"""Checks a quantized model from any tool, and measures its error against the float model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bitwright.engine.certify import hashes
from bitwright.engine.report.certificate import certificate_path, load
from bitwright.errors import BitwrightError
from bitwright.events import Event, Finding, Started
from bitwright.models import kind_of, require_same_kind


def check(path: Path, against: Path | None = None) -> Iterator[Event]:
    """Check every part of a model; yields Findings, and Rows against a float model.

    The kind of model decides what is checked; last come the hashes of a certificate, if there is one. Raises only for
    an `against` that cannot be read or compared; everything wrong with `path` is a Finding that is not good.
    """
    yield Started("check", str(path))
    kind = kind_of(path) if against is None else require_same_kind(path, against)
    yield from kind.check(path, against)
    yield from certified(path)


def certified(out: Path) -> Iterator[Finding]:
    """Whether a model still has the bytes that its certificate names; no finding without a certificate."""
    if not certificate_path(out).exists():
        return
    try:
        named: dict[str, str] = load(out)["output"]["sha256"]
        base = out if out.is_dir() else out.parent
        gone = [name for name in named if not (base / name).is_file()]
        other = [
            name for name, found in hashes(base / n for n in named if n not in gone).items() if found != named[name]
        ]
    except BitwrightError as error:
        yield Finding("certificate", False, str(error))
        return
    for name in gone:
        yield Finding("certificate", False, f"{name} is certified but missing")
    for name in other:
        yield Finding("certificate", False, f"{name} is not the certified file: its SHA-256 differs")
    if not gone and not other:
        yield Finding("certificate", True, f"SHA-256 of {', '.join(named)} as certified")
