"""How a budget was spent: what was predicted and what came, and which outputs were possible."""

from __future__ import annotations

import math
from typing import Any

from bitwright.engine.report.certificate import Certificate, words
from bitwright.engine.report.figures import round_down
from bitwright.words import level, megabytes


def spending(certificate: Certificate) -> str | None:
    """What was predicted beside what was measured, in one line; None where there was no budget."""
    found = certificate.get("budget")
    if found is None:
        return None
    noise = _of_noise(found)
    tell = _level if noise else "{:.2g}".format
    ends = [tell(found["predicted"][key]) for key in ("low", "high")]
    fixed = found.get("fixed", 0.0)  # absent in earlier certificates
    alone = f"; activations {tell(fixed)}" if fixed else ""
    name, low, high = ("SQNR", *ends[::-1]) if noise else ("KL", *ends)
    told = f"{name} predicted {tell(_predicted(found))} ({low} to {high}{alone})"
    value = _measured(certificate)
    if value is None:
        return f"{told}, not measured"
    outside = "" if found["predicted"]["low"] <= value <= found["predicted"]["high"] else ", outside of that"
    return f"{told}, measured {tell(value)}{outside}"


def frontier(certificate: Certificate) -> dict[str, Any] | None:
    """The possible outputs as a line of size in MB against predicted loss, logarithmic, in percent; this one on it."""
    found = certificate.get("budget")
    if found is None or len(found["frontier"]) < 2:
        return None
    sizes = [float(size) for size, _ in found["frontier"]]
    losses = [max(float(loss), 1e-9) for _, loss in found["frontier"]]
    measured = _measured(certificate)
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
    noise = _of_noise(found)
    return {
        "what": "noise" if noise else "KL",
        "unit": "of the power" if noise else "nats",
        "counted": "as a share of the outputs' power" if noise else f"in nats per {words(certificate).sample}",
        "line": [(x(size), y(loss)) for size, loss in zip(sizes, losses, strict=True)],
        "told": [(megabytes(size), f"{loss:.2g}") for size, loss in zip(sizes, losses, strict=True)],
        "predicted": (x(here), y(_predicted(found))),
        "band": (y(found["predicted"]["high"]), y(found["predicted"]["low"])),
        "measured": None if measured is None else (x(here), y(measured), f"{measured:.2g}"),
        "size": megabytes(here),
        "decades": [(y(10.0**k), f"{10.0**k:g}") for k in range(low, high + 1)],
        "sizes": [(x(k * step * 1e6), f"{k * step:g}") for k in range(first, int(right / step) + 1)],
    }


def _of_noise(budget: dict[str, Any]) -> bool:
    """Whether losses are noise of outputs, and not KL."""
    return "noise" in budget["predicted"]


def _predicted(budget: dict[str, Any]) -> float:
    found = budget["predicted"]
    return float(found["noise"] if _of_noise(budget) else found["kl"])


def _measured(certificate: Certificate) -> float | None:
    """What was predicted, as the verdict has it; None where it has nothing of the kind."""
    verdict, budget = certificate["verdict"] or {}, certificate["budget"]
    if not _of_noise(budget):
        return verdict.get("kl")
    levels = [verdict["sqnr_db"].get(name) for name in budget["outputs"]] if "sqnr_db" in verdict else []
    return sum(0.0 if db is None else 10 ** (-db / 10) for db in levels) / len(levels) if levels else None


def _level(noise: float) -> str:
    """Noise as a share of the power, in dB."""
    return level(-10 * math.log10(noise) if noise > 0 else None)
