"""One layer's weights, rounded to the levels of 1 to 8 bits: step, range, learned levels, and what the model pays."""

from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Point, Series, Slider, Steps, explore, live, still
from bitwright.authoring.filters import scientific, significant
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import INT
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor, encode
from bitwright.core.scaling import Levels
from bitwright.methods import lloyd, mse, rtn

LAYER = "layers.1.mlp.down_proj"
BINS = 96
BITS = range(1, 9)
CLIPS = [round(0.05 * i, 2) for i in range(2, 21)]


def draw(base: dict[str, Any], bits: int, clip: float, scheme: str) -> dict[str, Any]:
    """The figure at one position of its controls."""
    w = np.asarray(base["weights"], np.float32)[None, :]
    peak = np.float32(base["peak"])
    high = 2 ** (bits - 1) - 1 if bits > 1 else 1
    step = float(np.float32(clip) * peak / np.float32(high))
    if scheme == "learned":
        table = np.asarray(base["learned"][bits - 1], np.float32)
        levels = table.tolist()
        nearest = np.abs(w[0][:, None] - table[None, :]).argmin(1)
        decoded = table[nearest][None, :]
        used = len(np.unique(nearest))
        room, scale = None, None
    else:
        q = encode(w, whole(bits), np.full((1, 1), step, np.float32))
        decoded, scale = q.decode(), step
        levels = [step * value for value in INT[bits].values]
        used = len(np.unique(q.codes))
        room = [levels[0] - step / 2, levels[-1] + step / 2]
    error = Error.between(w, decoded)
    errors = np.histogram(w, BINS, (base["low"], base["high"]), weights=(w - decoded) ** 2)[0]
    told = f"{bits} bit{'s' if bits > 1 else ''}: {len(levels)} levels, {used} in use, SQNR {error.sqnr:.1f} dB."
    return {
        **{key: base[key] for key in ("low", "high", "counts")},
        "levels": levels,
        "errors": errors,
        "clip": room,
        "say": told,
        "readouts": [
            {"label": "Levels", "value": f"{len(levels)}", "tone": "quant"},
            {"label": "Step", "value": "uneven" if scale is None else significant(scale), "tone": "quant"},
            {"label": "MSE", "value": scientific(error.mse), "tone": "error"},
            {"label": "SQNR", "value": f"{error.sqnr:.1f} dB", "tone": "error"},
            {"label": "Levels in use", "value": f"{used} of {len(levels)}"},
            {"label": "Codes", "value": f"{w.size * bits / 8 / 1000:.2f} kB", "tone": "good"},
        ],
    }


def whole(bits: int) -> Format:
    """Integers with one float32 scale for all weights."""
    return Format("int", INT[bits], Levels.of(("tensor", "fp32")))


def rounded(w: np.ndarray, bits: int, clip: float) -> QTensor:
    """`w` rounded to evenly spaced levels inside `clip` times its largest size, as the first figure does it."""
    step = clip * float(np.abs(w).max()) / (2 ** (bits - 1) - 1)
    return encode(w.reshape(1, -1), whole(bits), np.full((1, 1), step, np.float32))


def story(w: np.ndarray, best: float) -> Figure:
    """Nine weights on their way to three and four bits, then to a narrower range."""
    picked = np.sort(w)[(np.array([0, 0.02, 0.1, 0.24, 0.4, 0.61, 0.83, 0.97, 1]) * (w.size - 1)).astype(int)]
    peak = float(np.abs(w).max())
    chosen = [(3, 1.0, False), (3, 1.0, True), (4, 1.0, True), (3, best, True)]

    def view(step: int) -> dict[str, Any]:
        if step == 0:
            dots = [{"id": f"w{i}", "at": x} for i, x in enumerate(picked)]
            return {"low": -1.4 * peak, "high": 1.15 * peak, "dots": dots, "x": "weight", "say": "Nine weights."}
        bits, clip, moved = chosen[step - 1]
        s = clip * peak / (2 ** (bits - 1) - 1)
        grid = whole(bits)
        back = encode(picked[None, :], grid, np.full((1, 1), s, np.float32)).decode()[0]
        largest = float(np.abs(picked - back).max())
        return {
            "low": -1.4 * peak,
            "high": 1.15 * peak,
            "x": "weight",
            "levels": [{"at": s * k, "code": f"{k:.0f}"} for k in INT[bits].values if abs(s * k) < 1.4 * peak],
            "dots": [
                {"id": f"w{i}", "at": x} | ({"to": y} if moved else {})
                for i, (x, y) in enumerate(zip(picked, back, strict=True))
            ],
            "say": f"{bits} bits, step {significant(s)}: the largest error of the nine is {significant(largest)}.",
            "readouts": [
                {"label": "Step", "value": significant(s), "tone": "quant"},
                {"label": "Half a step", "value": significant(s / 2), "tone": "quant"},
                {"label": "Largest error", "value": significant(largest) if moved else "none yet", "tone": "error"},
            ],
        }

    steps = [clip * peak / (2 ** (bits - 1) - 1) for bits, clip, _ in chosen]
    captions = (
        "Nine weights of the layer, from its smallest to its largest.",
        "Three bits give eight levels, one step apart. The whole range fits.",
        "Each weight moves to the nearest level. No arrow is longer than half a step.",
        f"One bit more: twice the levels. The step falls from {significant(steps[0])} to {significant(steps[2])}.",
        "Three bits again in a narrower range: most arrows shrink, those at the ends grow.",
    )
    return explore(view, step=Steps(captions=captions))


