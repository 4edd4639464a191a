"""What each part of the model pays for its bits, and how a budget of bytes is spent where it buys most."""

from functools import cache
from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Point, Series, Slider, Steps, explore, still
from bitwright.authoring.filters import significant
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.methods import descent, gptq

WIDTHS = (2, 3, 4, 5)
ENDS = (2, 4)
"""Widths at which each part alone is measured."""
HALVES = {"choose": slice(0, 16), "judge": slice(16, 32)}
"""Windows of the held-out text by which widths are chosen, and others by which the result is judged."""
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
def measured(bits: tuple[int, ...], half: str = "judge") -> lab.Quality:
    """The model with each part, in order, in so many bits; 0 leaves it float."""
    chosen = {n: quantized(b)[n] for b, names in zip(bits, parts().values(), strict=True) if b for n in names}
    return lab.quality(chosen, HALVES[half])


def size(part: str, bits: int) -> int:
    """Bytes of a part on disk: rows padded to 32-bit words, and scales."""
    return sum(format_of(bits).stored_bits(*lab.weight(name).shape, word=32) // 8 for name in parts()[part])


def rest() -> int:
    """Bytes of the model's file that stay as they are: embedding, norms, header."""
    weights = sum(lab.weight(name).size for name in lab.names())
    return (lab.MODEL / "model.safetensors").stat().st_size - 2 * weights


def alone(ends: tuple[int, ...]) -> dict[str, dict[int, float]]:
    """KL of each part alone, all else float, at each width.

    With two `ends` measured, the logarithm runs straight through both; with one, it falls four times a bit.
    """
    found = {}
    for i, part in enumerate(parts()):
        at = [measured(tuple(b if j == i else 0 for j in range(len(parts()))), "choose").kl for b in ends]
        fall = (at[-1] / at[0]) ** (1 / (ends[-1] - ends[0])) if len(ends) > 1 else 1 / 4
        found[part] = {bits: at[0] * fall ** (bits - ends[0]) for bits in WIDTHS}
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
        x=Axis(label="bits per weight", low=1.7, high=5.3),
        y=Axis(label="KL", low=5e-4, high=0.2, log=True, unit="nats per token"),
        series=[
            Series(name="four times a bit", tone="mute", shape="diamond", line=True, points=rule),
            Series(name="measured", tone="error", line=True, points=points),
        ],
        say=f"KL falls from {uniform(2).kl:.3f} nats at two bits to {uniform(5).kl:.5f} at five.",
    )


def sensitivity(kl: dict[str, dict[int, float]]) -> Figure:
    """What each part costs alone, in all or for each kilobyte that one more bit would take."""

    def value(part: str, bits: int, measure: str) -> float:
        bytes_ = size(part, bits + 1) - size(part, bits)
        return 1000 * kl[part][bits] / (bytes_ / 1000 if measure == "byte" else 1)

    def view(bits: int, measure: str) -> dict[str, Any]:
        unit = "thousandths of a nat" + (" a kB" if measure == "byte" else "")
        values = {part: value(part, bits, measure) for part in kl}
        most = max(values, key=lambda part: values[part])
        return {
            "bars": [
                {"id": part, "label": part, "value": v, "text": significant(v, 2), "tone": "error"}
                for part, v in values.items()
            ],
            "high": 1.15 * values[most],
            "x": f"KL with this part alone in {bits} bits, {unit}",
            "say": f"{bits} bits: block {most} costs most, {significant(values[most], 2)} {unit}.",
        }

    options = {"all": "In all", "byte": "For each kB of one more bit"}
    return explore(
        view,
        bits=Slider(label="Bits of that part", values=ENDS, start=2),
        measure=Choice(label="Cost", options=options, start="all"),
    )


def additive(kl: dict[str, dict[int, float]], mixed: list[dict[str, int]]) -> tuple[list[float], Figure]:
    """The sum of the parts' costs against the cost of all together, on one text: all ratios, and the figure."""

    def point(key: str, bits: dict[str, int], label: str = "") -> Point:
        return Point(id=key, x=predicted(kl, bits), y=measured(tuple(bits.values()), "choose").kl, label=label)

    same = [point(f"same{b}", dict.fromkeys(kl, b), f"{b} bits") for b in WIDTHS]
    mixes = [point(f"mixed{i}", bits) for i, bits in enumerate(mixed)]
    equal = (Point(id="e0", x=5e-4, y=5e-4), Point(id="e1", x=0.2, y=0.2))
    ratios = [p.y / p.x for p in (*same, *mixes)]
    low, high = min(ratios), max(ratios)
    figure = still(
        x=Axis(label="sum of the parts alone", low=5e-4, high=0.2, log=True, unit="nats"),
        y=Axis(label="measured together", low=5e-4, high=0.2, log=True, unit="nats"),
        series=[
            Series(name="equal", tone="mute", line=True, points=equal),
            Series(name="same bits everywhere", tone="error", shape="square", points=tuple(same)),
            Series(name="mixed widths", tone="good", points=tuple(mixes)),
        ],
        say=f"Together the parts cost between {low:.2f} and {high:.2f} times the sum of what they cost alone.",
    )
    return ratios, figure


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
            "x": "bits per weight",
            "say": f"File of {total(now) / 1000:,.0f} kB: {average:.2f} bits per weight on average, predicted KL "
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


