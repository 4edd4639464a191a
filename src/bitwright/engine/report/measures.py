"""What was measured, as a list of facts; each kind of model decides what its verdict contains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bitwright.engine.report.certificate import (
    Certificate,
    activation_levels,
    data,
    decibel,
    kind,
    module,
    saved,
    stages,
    words,
    worst,
)
from bitwright.models.kind import Fact
from bitwright.words import (
    apart,
    entropy,
    levels,
    megabytes,
    millions,
    milliseconds,
    plural,
    share,
    titles,
    without_unit,
)


def measures(certificate: Certificate) -> list[Fact]:
    """What the verdict measured, what it is judged by first, then the task's own measure; nothing without a verdict."""
    verdict = certificate["verdict"]
    if verdict is None:
        return []
    return kind(certificate).measures(verdict)


class Judged(NamedTuple):
    """A source that it was judged on, whether that is of the kind that calibration saw, and what was measured."""

    source: str
    placed: str
    found: list[Fact]


def beside(certificate: Certificate) -> list[Judged]:
    """The sources it was judged on, where they are several, the one judged by first."""
    verdict, of = certificate["verdict"], kind(certificate)
    if verdict is None or not verdict.get("others"):
        return []
    parts = [part for name, part in data(certificate).items() if name.startswith("heldout")]
    every = [{"source": titles([str(parts[0]["source"])])[0], **verdict}, *verdict["others"]]
    return [
        Judged(str(one["source"]), of.placed(part), of.measures(one)[:3])
        for one, part in zip(every, parts, strict=True)
    ]


def told(found: Iterable[Fact]) -> str:
    """What was measured on one source, in one line."""
    return ", ".join(f"{fact.label} {f'{fact.before} -> ' if fact.before else ''}{fact.value}" for fact in found)


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
    found = [
        Fact("Size", *without_unit(megabytes(before), megabytes(after)), saved(certificate), "quant"),
        *_parameters(certificate),
        *_stored(certificate),
        *_whole(certificate),
        *_precision(certificate),
        *_spread(measures(certificate)),
        *_others(certificate),
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


def _parameters(certificate: Certificate) -> Iterable[Fact]:
    """What stages left of the parameters; nothing where there was none."""
    done = stages(certificate)
    if done:
        before, after = done[0]["before"], done[-1]["after"]
        kept = f"{100 * after['blocks'] / max(before['blocks'], 1):.1f} % of those in the blocks"
        yield Fact("Parameters", millions(before["parameters"]), millions(after["parameters"]), kept, "quant")


def _stored(certificate: Certificate) -> Iterable[Fact]:
    """Bits of quantized weights, where there are such."""
    if certificate["rows"]:
        over = f"per weight, over {millions(certificate['quantized_weights'])} quantized weights{_study(certificate)}"
        yield Fact("Stored bits", "", f"{certificate['stored_bits_per_weight']:.3f}", over, "quant")


def _study(certificate: Certificate) -> str:
    """What the stored bits of a study copy are."""
    return "; in its format, this copy holds floats" if certificate.get("study") else ""


def _others(certificate: Certificate) -> Iterable[Fact]:
    """The first measure on each further source, with the others as its detail."""
    for source, placed, found in beside(certificate)[1:]:
        detail = f"{placed}; {told(found[1:])}" if placed else told(found[1:])
        yield Fact(f"{found[0].label} on {source}", "", found[0].value, detail, found[0].kind)


def _precision(certificate: Certificate) -> Iterable[Fact]:
    """Unique values and entropy of the whole model; nothing in certificates of earlier releases."""
    found = certificate.get("precision")
    if found and found["levels"]:
        used = levels(found["levels"], found["levels_used"])
        yield Fact("Levels used", "", used, f"per {words(certificate).part}, the mean over weights", "quant")
        detail = f"bits per weight of the codes, which take {certificate['stored_bits_per_weight']:.3f} with scales"
        yield Fact("Entropy", "", entropy(found["entropy"]), detail, "quant")
    there, bits = activation_levels(certificate)
    if there:
        detail = f"on calibration data, entropy {bits} bits per value" if bits else "chosen as it runs"
        yield Fact("Activation levels", "", there, detail, "quant")


def _whole(certificate: Certificate) -> list[Fact]:
    """Bits per parameter, where the certificate has them."""
    bits, count = certificate.get("bits_per_parameter"), certificate.get("parameters", 0)
    if bits is None:
        return []
    return [Fact("Whole model", "", f"{bits:.3f}", f"bits per parameter, over {millions(count)} parameters", "quant")]


def _spread(found: Iterable[Fact]) -> Iterable[Fact]:
    for fact in found:
        value, spread = apart(fact.value)
        yield fact._replace(value=value, detail=f"{spread} {fact.detail}".strip())
