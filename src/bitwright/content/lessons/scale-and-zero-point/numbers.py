"""The affine quantizer on a tensor that is hardly ever negative: what SiLU makes inside the second block."""

from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Point, Series, Slider, Steps, explore, still
from bitwright.authoring.filters import significant
from bitwright.authoring.trace import run_code
from bitwright.core.formats import named
from bitwright.core.grid import INT
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor, encode
from bitwright.methods import rtn

GATE = "layers.1.mlp.gate_proj"
TOKENS = 1024
BINS = 96
SCHEMES = {"symmetric": "Scale only", "asymmetric": "Scale and zero point"}
PROGRAM = """
x, s, z = 0.5, 127, 10
misprint = 1 / s * round(x * s - z) + z
step = 1 / s
q = min(max(round(x / step) + z, -128), 127)
x_hat = step * (q - z)
error_on_codes = abs(x - q)
error_on_values = abs(x - x_hat)
"""


def activations() -> lab.Floats:
    """SiLU of the gate, float32 [tokens, neurons], on calibration text."""
    gate = lab.inputs(GATE)[:TOKENS] @ lab.weight(GATE).T
    return gate / (1 + np.exp(-gate))


def whole(x: np.ndarray, bits: int, symmetric: bool) -> QTensor:
    """`x` with one scale (and zero point) for all of it, from its range."""
    return rtn.quantize(x, named(f"int{bits}", group="tensor", symmetric=symmetric, scale="fp32"))


def parameters(q: QTensor) -> tuple[float, float]:
    """Scale and zero point of a tensor that has one of each."""
    return float(q.scale.reshape(-1)[0]), 0.0 if q.zero is None else float(q.zero.reshape(-1)[0])


def ends(x: np.ndarray) -> Figure:
    """The distribution with the levels that both schemes give it."""
    peak = float(np.abs(x).max()) * 1.02
    counts = np.histogram(x, BINS, (-peak, peak))[0]

    def view(scheme: str, bits: int) -> dict[str, Any]:
        q = whole(x, bits, scheme == "symmetric")
        back = q.decode()
        s, z = parameters(q)
        used = len(np.unique(q.codes))
        error = Error.between(x, back)
        return {
            "low": -peak,
            "high": peak,
            "counts": counts,
            "levels": sorted(s * (k - z) for k in INT[bits].values if abs(s * (k - z)) <= peak),
            "errors": np.histogram(x, BINS, (-peak, peak), weights=(x - back) ** 2)[0],
            "scale": "log",
            "x": "activation",
            "labels": ("activations", "levels", "where the squared error comes from"),
            "say": f"{SCHEMES[scheme]}, {bits} bits: {used} of {2**bits} codes occur, SQNR {error.sqnr:.1f} dB.",
            "readouts": [
                {"label": "Scale s", "value": significant(abs(s)), "tone": "quant"},
                {"label": "Zero point z", "value": f"{z:.0f}".replace("-", "−"), "tone": "quant"},
                {"label": "Codes that occur", "value": f"{used} of {2**bits}"},
                {"label": "SQNR", "value": f"{error.sqnr:.1f} dB", "tone": "error"},
            ],
        }

    return explore(
        view,
        scheme=Choice(label="Stored", options=SCHEMES, start="symmetric"),
        bits=Slider(label="Bits", values=(2, 3, 4, 5, 6, 8), start=4),
    )


