"""Grids that are not evenly spaced: fitted ones, NF4, FP4, their limits on a Gaussian and what a model pays."""

import math
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Bar, Choice, Figure, Point, Series, Slider, Steps, explore, still
from bitwright.authoring.filters import significant
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import FP4, INT, NF4, Grid
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor
from bitwright.methods import lloyd, mse, rtn

LAYER = "layers.1.mlp.down_proj"
BINS = 80
GROUPS = (32, 64, 128, 512)
NAMES = {"int4": "INT4", "nf4": "NF4", "fp4": "FP4", "fitted": "Fitted"}
NORMAL = NormalDist()
WIDE = 4096
"""Weights in a row of a large model."""
ROUNDS = 7
"""Rounds of the story at most."""


def relative(w: np.ndarray, back: np.ndarray) -> float:
    """Squared error over squared weights."""
    error = Error.between(w, back)
    return error.noise / error.signal


@cache
def fitted(group: int) -> tuple[np.ndarray, np.ndarray]:
    """The layer's weights over the largest of their group [1, n], and the best table for them [16]."""
    blocks = lab.weight(LAYER).reshape(-1, group)
    scaled = (blocks / np.abs(blocks).max(1, keepdims=True)).reshape(1, -1)
    return scaled, lloyd.fit(scaled, None, 16, 60)[0]


def grids() -> tuple[dict[tuple[int, str], float], Figure]:
    """Relative error by group and grid, and the figure of weights over their group's largest with the levels."""
    w = lab.weight(LAYER)
    found: dict[tuple[int, str], float] = {}

    def view(group: int, grid: str) -> dict[str, Any]:
        scaled, table = fitted(group)
        top = np.abs(w.reshape(-1, group)).max(1, keepdims=True)
        if grid == "fitted":
            q = lloyd.nearest(scaled, named("codebook4", group="tensor"), table.reshape(1, 1, -1))
            back, levels = q.decode(), table.tolist()
        else:
            q = rtn.quantize(w, named(grid, group=group, scale="fp32"))
            back = (q.decode().reshape(-1, group) / top).reshape(1, -1)
            values = {"int4": INT[4], "nf4": NF4, "fp4": FP4}[grid]
            levels = sorted({v / max(-values.low, values.high) for v in values.values})
            if grid == "int4":  # the sign of a group's scale gives the lowest level to the longer tail
                levels.append(-levels[0])
        count = len(set(FP4.values)) if grid == "fp4" else 16
        found[group, grid] = relative(w, back.reshape(-1, group) * top)
        share = found[group, grid]
        return {
            "low": -1.02,
            "high": 1.02,
            "counts": np.histogram(scaled, BINS, (-1.02, 1.02))[0],
            "errors": np.histogram(scaled, BINS, (-1.02, 1.02), weights=(scaled - back) ** 2)[0],
            "levels": levels,
            "x": "weight / largest of its group",
            "labels": ("weights", "levels", "where the squared error comes from"),
            "say": f"{NAMES[grid]}, groups of {group}: squared error {100 * share:.2f} % of the squared weights.",
            "readouts": [
                {"label": "Different levels", "value": f"{count}", "tone": "quant"},
                {"label": "Squared error, of squared weights", "value": f"{100 * share:.3f} %", "tone": "error"},
                {"label": "SQNR", "value": f"{-10 * math.log10(share):.1f} dB", "tone": "error"},
            ],
        }

    figure = explore(
        view,
        group=Slider(label="Weights in a group", values=GROUPS, start=64),
        grid=Choice(label="Grid", options=NAMES, start="int4"),
    )
    return found, figure


