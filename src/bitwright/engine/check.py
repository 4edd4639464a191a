"""Checks a quantized model from any tool, and measures its error against the float model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bitwright.engine.report.certificate import certificate_path, is_of_another, read, stale
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
        certificate = read(certificate_path(out))
        if is_of_another(out, certificate):
            return
        wrong = stale(out, certificate)
    except (BitwrightError, OSError) as error:
        yield Finding("certificate", False, str(error))
        return
    for line in wrong:
        yield Finding("certificate", False, f"{line}; its figures are not re-measured")
    if not wrong:
        names = ", ".join(certificate["output"]["sha256"])
        yield Finding("certificate", True, f"SHA-256 of {names} as certified; its other figures are not re-measured")
