"""Who shares a scale: what smaller blocks save in error, what they cost in bits, and which of the two is larger."""

from functools import cache
from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Choice, Figure, Slider, Steps, explore, still
from bitwright.authoring.filters import significant
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import NUMBERS, Block
from bitwright.methods import descent, rtn

LAYER = "layers.0.mlp.down_proj"
BITS = 4
BLOCKS: tuple[Block, ...] = ("tensor", "channel", 128, 64, 32, 16, 8)
GROUPS = (256, 128, 64, 32, 16, 8)
ROWS, COLUMNS = 24, 64
"""Size of the corner drawn."""
PER_BIT = 20 * float(np.log10(2))
"""Decibels that one bit more in every code is worth."""
LARGE = (4096, 4096)
"""A matrix of a model that people ship."""


@cache
def quantized(name: str, bits: int, block: Block) -> QTensor:
    """A matrix rounded to nearest, symmetric, FP16 scales."""
    return rtn.quantize(lab.weight(name), named(f"int{bits}", group=block))


@cache
def whole(bits: int, block: Block) -> tuple[float, float]:
    """Stored bits per weight and SQNR in dB of all matrices."""
    error, stored = Error(), 0
    for name in lab.names():
        q = quantized(name, bits, block)
        error += Error.between(lab.weight(name), q.decode())
        stored += q.stored_bits()
    return stored / error.count, error.sqnr


def block_name(block: Block) -> str:
    """As in "one scale for ..."."""
    return {"tensor": "the whole matrix", "channel": "a row"}.get(str(block), f"{block} weights of a row")


