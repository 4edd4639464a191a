"""Certificates as something to read: the verdict of one screen, Markdown, JSON, and one self-contained HTML page.

Everything said here is computed from the certificates alone; no model is opened and torch is not needed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from bitwright.errors import ModelError

Certificate = dict[str, Any]
NAME = "certificate.json"
WIDTH = 100
"""Columns of the plain-text verdict."""
MAX_BARS = 96
"""Matrices that the bar figure draws; of a larger model it shows the worst so many, and says so."""
UNMEASURED = "Quality on text was not measured"
REMEDY = "bitwright measure FLOAT OUT --heldout FILE"


class Judgement(NamedTuple):
    """What a mean KL of at most `limit` nats per token is called; `tone` is the colour that goes with the words."""

    limit: float
    words: str
    tone: str


JUDGEMENTS = (
    Judgement(0.005, "practically the float model", "good"),
    Judgement(0.02, "close to the float model", "good"),
    Judgement(0.1, "noticeably worse", "warn"),
    Judgement(0.5, "clearly damaged", "error"),
    Judgement(math.inf, "broken", "error"),
)
"""The one table of thresholds. KL is compared, not perplexity: text that both models find hard cannot hide a change."""


class Fact(NamedTuple):
    """One key figure: `before` of the float model (or ""), `value` of the quantized one; `kind` names its colour."""

    label: str
    before: str
    value: str
    detail: str
    kind: str = "plain"


# --- reading


def load(folder: Path) -> Certificate:
    """The certificate of a quantized model folder, with the folder's name under "folder". Raises ModelError."""
    path = folder / NAME
    fix = "Give a folder made by bitwright quantize"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"has no {NAME}", where=str(folder), fix=fix) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path), fix=fix) from error
    needed = {"source", "output", "recipe", "rows", "verdict"}
    if not isinstance(found, dict) or not needed <= found.keys() or not found["rows"]:
        raise ModelError("is not a certificate of Bitwright", where=str(path), fix=fix)
    return {**found, "folder": folder.resolve().name}


def judge(certificate: Certificate) -> Judgement | None:
    """The judgement by mean KL; None where quality on text was not measured."""
    verdict = certificate["verdict"]
    if verdict is None:
        return None
    kl = _number(verdict["kl"])
    return next((j for j in JUDGEMENTS if kl <= j.limit), JUDGEMENTS[-1])


def fallbacks(certificate: Certificate) -> list[str]:
    """What did not go the recipe's way, and every other note, a line each: those of the plan, then of matrices."""
    lines = list(certificate["notes"])
    lines += [f"{row['name']}: {note}" for row in certificate["rows"] for note in row["notes"]]
    return list(dict.fromkeys(lines))


def worst(certificate: Certificate, key: str) -> Certificate | None:
    """The row with the largest `output_error`, or the smallest `sqnr`; None where no matrix has that measure."""
    rows = certificate["rows"]
    if key == "sqnr":
        return min(rows, key=_sqnr, default=None)
    known = [row for row in rows if row["output_error"] is not None]
    return max(known, key=lambda row: _number(row["output_error"]), default=None)


# --- numbers in words


def _number(value: float | None) -> float:
    """A number of the JSON file; what JSON cannot hold comes back as NaN and never passes for a good value."""
    return math.nan if value is None else float(value)


def _sqnr(row: Certificate) -> float:
    """SQNR in dB; null in the file is infinite: up without error, down where the original was all zeros."""
    if row["sqnr"] is not None:
        return float(row["sqnr"])
    return math.inf if row["mse"] == 0 else -math.inf


def decibel(row: Certificate) -> str:
    """SQNR with its unit, `exact` where nothing was lost."""
    value = _sqnr(row)
    return f"{value:.1f} dB" if math.isfinite(value) else "exact" if value > 0 else "-∞ dB"


def share(value: float | None) -> str:
    """A share in 0..1 as percent with two significant digits; `not measured` for None."""
    if value is None:
        return "not measured"
    percent = 100 * value
    if percent == 0 or not math.isfinite(percent):
        return f"{percent:g} %"
    return f"{percent:.{min(6, max(0, 1 - math.floor(math.log10(abs(percent)))))}f} %"


