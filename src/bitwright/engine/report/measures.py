"""What was measured, as a list of facts: the one place where language models and networks differ in their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from bitwright.engine.report.certificate import (
    NETWORK,
    Certificate,
    decibel,
    kind,
    level,
    module,
    saved,
    worst,
)
from bitwright.words import (
    apart,
    measured,
    megabytes,
    milliseconds,
    number,
    plural,
    share,
    signed,
    without_unit,
)


class Fact(NamedTuple):
    """One figure: `before` of the float model (or ""), `value` of the quantized one; `kind` names its colour."""

    label: str
    before: str
    value: str
    detail: str
    kind: str = "plain"

    @property
    def text(self) -> str:
        """In one line, without its label."""
        return f"{self.before} -> {self.value} ({self.detail})" if self.before else f"{self.value} {self.detail}"


def measures(certificate: Certificate) -> list[Fact]:
    """What the verdict measured, what it is judged by first, then the task's own measure; nothing without a verdict."""
    verdict = certificate["verdict"]
    if verdict is None:
        return []
    return _network(verdict) if kind(certificate) is NETWORK else _language(verdict)


def leading(certificate: Certificate) -> list[Fact]:
    """What it is judged by, and the first measure of both models: perplexity, accuracy, word errors."""
    found = measures(certificate)
    return found[:1] + [fact for fact in found[1:] if fact.before][:1]


def _language(verdict: Certificate) -> list[Fact]:
    low, high = number(verdict["perplexity_float"]), number(verdict["perplexity_quantized"])
    agreement = measured(100 * number(verdict["top1_agreement"]), 100 * number(verdict["top1_interval"]))
    tokens = f"{verdict['tokens']:,}"
    return [
        Fact("Mean KL", "", kl_text(verdict), f"per token, over {tokens} tokens", "error"),
        Fact("Top-1 agreement", "", f"{agreement} %", f"of {tokens} held-out positions rank the same token first"),
        Fact("Perplexity", f"{low:.2f}", f"{high:.2f}", perplexity_change(verdict), "quant"),
    ]


def kl_text(verdict: Certificate) -> str:
    """Mean KL with its interval, in nats."""
    return f"{measured(number(verdict['kl']), number(verdict['kl_interval']))} nats"


def perplexity_change(verdict: Certificate) -> str:
    """Relative change of perplexity, exp(loss increase) - 1, with the interval of the paired difference, in percent."""
    low, high = number(verdict["perplexity_float"]), number(verdict["perplexity_quantized"])
    spread = 100 * high / low * number(verdict["loss_increase_interval"])
    return f"{signed(measured(100 * (high / low - 1), spread))} %"


def row_name(verdict: Certificate) -> str:
    """What KL is a mean over: a `token` of text, a `sample`, or a `frame` where a sample has several rows of scores."""
    if "tokens" in verdict:
        return "token"
    return "sample" if verdict["rows"] == verdict["samples"] else "frame"


def _network(v: Certificate) -> list[Fact]:
    found = []
    if "kl" in v:
        row, rows = row_name(v), plural(v["rows"], row_name(v))
        found.append(Fact("Mean KL", "", kl_text(v), f"per {row}, over {rows}", "error"))
    if "top1_float" in v:
        found.append(_accuracy(v, 1))
    if "wer_float" in v:
        spread = measured(100 * number(v["wer_increase"]), 100 * number(v["wer_increase_interval"]))
        change = f"{signed(spread)} points, over {plural(v['words'], 'word')}"
        found.append(Fact("Word errors", *_pair(v, "wer"), change, "quant"))
    if "map_float" in v:
        change = f"{points(v, 'map')}, over {plural(v['images'], 'image')}"
        found.append(Fact("mAP", *_pair(v, "map"), change, "quant"))
    if "kl" in v:
        low, high = 100 * number(v["top1_agreement_low"]), 100 * number(v["top1_agreement_high"])
        detail = f"of {rows} have the same best class (95 % interval {low:.2f} to {high:.2f} %)"
        found.append(Fact("Top-1 agreement", "", f"{100 * number(v['top1_agreement']):.2f} %", detail))
    name, value = lowest_output(v["sqnr_db"])
    where = f"in {name}" if len(v["sqnr_db"]) == 1 else f"in {name}, the lowest of {len(v['sqnr_db'])} outputs"
    found.append(Fact("Output SQNR", "", level(value), where, "error"))
    if "top5_float" in v:
        found.append(_accuracy(v, 5))
    if "cer_float" in v:
        same = f"the same text on {v['same']:,} of {plural(v['clips'], 'clip')}"
        found.append(Fact("Character errors", *_pair(v, "cer"), same, "quant"))
    if "ap50_float" in v:
        found += [Fact(f"AP {n}", *_pair(v, f"ap{n}"), points(v, f"ap{n}"), "quant") for n in (50, 75)]
    return found


def _accuracy(v: Certificate, top: int) -> Fact:
    name = f"top{top}"
    change = measured(100 * number(v[f"{name}_change"]), 100 * number(v[f"{name}_change_interval"]))
    counts = f"{v[f'{name}_gained']:,} gained, {v[f'{name}_lost']:,} lost of {v['labelled']:,}"
    word = "Accuracy" if top == 1 else f"Top-{top} accuracy"
    return Fact(word, *_pair(v, name), f"{signed(change)} points, {counts}", "quant")


def _pair(verdict: Certificate, name: str) -> tuple[str, str]:
    """A share of the float network and the other, in percent."""
    before, after = (100 * number(verdict[f"{name}_{which}"]) for which in ("float", "quantized"))
    if math.isfinite(before + after):
        return f"{before:.2f}", f"{after:.2f} %"
    return "not finite", "not finite"


def points(verdict: Certificate, name: str) -> str:
    """The change of a share, in percentage points."""
    change = 100 * number(verdict[f"{name}_change"])
    return f"{change:+.2f} points" if math.isfinite(change) else "not finite"


def lowest_output(levels: dict[str, float | None]) -> tuple[str, float | None]:
    """The output with the smallest SQNR; None is infinite."""
    return min(levels.items(), key=lambda pair: math.inf if pair[1] is None else pair[1])


def speed(certificate: Certificate) -> list[Fact]:
    """How fast a network runs beside the float one, and how much of it in integers; nothing where it was not run."""
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
