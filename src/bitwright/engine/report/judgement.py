"""The judgement of a certificate in words, and the comparison of several."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

from bitwright.engine.report.certificate import REMEASURE, Certificate, data, kind, label, leaves_out_activations, words
from bitwright.engine.report.measures import leading, measures, speed
from bitwright.models.kind import Fact
from bitwright.words import grown, kl_text, lowest_output, megabytes, number, share


class Judgement(NamedTuple):
    """The words for a loss, and their colour; `rank` 0 is the best."""

    rank: int
    words: str
    tone: str


class Scale(NamedTuple):
    """A measure to judge by: the limits of all judgements but the last, each a loss at `most` or a level at least."""

    name: str
    unit: str
    limits: tuple[float, ...]
    most: bool = True


JUDGEMENTS = tuple(
    Judgement(rank, words, tone)
    for rank, (words, tone) in enumerate(
        (
            ("practically the float model", "good"),
            ("close to the float model", "good"),
            ("noticeably worse", "warn"),
            ("clearly damaged", "error"),
            ("broken", "error"),
        )
    )
)
SCALES = {
    "kl": Scale("Mean KL", "nats", (0.005, 0.02, 0.1, 0.5)),
    "map": Scale("mAP lost", "points", (0.2, 1, 3, 10)),
    "cosine": Scale("Mean cosine", "", (0.999, 0.995, 0.98, 0.9), most=False),
    "sqnr": Scale("Output SQNR", "dB", (35, 25, 15, 5), most=False),
}
"""The one table of thresholds. KL is compared wherever outputs are scores, not perplexity or accuracy: samples that
both models find hard cannot hide a change. Of other outputs boxes are judged by mAP, embeddings by how far they turn
(for the same reason: not by verification accuracy), the rest by their SQNR."""
NOTHING = "The float model itself predicts nothing"
CLOSE = 1
"""The last rank that counts as close to the float model."""


def loss(certificate: Certificate) -> tuple[str, float] | None:
    """The scale that a certificate is judged on, and where it stands; None where nothing was measured."""
    verdict = certificate["verdict"]
    if verdict is None:
        return None
    if "kl" in verdict:
        return "kl", number(verdict["kl"])
    if "map_float" in verdict:
        return "map", round(100 * (number(verdict["map_float"]) - number(verdict["map_quantized"])), 6)
    if "cosine" in verdict:
        return "cosine", number(verdict["cosine"])
    value = lowest_output(verdict["sqnr_db"])[1]
    return "sqnr", math.inf if value is None else value


def judge(certificate: Certificate) -> Judgement | None:
    """The judgement by mean KL, else mAP, else output SQNR; None where quality was not measured or nothing is there."""
    found = loss(certificate)
    if found is None or baseless(certificate):
        return None
    scale, value = SCALES[found[0]], found[1]
    passed = (value <= limit if scale.most else value >= limit for limit in scale.limits)
    return next((j for j, good in zip(JUDGEMENTS, passed, strict=False) if good), JUDGEMENTS[-1])


def baseless(certificate: Certificate) -> str | None:
    """What shows that the float model itself predicts nothing; None where it does, or where nothing was measured."""
    verdict = certificate["verdict"]
    return None if verdict is None else kind(certificate).baseless(verdict)


def unjudged(certificate: Certificate) -> str:
    """Why there is no judgement."""
    return NOTHING if baseless(certificate) else words(certificate).unmeasured


def told(certificate: Certificate) -> str:
    """The measure that it is judged by, in words; only for a certificate with a verdict."""
    verdict, (name, _) = certificate["verdict"], loss(certificate) or ("", 0.0)
    if name == "kl":
        weights = ", weights only" if leaves_out_activations(certificate) else ""
        return f"mean KL {kl_text(verdict)} per {kind(certificate).sample(verdict)} (95 % interval{weights})"
    first = measures(certificate)[0]
    return f"{first.label[0].lower()}{first.label[1:]} {first.text}"


def headline(certificate: Certificate) -> str:
    """The sentence of judgement."""
    found = judge(certificate)
    if found is None:
        why = baseless(certificate)
        return f"{unjudged(certificate)}{f': {why}' if why else ''}."
    return f"{found.words.capitalize()}: {told(certificate)}."


def cautions(certificate: Certificate) -> list[str]:
    """Warnings beside the judgement: stale files, nothing to judge by, flattering text, a slower network."""
    lines = [f"Stale: {line}; what follows was measured on other bytes." for line in certificate.get("stale", [])]
    before, after = certificate["source"]["bytes"], certificate["output"]["bytes"]
    if grown(before, after):
        lines.append(f"Larger than the float model: {megabytes(before)} -> {megabytes(after)}.")
    lines += kind(certificate).cautions(certificate)
    found = certificate.get("speed")
    if baseless(certificate):
        return [*lines, f"How far the copy is from it says little: {told(certificate)}."]
    if not found or round(found["ratio"], 2) >= 1:
        return lines
    times, integers = f"{found['ratio']:.2f} times its speed", share(found["integer_share"])
    return [*lines, f"Slower than the float network here: {times}, {integers} of the time in integer kernels."]


def source(certificate: Certificate) -> str:
    """Whence a report has its figures."""
    return f"The figures are those of the certificate, not re-measured: `{REMEASURE}` measures again."


# --- several


def comparability(certificates: list[Certificate]) -> list[str]:
    """Reasons why the figures of several certificates must not be compared."""
    judged = [c for c in certificates if c["verdict"] is not None]
    # Text is hashed as it was used; of a file of samples each certificate may have taken others.
    chosen = ("sha256", "samples", "order")
    seen = {tuple(data(c).get("heldout", {}).get(key) for key in chosen) for c in judged}
    runs = {(c["speed"]["batch"], c["speed"]["threads"]) for c in certificates if c.get("speed")}
    reasons = []
    if len({json.dumps(c["source"]["sha256"], sort_keys=True) for c in certificates}) > 1:
        reasons.append("They come from different float models: compare sizes and KL only within one model.")
    if len({name for name, _ in filter(None, map(loss, judged))}) > 1:
        reasons.append("They are judged by different measures, as their outputs allow.")
    if len(seen) > 1:
        names = ", ".join(dict.fromkeys(m.label for c in judged for m in leading(c)))
        word = " or ".join(dict.fromkeys(words(c).data for c in judged))
        reasons.append(f"They were measured on different held-out {word}: do not compare {names}.")
    if len(runs) > 1:
        reasons.append("Their latencies were measured with different batches or threads.")
    return reasons


def ranking(certificates: list[Certificate]) -> str:
    """The sentence about several certificates: the smallest that is still close to the float model."""
    known = [(found, c) for c in certificates if (found := judge(c)) is not None]
    close = [c for found, c in known if found.rank <= CLOSE]
    if close:
        best = min(close, key=lambda c: int(c["output"]["bytes"]))
        opening = "The smallest that stays close to the float model"
    elif known:
        best = min(known, key=lambda pair: (pair[0].rank, _cost(pair[1])))[1]
        opening = "None stays close to the float model; the nearest"
    else:
        first = words(certificates[0])
        if any(map(baseless, certificates)):
            return f"None can be judged: {NOTHING[0].lower()}{NOTHING[1:]}."
        return f"{first.unmeasured}. Measure it: {first.remedy}"
    return f"{opening} is {label(best)}, {megabytes(best['output']['bytes'])}: {told(best)}."


def _cost(certificate: Certificate) -> float:
    """Its loss, the smaller the better, whatever the scale; NaN counts as infinite."""
    name, value = loss(certificate) or ("kl", math.inf)
    value = value if SCALES[name].most else -value
    return math.inf if math.isnan(value) else value


def front(certificates: list[Certificate]) -> list[bool]:
    """Whether each is a best buy: none of the others is as small and as good, and better in one of the two.

    What was not measured is none.
    """
    points = [(int(c["output"]["bytes"]), _cost(c)) for c in certificates]

    def beaten(size: int, cost: float) -> bool:
        return any(s <= size and c <= cost and (s, c) != (size, cost) for s, c in points)

    return [math.isfinite(cost) and not beaten(size, cost) for size, cost in points]


def summary(certificates: list[Certificate]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A table of several: its head, and a row for each; a column for every measure that decides or tells the most."""
    cells = [{m.label: m for m in (*measures(c), *speed(c))} for c in certificates]
    columns = tuple(dict.fromkeys(m.label for c in certificates for m in (*leading(c), *speed(c)[:1])))
    rows = []
    for c, row in zip(certificates, cells, strict=True):
        found = judge(c)
        rows.append(
            (
                label(c),
                megabytes(c["output"]["bytes"]),
                f"{c['stored_bits_per_weight']:.3f}",
                *(_cell(row[name]) if name in row else "not measured" for name in columns),
                found.words if found else "not judged" if baseless(c) else "not measured",
            )
        )
    return ("Name", "Size", "Bits per weight", *columns, "Judgement"), rows


def _cell(fact: Fact) -> str:
    """`91.0 % (-0.1 ± 0.3 points)` of a pair, else the value."""
    change = fact.detail.split(";")[0].split(",")[0]
    return f"{fact.value} ({change})" if fact.before else fact.value