def megabytes(size: float) -> str:
    """Bytes as MB (10^6 bytes), or GB from a thousand of them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def measured(value: float, interval: float) -> str:
    """A value with as many decimals as its 95 % interval deserves: two significant digits of the interval.

    A single window of text gives no interval: it is infinite.
    """
    if not math.isfinite(value):
        return "not finite"
    if not math.isfinite(interval):
        return f"{value:.2g} ± ∞"
    small = interval if interval > 0 else abs(value)
    decimals = min(9, max(0, 1 - math.floor(math.log10(small)))) if small > 0 else 0
    return f"{value:.{decimals}f} ± {interval:.{decimals}f}"


def kl_text(verdict: Certificate) -> str:
    """Mean KL with its interval, in nats per token."""
    return f"{measured(_number(verdict['kl']), _number(verdict['kl_interval']))} nats"


def top1_text(verdict: Certificate) -> str:
    """Share of positions where both models rank the same token first, with its interval, in percent."""
    return f"{measured(100 * _number(verdict['top1_agreement']), 100 * _number(verdict['top1_interval']))} %"


def perplexity_change(verdict: Certificate) -> str:
    """Relative change of perplexity, exp(loss increase) - 1, with the interval of the paired difference, in percent."""
    low, high = _number(verdict["perplexity_float"]), _number(verdict["perplexity_quantized"])
    spread = 100 * high / low * _number(verdict["loss_increase_interval"])
    change = measured(100 * (high / low - 1), spread)
    return f"{'' if change.startswith('-') else '+'}{change} %"


def saved(certificate: Certificate) -> str:
    """`57 % smaller`, or what happened instead."""
    ratio = certificate["output"]["bytes"] / max(certificate["source"]["bytes"], 1)
    if abs(ratio - 1) < 0.005:
        return "no smaller"
    return f"{100 * abs(1 - ratio):.0f} % {'smaller' if ratio < 1 else 'larger'}"


def scheme(certificate: Certificate) -> str:
    """Formats and methods with the matrices each took, the most used first: `int4 g128 by descent (35 matrices)`."""
    found = Counter((row["format"], row["method"]) for row in certificate["rows"]).most_common()
    if len(found) == 1:
        return f"{short_scheme(certificate)} ({found[0][1]} matrices)"
    return ", ".join(f"{form} by {method} ({count})" for (form, method), count in found)


def short_scheme(certificate: Certificate) -> str:
    """The most used format and method, and how many others there are."""
    found = Counter((row["format"], row["method"]) for row in certificate["rows"]).most_common()
    (form, method), _ = found[0]
    return f"{form} by {method}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")


def label(certificate: Certificate) -> str:
    """How a certificate is called among others: its folder, where known, and its scheme."""
    folder = certificate.get("folder")
    return f"{folder}: {short_scheme(certificate)}" if folder else short_scheme(certificate)


def module(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` -> `layers.0.mlp.up_proj`."""
    return name.removesuffix(".weight").removeprefix("model.")


def readers(certificate: Certificate) -> list[str]:
    """Whose code read the written bytes back, and what came of it."""
    versions, loaded = certificate["decoder"], certificate["loaded_by_transformers"]
    if certificate["recipe"].get("output") == "float":
        lines = ["Read back as float weights and compared with what was meant"]
    else:
        lines = [f"Decoded by compressed-tensors {versions['compressed-tensors']}, bit for bit as by Bitwright"]
    if not loaded or not loaded["checked"]:
        return [*lines, f"Not loaded by transformers: {loaded['why'] if loaded else 'not tried'}"]
    how = " with dequantize=True" if loaded.get("dequantize") else ""
    same = f"same answers (max KL {loaded['max_kl']:.2g} nats)"
    lines.append(f"Loaded by transformers {versions['transformers']}{how}, {same}")
    if "activations_kl" in loaded:
        lines.append(f"Rounding activations adds about {loaded['activations_kl']:.2g} nats, not in the verdict's KL")
    return lines


def rounds_activations(certificate: Certificate) -> bool:
    """Whether the runtime also rounds activations, whose cost is not in the verdict."""
    return any(row["format"].endswith(" activations") for row in certificate["rows"])


def headline(certificate: Certificate) -> str:
    """The sentence of judgement."""
    found, verdict = judge(certificate), certificate["verdict"]
    if found is None:
        return f"{UNMEASURED}."
    weights = ", weights only" if rounds_activations(certificate) else ""
    return f"{found.words.capitalize()}: mean KL {kl_text(verdict)} per token (95 % interval{weights})."


# --- plain text and Markdown