def comb(x: np.ndarray) -> tuple[dict[str, float], Figure]:
    """How the levels come to hold a real zero: three bits over the range of `x`, then the whole comb shifted."""
    low, high = float(x.min()), float(x.max())
    grid = INT[3]
    s = (high - low) / (grid.high - grid.low)
    exact = grid.low - low / s
    q = whole(x, 3, False)
    stored, z = parameters(q)
    assert abs(stored - s) < 1e-5 and z == round(exact)
    picked = np.quantile(x, [0, 0.9, 0.9999, 1]).tolist()
    names = ["lowest", "common", "rare", "highest"]

    def view(step: int) -> dict[str, Any]:
        zero = z if step == 3 else exact
        levels = [(s * (k - zero), k) for k in grid.values]
        shown = [("zero", 0.0), *zip(names, picked, strict=True)]
        dots = []
        for name, value in shown:
            dot: dict[str, Any] = {"id": name, "at": value, "label": "0" if name == "zero" else ""}
            if step >= 2:
                dot["to"] = min((level for level, _ in levels), key=lambda level: abs(level - value))
            if name == "zero":
                dot["tone"] = "ink"
            dots.append(dot)
        moved = min(abs(level) for level, _ in levels)
        return {
            "low": low - s,
            "high": high + s,
            "x": "activation",
            "dots": dots,
            "levels": [{"at": level, "code": f"{k:.0f}".replace("-", "−")} for level, k in levels] if step else [],
            "say": "Five values." if step == 0 else f"The level nearest to zero is {significant(moved)} away from it.",
            "readouts": [
                {"label": "Scale s", "value": significant(s) if step else "none yet", "tone": "quant"},
                {"label": "z", "value": f"{zero:.2f}".replace("-", "−") if step else "none yet", "tone": "quant"},
                {"label": "0 comes back as", "value": significant(moved) if step else "none yet", "tone": "error"},
            ],
        }

    captions = (
        "A few activations from lowest to highest, and the real number zero.",
        "Three bits: eight levels from the lowest to the highest value. No level is zero.",
        "Zero moves to its nearest level. Every zero in the network would come back as this value.",
        "z is rounded to a whole number: the comb shifts by less than half a step, and zero has a code.",
    )
    nearest = min((s * (k - exact) for k in grid.values), key=abs)
    return {"scale": s, "exact": exact, "zero": z, "stray": nearest}, explore(view, step=Steps(captions=captions))


def sweep(x: np.ndarray) -> tuple[dict[str, float], Figure]:
    """SQNR at eight bits against the zero point, with the clamp and without it."""
    s, z = parameters(whole(x, 8, False))
    format = named("int8", group="tensor", symmetric=False, scale="fp32")
    scale = np.full((1, 1), s, np.float32)
    clamped, free = {}, {}
    for zero in sorted({*range(-128, 128, 12), int(z)}):
        q = encode(x, format, scale, np.full((1, 1), zero, np.float32))
        clamped[zero] = Error.between(x, q.decode()).sqnr
        free[zero] = Error.between(x, s * ((np.round(x / np.float32(s)) + zero) - zero)).sqnr
    best = max(clamped, key=lambda zero: clamped[zero])
    assert best == z and max(free.values()) - min(free.values()) < 0.01
    tones: Any = {"with the clamp": "quant", "without": "mute"}
    figure = still(
        x=Axis(label="zero point z", low=-135, high=135),
        y=Axis(label="SQNR", low=0, high=40, unit="dB"),
        series=[
            Series(
                name=name,
                tone=tones[name],
                line=True,
                points=tuple(Point(id=f"{name}{k}", x=k, y=v) for k, v in values.items()),
            )
            for name, values in (("with the clamp", clamped), ("without", free))
        ]
        + [
            Series(
                name="from the range",
                tone="good",
                shape="diamond",
                points=(Point(id="best", x=z, y=clamped[int(z)], label=f"z = {z:.0f}".replace("-", "−")),),
            )
        ],
        say=f"With the clamp the SQNR is best at z = {z:.0f}; without it, it is the same for every z.",
    )
    return {"z": z, "s": s, "best": clamped[int(z)], "at_zero": clamped[min(clamped, key=abs)]}, figure


