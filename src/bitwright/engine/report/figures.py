"""Geometry of the figures, in percent of the width and pixels of height: a narrow page never shrinks the text."""

from __future__ import annotations

import math
import re
from itertools import groupby
from typing import Any

from bitwright.engine.report.certificate import (
    Certificate,
    decibel,
    kind,
    label,
    module,
    short_scheme,
    sqnr,
    words,
    worst,
)
from bitwright.engine.report.judgement import JUDGEMENTS, SCALES
from bitwright.words import lowest_output, megabytes, number, share

MAX_BARS = 96
"""Parts that the bar figure draws; of a larger model it shows the worst so many, and says so."""


def bars(certificate: Certificate) -> dict[str, Any]:
    """The error of each matrix as a bar, grouped by block: `share` in percent of the bar's column."""
    rows = certificate["rows"]
    outputs = any(row["output_error"] is not None for row in rows)
    errors = {row["name"]: number(row["output_error"]) if outputs else 10 ** (-sqnr(row) / 10) for row in rows}
    known = {name: error for name, error in errors.items() if math.isfinite(error)}
    shown = set(sorted(known, key=lambda name: -known[name])[:MAX_BARS]) if len(rows) > MAX_BARS else None
    top = max(known.values(), default=0.0)
    blocks = {row["name"]: _block(row["name"]) for row in rows}
    if not any(inside for inside, _ in blocks.values()):
        blocks = {name: (f"All {words(certificate).parts}", module(name)) for name in blocks}
    groups: list[tuple[str, list[dict[str, Any]]]] = []
    for block, members in groupby(rows, key=lambda r: blocks[r["name"]][0] or "Outside the blocks"):
        lines = [
            {
                "name": blocks[row["name"]][1],
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
    """A part's block and its name within: (`Block 3`, `mlp.up_proj`), (`layer1.0`, `conv2`), ("", `lm_head`)."""
    found = re.search(r"\.(\d+)[./]", name)
    if not found:
        return "", module(name)
    before, inside = module(name[: found.start()]), name[found.end() :].removesuffix(".weight")
    # Transformers number their blocks throughout; stages of a network each begin at 0.
    return f"{before}.{found[1]}" if re.search(r"\d$", before) else f"Block {found[1]}", inside


def disagreement(certificate: Certificate) -> str | None:
    """Whether the part with the lowest SQNR is also the one whose output suffers most, in a sentence."""
    output, weights = worst(certificate, "output_error"), worst(certificate, "sqnr")
    if output is None or weights is None or weights["output_error"] is None:
        return None
    errors = [row["output_error"] for row in certificate["rows"] if row["output_error"] is not None]
    place, part = 1 + sum(error > weights["output_error"] for error in errors), words(certificate).part
    if len(errors) == 1:
        return None
    if place == 1:
        return f"Here the {part} with the lowest SQNR also has the largest output error; that is not the rule."
    name = module(weights["name"])
    return f"The {part} with the lowest SQNR, {name}, is only number {place} of {len(errors)} by output error."


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
    step = round_down(max(abs(low), high) / 2)
    ticks = [k * step for k in range(-4, 5) if low <= k * step <= high]
    counts = sorted({round_down(top / k) for k in (16, 4, 1.2)})
    return {
        "name": module(found["name"]),
        "bins": len(before),
        "area": area,
        "strokes": strokes,
        "ticks": [(100 * (t - low) / (high - low), f"{t:g}") for t in ticks],
        "counts": [(100 - height(n) / 10, f"{n:,.0f}") for n in counts],
        "filled": (sum(n > 0 for n in before), sum(n > 0 for n in after)),
    }


SHOTS = (("truth", "Annotated", "true"), ("float", "Float", "float"), ("quantized", "Quantized", "quant"))
"""What is drawn over a picture: key in the certificate, words, and name of the colour."""


def pictures(certificate: Certificate) -> dict[str, Any] | None:
    """Pictures with boxes: of each, panels of boxes in percent of its sides; None where the certificate has none."""
    kept = certificate.get("pictures")
    if not kept or not kept["shown"]:
        return None
    digest = next(iter(certificate["output"]["sha256"].values()))
    rows = []
    for place, shot in enumerate(kept["shown"]):
        sides = shot["width"], shot["height"]
        panels = [
            {"title": title, "tone": tone, "boxes": _boxes(shot[key], *sides)}
            for key, title, tone in SHOTS
            if shot[key] is not None
        ]
        # Anything but base64 would be another address than that of the bytes themselves.
        jpeg = shot["jpeg"] if re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", shot["jpeg"]) else ""
        rows.append({"id": f"shot-{digest[:12]}-{place}", "name": shot["name"], "jpeg": jpeg, "panels": panels,
                     "ratio": sides[0] / sides[1]})  # fmt: skip
    return {"rows": rows, "score": kept["score"]}


def _boxes(boxes: list[Any], width: float, height: float) -> list[dict[str, Any]]:
    """Boxes in percent, the best first; `named` where no better one has its name at that place already."""
    found: list[dict[str, Any]] = []
    for x1, y1, x2, y2, name, *score in sorted(boxes, key=lambda box: -box[5] if len(box) > 5 else 0):
        x, y, w, h = 100 * x1 / width, 100 * y1 / height, 100 * (x2 - x1) / width, 100 * (y2 - y1) / height
        near = any(other["named"] and abs(other["x"] - x) < 12 and abs(other["y"] - y) < 6 for other in found)
        told = {"name": name, "score": "".join(f" {value:.2f}" for value in score), "named": not near}
        found.append({"x": x, "y": y, "w": w, "h": h, **told})
    return found


def round_down(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `value`."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return float(f"{next(k for k in (5, 2, 1) if k * power <= value * (1 + 1e-9)) * power:.3g}")


def scatter(certificates: list[Certificate]) -> dict[str, Any] | None:
    """Size in MB (linear) against loss (logarithmic): a point a certificate, with its interval as a bar.

    The loss is the mean KL in nats, or, where no two have one, the error's share of the power of the worst output.
    """
    scale = "kl" if sum(math.isfinite(_loss(c, "kl")[0]) for c in certificates) > 1 else "sqnr"
    losses = [(*_loss(c, scale), c) for c in certificates]
    known = [c for loss, _, c in losses if math.isfinite(loss)]
    if len(known) < 2:
        return None
    floor = 1e-6
    values = [max(loss, floor) for loss, _, _ in losses if math.isfinite(loss)]
    low = math.floor(math.log10(min(values)) - 0.1)
    high = max(math.ceil(math.log10(max(values)) + 0.1), low + 2)

    def y(loss: float) -> float:
        return 100 * (high - math.log10(max(loss, 10.0**low))) / (high - low)

    right = max(*(c["source"]["bytes"] for c in known), *(c["output"]["bytes"] for c in known)) / 1e6 * 1.08
    step = round_down(right / 3)
    points: list[dict[str, Any]] = []
    for loss, spread, c in sorted((row for row in losses if row[2] in known), key=lambda row: -row[0]):
        x = 100 * c["output"]["bytes"] / 1e6 / right
        place = {"x": x, "y": y(loss), "top": y(loss + spread), "bottom": y(loss - spread), "left": x > 50}
        value = f"KL {loss:.2g} nats" if scale == "kl" else f"output error {share(loss)}"
        told = {"name": c.get("folder", ""), "scheme": short_scheme(c), "value": value}
        points.append({**place, **told, "size": megabytes(c["output"]["bytes"])})
    for above, point in zip([None, *points], points, strict=False):
        # Labels keep 5 percent of the height between them, where their points are close.
        close = above is not None and abs(above["x"] - point["x"]) < 45
        point["text"] = max(point["y"], above["text"] + 5) if above and close else point["y"]
    bounds = SCALES[scale].limits if scale == "kl" else [10 ** (-limit / 10) for limit in SCALES[scale].limits]
    limits = [(bound, j.words) for bound, j in zip(bounds, JUDGEMENTS, strict=False) if 10.0**low < bound < 10.0**high]
    return {
        "scale": scale,
        "row": " or ".join(sorted({kind(c).sample(c["verdict"]) for c in known})) if scale == "kl" else "",
        "unit": " nats" if scale == "kl" else "",
        "points": points,
        "limits": [(y(bound), f"{told}, at most", f"{bound:.2g}") for bound, told in limits],
        "decades": [(y(10.0**k), f"{10.0**k:g}") for k in range(low, high + 1)],
        "sizes": [(100 * k * step / right, f"{k * step:g}") for k in range(int(right / step) + 1)],
        "floats": sorted({(100 * c["source"]["bytes"] / 1e6 / right, megabytes(c["source"]["bytes"])) for c in known}),
        "left_out": [label(c) for c in certificates if c not in known],
    }


def _loss(certificate: Certificate, scale: str) -> tuple[float, float]:
    """Its loss on a scale of `scatter`, and the half-width of the interval (0 where unknown); NaN without a measure."""
    verdict = certificate["verdict"] or {}
    if scale == "kl":
        spread = number(verdict.get("kl_interval"))
        return number(verdict.get("kl")), spread if math.isfinite(spread) else 0.0
    if not verdict.get("sqnr_db"):
        return math.nan, 0.0
    level = lowest_output(verdict["sqnr_db"])[1]
    return (0.0 if level is None else 10 ** (-level / 10)), 0.0