def verdict_lines(certificate: Certificate) -> list[str]:
    """The verdict for a terminal: judgement first, at most 12 lines of at most WIDTH columns."""
    before, after = certificate["source"]["bytes"], certificate["output"]["bytes"]
    bits = certificate["stored_bits_per_weight"]
    lines = [
        headline(certificate),
        f"Size        {megabytes(before)} -> {megabytes(after)} ({saved(certificate)}), "
        f"{bits:.3f} stored bits per quantized weight",
        f"Format      {scheme(certificate)}",
    ]
    verdict = certificate["verdict"]
    if verdict is None:
        lines.insert(1, f"Measure it  {REMEDY}")
    else:
        low, high = verdict["perplexity_float"], verdict["perplexity_quantized"]
        lines += [
            f"Top-1       {top1_text(verdict)} of {verdict['tokens']:,} held-out positions rank the same token first",
            f"Perplexity  {_number(low):.2f} -> {_number(high):.2f} ({perplexity_change(verdict)})",
        ]
    output, weights = worst(certificate, "output_error"), worst(certificate, "sqnr")
    if output:
        error = share(output["output_error"])
        lines.append(f"Worst       {error} output error, {decibel(output)} SQNR: {module(output['name'])}")
    if weights and weights is not output:
        error = f", {share(weights['output_error'])} output error" if weights["output_error"] is not None else ""
        lines.append(f"Lowest SQNR {decibel(weights)}{error}: {module(weights['name'])}")
    notes = fallbacks(certificate)
    told = ["none: nothing fell back"]
    if notes:
        told = [f"{len(notes)} fallbacks and notes, first: {notes[0]}", *notes[1:2]]
    lines += [f"{'' if i else 'Notes':<12}{line}" for i, line in enumerate(told)]
    lines += [f"{'' if i else 'Read back':<12}{line}" for i, line in enumerate(readers(certificate))]
    return [_fit(line) for line in lines]


def _fit(line: str) -> str:
    """The line in one line of at most WIDTH columns; what does not fit goes from its middle."""
    line = _one_line(line)
    if len(line) <= WIDTH:
        return line
    keep = WIDTH - 5
    return f"{line[: keep - keep // 3]} ... {line[-(keep // 3) :]}"


