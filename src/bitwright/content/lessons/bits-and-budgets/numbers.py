"""What each part of the model pays for its bits, and how a budget of bytes is spent where it buys most."""

from functools import cache
from typing import Any

import numpy as np

from bitwright.core.format import Format, named
from bitwright.methods import descent, gptq
from bitwright.studio.worker import lab
from bitwright.studio.worker.compile import significant
from bitwright.studio.worker.figures import Axis, Choice, Figure, Point, Series, Slider, Steps, explore, still

WIDTHS = (2, 3, 4, 5)
ENDS = (2, 4)
"""Widths at which each part alone is measured."""
PARTS = {"q": "qkv", "k": "qkv", "v": "qkv", "o": "attention out", "gate": "gate, up", "up": "gate, up", "down": "down"}
"""Matrices that runtimes fuse must share a format: they are one part."""
STORY = 4
"""Upgrades between two pictures of the story."""


def format_of(bits: int) -> Format:
    """Integers of `bits` bits in groups of 128."""
    return named(f"int{bits}", group=128)


@cache
def parts() -> dict[str, list[str]]:
    """Names of the matrices of each part, by a label such as "0 down"."""
    found: dict[str, list[str]] = {}
    for name in lab.names():
        block, kind = name.split(".")[1], PARTS[name.split(".")[-1].removesuffix("_proj")]
        found.setdefault(f"{block} {kind}", []).append(name)
    return found


@cache
def quantized(bits: int) -> dict[str, np.ndarray]:
    """Every matrix in `bits` bits by the default method."""
    found = {}
    for names in parts().values():
        factor = gptq.factorise(lab.stats(names[0]))
        for name in names:
            stats = lab.stats(name)
            found[name] = descent.quantize(lab.weight(name), format_of(bits), stats, factor=factor).decode()
    return found


@cache
def measured(bits: tuple[int, ...]) -> lab.Quality:
    """The model with each part, in order, in so many bits; 0 leaves it float."""
    chosen = {n: quantized(b)[n] for b, names in zip(bits, parts().values(), strict=True) if b for n in names}
    return lab.quality(chosen)


