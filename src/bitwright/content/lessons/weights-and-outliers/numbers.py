"""What weights look like, what one outlier costs whom, and the ways to take it out of the ruler."""

from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.authoring import lab
from bitwright.authoring.figures import Choice, Figure, Slider, Steps, explore
from bitwright.authoring.filters import scientific, significant
from bitwright.core.formats import named
from bitwright.core.measure import Error
from bitwright.core.qtensor import encode
from bitwright.core.scaling import Block
from bitwright.methods import mse, rtn
from bitwright.rewrites import equalize

SHOWN = {
    "layers.1.mlp.up_proj": "up, layer 1",
    "layers.0.mlp.down_proj": "down, layer 0",
    "layers.1.self_attn.q_proj": "query, layer 1",
    "layers.1.self_attn.v_proj": "value, layer 1",
}
BINS, REACH = 84, 8.4
"""Bins of the histograms, and how many standard deviations they reach."""
TAIL = 4
"""Standard deviations from which a weight counts as tail."""
PLANTED = "layers.1.mlp.up_proj"
BLOCKS: tuple[Block, ...] = ("tensor", "channel", 128, 32)
WORDS = {"tensor": "one scale per matrix", "channel": "one per row", "128": "groups of 128", "32": "groups of 32"}
CLIPPED = "layers.0.mlp.down_proj"
GROUP = ("layers.1.self_attn.o_proj", 638)
"""The group of 32 weights of the story."""


NORMAL = NormalDist()


def kurtosis(w: lab.Floats) -> float:
    """E[(w - mean)^4] / variance^2: 3 for a Gaussian, more where the tails are heavy."""
    centred = w.astype(np.float64) - w.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)


def distributions() -> Figure:
    """Histograms in units of the standard deviation, with a Gaussian of the same width."""
    edges = np.linspace(-REACH, REACH, BINS + 1)
    gaussian = 10_000 * np.diff([NORMAL.cdf(edge) for edge in edges])
    expected = 2 * NORMAL.cdf(-TAIL)

    def draw(matrix: str) -> dict[str, Any]:
        w = lab.weight(matrix)
        scaled = (w - w.mean()) / w.std()
        beyond = float((np.abs(scaled) > TAIL).mean())
        largest = float(np.abs(scaled).max())
        return {
            "low": -REACH,
            "high": REACH,
            "counts": np.histogram(scaled, edges)[0] * 10_000 / w.size,
            "second": gaussian,
            "x": "weight ÷ standard deviation",
            "labels": ("weights in 10,000", "a Gaussian of the same width", ""),
            "say": f"{SHOWN[matrix]}: kurtosis {kurtosis(w):.2f}, largest weight {largest:.1f} standard deviations.",
            "readouts": [
                {"label": "Kurtosis (Gaussian: 3)", "value": f"{kurtosis(w):.2f}", "tone": "float"},
                {"label": "Largest weight", "value": f"{largest:.1f} σ", "tone": "error"},
                {
                    "label": f"Beyond {TAIL} σ, against a Gaussian",
                    "value": f"{beyond / expected:.0f} ×",
                    "tone": "error",
                },
            ],
        }

    return explore(draw, matrix=Choice(label="Matrix", options=SHOWN, start="layers.1.mlp.up_proj"))


def planted() -> tuple[Figure, dict[str, Any]]:
    """One weight grows; how well all the others are stored, by who shares a scale."""
    w = lab.weight(PLANTED)
    place = np.unravel_index(int(np.abs(w).argmax()), w.shape)
    others = np.ones(w.shape, bool)
    others[place] = False

    def sqnr(block: Block, factor: int) -> float:
        spiked = w.copy()
        spiked[place] *= factor
        back = rtn.quantize(spiked, named("int4", group=block)).decode()
        return Error.between(spiked[others], back[others]).sqnr

    factors = (1, 2, 4, 8, 16)
    found = {(block, factor): sqnr(block, factor) for block in BLOCKS for factor in factors}
    assert found["tensor", 8] < 2 < found["channel", 8] and found[32, 1] - found[32, 16] < 0.5

    def draw(factor: int) -> dict[str, Any]:
        bars = [
            {
                "id": str(block),
                "label": WORDS[str(block)],
                "value": max(found[block, factor], 0.0),
                "text": f"{found[block, factor]:.1f} dB",
                "tone": "good",
            }
            for block in BLOCKS
        ]
        said = ", ".join(f"{bar['label']} {bar['text']}" for bar in bars)
        return {
            "bars": bars,
            "high": 24,
            "x": "SQNR of all other weights, dB",
            "say": f"One weight × {factor}: {said}.",
        }

    figure = explore(draw, factor=Slider(label="One weight, times", values=factors, start=1))
    return figure, {
        "count": int(w.size),
        "before": found["tensor", 1],
        "after": found["tensor", 8],
        "row_before": found["channel", 1],
        "row_after": found["channel", 8],
        "group_before": found[32, 1],
        "group_after": found[32, 8],
    }


