"""Certificates as plain text, Markdown and JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from bitwright.engine.report.certificate import (
    Certificate,
    activation_levels,
    bits_told,
    corrections,
    data,
    decibel,
    fallbacks,
    floats,
    input_levels,
    label,
    lint,
    module,
    proofs,
    readers,
    remarks,
    rounds_inputs,
    runtimes,
    saved,
    scheme,
    stages,
    weight_entropy,
    weight_levels,
    words,
    worst,
)
from bitwright.engine.report.judgement import cautions, comparability, headline, ranking, source, summary
from bitwright.engine.report.measures import Judged, beside, facts, measures, speed, told
from bitwright.engine.report.spending import spending
from bitwright.words import apart, entropy, fit, levels, megabytes, one_line, plural, share, some

WIDTH = 100
"""Columns of the plain-text verdict."""
NAMED = 11
"""Columns of it that the name of a source has at least."""
LINES = 16
"""Lines of it."""


def verdict_lines(certificate: Certificate) -> list[str]:
    """The verdict for a terminal: judgement first, at most LINES lines of at most WIDTH columns.

    Where there are several held-out sources, each has a line more.
    """
    before, after = certificate["source"]["bytes"], certificate["output"]["bytes"]
    lines = [headline(certificate), *cautions(certificate)]
    if certificate["verdict"] is None:
        lines.append(f"Measure it  {words(certificate).remedy}")
    lines += [
        *map(_on, beside(certificate)),
        f"Size        {megabytes(before)} -> {megabytes(after)} ({saved(certificate)}), {bits_told(certificate)}",
        f"{'Format' if certificate['rows'] else 'Done':<12}{scheme(certificate)}",
        *_done(certificate),
        *_levels(certificate),
    ]
    if (spent := spending(certificate)) is not None:
        lines.append(f"Budget      {spent}")
    # The headline tells the first measure; of the others a screen has room for three.
    lines += [f"{_short(fact.label):<12}{fact.text}" for fact in [*measures(certificate)[1:4], *speed(certificate)]]
    reasons = floats(certificate)
    if reasons:
        lines.append(f"Float       {some([f'{len(names):,} {why}' for why, names in reasons], 2, '; ')}")
    output, weights = worst(certificate, "output_error"), worst(certificate, "sqnr")
    if output:
        error = share(output["output_error"])
        lines.append(f"Worst       {error} output error, {decibel(output)} SQNR: {module(output['name'])}")
    lowest = ""
    if weights and weights is not output:
        error = f", {share(weights['output_error'])} output error" if weights["output_error"] is not None else ""
        lowest = f"Lowest SQNR {decibel(weights)}{error}: {module(weights['name'])}"
        lines.append(lowest)
    notes = fallbacks(certificate)
    said = ["none: nothing fell back"]
    if notes:
        count = plural(len(notes), "fallback or note", "fallbacks and notes")
        said = [f"{count}, first: {notes[0]}", *notes[1:2]]
    said = [f"{'' if i else 'Notes':<12}{line}" for i, line in enumerate(said)]
    lines += said
    for title, block in (("Read back", readers(certificate)), ("Loads in", runtimes(certificate))):
        lines += [f"{'' if i else title:<12}{line}" for i, line in enumerate(block)]
    for spare in (said[-1] if len(said) > 1 else "", lowest):
        if len(lines) > LINES + len(beside(certificate)) and spare:
            lines.remove(spare)
    return [fit(line, WIDTH) for line in lines]


def _done(certificate: Certificate) -> list[str]:
    """What stages did: two lines of each, or a few words where the model was quantized after them."""
    found = stages(certificate)
    if certificate["rows"]:
        return [f"{'Before':<12}{', '.join(stage['words'] for stage in found)}"] if found else []
    return [f"{'':<12}{line}" for stage in found for line in stage["lines"][:2]]


def _on(judged: Judged) -> str:
    """What was measured on one source, an interval at the first; of a long line its name is shortened, no figure."""
    first, *rest = (fact._replace(label=_short(fact.label)) for fact in judged.found)
    figures = told([first, *(fact._replace(value=apart(fact.value)[0]) for fact in rest)])
    opening = f"{judged.placed.capitalize()}, " if judged.placed else "On "
    room = max(NAMED, WIDTH - len(f"{opening}: {figures}"))
    return f"{opening}{fit(judged.source, room)}: {figures}"


def _levels(certificate: Certificate) -> list[str]:
    """Levels used and entropy, of weights and activations; nothing in certificates of earlier releases."""
    found = certificate.get("precision")
    if not found or not found["levels"]:
        return []
    there, bits = activation_levels(certificate)
    rounded = f"; activations {there}, {bits or 'chosen as it runs'}" if there else ""
    used = levels(found["levels"], found["levels_used"])
    return [f"Levels      {used} used, entropy {entropy(found['entropy'])} bits per weight{rounded}"]


def _short(label: str) -> str:
    """A label that leaves room in a column of 12: `Top-1 agreement` -> `Top-1`."""
    return label if len(label) < 12 else label.split()[0]


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
        blocks += [f"# {len(certificates)} quantized models", cell(ranking(certificates))]
        blocks += [cell(line) for line in comparability(certificates)]
        blocks.append(table(*summary(certificates)))
    for certificate in certificates:
        blocks += _markdown_one(certificate)
    return "\n\n".join(blocks) + "\n"


def _markdown_one(certificate: Certificate) -> list[str]:
    called = words(certificate)
    name = cell(f"{certificate['source']['folder']}, {label(certificate)}")
    blocks = [f"## {name}", f"**{cell(headline(certificate))}**"]
    blocks += [*map(cell, cautions(certificate)), source(certificate)]
    if certificate["verdict"] is None:
        blocks.append(f"Measure it with `{called.remedy}`.")
    figures = [(f.label, f"{f.before} → {f.value}" if f.before else f.value, f.detail) for f in facts(certificate)]
    blocks.append(table(("Figure", "Value", "Of"), figures))
    loads = [f"Loads in: {line}" for line in runtimes(certificate)]
    made_up = [f"Corrected targets: {line}" for line in corrections(certificate)]
    if (spent := spending(certificate)) is not None:
        loads.append(f"Budget: {spent}")
    blocks.append(_list([*readers(certificate), *loads, *fallbacks(certificate), *made_up]))
    reasons = [f"{len(names):,} float: {why} ({some(names, 6)})" for why, names in floats(certificate)]
    if reasons:
        blocks.append(_list(reasons))
    for stage in stages(certificate):
        blocks.append(_list([f"{stage['name']}: {line}" for line in stage["lines"]]))
        blocks += [_folded(part["title"], tuple(part["head"]), part["rows"]) for part in stage["tables"]]
    if certificate["rows"]:
        blocks.append(_rows(certificate))
    seen = [
        f"{name} {called.data}: {line}"
        for name, p in data(certificate).items()
        for line in [*lint(certificate, p), *remarks(p)]
    ]
    if seen:
        blocks.append(_list(seen))
    blocks.append("\n".join(f"- {cell(what)} `{digest}`" for what, digest in proofs(certificate)))
    return blocks


def _rows(certificate: Certificate) -> str:
    """All parts, each with its format and its error."""
    called = words(certificate)
    inputs = rounds_inputs(certificate)
    head = (
        *(called.part.capitalize(), "Format", "Method", "Shape", "Bits per weight", "Levels", "Entropy"),
        *(("Input levels, entropy",) if inputs else ()),
        *("Output error", "SQNR"),
    )
    rows = [
        (
            module(r["name"]),
            r["format"],
            r["method"],
            f"{r['rows']} × {r['columns']}",
            f"{r['stored_bits'] / (r['rows'] * r['columns']):.3f}",
            weight_levels(r),
            weight_entropy(r),
            *((input_levels(r),) if inputs else ()),
            share(r["output_error"]),
            decibel(r),
        )
        for r in certificate["rows"]
    ]
    total = plural(len(rows), called.part, called.parts)
    return _folded(f"All {total}", head, rows)


def _folded(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table that opens on a click."""
    return f"<details><summary>{cell(title)}</summary>\n\n{table(head, rows)}\n\n</details>"


def cell(text: str) -> str:
    """Text that Markdown shows as it is, in one line: nothing of it becomes a tag, a column or emphasis."""
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", one_line(text).replace("&", "&amp;").replace("<", "&lt;"))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {cell(line)}" for line in lines)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown; a cell shows its text as it is."""
    lines = [head, tuple("---" for _ in head), *(tuple(cell(str(v)) for v in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