def slopes(w: np.ndarray) -> tuple[dict[str, list[float]], list[float], Figure]:
    """SQNR at 1 to 8 bits by three ways to place levels, what the rule of thumb says, and the figure of both."""
    found: dict[str, list[float]] = {"whole range": [], "best range": [], "learned levels": []}
    for bits in BITS:
        format = named(f"int{bits}", group="tensor", scale="fp32")
        found["whole range"].append(Error.between(w, rtn.quantize(w, format).decode()).sqnr)
        found["best range"].append(Error.between(w, mse.quantize(w, format, steps=96, least=0.05).decode()).sqnr)
        book = named(f"codebook{bits}", group="tensor")
        found["learned levels"].append(Error.between(w, lloyd.quantize(w, book).decode()).sqnr)
    flat = 12 * float((w**2).mean()) / (2 * float(np.abs(w).max())) ** 2
    rule = [20 * np.log10(2) * bits + 10 * np.log10(flat) for bits in BITS]
    tones = {"whole range": "error", "best range": "quant", "learned levels": "good"}
    lines = [
        Series(
            name=name,
            tone=tones[name],
            line=True,
            points=tuple(Point(id=f"{name}{b}", x=b, y=y) for b, y in zip(BITS, values, strict=True)),
        )
        for name, values in found.items()
    ]
    thumb = tuple(Point(id=f"rule{b}", x=b, y=y) for b, y in zip(BITS, rule, strict=True))
    lines.append(Series(name="the formula", tone="mute", shape="diamond", line=True, points=thumb))
    figure = still(
        x=Axis(label="bits per weight", low=0.5, high=8.5),
        y=Axis(label="SQNR", low=-15, high=50, unit="dB"),
        series=lines,
        say="SQNR rises by about six decibels a bit; at few bits the best range and learned levels lie above the rest.",
    )
    return found, rule, figure


def trade(w: np.ndarray) -> Figure:
    """Rounding and clipping error against the clip range, at 2 to 6 bits."""
    power = float(w @ w)

    def view(bits: int) -> dict[str, Any]:
        inside, outside = [], []
        for clip in CLIPS:
            q = rounded(w, bits, clip)
            error = w - q.decode()[0]
            cut = np.abs(error) > float(q.scale[0, 0]) / 2 * (1 + 1e-5)
            inside.append(float((error[~cut] ** 2).sum()) / power)
            outside.append(float((error[cut] ** 2).sum()) / power)
        total = [a + b for a, b in zip(inside, outside, strict=True)]
        best = int(np.argmin(total))

        def line(name: str, values: list[float], tone: Any) -> Series:
            points = (Point(id=f"{name}{c}", x=c, y=v) for c, v in zip(CLIPS, values, strict=True) if v > 1e-5)
            return Series(name=name, tone=tone, line=True, points=tuple(points))

        where = Point(id="best", x=CLIPS[best], y=total[best], label=f"{CLIPS[best]:.2f}")
        share = float((np.abs(w) > CLIPS[best] * np.abs(w).max()).mean())
        return {
            "x": Axis(label="clip range", low=0, high=1.05, unit="× largest"),
            "y": Axis(label="squared error / squared weights", low=1e-5, high=1.5, log=True),
            "series": [
                line("rounding", inside, "quant"),
                line("clipping", outside, "warn"),
                line("both", total, "error"),
                Series(name="least", tone="good", shape="diamond", points=(where,)),
            ],
            "say": f"{bits} bits: the error is least at {CLIPS[best]:.2f} of the largest weight.",
            "readouts": [
                {"label": "Best range", "value": f"{CLIPS[best]:.2f} × largest", "tone": "good"},
                {"label": "Weights outside it", "value": f"{100 * share:.2f} %", "tone": "warn"},
                {"label": "Gain over the whole range", "value": f"{10 * np.log10(total[-1] / total[best]):.1f} dB"},
            ],
        }

    return explore(view, bits=Slider(label="Bits per weight", values=(2, 3, 4, 5, 6), start=3))