def ruler_story() -> tuple[Figure, dict[str, Any]]:
    """One real group of 32 weights at three bits under four rulers."""
    name, index = GROUP
    w, format = lab.weight(name), named("int3", group=32)
    blocks = format.blocks(w)
    row, group = divmod(index, blocks.shape[1])
    x = blocks[row, group][None, :]
    top = float(np.abs(x).max())
    line = named("int3", group="channel")

    def scale_of(value: float) -> npt.NDArray[np.float32]:
        return np.asarray(line.scale.round(np.full((1, 1), value, np.float32)))

    unsigned = scale_of(top / line.grid.high)
    signed = rtn.quantize(x, line).scale
    searched = mse.quantize(x, line).scale
    short = scale_of(0.4 * float(signed[0, 0]))
    assert signed[0, 0] < 0 < x[0, int(np.abs(x).argmax())]
    scales = (unsigned, unsigned, signed, searched, short)
    coded = [encode(x, line, scale) for scale in scales]
    errors = [Error.between(x, q.decode()) for q in coded]
    assert errors[1].mse > 1.5 * errors[2].mse and errors[2].mse > 1.3 * errors[3].mse and errors[4].mse > errors[3].mse
    shrink = float(searched[0, 0] / signed[0, 0])
    captions = (
        "Thirty-two neighbouring weights of one row. One of them is much larger than the rest.",
        "Three bits have the levels −4 to 3. The ruler must reach the largest weight: level 3 goes there.",
        "The scale turns negative: level −4 now lies on the long side, and every step is a quarter finer.",
        f"The ruler shrinks to {100 * shrink:.0f} %. The largest weight is clipped; most others gain.",
        "Too short: now the clipped weights cost more than the finer step saves.",
    )

    def draw(step: int) -> dict[str, Any]:
        scale, back = float(scales[step][0, 0]), coded[step].decode()[0]
        ends = sorted((scale * line.grid.low, scale * line.grid.high))
        limit = 1.4 * top
        dots = [
            {"id": f"w{i}", "at": float(value), **({"to": float(back[i]) + 0.0} if step else {})}
            for i, value in enumerate(x[0])
        ]
        levels = [{"at": scale * value, "code": f"{value:.0f}".replace("-", "−")} for value in sorted(line.grid.values)]
        spans = []
        if step:
            low, high = ends[0] - abs(scale) / 2, ends[1] + abs(scale) / 2
            spans = [
                {"low": a, "high": b, "label": "clipped", "tone": "error"}
                for a, b in ((-limit, max(low, -limit)), (min(high, limit), limit))
                if b - a > 1e-9
            ]
        told = [
            {"label": "Scale", "value": significant(scale), "tone": "quant"},
            {"label": "MSE of the group", "value": scientific(errors[step].mse), "tone": "error"},
            {"label": "SQNR", "value": f"{errors[step].sqnr:.1f} dB", "tone": "error"},
        ]
        return {
            "low": -limit,
            "high": limit,
            "levels": levels if step else [],
            "dots": dots,
            "spans": spans,
            "x": "weight",
            "say": captions[step] + (f" SQNR {errors[step].sqnr:.1f} dB." if step else ""),
            "readouts": told if step else [],
        }

    figure = explore(draw, step=Steps(captions=captions))
    return figure, {
        "full": errors[1].sqnr,
        "signed": errors[2].sqnr,
        "searched": errors[3].sqnr,
        "short": errors[4].sqnr,
    }