def rounds(w: np.ndarray, levels: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Lloyd's rounds on `w` [n] from even levels: (levels, codes, squared error), until no code changes."""
    low, high = float(w.min()), float(w.max())
    table = (low + (np.arange(levels) + 0.5) * (high - low) / levels).astype(np.float32)
    told: list[tuple[np.ndarray, np.ndarray, float]] = []
    while len(told) < ROUNDS:
        q = lloyd.nearest(w[None], named("codebook2", group="tensor"), table.reshape(1, 1, -1))
        told.append((table, q.codes[0], Error.between(w[None], q.decode()).mse))
        if len(told) > 1 and (told[-1][1] == told[-2][1]).all():
            break
        table = np.array([w[q.codes[0] == k].mean() for k in range(levels)], np.float32)
    return told


def story() -> tuple[list[float], float, Figure]:
    """Errors of Lloyd's rounds on some weights, the engine's best, and the story."""
    w = lab.weight(LAYER)[3, :26]
    told = rounds(w, 4)
    best = Error.between(w[None], lloyd.quantize(w[None], named("codebook2", group="tensor")).decode()).mse
    edge = 1.1 * float(np.abs(w).max())
    frames: list[tuple[str, int, bool, bool]] = [("Some weights of one row.", 0, False, False)]
    for i in range(len(told)):
        if i == 0:
            frames.append(
                ("Four levels, spread evenly over the range. They know nothing of the weights.", 0, True, False)
            )
        elif i < len(told) - 1:
            frames.append(
                ("Every level moves to the mean of its cell: the best place for these weights.", i, True, False)
            )
        if i < len(told) - 1:
            frames.append(
                ("Every weight goes to its nearest level; borders lie half way between levels.", i, True, True)
            )
    frames.append(("The next means move no weight to another cell: a fixed point.", len(told) - 1, True, True))

    def view(step: int) -> dict[str, Any]:
        _, i, levels, moved = frames[step]
        table, codes, error = told[i]
        middles = [-edge, *((table[:-1] + table[1:]) / 2).tolist(), edge]
        return {
            "low": -edge,
            "high": edge,
            "x": "weight",
            "levels": [{"at": v, "code": f"{k}"} for k, v in enumerate(table)] if levels else [],
            "spans": [
                {"low": a, "high": b, "tone": "mute" if k % 2 else "quant"}
                for k, (a, b) in enumerate(zip(middles, middles[1:], strict=False))
            ]
            if moved
            else [],
            "dots": [
                {"id": f"w{j}", "at": x} | ({"to": table[k]} if moved else {})
                for j, (x, k) in enumerate(zip(w, codes, strict=True))
            ],
            "say": f"{frames[step][0]} Mean squared error {significant(error)}." if levels else frames[step][0],
            "readouts": [
                {
                    "label": "Mean squared error",
                    "value": significant(error) if levels else "no levels",
                    "tone": "error",
                },
                {"label": "Round", "value": f"{i + 1}" if levels else "none"},
            ],
        }

    figure = explore(view, step=Steps(captions=tuple(frame[0] for frame in frames)))
    return [error for _, _, error in told], best, figure


def entropy_coded(bits: float) -> float:
    """MSE on N(0, 1) of even steps without end whose codes take `bits` on average, decoded to the means of cells."""

    def at(step: float) -> tuple[float, float]:
        """(entropy in bits, MSE)."""
        entropy, power = 0.0, 0.0
        for k in range(-math.ceil(9 / step), math.ceil(9 / step) + 1):
            a, b = (k - 0.5) * step, (k + 0.5) * step
            share = NORMAL.cdf(b) - NORMAL.cdf(a)
            if share > 0:
                entropy -= share * math.log2(share)
                power += (NORMAL.pdf(a) - NORMAL.pdf(b)) ** 2 / share
        return entropy, 1 - power

    low, high = 0.01, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[0] > bits else (low, middle)
    return at(high)[1]


def limits() -> tuple[dict[str, list[float]], Figure]:
    """MSE on a standard Gaussian at 1 to 4 bits by four rules, and the figure."""
    n = 40_001
    x = np.array([[NORMAL.inv_cdf((i + 0.5) / n) for i in range(n)]], np.float32)
    found: dict[str, list[float]] = {
        "even levels": [],
        "fitted levels": [],
        "even, codes compressed": [],
        "the limit": [],
    }
    for bits in (1, 2, 3, 4):
        even = named(f"midrise{bits}", group="tensor", scale="fp32")
        book = named(f"codebook{bits}", group="tensor")
        found["even levels"].append(Error.between(x, mse.quantize(x, even, steps=200, least=0.2).decode()).mse)
        found["fitted levels"].append(Error.between(x, lloyd.quantize(x, book, rounds=200).decode()).mse)
        found["even, codes compressed"].append(entropy_coded(bits))
        found["the limit"].append(2.0 ** (-2 * bits))
    tones: dict[str, Any] = dict(zip(found, ("error", "quant", "float", "good"), strict=True))
    figure = still(
        x=Axis(label="bits per weight", low=0.8, high=4.4),
        y=Axis(label="mean squared error", low=3e-3, high=0.5, log=True),
        series=[
            Series(
                name=name,
                tone=tones[name],
                line=True,
                points=tuple(Point(id=f"{name}{b}", x=b, y=y) for b, y in enumerate(values, 1)),
            )
            for name, values in found.items()
        ],
        say="At four bits fitted levels lie between even ones and the limit, and compressing the codes helps more.",
    )
    return found, figure


def words() -> Figure:
    """The codes from zero up of three four-bit grids, bit by bit."""
    parts = {"fp4": (("sign", 1), ("exponent", 2), ("mantissa", 1)), "int4": (("integer", 4),), "nf4": (("index", 4),)}
    tables: dict[str, Grid] = {"fp4": FP4, "int4": INT[4], "nf4": NF4}
    tones = {"sign": "ink", "exponent": "quant", "mantissa": "float", "integer": "float", "index": "mute"}
    told = {
        "fp4": "three fields; the gap doubles with the exponent",
        "int4": "two's complement; every gap is one",
        "nf4": "no fields: the value stands in a table",
    }

    def view(grid: str) -> dict[str, Any]:
        values = tables[grid].values
        codes = [k for k in range(16) if values[k] >= 0 and not (grid == "fp4" and k > 7)]
        shown = []
        for i, k in enumerate(codes):
            pattern = f"{k if grid != 'int4' else int(values[k]):04b}"
            fields, at = [], 0
            for label, size in parts[grid]:
                fields.append({"label": label, "bits": pattern[at : at + size], "tone": tones[label]})
                at += size
            shown.append({"id": f"v{i}", "fields": fields, "value": significant(values[k])})
        return {"words": shown, "say": f"{NAMES[grid]}: {told[grid]}."}

    return explore(view, grid=Choice(label="Grid", options={k: NAMES[k] for k in tables}, start="fp4"))


def fits() -> dict[str, tuple[str, Format]]:
    """What the models of the last figure are made of: id -> label and format."""
    return {
        "int4": ("INT4, a scale per row", named("int4", group="channel")),
        "int4g": ("INT4, groups of 64", named("int4", group=64)),
        "nf4": ("NF4, groups of 64", named("nf4", group=64)),
        "mxfp4": ("MXFP4, groups of 32", named("mxfp4")),
        "nvfp4": ("NVFP4, groups of 16", named("nvfp4")),
        "book": ("codebook of 16, a matrix", named("codebook4", group="tensor")),
        "books": ("codebook of 16, a row", named("codebook4", group="channel")),
        "int5": ("INT5, a scale per row", named("int5", group="channel")),
    }


def model(key: str, how: str) -> tuple[float, float, float]:
    """(stored bits per weight, KL, its interval) of the language model with all matrices in a format."""
    format = fits()[key][1]

    def change(name: str) -> QTensor:
        w = lab.weight(name)
        if format.code.table_bits:
            return lloyd.quantize(w, format, lab.stats(name) if how == "careful" else None)
        return mse.quantize(w, format) if how == "careful" else rtn.quantize(w, format)

    made = {name: change(name) for name in lab.names()}
    count = sum(q.codes.size for q in made.values())
    bits = sum(q.stored_bits() for q in made.values()) / count
    quality = lab.quality({name: q.decode() for name, q in made.items()})
    return bits, quality.kl, quality.interval


def bill() -> tuple[dict[tuple[str, str], tuple[float, float, float]], Figure]:
    """What the model pays, by format and care, and the figure."""
    found = {(key, how): model(key, how) for key in fits() for how in ("plain", "careful")}

    def view(how: str) -> dict[str, Any]:
        bars = []
        for key, (label, format) in fits().items():
            bits, kl, _ = found[key, how]
            tone: Any = "good" if format.code.table_bits else "float" if key.startswith("int") else "quant"
            bars.append(Bar(id=key, label=f"{label}: {bits:.2f} bits", value=kl, text=significant(kl, 2), tone=tone))
        best = min(bars, key=lambda bar: bar.value)
        return {
            "bars": bars,
            "high": 0.02,
            "x": "KL, nats per token",
            "say": f"Least: {best.label}, KL {best.text}.",
        }

    options = {"plain": "Largest weight", "careful": "Searched"}
    return found, explore(view, how=Choice(label="Scales and codebooks", options=options, start="plain"))


def numbers() -> dict[str, Any]:
    shares, drawn = grids()
    errors, best, told = story()
    bound, lines = limits()
    paid, bars = bill()
    w = lab.weight(LAYER)
    searched = relative(w, mse.quantize(w, named("int4", group=64, scale="fp32")).decode())
    gaps = np.diff(sorted(NF4.values))
    even, book, packed, limit = bound.values()
    # What the text says in words.
    assert shares[32, "int4"] < shares[32, "nf4"] and shares[128, "nf4"] < shares[128, "int4"]
    assert shares[64, "nf4"] < shares[64, "int4"] < shares[64, "fp4"]
    assert searched < shares[64, "nf4"]
    assert all(a > b for a, b in zip(errors[:-1], errors[1:-1], strict=False)) and best <= errors[-1] * 1.001
    assert limit[3] < packed[3] < book[3] < even[3]
    assert paid["int4g", "careful"][1] < paid["nf4", "plain"][1] < paid["int4g", "plain"][1]
    assert paid["nf4", "careful"][1] < paid["int4g", "careful"][1]
    sixteen = [key for key in fits() if key != "int5"]
    assert min(sixteen, key=lambda key: paid[key, "plain"][1]) == "books"
    groups = ["int4g", "nf4", "mxfp4", "nvfp4"]
    assert min(groups, key=lambda key: paid[key, "careful"][1]) == "nvfp4"
    assert paid["mxfp4", "careful"][1] < paid["mxfp4", "plain"][1]
    assert paid["int4", "plain"][1] < paid["book", "plain"][1]
    assert abs(paid["int4", "careful"][1] / paid["book", "careful"][1] - 1) < 0.05
    assert paid["int5", "careful"][1] < paid["books", "careful"][1] / 1.5
    assert (
        paid["book", "careful"][1] < paid["book", "plain"][1]
        and paid["books", "careful"][1] < paid["books", "plain"][1]
    )
    inputs = sorted({lab.weight(name).shape[1] for name in lab.names()})
    return {
        "share": {f"{grid}{group}": value for (group, grid), value in shares.items()},
        "searched": searched,
        "near": float(gaps.min()),
        "far": float(gaps.max()),
        "first": errors[0],
        "last": errors[-1],
        "rounds": len(errors),
        "best": best,
        "engine": errors[-1] / best - 1,
        "even4": even[3],
        "book4": book[3],
        "packed4": packed[3],
        "limit4": limit[3],
        "gain4": 10 * math.log10(even[3] / book[3]),
        "gain1": 10 * math.log10(even[0] / book[0]),
        "apart": 10 * math.log10(book[3] / limit[3]),
        "apart_packed": 10 * math.log10(packed[3] / limit[3]),
        "kl": {f"{key}_{how}": value[1] for (key, how), value in paid.items()},
        "bits": {key: paid[key, "plain"][0] for key in fits()},
        "second": sorted(FP4.values)[-2],
        "top": FP4.high,
        "narrow": inputs[0],
        "overhead": 16 * 16 / inputs[0],
        "wide": WIDE,
        "overhead_wide": 16 * 16 / WIDE,
        "interval": max(paid["int4g", "careful"][2], paid["nf4", "plain"][2]),
        "grids": drawn,
        "story": told,
        "limits": lines,
        "words": words(),
        "bill": bars,
    }