def _one_line(value: object) -> str:
    """Text without line breaks and control characters: a name in a file must not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def facts(certificate: Certificate) -> list[Fact]:
    """The key figures, for Markdown and HTML."""
    before, after = certificate["source"]["bytes"], certificate["output"]["bytes"]
    bits, weights = certificate["stored_bits_per_weight"], certificate["quantized_weights"]
    found = [
        Fact("Size", *_without_unit(megabytes(before), megabytes(after)), saved(certificate), "quant"),
        Fact("Stored bits", "", f"{bits:.3f}", f"per weight, over {weights / 1e6:.1f} M quantized weights", "quant"),
    ]
    verdict = certificate["verdict"]
    if verdict is not None:
        kl, kl_spread = _apart(kl_text(verdict))
        top1, top1_spread = _apart(top1_text(verdict))
        low, high = _number(verdict["perplexity_float"]), _number(verdict["perplexity_quantized"])
        found += [
            Fact("Mean KL", "", kl, f"{kl_spread} per token, over {verdict['tokens']:,} tokens", "error"),
            Fact("Perplexity", f"{low:.2f}", f"{high:.2f}", perplexity_change(verdict), "quant"),
            Fact("Top-1 agreement", "", top1, f"{top1_spread}, the same first token"),
        ]
    output, lowest = worst(certificate, "output_error"), worst(certificate, "sqnr")
    if output:
        found.append(Fact("Largest output error", "", share(output["output_error"]), module(output["name"]), "error"))
    if lowest:
        found.append(Fact("Lowest weight SQNR", "", decibel(lowest), module(lowest["name"]), "error"))
    if certificate["peak_memory_bytes"]:
        found.append(Fact("Peak memory", "", megabytes(certificate["peak_memory_bytes"]), "of the whole run"))
    return found


def _without_unit(before: str, after: str) -> tuple[str, str]:
    """`35.9 MB`, `15.5 MB` -> `35.9`, `15.5 MB`."""
    number, unit = before.split()
    return (number if after.endswith(unit) else before), after


def _apart(text: str) -> tuple[str, str]:
    """`95.1 ± 1.1 %` -> `95.1 %`, `± 1.1 %`."""
    value, sign, spread = text.partition(" ± ")
    return (f"{value} {spread.split()[-1]}", f"± {spread}") if sign else (text, "")


def comparability(certificates: list[Certificate]) -> list[str]:
    """Reasons why the figures of several certificates must not be held against each other."""
    texts = {(c["text"] or {}).get("heldout", {}).get("sha256") for c in certificates if c["verdict"] is not None}
    reasons = []
    if len({json.dumps(c["source"]["sha256"], sort_keys=True) for c in certificates}) > 1:
        reasons.append("They come from different float models: compare sizes and KL only within one model.")
    if len(texts) > 1:
        reasons.append("They were measured on different held-out text: their KL and perplexity are not comparable.")
    return reasons


def ranking(certificates: list[Certificate]) -> str:
    """The sentence about several certificates: the smallest that is still close to the float model."""
    known = [c for c in certificates if judge(c) is not None]
    close = [c for c in known if _number(c["verdict"]["kl"]) <= JUDGEMENTS[1].limit]
    if close:
        best = min(close, key=lambda c: int(c["output"]["bytes"]))
        opening = "The smallest that stays close to the float model"
    elif known:
        best = min(known, key=lambda c: _number(c["verdict"]["kl"]))
        opening = "None stays close to the float model; the nearest"
    else:
        return f"{UNMEASURED}. Measure it: {REMEDY}"
    size, kl = megabytes(best["output"]["bytes"]), kl_text(best["verdict"])
    return f"{opening} is {label(best)}, {size} at a mean KL of {kl} per token."


def to_json(certificates: list[Certificate]) -> str:
    """The certificates as one JSON list; what JSON has no number for becomes null."""
    return json.dumps(_plain(certificates), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_markdown(certificates: list[Certificate]) -> str:
    """The certificates as Markdown, for a model card or a pull request."""
    blocks = []
    if len(certificates) > 1:
        rows = [_summary_row(c) for c in certificates]
        head = ("Model", "Size", "Bits per weight", "Mean KL (nats)", "Perplexity", "Judgement")
        blocks += [f"# {len(certificates)} quantized models", _cell(ranking(certificates))]
        blocks += comparability(certificates)
        blocks.append(_table(head, rows))
    for certificate in certificates:
        blocks += _markdown_one(certificate)
    return "\n\n".join(blocks) + "\n"


def _markdown_one(certificate: Certificate) -> list[str]:
    name = _cell(f"{certificate['source']['folder']}, {label(certificate)}")
    blocks = [f"## {name}", f"**{headline(certificate)}**"]
    if certificate["verdict"] is None:
        blocks.append(f"Measure it with `{REMEDY}`.")
    figures = [(f.label, f"{f.before} → {f.value}" if f.before else f.value, f.detail) for f in facts(certificate)]
    blocks.append(_table(("Figure", "Value", "Of"), figures))
    blocks.append("\n".join(f"- {_cell(line)}" for line in [*readers(certificate), *fallbacks(certificate)]))
    head = ("Matrix", "Format", "Method", "Shape", "Bits per weight", "Output error", "SQNR")
    rows = [
        (
            module(r["name"]),
            r["format"],
            r["method"],
            f"{r['rows']} × {r['columns']}",
            f"{r['stored_bits'] / (r['rows'] * r['columns']):.3f}",
            share(r["output_error"]),
            decibel(r),
        )
        for r in certificate["rows"]
    ]
    blocks.append(f"<details><summary>All {len(rows)} matrices</summary>\n\n{_table(head, rows)}\n\n</details>")
    blocks.append("\n".join(f"- {_cell(what)} `{digest}`" for what, digest in proofs(certificate)))
    return blocks


def _summary_row(certificate: Certificate) -> tuple[str, ...]:
    verdict, found = certificate["verdict"], judge(certificate)
    bits = f"{certificate['stored_bits_per_weight']:.3f}"
    size = megabytes(certificate["output"]["bytes"])
    if verdict is None or found is None:
        return label(certificate), size, bits, "not measured", "not measured", "not measured"
    kl = measured(_number(verdict["kl"]), _number(verdict["kl_interval"]))
    perplexity = f"{_number(verdict['perplexity_quantized']):.2f} ({perplexity_change(verdict)})"
    return label(certificate), size, bits, kl, perplexity, found.words


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, in one line: nothing of it becomes a tag, a column or emphasis."""
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", _one_line(text).replace("&", "&amp;").replace("<", "&lt;"))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(_cell(str(v)) for v in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def proofs(certificate: Certificate) -> list[tuple[str, str]]:
    """What was hashed, and its SHA-256."""
    found = [(f"source {name}", digest) for name, digest in certificate["source"]["sha256"].items()]
    found += [(f"output {name}", digest) for name, digest in certificate["output"]["sha256"].items()]
    found.append(("recipe", certificate["recipe"]["sha256"]))
    return found + [(f"{kind} text", part["sha256"]) for kind, part in (certificate["text"] or {}).items()]