def gains(x: np.ndarray) -> tuple[dict[str, float], Figure]:
    """What a zero point adds in SQNR: weights at four bits per row, activations at eight bits per tensor."""
    found: dict[str, float] = {}
    for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
        w = lab.weight(f"layers.1.{name}")
        both = [rtn.quantize(w, named("int4", group="channel", symmetric=yes)).decode() for yes in (True, False)]
        found[f"weights of {name.split('.')[1]}"] = Error.between(w, both[1]).sqnr - Error.between(w, both[0]).sqnr
    seen = {
        "what q_proj reads": lab.inputs("layers.1.self_attn.q_proj"),
        "what gate_proj reads": lab.inputs(GATE),
        "what down_proj reads": lab.inputs("layers.1.mlp.down_proj"),
        "behind SiLU": x,
    }
    for name, values in seen.items():
        both = [whole(values, 8, yes).decode() for yes in (True, False)]
        found[name] = Error.between(values, both[1]).sqnr - Error.between(values, both[0]).sqnr
    bars = [
        {
            "id": name.replace(" ", "-"),
            "label": name,
            "value": max(gain, 0.0),
            "text": f"{gain:+.2f} dB".replace("-", "−"),
            "tone": "quant" if name.startswith("weights") else "good",
        }
        for name, gain in found.items()
    ]
    most = max(found, key=lambda name: found[name])
    assert most == "behind SiLU"
    say = f"A zero point gains most {most}: {found[most]:.1f} dB; on weights it gains a few tenths at best."
    return found, still(bars=bars, high=6.0, x="gain in SQNR, dB", say=say)


def numbers() -> dict[str, Any]:
    x = activations()
    symmetric, asymmetric = whole(x, 4, True), whole(x, 4, False)
    edge, story = comb(x)
    swept, curve = sweep(x)
    gained, bars = gains(x)
    weights = [gain for name, gain in gained.items() if name.startswith("weights")]
    assert max(weights) < 0.5 < gained["behind SiLU"]
    quality = {
        yes: lab.quality(
            {n: rtn.quantize(lab.weight(n), named("int4", group=64, symmetric=yes)).decode() for n in lab.names()}
        )
        for yes in (True, False)
    }
    scope: dict[str, Any] = {}
    exec(PROGRAM, scope)
    assert scope["error_on_values"] <= scope["step"] / 2 + 1e-9
    value = float(np.sort(x.reshape(-1))[-200])
    q = encode(
        np.array([[value]], np.float32),
        named("int8", group="tensor", symmetric=False, scale="fp32"),
        np.full((1, 1), swept["s"], np.float32),
        np.full((1, 1), swept["z"], np.float32),
    )
    stored = [named("int4", group=64, symmetric=yes).stored_bits(256, 512) / (256 * 512) for yes in (True, False)]
    assert len(np.unique(symmetric.codes)) <= 9
    return {
        "count": x.size,
        "negative": float((x < 0).mean()),
        "lowest": float(x.min()),
        "highest": float(x.max()),
        "used": len(np.unique(symmetric.codes)),
        "used_z": len(np.unique(asymmetric.codes)),
        "sqnr": Error.between(x, symmetric.decode()).sqnr,
        "sqnr_z": Error.between(x, asymmetric.decode()).sqnr,
        "edge": edge,
        "swept": swept,
        "example": value,
        "code": float(INT[8].values[int(q.codes[0, 0])]),
        "back": float(q.decode()[0, 0]),
        "wrong": scope["misprint"],
        "right": scope["x_hat"],
        "right_code": scope["q"],
        "on_codes": scope["error_on_codes"],
        "on_values": scope["error_on_values"],
        "weight_gain": float(np.mean(weights)),
        "silu_gain": gained["behind SiLU"],
        "kl": quality[True].kl,
        "kl_z": quality[False].kl,
        "interval": quality[True].interval,
        "interval_z": quality[False].interval,
        "stored": stored[0],
        "stored_z": stored[1],
        "ends": ends(x),
        "comb": story,
        "program": run_code(
            PROGRAM, ["x", "s", "z", "misprint", "step", "q", "x_hat", "error_on_codes", "error_on_values"]
        ),
        "sweep": curve,
        "gains": bars,
    }