def size(part: str, bits: int) -> int:
    """Bytes of a part on disk: rows padded to 32-bit words, and scales."""
    return sum(format_of(bits).stored_bits(*lab.weight(name).shape, word=32) // 8 for name in parts()[part])


def rest() -> int:
    """Bytes of the model's file that stay as they are: embedding, norms, header."""
    weights = sum(lab.weight(name).size for name in lab.names())
    return (lab.MODEL / "model.safetensors").stat().st_size - 2 * weights


def alone() -> dict[str, dict[int, float]]:
    """KL of each part alone, all else float: measured at ENDS, and along a straight line of logarithms elsewhere."""
    found = {}
    for i, part in enumerate(parts()):
        low, high = (measured(tuple(b if j == i else 0 for j in range(len(parts())))).kl for b in ENDS)
        fall = (high / low) ** (1 / (ENDS[1] - ENDS[0]))
        found[part] = {bits: low * fall ** (bits - ENDS[0]) for bits in WIDTHS}
    return found


def spend(kl: dict[str, dict[int, float]]) -> list[dict[str, int]]:
    """Allocations from the smallest to the largest: each raises the part whose next bit saves most KL a byte."""

    def worth(part: str, bits: int) -> float:
        return (kl[part][bits] - kl[part][bits + 1]) / (size(part, bits + 1) - size(part, bits))

    now = dict.fromkeys(kl, WIDTHS[0])
    path = [dict(now)]
    while any(bits < WIDTHS[-1] for bits in now.values()):
        best = max((part for part in now if now[part] < WIDTHS[-1]), key=lambda part: worth(part, now[part]))
        now[best] += 1
        path.append(dict(now))
    return path


def total(bits: dict[str, int]) -> int:
    """Bytes of the file with these widths."""
    return rest() + sum(size(part, b) for part, b in bits.items())


def predicted(kl: dict[str, dict[int, float]], bits: dict[str, int]) -> float:
    """The sum of what the parts cost alone."""
    return sum(kl[part][b] for part, b in bits.items())


def uniform(bits: int) -> lab.Quality:
    """All parts in the same number of bits."""
    return measured((bits,) * len(parts()))


def curve() -> Figure:
    """KL of the whole model at each width, and a line that falls four times a bit."""
    points = tuple(Point(id=f"u{b}", x=b, y=uniform(b).kl, label=significant(uniform(b).kl, 2)) for b in WIDTHS)
    middle = uniform(4).kl
    rule = tuple(Point(id=f"r{b}", x=b, y=middle * 4.0 ** (4 - b)) for b in WIDTHS)
    return still(
        x=Axis(label="bits a weight", low=1.7, high=5.3),
        y=Axis(label="KL", low=5e-4, high=0.2, log=True, unit="nats a token"),
        series=[
            Series(name="four times a bit", tone="mute", shape="diamond", line=True, points=rule),
            Series(name="measured", tone="error", line=True, points=points),
        ],
        say=f"KL falls from {uniform(2).kl:.3f} nats at two bits to {uniform(5).kl:.5f} at five.",
    )


def sensitivity(kl: dict[str, dict[int, float]]) -> Figure:
    """What each part costs alone, in all or for each kilobyte that one more bit would take."""

    def view(bits: int, measure: str) -> dict[str, Any]:
        def value(part: str, bits: int) -> float:
            bytes_ = size(part, bits + 1) - size(part, bits)
            return 1000 * kl[part][bits] / (bytes_ / 1000 if measure == "byte" else 1)

        unit = "millinats a kB" if measure == "byte" else "millinats"
        high = 1.15 * max(value(part, ENDS[0]) for part in kl)
        most = max(kl, key=lambda part: value(part, bits))
        return {
            "bars": [
                {
                    "id": part,
                    "label": part,
                    "value": value(part, bits),
                    "text": significant(value(part, bits), 2),
                    "tone": "error",
                }
                for part in kl
            ],
            "high": high,
            "low": 1e-3 * high,
            "log": True,
            "x": f"KL with this part alone in {bits} bits, {unit}",
            "say": f"{bits} bits: block {most} costs most, {significant(value(most, bits), 2)} {unit}.",
        }

    return explore(
        view,
        bits=Slider(label="Bits of that part", values=ENDS, start=2),
        measure=Choice(label="Cost", options={"all": "In all", "byte": "For each kB of one more bit"}, start="all"),
    )


def additive(kl: dict[str, dict[int, float]]) -> Figure:
    """The parts' costs one by one, stacked up in words: their sum beside the cost of all together."""

    def view(bits: int) -> dict[str, Any]:
        apart, joint = sum(kl[part][bits] for part in kl), uniform(bits).kl
        return {
            "bars": [
                {
                    "id": "sum",
                    "label": f"sum of {len(kl)} parts",
                    "value": apart,
                    "text": significant(apart),
                    "tone": "quant",
                },
                {"id": "all", "label": "all at once", "value": joint, "text": significant(joint), "tone": "error"},
            ],
            "high": 1.2 * max(uniform(ENDS[0]).kl, sum(kl[part][ENDS[0]] for part in kl)),
            "low": 1e-3,
            "log": True,
            "x": "KL, nats a token",
            "say": f"{bits} bits: the parts alone add up to {significant(apart)}, together they cost "
            f"{significant(joint)}: {joint / apart:.2f} times the sum.",
            "readouts": [{"label": "Together / sum", "value": f"{joint / apart:.2f}", "tone": "error"}],
        }

    return explore(view, bits=Slider(label="Bits a weight", values=ENDS, start=4))


def spending(kl: dict[str, dict[int, float]], path: list[dict[str, int]]) -> Figure:
    """The bits of each part as the budget grows."""
    shown = path[::STORY]

    def view(step: int) -> dict[str, Any]:
        now = shown[step]
        average = np.average(list(now.values()), weights=[size(part, 2) for part in now])
        return {
            "bars": [
                {
                    "id": part,
                    "label": part,
                    "value": bits,
                    "text": f"{bits} bits",
                    "tone": "good" if step and bits != shown[step - 1][part] else "quant",
                }
                for part, bits in now.items()
            ],
            "high": WIDTHS[-1] + 0.5,
            "x": "bits a weight",
            "say": f"File of {total(now) / 1000:,.0f} kB: {average:.2f} bits a weight on average, predicted KL "
            f"{significant(predicted(kl, now))}.",
            "readouts": [
                {"label": "File", "value": f"{total(now) / 1000:,.0f} kB", "tone": "quant"},
                {"label": "Mean bits", "value": f"{average:.2f}", "tone": "quant"},
                {"label": "Predicted KL", "value": f"{significant(predicted(kl, now))} nats", "tone": "error"},
            ],
        }

    captions = ["Two bits for every part: the smallest file."]
    for before, after in zip(shown, shown[1:], strict=False):
        raised = [part for part in after if after[part] != before[part]]
        captions.append(f"The next bits go to {'; '.join(raised)}.")
    return explore(view, step=Steps(captions=tuple(captions), label="Budget"))


def front(kl: dict[str, dict[int, float]], path: list[dict[str, int]]) -> tuple[dict[str, Any], Figure]:
    """Mixed widths measured at the sizes of uniform three and four bits and half way, beside uniform ones."""
    sizes = {b: total(dict.fromkeys(kl, b)) for b in WIDTHS}
    goals = [sizes[2] * 0.5 + sizes[3] * 0.5, sizes[3], sizes[3] * 0.5 + sizes[4] * 0.5, sizes[4]]
    mixed = [max((p for p in path if total(p) <= goal), key=total) for goal in goals]
    found = [measured(tuple(p.values())) for p in mixed]

    def points(key: str, values: list[tuple[int, float]]) -> tuple[Point, ...]:
        return tuple(Point(id=f"{key}{i}", x=bytes_ / 1000, y=y) for i, (bytes_, y) in enumerate(values))

    figure = still(
        x=Axis(label="file", low=880, high=1620, unit="kB"),
        y=Axis(label="KL", low=5e-4, high=0.2, log=True, unit="nats a token"),
        series=[
            Series(name="sum of the parts", tone="mute", line=True, points=points("p", [(total(p), predicted(kl, p)) for p in path])),
            Series(name="same bits everywhere", tone="error", shape="square", points=points("u", [(sizes[b], uniform(b).kl) for b in WIDTHS])),
            Series(name="bits where they count", tone="good", front=True, points=points("m", [(total(p), q.kl) for p, q in zip(mixed, found, strict=True)])),
        ],
        say=f"At the size of three bits everywhere, mixed widths cost {found[1].kl:.4f} nats in place of "
        f"{uniform(3).kl:.4f}; at that of four, {found[3].kl:.5f} in place of {uniform(4).kl:.5f}.",
    )  # fmt: skip
    told = {
        "mixed": {3: found[1].kl, 4: found[3].kl},
        "mixed_interval": {3: found[1].interval, 4: found[3].interval},
        "mixed_size": {3: total(mixed[1]), 4: total(mixed[3])},
        "expected": {3: predicted(kl, mixed[1]), 4: predicted(kl, mixed[3])},
        "halfway": found[2].kl,
    }
    return told, figure


def numbers() -> dict[str, Any]:
    kl = alone()
    path = spend(kl)
    told, pareto = front(kl, path)
    weights = sum(lab.weight(name).size for name in lab.names())
    sums = {b: sum(kl[part][b] for part in kl) for b in ENDS}
    byte = {part: kl[part][2] / (size(part, 3) - size(part, 2)) for part in kl}
    return {
        "kl": {b: uniform(b).kl for b in WIDTHS},
        "interval": {b: uniform(b).interval for b in WIDTHS},
        "fall": {b: uniform(b).kl / uniform(b + 1).kl for b in WIDTHS[:-1]},
        "parts": len(kl),
        "most": max(kl, key=lambda part: kl[part][2]),
        "least": min(kl, key=lambda part: kl[part][2]),
        "spread": max(kl[part][2] for part in kl) / min(kl[part][2] for part in kl),
        "spread_byte": max(byte.values()) / min(byte.values()),
        "together": {b: uniform(b).kl / sums[b] for b in ENDS},
        "file": {b: total(dict.fromkeys(kl, b)) for b in WIDTHS},
        "float_file": rest() + 2 * weights,
        "rest": rest(),
        "stored": {b: sum(size(part, b) for part in kl) * 8 / weights for b in WIDTHS},
        **told,
        "curve": curve(),
        "sensitivity": sensitivity(kl),
        "additive": additive(kl),
        "spending": spending(kl, path),
        "pareto": pareto,
    }
