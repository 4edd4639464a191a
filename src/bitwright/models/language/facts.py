"""What a certificate of a language model says, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bitwright.models.kind import Fact
from bitwright.words import kl_text, measured, megabytes, number, share, signed, without_unit

SEEN = 0.05
"""Share of held-out text that calibration may hold without a warning: phrases recur in any text."""
IN, OUT = "in domain", "out of domain"
"""What is said of held-out text."""
Verdict = Mapping[str, Any]


def measures(verdict: Verdict) -> list[Fact]:
    """Mean KL, top-1 agreement and perplexity."""
    low, high = number(verdict["perplexity_float"]), number(verdict["perplexity_quantized"])
    agreement = measured(100 * number(verdict["top1_agreement"]), 100 * number(verdict["top1_interval"]))
    tokens = f"{verdict['tokens']:,}"
    return [
        Fact("Mean KL", "", kl_text(verdict), f"per token, over {tokens} tokens", "error"),
        Fact("Top-1 agreement", "", f"{agreement} %", f"of {tokens} held-out positions rank the same token first"),
        Fact("Perplexity", f"{low:.2f}", f"{high:.2f}", perplexity_change(verdict), "quant"),
        *_cache(verdict),
    ]


def _cache(verdict: Verdict) -> list[Fact]:
    """How large keys and values are, where they are rounded."""
    found = verdict.get("cache")  # absent in earlier certificates, too
    if not found:
        return []
    sizes = without_unit(megabytes(found["bytes_float"]), megabytes(found["bytes"]))
    return [Fact("KV cache", *sizes, f"per {found['tokens']:,} tokens; {found['held']}", "quant")]


def baseless(verdict: Verdict) -> str | None:
    """Whether the float model does no better than guessing among all tokens, within a hundredth of a nat."""
    float_, tokens = number(verdict["perplexity_float"]), verdict.get("vocabulary")  # absent in earlier certificates
    if tokens is None or float_ < tokens * math.exp(-0.01):
        return None
    return f"perplexity {float_:,.1f}, and guessing among {tokens:,} tokens has {tokens:,}"


def cautions(certificate: Verdict) -> list[str]:
    """A headline on text of another kind than calibration saw; held-out text that calibration has seen."""
    parts = {name: part for name, part in (certificate["text"] or {}).items() if name.startswith("heldout")}
    lines = []
    if placed(parts.get("heldout", {})) == OUT:
        lines.append(f"{OUT.capitalize()}: calibration saw other text than {parts['heldout']['source']}.")
    for part in parts.values():
        seen = part.get("seen", 0.0)  # absent in earlier certificates
        text = part["source"] if len(parts) > 1 else "the held-out text"
        lines += [f"Flattered: calibration has {share(seen)} of {text}'s 16-token runs."] if seen > SEEN else []
    return lines


def perplexity_change(verdict: Verdict) -> str:
    """Relative change of perplexity, exp(loss increase) - 1, with the interval of the paired difference, in percent."""
    low, high = number(verdict["perplexity_float"]), number(verdict["perplexity_quantized"])
    spread = 100 * high / low * number(verdict["loss_increase_interval"])
    return f"{signed(measured(100 * (high / low - 1), spread))} %"


def readers(certificate: Verdict) -> list[str]:
    """Whose code read the written bytes back, and what came of it."""
    versions, loaded = certificate["decoder"], certificate["loaded_by_transformers"]
    libraries = [f"{name} {version}" for name, version in versions.items() if name != "transformers"]
    lines = [f"Decoded by {library}, bit for bit as by Bitwright" for library in libraries]
    if not lines:
        lines = ["Read back as float weights and compared with what was meant"]
    if not loaded or not loaded["checked"]:
        return [*lines, f"Not loaded: {loaded['why'] if loaded else 'not tried'}"]
    how = " with dequantize=True" if loaded.get("dequantize") else ""
    same = f"same answers (max KL {loaded['max_kl']:.2g} nats)"
    lines.append(f"Loaded by transformers {versions['transformers']}{how}, {same}")
    if "activations_kl" in loaded:
        lines.append(
            f"Rounding {loaded.get('rounded', 'activations')} alone costs about {loaded['activations_kl']:.2g} nats"
        )
    return lines


def describe(part: Verdict) -> list[str]:
    """What text was made of; text that the model wrote itself has only its windows, a mixture those of each source."""
    size = f"{part['windows']:,} windows of {part['length']:,} tokens"
    size += f" of {part['wanted']:,} asked for" if part["windows"] != part.get("wanted", part["windows"]) else ""
    columns = [
        f"{found['tokens']:,.3g} tokens per input column of the {name} matrix ({found['inputs']:,} inputs)"
        for name, found in part.get("per_column", {}).items()  # absent in earlier certificates, and where none is used
    ]
    if "sources" in part:
        each = (f"{one['source']}, {share(one['share'])}: {'; '.join(describe(one))}" for one in part["sources"])
        return [size, *each, *columns]
    if "read" not in part:
        return [f"{size}, written by the model itself" if part["source"] == "self" else size, *columns]
    dropped = {"blank": part["empty"], "duplicate": part["duplicate"], "left to the other part": part["other_part"]}
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
    return [
        *_domain(part),
        f"{size}, from {part['tokens']:,} tokens",
        f"{part['read']:,} texts read, {part['kept']:,} kept" + (f" ({reasons})" if reasons else ""),
        f"{share(part['distinct'])} of the vocabulary seen, {share(part['unknown'])} of the tokens unknown",
        f"{share(part['repeated'])} of the 8-token runs occurred earlier",
        *columns,
    ]


def _domain(part: Verdict) -> list[str]:
    """Whether held-out text is of the kind that calibration saw, and what shows it."""
    found = part.get("domain")  # absent in earlier certificates, and where nothing was calibrated on text
    if found is None:
        return []
    if "excess" not in found:
        return [f"{placed(part)}: {'of' if found['in'] else 'not'} a source that was calibrated on"]
    excess, spread = found["excess"], found["spread"]
    likely = f"{'less' if excess > 0 else 'more'} likely by {abs(excess):.2g} nats"
    own = f"those of {found['nearest']}, whose own windows differ by {spread:.2g}"
    return [f"{placed(part)}: its tokens are {likely} than {own}"]


def placed(part: Verdict) -> str:
    """`in domain` or `out of domain`, for held-out text of a run that was calibrated on text; else nothing."""
    found = part.get("domain")
    return "" if found is None else IN if found["in"] else OUT
