"""Real weights in the number formats of today, bit by bit, and what range and precision are worth on them."""

import math
from typing import Any

import numpy as np
import torch

from bitwright.authoring import lab
from bitwright.authoring.figures import Choice, Figure, Steps, explore
from bitwright.authoring.filters import scientific, significant
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import E4M3, E5M2, FP4, INT, Grid
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor, encode
from bitwright.core.scaling import Levels
from bitwright.methods import rtn

LAYER = "layers.1.mlp.down_proj"
SMALL: dict[str, tuple[Grid, int]] = {"E4M3": (E4M3, 4), "E5M2": (E5M2, 5), "FP4 E2M1": (FP4, 2)}
"""Grids whose codes are bit patterns, and their exponent bits."""
WIDE: dict[str, tuple[torch.dtype, int, int]] = {
    "FP32": (torch.float32, 32, 8),
    "BF16": (torch.bfloat16, 16, 8),
    "FP16": (torch.float16, 16, 5),
}
"""The type, its bits and its exponent bits."""

EIGHT = {"E4M3": torch.float8_e4m3fn, "E5M2": torch.float8_e5m2}


def tensor_format(grid: Grid) -> Format:
    """One float32 scale for a whole matrix."""
    return Format(grid.name, grid, Levels.of(("tensor", "fp32")))


def as_is(w: np.ndarray, grid: Grid) -> QTensor:
    """`w` on the grid itself, scale 1."""
    return encode(w.reshape(1, -1), tensor_format(grid), np.ones((1, 1), np.float32))


def cast(w: np.ndarray, kind: torch.dtype) -> np.ndarray:
    """`w` rounded to a wide type and back to float32."""
    return torch.from_numpy(np.ascontiguousarray(w)).to(kind).to(torch.float32).numpy()


def signed(value: float, digits: int = 4) -> str:
    """A value to read: in powers of ten where it is small."""
    return significant(value, digits) if value == 0 or abs(value) >= 1e-3 else scientific(value)


def word(name: str, pattern: str, exponent: int, value: float, x: float) -> dict[str, Any]:
    """A row of bits with its three fields."""
    off = 100 * (value - x) / x
    gone = ", exact" if off == 0 else f", {off:+.{0 if abs(off) >= 10 else 2}f} %".replace("-", "−")
    return {
        "id": name,
        "label": name,
        "value": signed(value) + gone,
        "fields": [
            {"label": "sign", "bits": pattern[0], "tone": "ink"},
            {"label": "exponent", "bits": pattern[1 : 1 + exponent], "tone": "quant"},
            {"label": "mantissa", "bits": pattern[1 + exponent :], "tone": "float"},
        ],
    }


def formats(w: np.ndarray) -> Figure:
    """Five weights of the layer, from large to tiny, in six formats."""
    size = np.sort(np.abs(w.reshape(-1)))
    kinds = {"largest": 1.0, "typical": 0.5, "small": 0.02, "tiny": 0.001, "smallest": 0.0}

    def view(which: str) -> dict[str, Any]:
        x = float(size[round(kinds[which] * (size.size - 1))])
        words, lost = [], 0
        for name, (kind, bits, exponent) in WIDE.items():
            stored = torch.tensor([x]).to(kind)
            code = int(stored.view(torch.int32 if bits == 32 else torch.int16)[0]) % 2**bits
            words.append(word(name, f"{code:0{bits}b}", exponent, float(stored[0]), x))
        for name, (grid, exponent) in SMALL.items():
            q = as_is(np.array([x], np.float32), grid)
            lost += float(q.decode()[0, 0]) == 0
            words.append(word(name, f"{int(q.codes[0, 0]):0{grid.bits}b}", exponent, float(q.decode()[0, 0]), x))
        return {
            "words": words,
            "say": f"The {which} weight, {signed(x)}: {lost} of {len(words)} formats make it zero.",
            "readouts": [{"label": "Weight", "value": signed(x, 6), "tone": "float"}],
        }

    return explore(view, which=Choice(label="Weight", options={k: k.capitalize() for k in kinds}, start="typical"))


def complement() -> Figure:
    """Five and minus five in eight bits, their sum, and the number without an opposite."""

    def row(identity: str, label: str, code: int, carry: bool = False) -> dict[str, Any]:
        bits = f"{code % 256:08b}"
        fields = [{"label": "carry", "bits": "1", "tone": "mute"}] if carry else []
        fields += [
            {"label": "sign", "bits": bits[0], "tone": "error"},
            {"label": "rest", "bits": bits[1:], "tone": "ink"},
        ]
        value = code % 256 - 256 * (code % 256 >= 128)
        return {"id": identity, "label": label, "fields": fields, "value": f"{value}".replace("-", "−")}

    five, least = row("five", "five", 5), row("least", "the least", -128)
    stories = (
        ([five], "Five in eight bits: a four and a one."),
        (
            [five, row("minus", "inverted", ~5)],
            "Every bit inverted. The sign bit counts negative, so this is one less than minus five.",
        ),
        ([five, row("minus", "plus one", -5)], "Plus one: minus five. Inverting and adding one negates a number."),
        (
            [five, row("minus", "minus five", -5), row("sum", "sum", 0, carry=True)],
            "The sum, by the same adder as for positive numbers. The carry falls off the end.",
        ),
        (
            [least, row("minus", "inverted", ~-128), row("sum", "plus one", 128)],
            "The least number negated is itself: one more negative than positive numbers exist.",
        ),
    )

    def view(step: int) -> dict[str, Any]:
        words, told = stories[step]
        return {"words": words, "say": told}

    return explore(view, step=Steps(captions=tuple(told for _, told in stories)))