def sharing() -> tuple[Figure, dict[str, Any]]:
    """Errors around the largest weight of a matrix while fewer and fewer weights share a scale."""
    w = lab.weight(LAYER)
    row, column = (int(i) for i in np.unravel_index(int(np.abs(w).argmax()), w.shape))
    top = min(max(row - ROWS // 2, 0), w.shape[0] - ROWS)
    left = column // COLUMNS * COLUMNS
    crop = (slice(top, top + ROWS), slice(left, left + COLUMNS))
    found = {block: quantized(LAYER, BITS, block) for block in BLOCKS}
    errors = {block: Error.between(w, q.decode()) for block, q in found.items()}
    peak = 1000 * abs(float(found["tensor"].scale.max())) / 2
    captions = tuple(
        f"One scale for {block_name(block)}: the outlined weights share the step that the largest weight needs."
        for block in BLOCKS
    )

    def outline(block: Block) -> dict[str, Any]:
        if block == "tensor":
            return {"row": 0, "column": 0, "rows": ROWS, "columns": COLUMNS}
        size = found[block].format.block_size(w.shape[1])
        start = max(column // size * size - left, 0)
        return {"row": row - top, "column": start, "columns": min(size, COLUMNS)}

    def draw(step: int) -> dict[str, Any]:
        block = BLOCKS[step]
        q, error = found[block], errors[block]
        count = w.size // q.scale.size
        return {
            "values": np.round(1000 * np.abs(w - q.decode())[crop], 1),
            "peak": peak,
            "colours": "sequential",
            "tone": "error",
            "marks": [outline(block)],
            "say": f"One scale for {block_name(block)}: {q.scale.size:,} scales, {error.sqnr:.1f} dB SQNR.",
            "readouts": [
                {"label": "Scales", "value": f"{q.scale.size:,}", "tone": "quant"},
                {
                    "label": "Weights that pay for the largest",
                    "value": f"{100 * count / w.size:.3g} %",
                    "tone": "error",
                },
                {"label": "SQNR of the matrix", "value": f"{error.sqnr:.1f} dB", "tone": "error"},
            ],
        }

    sqnr = [errors[block].sqnr for block in BLOCKS]
    assert sqnr == sorted(sqnr)
    facts = {str(block): errors[block].sqnr for block in BLOCKS}
    facts |= {"row_bits": 16 / w.shape[1], "columns": w.shape[1], "rows": w.shape[0]}
    return explore(draw, step=Steps(captions=captions)), facts


def words() -> Figure:
    """The bits of one group of a real row, as a file holds them."""
    w = lab.weight(LAYER)

    def draw(group: int, zero: str) -> dict[str, Any]:
        format = named(f"int{BITS}", group=group, symmetric=zero == "none")
        q = rtn.quantize(w, format)
        scale = float(q.scale[0, 0])
        codes = [f"{int(code):0{BITS}b}" for code in q.codes[0, :group]]
        drawn = [
            {
                "id": "scale",
                "fields": [
                    {"label": "FP16 scale", "bits": f"{int(np.float16(scale).view(np.uint16)):016b}", "tone": "quant"}
                ],
                "label": "scale",
                "value": significant(scale),
            }
        ]
        overhead = NUMBERS["fp16"].bits
        if q.zero is not None:
            value = int(q.zero[0, 0])
            code = value - int(format.grid.low)
            drawn.append(
                {
                    "id": "zero",
                    "fields": [{"label": "zero point", "bits": f"{code:0{BITS}b}", "tone": "warn"}],
                    "label": "zero point",
                    "value": f"{value}".replace("-", "−"),
                }
            )
            overhead += BITS
        decoded = q.decode()[0]
        for i in range(0, group, 8):
            first, last = significant(float(decoded[i]), 2), significant(float(decoded[i + 7]), 2)
            drawn.append(
                {
                    "id": f"codes{i}",
                    "fields": [{"label": "", "bits": code, "tone": "float"} for code in codes[i : i + 8]],
                    "label": f"weights {i + 1}–{i + 8}",
                    "value": f"{first} … {last}",
                }
            )
        stored = format.stored_bits(*w.shape) / w.size
        assert abs(stored - BITS - overhead / group) < 1e-9
        return {
            "words": drawn,
            "say": f"{group} codes of {BITS} bits and {overhead} bits beside them: {stored:.3f} bits per weight.",
            "readouts": [
                {"label": "Codes", "value": f"{BITS * group} bits", "tone": "float"},
                {"label": "Beside them", "value": f"{overhead} bits", "tone": "quant"},
                {"label": "Stored bits per weight", "value": f"{stored:.3f}", "tone": "good"},
            ],
        }

    return explore(
        draw,
        group=Slider(label="Weights in a group", values=(8, 16, 32, 64), start=16),
        zero=Choice(label="Zero point", options={"none": "None", "integer": "Four bits"}, start="none"),
    )


def ruler() -> tuple[Figure, dict[str, float]]:
    """How long the ruler of a group must be: its largest weight, in units of the typical one."""
    rng = np.random.default_rng(0)
    real, normal = {}, {}
    for group in GROUPS:
        blocks = np.concatenate([lab.weight(name).reshape(-1, group) for name in lab.names()])
        drawn = rng.standard_normal((20_000, group))
        real[group], normal[group] = (
            float((np.abs(x).max(1) / np.sqrt((x**2).mean(1))).mean()) for x in (blocks, drawn)
        )
    apart = max(abs(real[g] / normal[g] - 1) for g in GROUPS)
    assert apart < 0.03
    series = [
        {
            "name": name,
            "tone": tone,
            "shape": shape,
            "line": True,
            "points": [{"id": f"{name}{g}", "x": g, "y": values[g], "label": f"{g}"} for g in GROUPS],
        }
        for name, tone, shape, values in (
            ("this model", "float", "circle", real),
            ("a Gaussian", "mute", "diamond", normal),
        )
    ]
    figure = still(
        x={"label": "weights in a group", "low": 6, "high": 320, "log": True},
        y={"label": "largest ÷ root mean square", "low": 1.5, "high": 3.5, "unit": "×"},
        series=series,
        say=f"From groups of {GROUPS[0]} to groups of {GROUPS[-1]} the ruler shortens from {real[GROUPS[0]]:.2f} to "
        f"{real[GROUPS[-1]]:.2f} times the typical weight; a Gaussian's does the same.",
        readouts=[{"label": "Farthest apart", "value": f"{100 * apart:.1f} %"}],
    )
    expected = 10 * float(np.log10(12 * 4 ** (BITS - 1) / real[128] ** 2))
    assert abs(expected - whole(BITS, 128)[1]) < 0.3
    return figure, {"apart": apart, "expected": expected, "found": whole(BITS, 128)[1]}


def prices() -> tuple[Figure, dict[str, Any]]:
    """What each halving of the group gains in SQNR, and what its scales cost in the same unit."""
    halvings = list(zip(GROUPS, GROUPS[1:], strict=False))
    gain = {pair: whole(BITS, pair[1])[1] - whole(BITS, pair[0])[1] for pair in halvings}
    price = {bits: {pair: bits * (1 / pair[1] - 1 / pair[0]) * PER_BIT for pair in halvings} for bits in (32, 16, 8)}
    high = max(price[32].values())

    def draw(scale: str) -> dict[str, Any]:
        bits = int(scale)
        bars = []
        for pair in halvings:
            name = f"{pair[0]} to {pair[1]}"
            for key, value, tone in (("gain", gain[pair], "good"), ("price", price[bits][pair], "error")):
                label = f"{name}, {key}"
                bars.append(
                    {"id": f"{key}{pair[1]}", "label": label, "value": value, "text": f"{value:.2f} dB", "tone": tone}
                )
        worth = [pair for pair in halvings if gain[pair] > price[bits][pair]]
        last = worth[-1][1] if worth else GROUPS[0]
        return {
            "bars": bars,
            "high": high,
            "x": "dB of SQNR",
            "say": f"With {bits} bits per scale, halving pays down to groups of {last}.",
            "readouts": [{"label": "Halving pays down to groups of", "value": f"{last}", "tone": "good"}],
        }

    figure = explore(
        draw, scale=Choice(label="Bits of a scale", options={"32": "FP32", "16": "FP16", "8": "Eight bits"}, start="16")
    )
    pays = {f"{pair[0]}_{pair[1]}": gain[pair] > price[16][pair] for pair in halvings}
    assert pays["256_128"] and not pays["32_16"] and not pays["16_8"]
    assert gain[64, 32] > price[8][64, 32]
    return figure, {
        "gain": gain[64, 32],
        "price": price[16][64, 32],
        "worth": gain[64, 32] > price[16][64, 32],
    }


def pareto() -> tuple[Figure, dict[str, Any]]:
    """Stored bits against KL of the whole model, over code widths and blocks."""
    blocks: tuple[Block, ...] = ("channel", 128, 64, 32, 16)
    rounded = {
        (bits, block): lab.quality({name: quantized(name, bits, block).decode() for name in lab.names()})
        for bits in (3, 4, 5)
        for block in (("tensor", *blocks) if bits == BITS else blocks if bits < BITS else ("channel", 128, 32))
    }
    fed = {
        block: lab.quality(
            {
                name: descent.quantize(lab.weight(name), named(f"int{BITS}", group=block), lab.stats(name)).decode()
                for name in lab.names()
            }
        )
        for block in ("channel", 128, 32)
    }

    def short(block: Block) -> str:
        return {"tensor": "matrix", "channel": "row"}.get(str(block), f"{block}")

    shapes = {3: "triangle", 4: "circle", 5: "square"}
    words = {3: "three", 4: "four", 5: "five"}
    series = [
        {
            "name": f"{words[bits]}-bit codes",
            "tone": "quant",
            "shape": shape,
            "line": True,
            "front": True,
            "points": [
                {"id": f"r{b}{block}", "x": whole(b, block)[0], "y": quality.kl, "label": short(block)}
                for (b, block), quality in rounded.items()
                if b == bits
            ],
        }
        for bits, shape in shapes.items()
    ]
    series.append(
        {
            "name": "four-bit codes, descent",
            "tone": "good",
            "shape": "diamond",
            "line": True,
            "points": [
                {"id": f"d{block}", "x": whole(BITS, block)[0], "y": quality.kl, "label": short(block)}
                for block, quality in fed.items()
            ],
        }
    )
    small, row = rounded[3, 16], rounded[4, "channel"]
    assert small.kl > 1.2 * row.kl and fed["channel"].kl < rounded[4, 16].kl
    figure = still(
        x={"label": "stored bits per weight", "low": 2.9, "high": 6.1},
        y={"label": "KL from the float model", "low": 0.001, "high": 0.1, "log": True, "unit": "nats"},
        series=series,
        say=f"Three-bit codes in groups of 16 cost {whole(3, 16)[0]:.2f} bits for KL {small.kl:.4f}; four-bit codes "
        f"with one scale per row {whole(4, 'channel')[0]:.2f} bits for {row.kl:.4f}.",
    )
    return figure, {
        "small": small.kl,
        "small_bits": whole(3, 16)[0],
        "row": row.kl,
        "row_bits": whole(4, "channel")[0],
        "tensor": rounded[4, "tensor"].kl,
        "descent": fed["channel"].kl,
        "fine": rounded[4, 16].kl,
        "fine_bits": whole(4, 16)[0],
    }


def numbers() -> dict[str, Any]:
    sharing_figure, shared = sharing()
    ruler_figure, law = ruler()
    price_figure, price = prices()
    pareto_figure, front = pareto()

    def columnwise(name: str) -> bool:
        """Whether one scale per column would round this matrix better than one scale per row."""
        turned = np.ascontiguousarray(lab.weight(name).T)
        back = rtn.quantize(turned, named(f"int{BITS}", group="channel")).decode()
        return (
            Error.between(turned, back).sqnr > Error.between(turned.T, quantized(name, BITS, "channel").decode()).sqnr
        )

    def stored(format: Format) -> float:
        return format.stored_bits(*LARGE) / (LARGE[0] * LARGE[1])

    return {
        "sharing": sharing_figure,
        "words": words(),
        "ruler": ruler_figure,
        "prices": price_figure,
        "pareto": pareto_figure,
        "shared": shared,
        "law": law,
        "price": price,
        "front": front,
        "matrices": len(lab.names()),
        "columnwise": sum(columnwise(name) for name in lab.names()),
        "per_bit": PER_BIT,
        "answer": 1 if price["worth"] else 2,
        "stored": {
            "int8_row": stored(named("int8", group="channel")),
            "gptq": stored(named("int4", group=128, symmetric=False)),
            "int4_fp32": stored(named("int4", group=128, scale="fp32")),
            "int4": stored(named("int4", group=128)),
            "q4_0": stored(named("int4", group=32)),
            "nf4": stored(named("nf4", group=64)),
            "mxfp4": stored(named("mxfp4")),
            "nvfp4": stored(named("nvfp4")),
        },
    }