def lint(part: Certificate) -> list[str]:
    """What a text was made of, in sentences; text that the model wrote itself has only its windows."""
    size = f"{part['windows']:,} windows of {part['length']:,} tokens"
    if "read" not in part:
        return [f"{size}, written by the model itself" if part["source"] == "self" else size]
    dropped = {"blank": part["empty"], "duplicate": part["duplicate"], "left to the other part": part["other_part"]}
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
    asked = f" of {part['wanted']:,} asked for" if part["windows"] != part["wanted"] else ""
    return [
        f"{size}{asked}, from {part['tokens']:,} tokens",
        f"{part['read']:,} texts read, {part['kept']:,} kept" + (f" ({reasons})" if reasons else ""),
        f"{share(part['distinct'])} of the vocabulary seen, {share(part['unknown'])} of the tokens unknown",
        f"{share(part['repeated'])} of the runs of 8 tokens came before",
    ]


# --- figures: geometry in percent of the width and pixels of height, so that a narrow page never shrinks the text


def bars(certificate: Certificate) -> dict[str, Any]:
    """The error of each matrix as a bar, grouped by block: `share` in percent of the bar's column."""
    rows = certificate["rows"]
    outputs = any(row["output_error"] is not None for row in rows)
    errors = {row["name"]: _number(row["output_error"]) if outputs else 10 ** (-_sqnr(row) / 10) for row in rows}
    known = {name: error for name, error in errors.items() if math.isfinite(error)}
    shown = set(sorted(known, key=lambda name: -known[name])[:MAX_BARS]) if len(rows) > MAX_BARS else None
    top = max(known.values(), default=0.0)
    groups: list[tuple[str, list[dict[str, Any]]]] = []
    for block, members in groupby(rows, key=lambda r: _block(r["name"])[0]):
        lines = [
            {
                "name": _block(row["name"])[1],
                "title": module(row["name"]),
                "width": 70 * known[row["name"]] / top if top and row["name"] in known else 0.0,
                "value": share(known[row["name"]]) if row["name"] in known else "not measured",
                "sqnr": decibel(row),
            }
            for row in members
            if shown is None or row["name"] in shown
        ]
        if lines:
            groups.append((block, lines))
    names = max((len(line["name"]) for _, lines in groups for line in lines), default=0)
    return {
        "groups": [{"title": t, "lines": lines} for t, lines in groups],
        "outputs": outputs,
        "label": min(names, 24),
        "left_out": len(rows) - len(shown or rows),
    }


def _block(name: str) -> tuple[str, str]:
    """A matrix's block and its name within: (`Block 3`, `mlp.up_proj`)."""
    found = re.search(r"\.(\d+)\.", name)
    if not found:
        return "Outside the blocks", module(name)
    return f"Block {found[1]}", name[found.end() :].removesuffix(".weight")


def disagreement(certificate: Certificate) -> str | None:
    """Whether the matrix with the lowest SQNR is also the one whose output suffers most, in a sentence."""
    output, weights = worst(certificate, "output_error"), worst(certificate, "sqnr")
    if output is None or weights is None or weights["output_error"] is None:
        return None
    errors = [row["output_error"] for row in certificate["rows"] if row["output_error"] is not None]
    place = 1 + sum(error > weights["output_error"] for error in errors)
    if place == 1:
        return "Here the matrix with the lowest SQNR also has the largest output error; that is not the rule."
    name = module(weights["name"])
    return f"The matrix with the lowest SQNR, {name}, is only number {place} of {len(errors)} by output error."