def bill() -> tuple[dict[int, lab.Quality], Figure]:
    """What the model pays when all its matrices are rounded, one scale an output row, searched."""
    found = {}
    for bits in (1, 2, 3, 4, 5, 6, 8):
        format = named(f"int{bits}", group="channel")
        found[bits] = lab.quality({n: mse.quantize(lab.weight(n), format, least=0.2).decode() for n in lab.names()})
    points = tuple(Point(id=f"kl{b}", x=b, y=q.kl, label=f"{q.kl:.2g}") for b, q in found.items())
    figure = still(
        x=Axis(label="bits per weight", low=0.5, high=8.5),
        y=Axis(label="KL", low=2e-5, high=3, log=True, unit="nats per token"),
        series=[Series(name="all matrices rounded", points=points, tone="error", line=True)],
        say=f"KL falls from {found[1].kl:.2f} nats at one bit to {scientific(found[8].kl, 1)} at eight.",
    )
    return found, figure


def numbers() -> dict[str, Any]:
    w = lab.weight(LAYER)[:8].reshape(-1)
    peak = float(np.abs(w).max())
    base = {
        "weights": w,
        "peak": peak,
        "low": -peak,
        "high": peak,
        "counts": np.histogram(w, BINS, (-peak, peak))[0],
        "learned": [lloyd.fit(w[None, :], None, 2**bits, 60)[0] for bits in BITS],
    }
    figure = live(
        "levels",
        base,
        draw,
        bits=Slider(label="Bits per weight", values=tuple(BITS), start=3),
        clip=Slider(label="Clip range", unit="× largest", values=tuple(CLIPS), start=1.0),
        scheme=Choice(
            label="Levels", options={"uniform": "Evenly spaced", "learned": "Learned (Lloyd)"}, start="uniform"
        ),
    )

    def at(bits: int, clip: float) -> Error:
        return Error.between(w[None, :], rounded(w, bits, clip).decode())

    best = min(CLIPS, key=lambda clip: at(3, clip).mse)
    sqnr, rule, lines = slopes(w[None, :])
    quality, cost = bill()
    sign = {size: Error.between(w, np.where(w >= 0, a, -a)) for size, a in one_bit(w).items()}
    step = float(rounded(w, 6, 1.0).scale[0, 0])
    assert at(3, best).mse < at(3, 1.0).mse
    assert sign["mean"].mse < min(sign["rms"].mse, sign["peak"].mse)
    assert max(abs(a - b) for a, b in zip(sqnr["whole range"][3:], rule[3:], strict=True)) < 0.3
    assert 3.8 < at(7, 1.0).mse / at(8, 1.0).mse < 4.2 < at(3, 1.0).mse / at(4, 1.0).mse
    assert sqnr["best range"][7] - sqnr["whole range"][7] < 0.1 < 3 < sqnr["best range"][1] - sqnr["whole range"][1]
    codes = {b: rounded(w, b, 1.0).codes for b in (4, 8)}
    return {
        "count": w.size,
        "whole": at(3, 1.0).sqnr,
        "best": best,
        "clipped": at(3, best).sqnr,
        "outside": float((np.abs(w) > best * peak).mean()),
        "ratio": at(7, 1.0).mse / at(8, 1.0).mse,
        "ratio3": at(3, 1.0).mse / at(4, 1.0).mse,
        "rtn3": sqnr["whole range"][2],
        "twelfth": step**2 / 12,
        "measured": at(6, 1.0).mse,
        "spread": peak / float(np.sqrt((w**2).mean())),
        "offset": rule[0] - 20 * np.log10(2),
        "six": 20 * np.log10(2),
        "rule8": rule[7],
        "whole8": sqnr["whole range"][7],
        "gain8": sqnr["best range"][7] - sqnr["whole range"][7],
        "gain2": sqnr["best range"][1] - sqnr["whole range"][1],
        "slope": (sqnr["best range"][7] - sqnr["best range"][1]) / 6,
        "learned3": sqnr["learned levels"][2],
        "best3": sqnr["best range"][2],
        "used8": len(np.unique(codes[8])),
        "entropy8": entropy(codes[8]),
        "entropy4": entropy(codes[4]),
        "sign_mean": sign["mean"].sqnr,
        "kept": 1 - sign["mean"].noise / sign["mean"].signal,
        "sign_rms": sign["rms"].sqnr,
        "sign_peak": sign["peak"].sqnr,
        "kl": {b: q.kl for b, q in quality.items()},
        "top1": {b: q.top1 for b, q in quality.items()},
        "ppl": {b: q.perplexity for b, q in quality.items()},
        "float_ppl": lab.perplexity(),
        "fall": (quality[3].kl / quality[6].kl) ** (1 / 3),
        "levels": figure,
        "story": story(w, best),
        "slopes": lines,
        "trade": trade(w),
        "bill": cost,
    }


def one_bit(w: np.ndarray) -> dict[str, float]:
    """Three sizes that the two values of one bit could have."""
    size = np.abs(w)
    return {"mean": float(size.mean()), "rms": float(np.sqrt((w**2).mean())), "peak": float(size.max())}


def entropy(codes: np.ndarray) -> float:
    """Bits of information in a code, as frequent as it is."""
    share = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(share * np.log2(share)).sum())