def mixes(kl: dict[str, dict[int, float]], path: list[dict[str, int]]) -> list[dict[str, int]]:
    """The largest allocations that fit the files of three bits, half way, and of four bits everywhere."""
    three, four = (total(dict.fromkeys(kl, b)) for b in (3, 4))
    return [max((p for p in path if total(p) <= goal), key=total) for goal in (three, (three + four) / 2, four)]


def front(kl: dict[str, dict[int, float]], path: list[dict[str, int]], mixed: list[dict[str, int]]) -> Figure:
    """Size against quality, measured: the same bits everywhere, and mixed widths."""
    found = [measured(tuple(bits.values())).kl for bits in mixed]

    def series(name: str, values: list[tuple[int, float]], **look: Any) -> Series:
        points = tuple(Point(id=f"{name}{i}", x=bytes_ / 1000, y=y) for i, (bytes_, y) in enumerate(values))
        return Series(name=name, points=points, **look)

    return still(
        x=Axis(label="file", low=1000, high=1850, unit="kB"),
        y=Axis(label="KL", low=5e-4, high=0.2, log=True, unit="nats per token"),
        series=[
            series("predicted", [(total(p), predicted(kl, p)) for p in path], tone="mute", line=True),
            series(
                "same bits everywhere",
                [(total(dict.fromkeys(kl, b)), uniform(b).kl) for b in WIDTHS],
                tone="error",
                shape="square",
            ),
            series(
                "bits where they count",
                [(total(bits), y) for bits, y in zip(mixed, found, strict=True)],
                tone="good",
                front=True,
            ),
        ],
        say=f"At the size of three bits everywhere, mixed widths cost {found[0]:.4f} nats in place of "
        f"{uniform(3).kl:.4f}; at that of four, {found[2]:.5f} in place of {uniform(4).kl:.5f}.",
    )


def numbers() -> dict[str, Any]:
    kl = alone(ENDS)
    path = spend(kl)
    mixed = mixes(kl, path)
    three, half, four = (measured(tuple(bits.values())) for bits in mixed)
    lazy = measured(tuple(mixes(kl, spend(alone(ENDS[1:])))[2].values()))
    ratios, adding = additive(kl, mixed)
    weights = sum(lab.weight(name).size for name in lab.names())
    byte = {part: kl[part][4] / (size(part, 5) - size(part, 4)) for part in kl}
    most = sorted(kl, key=lambda part: -kl[part][2])
    falls = {part: (kl[part][2] / kl[part][4]) ** 0.5 for part in kl}
    assert three.kl < uniform(3).kl and four.kl < lazy.kl < uniform(4).kl
    assert total(mixed[2]) <= total(dict.fromkeys(kl, 4)) and most[0].endswith("down") and most[1].endswith("down")
    assert uniform(2).kl / uniform(3).kl > 5 > uniform(3).kl / uniform(4).kl > 3
    return {
        "kl": {b: uniform(b).kl for b in WIDTHS},
        "interval": {b: uniform(b).interval for b in WIDTHS},
        "fall": {b: uniform(b).kl / uniform(b + 1).kl for b in WIDTHS[:-1]},
        "parts": len(kl),
        "fall_low": min(falls.values()),
        "fall_high": max(falls.values()),
        "fall_high_name": max(falls, key=lambda part: falls[part]),
        "most": most[0],
        "second": most[1],
        "least": most[-1],
        "spread": kl[most[0]][2] / kl[most[-1]][2],
        "spread_byte": max(byte.values()) / min(byte.values()),
        "widest": 0.5 * float(np.log2(max(byte.values()) / min(byte.values()))),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "file": {b: total(dict.fromkeys(kl, b)) for b in WIDTHS},
        "float_file": rest() + 2 * weights,
        "rest": rest(),
        "rest_share": rest() / total(dict.fromkeys(kl, 4)),
        "stored": {b: sum(size(part, b) for part in kl) * 8 / weights for b in WIDTHS},
        "effective": total(dict.fromkeys(kl, 4)) * 8 / (weights + rest() / 2),
        "mixed": {3: three.kl, "half": half.kl, 4: four.kl},
        "mixed_interval": {3: three.interval, 4: four.interval},
        "mixed_size": {3: total(mixed[0]), "half": total(mixed[1]), 4: total(mixed[2])},
        "saved": {3: 1 - three.kl / uniform(3).kl, 4: 1 - four.kl / uniform(4).kl},
        "lazy": lazy.kl,
        "worth": 0.5 * float(np.log2(uniform(4).kl / four.kl)),
        "curve": curve(),
        "sensitivity": sensitivity(kl),
        "additive": adding,
        "spending": spending(kl, path),
        "pareto": front(kl, path, mixed),
    }
