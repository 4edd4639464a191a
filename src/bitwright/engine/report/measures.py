"""What was measured, as a list of facts; each kind of model decides what its verdict contains."""

from __future__ import annotations

from collections.abc import Iterable

from bitwright.engine.report.certificate import Certificate, decibel, kind, module, saved, worst
from bitwright.models.kind import Fact
from bitwright.words import apart, megabytes, milliseconds, plural, share, without_unit


def measures(certificate: Certificate) -> list[Fact]:
    """What the verdict measured, what it is judged by first, then the task's own measure; nothing without a verdict."""
    verdict = certificate["verdict"]
    if verdict is None:
        return []
    return kind(certificate).measures(verdict)


def leading(certificate: Certificate) -> list[Fact]:
    """What it is judged by, and the first measure of both models: perplexity, accuracy, word errors."""
    found = measures(certificate)
    return found[:1] + [fact for fact in found[1:] if fact.before][:1]


def speed(certificate: Certificate) -> list[Fact]:
    """How fast a network runs compared with the float one, and its share in integers; nothing if it was not run."""
    found = certificate.get("speed")
    if not found:
        return []
    pair = without_unit(milliseconds(found["float_ms"]), milliseconds(found["integer_ms"]))
    run = f"batch {found['batch']}, {plural(found['threads'], 'thread')}, median of {plural(found['runs'], 'run')}"
    left = (
        f"{plural(found['conversions'], 'conversion')} and {plural(len(found['float_products']), 'float product')} left"
    )
    return [
        Fact("Latency", *pair, f"{found['ratio']:.2f} times the speed; {run}", "quant"),
        Fact("Integers", "", share(found["integer_share"]), f"of the time in integer kernels; {left}"),
    ]


def facts(certificate: Certificate) -> list[Fact]:
    """The key figures, for Markdown and HTML; an interval stands with the detail."""
    before, after = certificate["source"]["bytes"], certificate["output"]["bytes"]
    bits, weights = certificate["stored_bits_per_weight"], certificate["quantized_weights"]
    millions = f"{weights / 1e6:.1f} M" if weights >= 1e5 else f"{weights:,}"
    found = [
        Fact("Size", *without_unit(megabytes(before), megabytes(after)), saved(certificate), "quant"),
        Fact("Stored bits", "", f"{bits:.3f}", f"per weight, over {millions} quantized weights", "quant"),
        *_spread(measures(certificate)),
        *speed(certificate),
    ]
    output, lowest = worst(certificate, "output_error"), worst(certificate, "sqnr")
    if output:
        found.append(Fact("Largest output error", "", share(output["output_error"]), module(output["name"]), "error"))
    if lowest:
        found.append(Fact("Lowest weight SQNR", "", decibel(lowest), module(lowest["name"]), "error"))
    if certificate["peak_memory_bytes"]:
        found.append(Fact("Peak memory", "", megabytes(certificate["peak_memory_bytes"]), "of the whole run"))
    return found


def _spread(found: Iterable[Fact]) -> Iterable[Fact]:
    for fact in found:
        value, spread = apart(fact.value)
        yield fact._replace(value=value, detail=f"{spread} {fact.detail}".strip())
