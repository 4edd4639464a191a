"""How a budget was spent: what was predicted and what came, and which outputs were possible."""

from __future__ import annotations

import math
from typing import Any

from bitwright.engine.report.certificate import Certificate
from bitwright.engine.report.figures import round_down
from bitwright.words import megabytes


def spending(certificate: Certificate) -> str | None:
    """What was predicted beside what was measured, in one line; None where there was no budget."""
    found = certificate.get("budget")
    if found is None:
        return None
    low, high = found["predicted"]["low"], found["predicted"]["high"]
    words = f"KL predicted {found['predicted']['kl']:.2g} ({low:.2g} to {high:.2g})"
    verdict = certificate["verdict"]
    if not verdict or "kl" not in verdict:
        return f"{words}, not measured"
    value = verdict["kl"]
    outside = "" if low <= value <= high else ", outside of that"
    return f"{words}, measured {value:.2g}{outside}"


def frontier(certificate: Certificate) -> dict[str, Any] | None:
    """The possible outputs as a line of size in MB against predicted KL, logarithmic, in percent; this one on it."""
    found = certificate.get("budget")
    if found is None or len(found["frontier"]) < 2:
        return None
    sizes = [float(size) for size, _ in found["frontier"]]
    losses = [max(float(loss), 1e-9) for _, loss in found["frontier"]]
    measured = (certificate["verdict"] or {}).get("kl")
    there = [*losses, *([max(measured, 1e-9)] if measured is not None else [])]
    low = math.floor(math.log10(min(there)))
    high = max(math.ceil(math.log10(max(there))), low + 1)
    left, right = 0.96 * min(sizes) / 1e6, 1.04 * max(sizes) / 1e6

    def x(size: float) -> float:
        return 100 * (size / 1e6 - left) / (right - left)

    def y(loss: float) -> float:
        return 100 * (high - math.log10(max(loss, 10.0**low))) / (high - low)

    step = round_down((right - left) / 3)
    first = math.ceil(left / step)
    here = certificate["output"]["bytes"]
    return {
        "line": [(x(size), y(loss)) for size, loss in zip(sizes, losses, strict=True)],
        "told": [(megabytes(size), f"{loss:.2g}") for size, loss in zip(sizes, losses, strict=True)],
        "predicted": (x(here), y(found["predicted"]["kl"])),
        "band": (y(found["predicted"]["high"]), y(found["predicted"]["low"])),
        "measured": None if measured is None else (x(here), y(measured), f"{measured:.2g}"),
        "size": megabytes(here),
        "decades": [(y(10.0**k), f"{10.0**k:g}") for k in range(low, high + 1)],
        "sizes": [(x(k * step * 1e6), f"{k * step:g}") for k in range(first, int(right / step) + 1)],
    }