def inner_quarter(grid: Grid) -> float:
    """Share of a grid's values no farther from zero than a quarter of its largest."""
    values = {v for v in grid.values if v == v}
    return sum(abs(v) <= grid.high / 4 for v in values) / len(values)


def rulers() -> Figure:
    """All values of small formats, scaled to end at 1."""
    grids = {"INT4": INT[4], "FP4 E2M1": FP4, "INT8": INT[8], "E4M3": E4M3, "E5M2": E5M2}

    def view(format: str) -> dict[str, Any]:
        grid = grids[format]
        values = sorted({v for v in grid.values if v == v})
        top = grid.high
        gaps = np.diff(values)
        least = min(v for v in values if v > 0)
        inner = inner_quarter(grid)
        return {
            "low": -1.15,
            "high": 1.15,
            "x": "value / largest value",
            "levels": [{"at": v / top, "label": f"{v:g}" if len(values) < 20 and v >= 0 else ""} for v in values],
            "spans": [{"low": -0.25, "high": 0.25, "label": "inner quarter"}],
            "say": f"{format}: {len(values)} values, {100 * inner:.0f} % of them in the inner quarter of the range.",
            "readouts": [
                {"label": "Values", "value": f"{len(values)}", "tone": "quant"},
                {"label": "In the inner quarter", "value": f"{100 * inner:.0f} %", "tone": "quant"},
                {"label": "Largest", "value": f"{top:,.0f}"},
                {"label": "Largest / smallest", "value": significant(top / least)},
                {"label": "Widest / narrowest gap", "value": significant(gaps.max() / gaps.min(), 2)},
            ],
        }

    return explore(view, format=Choice(label="Format", options={k: k for k in grids}, start="FP4 E2M1"))


def reach(w: np.ndarray) -> Figure:
    """The sizes of the weights by powers of two, and the part of them that a format can hold, as is and scaled."""
    low, high = -26, 2
    flat = w.reshape(1, -1)

    def sizes(values: np.ndarray) -> np.ndarray:
        held = np.abs(values[values != 0])
        return np.histogram(np.log2(held), high - low, (low, high))[0]

    counts = sizes(flat)
    grids: dict[str, Grid] = {"INT8": INT[8], "FP4": FP4, "E4M3": E4M3, "E5M2": E5M2}
    names = {"INT8": "INT8", "FP4": "FP4", "E4M3": "FP8 E4M3", "E5M2": "FP8 E5M2", "FP16": "FP16"}

    def view(format: str, scaled: str) -> dict[str, Any]:
        if format == "FP16":
            s = float(np.abs(flat).max()) / 65504 if scaled == "yes" else 1.0
            back = cast(flat / np.float32(s), torch.float16) * np.float32(s)
            least, most = 2.0**-24, 65504.0
        else:
            grid = grids[format]
            q = rtn.quantize(flat, tensor_format(grid)) if scaled == "yes" else as_is(flat, grid)
            back, s = q.decode(), abs(float(q.scale[0, 0]))
            least, most = min(v for v in grid.values if v > 0), max(abs(grid.low), grid.high)
        zeros = float(((back == 0) & (flat != 0)).mean())
        error = Error.between(flat, back)
        return {
            "low": low,
            "high": high,
            "counts": counts,
            "second": sizes(back),
            "clip": [max(low, math.log2(least * s)), min(high, math.log2(most * s))],
            "x": "size of a weight, as a power of two",
            "labels": ("original weights", "as they come back", ""),
            "say": f"{names[format]}{', scaled' if scaled == 'yes' else ''}: {100 * zeros:.1f} % of the weights become "
            f"zero, SQNR {error.sqnr:.1f} dB.",
            "readouts": [
                {"label": "Smallest above zero", "value": signed(least * s), "tone": "quant"},
                {"label": "Largest", "value": signed(most * s), "tone": "quant"},
                {"label": "Become zero", "value": f"{100 * zeros:.2f} %", "tone": "error"},
                {"label": "SQNR", "value": f"{error.sqnr:.1f} dB", "tone": "error"},
            ],
        }

    return explore(
        view,
        format=Choice(label="Format", options=names, start="E4M3"),
        scaled=Choice(label="Stored", options={"no": "As it is", "yes": "With one scale"}, start="no"),
    )