def histogram(certificate: Certificate) -> dict[str, Any] | None:
    """The weights of the matrix with the lowest SQNR, on a square-root scale of 0..1000: area before, strokes after."""
    found = certificate.get("histogram")
    if not found or not found["high"] > found["low"]:
        return None
    before, after = found["before"], found["after"]
    top = max(*before, *after, 1) * 1.05

    def height(count: float) -> float:
        return 1000 * math.sqrt(count / top)

    area = "M0 1000" + "".join(f"V{1000 - height(n):.1f}H{i + 1}" for i, n in enumerate(before)) + "V1000Z"
    strokes = "".join(f"M{i + 0.5} 1000V{1000 - height(n):.1f}" for i, n in enumerate(after) if n)
    low, high = found["low"], found["high"]
    step = _round(max(abs(low), high) / 2)
    ticks = [k * step for k in range(-4, 5) if low <= k * step <= high]
    counts = sorted({_round(top / k) for k in (16, 4, 1.2)})
    return {
        "name": module(found["name"]),
        "bins": len(before),
        "area": area,
        "strokes": strokes,
        "ticks": [(100 * (t - low) / (high - low), f"{t:g}") for t in ticks],
        "counts": [(100 - height(n) / 10, f"{n:,.0f}") for n in counts],
        "filled": (sum(n > 0 for n in before), sum(n > 0 for n in after)),
    }


def _round(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `value`."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return float(f"{next(k for k in (5, 2, 1) if k * power <= value * (1 + 1e-9)) * power:.3g}")


def scatter(certificates: list[Certificate]) -> dict[str, Any] | None:
    """Size in MB (linear) against mean KL (logarithmic): a point a certificate, with its interval as a bar."""
    known = [c for c in certificates if c["verdict"] is not None and math.isfinite(_number(c["verdict"]["kl"]))]
    if len(known) < 2:
        return None
    floor = 1e-6
    kls = [max(_number(c["verdict"]["kl"]), floor) for c in known]
    low = math.floor(math.log10(min(kls)) - 0.1)
    high = max(math.ceil(math.log10(max(kls)) + 0.1), low + 2)

    def y(kl: float) -> float:
        return 100 * (high - math.log10(max(kl, 10.0**low))) / (high - low)

    right = max(*(c["source"]["bytes"] for c in known), *(c["output"]["bytes"] for c in known)) / 1e6 * 1.08
    step = _round(right / 3)
    points: list[dict[str, Any]] = []
    for kl, c in sorted(zip(kls, known, strict=True), key=lambda pair: -pair[0]):
        spread = _number(c["verdict"]["kl_interval"])
        spread = spread if math.isfinite(spread) else 0.0
        x = 100 * c["output"]["bytes"] / 1e6 / right
        place = {"x": x, "y": y(kl), "top": y(kl + spread), "bottom": y(kl - spread), "left": x > 50}
        words = {"name": c.get("folder", ""), "scheme": short_scheme(c), "kl": f"{kl:.2g}"}
        points.append({**place, **words, "size": megabytes(c["output"]["bytes"])})
    for above, point in zip([None, *points], points, strict=False):
        # Labels keep 5 percent of the height between them, where their points are close.
        close = above is not None and abs(above["x"] - point["x"]) < 45
        point["text"] = max(point["y"], above["text"] + 5) if above and close else point["y"]
    limits = [j for j in JUDGEMENTS if 10.0**low < j.limit < 10.0**high]
    return {
        "points": points,
        "limits": [(y(j.limit), f"{j.words}, at most", f"{j.limit:g}") for j in limits],
        "decades": [(y(10.0**k), f"{10.0**k:g}") for k in range(low, high + 1)],
        "sizes": [(100 * k * step / right, f"{k * step:g}") for k in range(int(right / step) + 1)],
        "floats": sorted({(100 * c["source"]["bytes"] / 1e6 / right, megabytes(c["source"]["bytes"])) for c in known}),
        "left_out": [label(c) for c in certificates if c not in known],
    }


# --- HTML


def to_html(certificates: list[Certificate]) -> str:
    """One page that needs nothing else: styles and drawings inside, no script, no request to anywhere."""
    source = resources.files("bitwright.engine").joinpath("report.html.j2").read_text("utf-8")
    loader = jinja2.DictLoader({"report": source})
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    functions = (
        judge,
        headline,
        rounds_activations,
        scheme,
        short_scheme,
        label,
        module,
        readers,
        facts,
        fallbacks,
        proofs,
        lint,
        bars,
    )
    numbers = (disagreement, histogram, decibel, share, megabytes, kl_text)
    page = environment.get_template("report")
    return page.render(
        certificates=certificates,
        several=len(certificates) > 1,
        judgements=JUDGEMENTS,
        remedy=REMEDY,
        unmeasured=UNMEASURED,
        ranking=ranking(certificates),
        warnings=comparability(certificates),
        scatter=scatter(certificates),
        summaries=[_summary_row(c) for c in certificates],
        **{f.__name__: f for f in (*functions, *numbers)},
    )