def clipping() -> tuple[Figure, dict[str, Any]]:
    """Rounding and clipping error of a matrix against the length of its rulers, one per row."""
    w = lab.weight(CLIPPED)
    power = float((w.astype(np.float64) ** 2).mean())
    clips = [round(0.05 * i, 2) for i in range(4, 21)]
    widths = (2, 3, 4, 5, 6, 8)
    floor = 1e-6

    def parts(bits: int, clip: float) -> tuple[float, float]:
        """Mean squared error of the weights inside and outside the ruler, as a share of the mean square."""
        format = named(f"int{bits}", group="channel", scale="fp32")
        scale = format.scale.round(rtn.ranges(format.blocks(w), format, clip)[0])
        error = (w - encode(w, format, scale).decode()) ** 2
        ends = np.stack([scale * format.grid.low, scale * format.grid.high])
        outside = (w < ends.min(0)) | (w > ends.max(0))
        shares = [float(np.where(mask, error, 0).mean()) / power for mask in (~outside, outside)]
        return shares[0], shares[1]

    found = {(bits, clip): parts(bits, clip) for bits in widths for clip in clips}
    best = {bits: min(clips, key=lambda clip: sum(found[bits, clip])) for bits in widths}
    gain = {bits: 10 * float(np.log10(sum(found[bits, 1.0]) / sum(found[bits, best[bits]]))) for bits in widths}
    assert best[2] < best[4] <= best[8] and gain[2] > gain[4] > gain[8]

    def draw(bits: int) -> dict[str, Any]:
        def series(name: str, tone: str, shape: str, pick: Any) -> dict[str, Any]:
            points = [
                {"id": f"{name}{i}", "x": clip, "y": max(pick(found[bits, clip]), floor)}
                for i, clip in enumerate(clips)
            ]
            return {"name": name, "tone": tone, "shape": shape, "line": True, "points": points}

        least = sum(found[bits, best[bits]])
        return {
            "x": {"label": "length of the ruler, largest weight of the row = 1", "low": 0.2, "high": 1.0},
            "y": {"label": "error ÷ mean square", "low": floor, "high": 1.0, "log": True},
            "series": [
                series("rounding", "quant", "circle", lambda both: both[0]),
                series("clipping", "warn", "triangle", lambda both: both[1]),
                series("both", "error", "square", sum),
                {
                    "name": "least",
                    "tone": "good",
                    "shape": "diamond",
                    "points": [{"id": "least", "x": best[bits], "y": least, "label": "least"}],
                },
            ],
            "say": f"{bits} bits: the best ruler has {best[bits]:.2f} of the full length, {gain[bits]:.1f} dB better.",
            "readouts": [
                {"label": "Best length", "value": f"{best[bits]:.2f}", "tone": "good"},
                {"label": "Gain over the full length", "value": f"{gain[bits]:.1f} dB", "tone": "good"},
            ],
        }

    figure = explore(draw, bits=Slider(label="Bits per weight", values=widths, start=4))
    return figure, {"two": best[2], "four": best[4], "eight": best[8], "gain": gain[2], "gain_four": gain[4]}


def rotation(name: str) -> lab.Floats:
    """A random Hadamard matrix [inputs, inputs]: orthogonal, every entry +-1 / sqrt(inputs)."""
    size = lab.weight(name).shape[1]
    turn = np.ones((1, 1))
    while len(turn) < size:
        turn = np.kron([[1, 1], [1, -1]], turn)
    signs = np.random.default_rng(size).choice([-1.0, 1.0], size)
    return np.asarray(signs[:, None] * turn / np.sqrt(size), np.float32)


def turned(name: str, block: Block) -> lab.Floats:
    """A matrix rounded after rotation and turned back."""
    turn = rotation(name)
    return np.asarray(rtn.quantize(lab.weight(name) @ turn, named("int4", group=block)).decode() @ turn.T)


def rotations() -> tuple[Figure, dict[str, Any]]:
    """SQNR of every matrix rounded as it is and rounded after a rotation, by who shares a scale."""
    plain = {(n, b): rtn.quantize(lab.weight(n), named("int4", group=b)).decode() for n in lab.names() for b in BLOCKS}
    after = {(n, b): turned(n, b) for n in lab.names() for b in BLOCKS}
    sqnr = {
        key: (Error.between(lab.weight(key[0]), plain[key]).sqnr, Error.between(lab.weight(key[0]), after[key]).sqnr)
        for key in plain
    }
    low, high = 8, 23
    captions = tuple(f"{WORDS[str(block)][:1].upper()}{WORDS[str(block)][1:]}." for block in BLOCKS)

    def draw(step: int) -> dict[str, Any]:
        block = BLOCKS[step]
        pairs = {name: sqnr[name, block] for name in lab.names()}
        better = sum(b > a for a, b in pairs.values())
        mean = float(np.mean([b - a for a, b in pairs.values()]))
        return {
            "x": {"label": "SQNR as it is", "low": low, "high": high, "unit": "dB"},
            "y": {"label": "SQNR after rotation", "low": low, "high": high, "unit": "dB"},
            "series": [
                {
                    "name": "no difference",
                    "tone": "mute",
                    "line": True,
                    "points": [{"id": "from", "x": low, "y": low}, {"id": "to", "x": high, "y": high}],
                },
                {
                    "name": "matrices",
                    "tone": "quant",
                    "points": [{"id": name, "x": a, "y": b} for name, (a, b) in pairs.items()],
                },
            ],
            "say": f"{captions[step]} Rotation helps {better} of {len(pairs)} matrices, by {mean:+.2f} dB on average.",
            "readouts": [
                {"label": "Matrices that gain", "value": f"{better} of {len(pairs)}", "tone": "good"},
                {"label": "Mean change", "value": f"{mean:+.2f} dB".replace("-", "−"), "tone": "good"},
            ],
        }

    change = {str(b): float(np.mean([sqnr[n, b][1] - sqnr[n, b][0] for n in lab.names()])) for b in BLOCKS}
    query = "layers.1.self_attn.q_proj"
    assert change["tensor"] > change["32"] and sqnr[query, "tensor"][1] < sqnr[query, "tensor"][0] - 1

    def quality(found: dict[tuple[str, Block], lab.Floats], block: Block) -> lab.Quality:
        return lab.quality({name: found[name, block] for name in lab.names()})

    helped = sum(sqnr[n, "tensor"][1] > sqnr[n, "tensor"][0] for n in lab.names())
    assert len(lab.names()) / 2 < helped < len(lab.names())
    rows = np.sqrt((lab.weight(query) ** 2).mean(1))
    return explore(draw, step=Steps(captions=captions, label="Scales")), {
        "change": change,
        "helped": helped,
        "tensor": quality(plain, "tensor"),
        "tensor_turned": quality(after, "tensor"),
        "group": quality(plain, 32),
        "group_turned": quality(after, 32),
        "query": sqnr[query, "tensor"],
        "rows": float(rows.max() / rows.min()),
    }