def duel() -> tuple[dict[str, dict[str, float]], Figure]:
    """SQNR of INT8, E4M3 and E5M2 with one scale per tensor, on weights and on two activations."""
    tensors = {
        "weights": ("weights of down_proj", lab.weight(LAYER)),
        "calm": ("what gate_proj reads", lab.inputs("layers.1.mlp.gate_proj")),
        "wild": ("what down_proj reads", lab.inputs(LAYER)),
    }
    grids = {"INT8": INT[8], "E4M3": E4M3, "E5M2": E5M2}

    def sqnr(x: np.ndarray, grid: Grid) -> float:
        return Error.between(x, rtn.quantize(x, tensor_format(grid)).decode()).sqnr

    found = {key: {name: sqnr(x, grid) for name, grid in grids.items()} for key, (_, x) in tensors.items()}
    spread = {key: float(np.abs(x).max() / np.sqrt((x**2).mean())) for key, (_, x) in tensors.items()}

    def view(tensor: str) -> dict[str, Any]:
        rows = found[tensor]
        best = max(rows, key=lambda k: rows[k])
        return {
            "bars": [
                {"id": k, "label": k, "value": v, "text": f"{v:.1f} dB", "tone": "good" if k == best else "quant"}
                for k, v in rows.items()
            ],
            "high": 45.0,
            "x": "SQNR, dB",
            "say": f"{tensors[tensor][0].capitalize()}: the best of the three is {best}, {rows[best]:.1f} dB.",
            "readouts": [
                {"label": "Tensor", "value": tensors[tensor][0]},
                {"label": "Largest / root mean square", "value": significant(spread[tensor])},
            ],
        }

    options = {key: label.capitalize() for key, (label, _) in tensors.items()}
    figure = explore(view, tensor=Choice(label="Tensor", options=options, start="weights"))
    return found | {"spread": spread}, figure


def facts(bits: int, exponent: int, largest: float) -> dict[str, float]:
    """What the table of formats says of one: smallest normal and subnormal number, relative gap."""
    mantissa, bias = bits - 1 - exponent, 2 ** (exponent - 1) - 1
    return {
        "largest": largest,
        "normal": 2.0 ** (1 - bias),
        "least": 2.0 ** (1 - bias - mantissa),
        "gap": 2.0**-mantissa,
    }


def numbers() -> dict[str, Any]:
    w = lab.weight(LAYER)
    sqnr, bars = duel()
    table = {name: facts(bits, e, torch.finfo(kind).max) for name, (kind, bits, e) in WIDE.items()}
    table |= {name.split()[0]: facts(grid.bits, e, grid.high) for name, (grid, e) in SMALL.items()}
    for name, (grid, _) in SMALL.items():
        assert table[name.split()[0]]["least"] == min(v for v in grid.values if v > 0)
    assert sqnr["weights"]["INT8"] > sqnr["weights"]["E4M3"] > sqnr["weights"]["E5M2"]
    assert sqnr["wild"]["E4M3"] > sqnr["wild"]["INT8"]
    assert np.array_equal(cast(w, torch.bfloat16), w)
    every = np.concatenate([lab.weight(n).reshape(-1) for n in lab.names()])
    half = cast(every, torch.float16)
    sums = [
        float(torch.tensor(256.0, dtype=kind) + torch.tensor(1.0, dtype=kind))
        for kind in (torch.bfloat16, torch.float16)
    ]
    large = torch.tensor(1e6)
    over = {name: f"{float(large.to(kind))}" for name, kind in EIGHT.items()}
    assert sums == [256.0, 257.0]
    running = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(1000):
        running = running + torch.ones((), dtype=torch.bfloat16)
    e4m3 = as_is(w, E4M3).decode().reshape(w.shape)
    names = lab.names()
    plain = {n: as_is(lab.weight(n), E4M3).decode().reshape(lab.weight(n).shape) for n in names}
    scaled = {n: rtn.quantize(lab.weight(n), named("fp8")).decode() for n in names}
    return {
        "t": table,
        "sqnr": sqnr,
        "inner": {name: inner_quarter(grid) for name, grid in (("E4M3", E4M3), ("INT8", INT[8]))},
        "below": float((np.abs(w) < 2**-6).mean()),
        "unscaled": Error.between(w, e4m3).sqnr,
        "changed": int((half != every).sum()),
        "weights": every.size,
        "sum_bf16": sums[0],
        "sum_fp16": sums[1],
        "running": float(running),
        "over": over,
        "kl_plain": lab.quality(plain).kl,
        "kl_scaled": lab.quality(scaled).kl,
        "kl_int8": lab.quality(
            {n: rtn.quantize(lab.weight(n), named("int8", group="channel")).decode() for n in names}
        ).kl,
        "formats": formats(w),
        "complement": complement(),
        "rulers": rulers(),
        "reach": reach(w),
        "duel": bars,
    }