def equalized() -> dict[str, float]:
    """SQNR of a down projection without and with channels equalized between it and the up projection."""
    up, down = lab.weight("layers.0.mlp.up_proj"), lab.weight("layers.0.mlp.down_proj")
    s = equalize.factors([equalize.row_ranges(up)], [equalize.column_ranges(down, down.shape[1])])
    moved = equalize.multiply_columns(down, s)
    found = {}
    for block in ("tensor", "channel"):
        format = named("int4", group=block)
        found[block] = Error.between(down, rtn.quantize(down, format).decode()).sqnr
        back = equalize.multiply_columns(rtn.quantize(moved, format).decode(), 1 / s)
        found[f"{block}_moved"] = Error.between(down, back).sqnr
    assert found["tensor_moved"] > found["tensor"] + 1 > found["tensor"]
    assert abs(found["channel_moved"] - found["channel"]) < 0.5
    return found


def sign(bits: int) -> tuple[float, float]:
    """SQNR of all matrices with scales that must be positive, and with signed ones."""
    format, positive, signed = named(f"int{bits}"), Error(), Error()
    for name in lab.names():
        w = lab.weight(name)
        scale = format.scale.round(np.abs(format.blocks(w)).max(-1) / np.float32(format.grid.high))
        positive += Error.between(w, encode(w, format, scale).decode())
        signed += Error.between(w, rtn.quantize(w, format).decode())
    return positive.sqnr, signed.sqnr


def searches() -> dict[str, Any]:
    """KL at three bits: the full ruler, searched scales, searched scales that know the inputs."""
    format = named("int3")
    found = {
        "full": lab.quality({n: rtn.quantize(lab.weight(n), format).decode() for n in lab.names()}),
        "searched": lab.quality({n: mse.quantize(lab.weight(n), format).decode() for n in lab.names()}),
        "weighted": lab.quality({n: mse.quantize(lab.weight(n), format, lab.stats(n)).decode() for n in lab.names()}),
    }
    assert found["searched"].kl < found["full"].kl
    return found


def numbers() -> dict[str, Any]:
    planted_figure, outlier = planted()
    story_figure, story = ruler_story()
    clipping_figure, clip = clipping()
    rotation_figure, rotated = rotations()
    tails = {name: kurtosis(lab.weight(name)) for name in lab.names()}
    largest = {name: float(np.abs(lab.weight(name)).max() / lab.weight(name).std()) for name in lab.names()}
    return {
        "distributions": distributions(),
        "planted": planted_figure,
        "story": story_figure,
        "clipping": clipping_figure,
        "rotations": rotation_figure,
        "outlier": outlier,
        "rulers": story,
        "clip": clip,
        "rotated": rotated,
        "equal": equalized(),
        "sign_two": sign(2),
        "sign_four": sign(4),
        "searches": searches(),
        "least_kurtosis": min(tails.values()),
        "most_kurtosis": max(tails.values()),
        "least_largest": min(largest.values()),
        "most_largest": max(largest.values()),
        "gaussian_largest": -NORMAL.inv_cdf(0.5 / lab.weight(PLANTED).size),
        "matrices": len(tails),
    }
