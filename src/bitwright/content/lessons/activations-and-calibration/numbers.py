"""What flows into the layers, the ranges that observers choose for it, SmoothQuant's trade, and calibration traps."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Bar, Choice, Figure, Point, Series, Slider, Steps, explore, still
from bitwright.authoring.filters import significant
from bitwright.core.formats import named
from bitwright.core.measure import Error
from bitwright.core.observe import Affine, Channels, Histogram, affine, choose
from bitwright.methods import rtn
from bitwright.models.language.data import Windows, cut
from bitwright.rewrites import smooth

ATTENTION = "layers.1.self_attn.q_proj"
DOWN = "layers.1.mlp.down_proj"
RULES = {"minmax": "min–max", "percentile": "percentile", "entropy": "entropy", "mse": "MSE"}
TOKENS, CHANNELS = 40, 64
"""Rows and columns of the first figure."""
BINS = 96
ALPHAS = (0.25, 0.5, 0.75, 1.0)
Rounding = Callable[[torch.Tensor], torch.Tensor]


def source(name: str) -> str:
    """The matrix that stands for all that read the same input."""
    for other, first in (("k_proj", "q_proj"), ("v_proj", "q_proj"), ("up_proj", "gate_proj")):
        name = name.replace(other, first)
    return name


SOURCES = [name for name in lab.names() if source(name) == name]


@contextmanager
def rounded(how: Mapping[str, Rounding]) -> Iterator[None]:
    """The model with the inputs of the named matrices passed through `how`."""
    hooks = []
    for name, change in how.items():
        module = lab.model().get_submodule(f"model.{name}")
        hooks.append(module.register_forward_pre_hook(lambda _, given, change=change: (change(given[0]),)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def seen(ids: torch.Tensor) -> dict[str, np.ndarray]:
    """What the float model feeds into each layer on the tokens `ids`, [tokens, inputs]."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str, x: torch.Tensor) -> torch.Tensor:
        found[name] = x.reshape(-1, x.shape[-1]).numpy().copy()
        return x

    with rounded({name: lambda x, name=name: keep(name, x) for name in SOURCES}), torch.no_grad():
        lab.model()(ids)
    return found


def by_token(bits: int) -> Rounding:
    """Dynamic, symmetric: each token is rounded with the scale of its own largest value."""
    format = named(f"int{bits}", group="channel", scale="fp32")

    def change(x: torch.Tensor) -> torch.Tensor:
        return rtn.quantize(x.reshape(-1, x.shape[-1]), format).decode().reshape(x.shape)

    return change


def ranges(records: Mapping[str, Histogram], rule: str, bits: int) -> dict[str, Affine]:
    """The quantizer of each layer's input."""
    return {name: affine(*choose(seen, rule, bits), bits) for name, seen in records.items()}


def static(found: Mapping[str, Affine]) -> lab.Quality:
    """The model with all layer inputs rounded by fixed quantizers."""
    with rounded({name: found[source(name)].fake for name in lab.names()}):
        return lab.quality({})


def dynamic(bits: int) -> lab.Quality:
    """The model with all layer inputs rounded, one scale per token."""
    with rounded({name: by_token(bits) for name in lab.names()}):
        return lab.quality({})


def stripes() -> Figure:
    """Sizes of what enters two layers, in units of each tensor's own root mean square."""
    places = {
        "attention": (ATTENTION, "the attention of block two"),
        "down": (DOWN, "the down projection of block two"),
    }

    def view(place: str) -> dict[str, Any]:
        name, told = places[place]
        x = lab.inputs(name)
        size = np.abs(x) / float(np.sqrt((x**2).mean()))
        token, channel = (int(i) for i in np.unravel_index(int(size.argmax()), size.shape))
        row, column = (
            max(0, min(at - part // 2, whole - part))
            for at, part, whole in ((token, TOKENS, x.shape[0]), (channel, CHANNELS, x.shape[1]))
        )
        patch = size[row : row + TOKENS, column : column + CHANNELS]
        if place == "attention":
            mark = {"row": 0, "rows": TOKENS, "column": channel - column, "columns": 1, "label": "one channel"}
        else:
            mark = {"row": token - row, "rows": 1, "column": 0, "columns": CHANNELS, "label": "one token"}
        peaks = size.max(0)
        return {
            "values": [[float(f"{v:.2g}") for v in line] for line in patch],
            "peak": 8,
            "colours": "sequential",
            "rows_name": "token",
            "columns_name": "channel",
            "marks": [mark | {"tone": "warn"}],
            "say": f"Inputs of {told}: the largest value is {size.max():.1f} times the root mean square.",
            "readouts": [
                {"label": "Largest value", "value": f"{size.max():.1f} × RMS", "tone": "error"},
                {"label": "Peak of the middle channel", "value": f"{np.median(peaks):.1f} × RMS", "tone": "float"},
                {"label": "Peak of the middle token", "value": f"{np.median(size.max(1)):.1f} × RMS", "tone": "float"},
            ],
        }

    options = {"attention": "Attention", "down": "Down projection"}
    return explore(view, place=Choice(label="Input of", options=options, start="attention"))


def observers() -> tuple[dict[tuple[int, str], tuple[Affine, float]], Figure]:
    """Quantizer and SQNR of one tensor by bits and rule, and the figure of ranges, levels and errors."""
    x = lab.inputs(DOWN)
    record = Histogram.of(x)
    edge = max(-record.low, record.high)
    counts = np.histogram(x, BINS, (-edge, edge))[0]
    found: dict[tuple[int, str], tuple[Affine, float]] = {}

    def view(bits: int, rule: str) -> dict[str, Any]:
        a = affine(*choose(record, rule, bits), bits)
        back = a.fake(x)
        sqnr = Error.between(x, back).sqnr
        found[bits, rule] = a, sqnr
        room = (a.low - a.scale / 2, a.high + a.scale / 2)
        outside = float(((x < room[0]) | (x > room[1])).mean())
        return {
            "low": -edge,
            "high": edge,
            "counts": counts,
            "levels": a.decode(np.arange(a.qmin, a.qmax + 1)),
            "errors": np.histogram(x, BINS, (-edge, edge), weights=(x - back) ** 2)[0],
            "clip": room,
            "scale": "log",
            "x": "value that enters the layer",
            "labels": ("values on real text", "levels", "where the squared error comes from"),
            "say": f"{bits} bits, {RULES[rule]}: range {a.low:.0f} to {a.high:.0f}, SQNR {sqnr:.1f} dB.",
            "readouts": [
                {"label": "Range", "value": f"{significant(a.low)} … {significant(a.high)}", "tone": "quant"},
                {"label": "Step s", "value": significant(a.scale), "tone": "quant"},
                {"label": "Zero point z", "value": f"{a.zero}", "tone": "quant"},
                {"label": "Values outside", "value": f"{outside:.2%}".replace("%", " %"), "tone": "warn"},
                {"label": "SQNR of this tensor", "value": f"{sqnr:.1f} dB", "tone": "error"},
            ],
        }

    figure = explore(
        view,
        bits=Slider(label="Bits per value", values=(4, 6, 8), start=8),
        rule=Choice(label="Observer", options=RULES, start="minmax"),
    )
    return found, figure


def bill(records: Mapping[str, Histogram]) -> tuple[dict[tuple[int, str], lab.Quality], Figure]:
    """What the model pays when every layer's input is rounded, by rule, and the figure."""
    found = {}
    for bits in (4, 8):
        for rule in RULES:
            found[bits, rule] = static(ranges(records, rule, bits))
        found[bits, "token"] = dynamic(bits)
    names = {rule: f"static, {label}" for rule, label in RULES.items()} | {"token": "dynamic, a scale per token"}

    def view(bits: int) -> dict[str, Any]:
        kls = {rule: found[bits, rule].kl for rule in names}
        best = min(kls, key=lambda rule: kls[rule])
        return {
            "bars": [
                Bar(id=rule, label=label, value=kls[rule], text=significant(kls[rule], 2), tone="error")
                if rule != best
                else Bar(id=rule, label=label, value=kls[rule], text=significant(kls[rule], 2), tone="good")
                for rule, label in names.items()
            ],
            "low": 1e-4,
            "high": 1.0,
            "log": True,
            "x": "KL, nats per token (logarithmic)",
            "say": f"{bits} bits: least with {names[best]}, KL {significant(kls[best], 2)} nats per token.",
        }

    return found, explore(view, bits=Slider(label="Bits per value", values=(4, 8), start=8))


def factors(name: str, alpha: float | None) -> np.ndarray:
    """SmoothQuant's factor of each channel that enters `name`; ones where `alpha` is None."""
    x = lab.inputs(name)
    if alpha is None:
        return np.ones(x.shape[1], np.float32)
    weights = [lab.weight(other) for other in lab.names() if source(other) == name]
    return np.asarray(smooth.factors(Channels.of(x).peak, weights, alpha))


def smoothed(alpha: float | None, weight_bits: int) -> lab.Quality:
    """The model with INT8 inputs (static, min-max) and rounded weights behind its normalisations."""
    weights, inputs = {}, {}
    for name in (name for name in SOURCES if name.endswith(("q_proj", "gate_proj"))):
        s = factors(name, alpha)
        a = affine(*choose(Histogram.of(lab.inputs(name) / s), "minmax", 8), 8)
        by = torch.from_numpy(s)
        for other in (other for other in lab.names() if source(other) == name):
            format = named(f"int{weight_bits}", group="channel")
            weights[other] = rtn.quantize(lab.weight(other) * s, format).decode() / s
            inputs[other] = lambda x, a=a, by=by: a.fake(x / by) * by
    with rounded(inputs):
        return lab.quality(weights)


def migration() -> tuple[dict[float | None, float], Figure]:
    """SQNR of one INT4 input by alpha, and the story of how the factors save it."""
    x = lab.inputs(ATTENTION)
    peaks = Channels.of(x).peak
    order = np.argsort(-peaks, kind="stable")
    channels = np.sort(order[[0, 2, 30, 70, 110, 150, 190, 230]])
    tokens = np.append(np.arange(300, 3900, 900), int(np.abs(x[:, order[0]]).argmax()))
    patch = np.ix_(np.sort(tokens), channels)
    peak = float(np.abs(x[patch]).max())
    lost = int(np.flatnonzero(channels == order[0])[0])
    sqnr: dict[float | None, float] = {}

    def states(alpha: float | None) -> list[np.ndarray]:
        s = factors(ATTENTION, alpha)
        back = affine(*choose(Histogram.of(x / s), "minmax", 4), 4).fake(x / s)
        sqnr[alpha] = Error.between(x, back * s).sqnr
        return [x / s, back, back * s]

    plain = states(None)
    told = {alpha: [plain[0], plain[1], *states(alpha)] for alpha in ALPHAS}

    def view(alpha: float, step: int) -> dict[str, Any]:
        now = told[alpha][step][patch]
        s = factors(ATTENTION, alpha)
        sign = {2: "÷ ", 3: "÷ ", 4: "× "}.get(step)
        heads = [f"{sign}{s[c]:.1f}" if sign else f"{c}" for c in channels]
        zeros = float((np.abs(now) < 1e-6).mean())
        return {
            "values": np.round(now, 1) + 0.0,
            "peak": peak,
            "text": True,
            "digits": 1,
            "tone": "float" if step in (0, 2) else "quant",
            "rows_name": "token",
            "columns_name": "channel",
            "column_labels": heads,
            "marks": [{"row": 0, "rows": len(tokens), "column": lost, "label": "outlier channel", "tone": "warn"}],
            "say": f"Step {step + 1}, alpha {alpha}: {100 * zeros:.0f} % of the values shown are zero.",
            "readouts": [
                {"label": "Zeros among those shown", "value": f"{100 * zeros:.0f} %", "tone": "warn"},
                {"label": "SQNR without factors", "value": f"{sqnr[None]:.1f} dB", "tone": "error"},
                {"label": "SQNR with them", "value": f"{sqnr[alpha]:.1f} dB", "tone": "good"},
                {"label": "Largest factor on a weight column", "value": f"× {s.max():.1f}", "tone": "quant"},
            ],
        }

    captions = (
        "Five tokens and eight channels as they enter the attention of block two. One channel is far larger.",
        "One INT4 step for the whole tensor has to reach the largest value. Most small values become zero.",
        "Every channel is divided by its factor. The weights that read it are multiplied by the same factor.",
        "The same INT4 rounding, one step for the whole tensor again, on what the factors made of it.",
        "Multiplied back, to compare with the second step: how many of the small values came through?",
    )
    figure = explore(view, alpha=Slider(label="Exponent α", values=ALPHAS, start=0.5), step=Steps(captions=captions))
    return sqnr, figure


def repeated() -> Windows:
    """One line, many times: the text that the lint warns of."""
    return cut(["x = x + 1\n" * 2000], lab.tokenizer(), count=16, length=256)


def traps(records: Mapping[str, Histogram], full: Mapping[str, lab.Quality]) -> tuple[dict[str, Any], Figure]:
    """KL and share of clipped held-out values by calibration text, for two observers, and the figure."""
    text = lab.windows("calibration")
    cards = [path.read_text("utf-8") for path in sorted(lab.MODEL.parent.glob("*/README.md"))]
    chance = torch.randint(len(lab.tokenizer()), tuple(text.shape), generator=torch.Generator().manual_seed(0))
    sources = {
        "a few tokens": text[:1, :16],
        "one window": text[:1],
        "all windows": text,
        "model cards": cut(cards, lab.tokenizer(), count=16, length=128).ids,
        "random tokens": chance,
        "one line, repeated": repeated().ids,
    }
    heldout = seen(lab.windows("heldout"))
    found: dict[str, Any] = {}
    series = []
    for rule, tone, shape in (("minmax", "error", "circle"), ("mse", "good", "diamond")):
        points = []
        for name, ids in sources.items():
            if rule == "minmax" and name in ("model cards", "random tokens"):
                continue
            whole = name == "all windows"
            record = records if whole else {n: Histogram.of(x) for n, x in seen(ids).items()}
            chosen = ranges(record, rule, 8)
            outside = [((x < chosen[n].low) | (x > chosen[n].high)).mean() for n, x in heldout.items()]
            kl = (full[rule] if whole else static(chosen)).kl
            found[f"{rule} {name}"] = {"kl": kl, "outside": float(np.mean(outside)), "tokens": ids.numel()}
            points.append(Point(id=f"{rule}{name}", x=float(np.mean(outside)), y=kl, label=name))
        series.append(Series(name=RULES[rule], tone=tone, shape=shape, points=tuple(points)))
    figure = still(
        x=Axis(label="held-out values outside the range", low=5e-7, high=1e-2, log=True, unit="share"),
        y=Axis(label="KL", low=2e-3, high=6e-2, log=True, unit="nats per token"),
        series=series,
        say="Both ends cost: ranges that clip nothing waste levels, ranges from a narrow text clip too much.",
    )
    return found, figure


def numbers() -> dict[str, Any]:
    lab.perplexity()  # the float model's answers, before any hook
    records = {name: Histogram.of(lab.inputs(name)) for name in SOURCES}
    chosen, watched = observers()
    paid, bars = bill(records)
    sqnr, story = migration()
    found, scatter = traps(records, {rule: paid[8, rule] for rule in ("minmax", "mse")})
    trade = {bits: {alpha: smoothed(alpha, bits).kl for alpha in (None, 0.5, 1.0)} for bits in (8, 3)}
    x = lab.inputs(ATTENTION)
    fixed = Error.between(x, affine(*choose(records[ATTENTION], "mse", 4), 4).fake(x)).sqnr
    moving = Error.between(x, by_token(4)(torch.from_numpy(x)).numpy()).sqnr
    rms = np.sqrt((x**2).mean(0))
    loud = int(rms.argmax())
    gain = lab.model().get_submodule("model.layers.1.input_layernorm").weight.detach().abs().numpy()
    down = lab.inputs(DOWN)
    token, unit = np.unravel_index(int(np.abs(down).argmax()), down.shape)
    up = float(lab.weight("layers.1.mlp.up_proj")[unit] @ lab.inputs("layers.1.mlp.gate_proj")[token])
    product = float(down[token, unit])
    tops = np.abs(down).max(1)
    kl8 = {rule: paid[8, rule].kl for rule in (*RULES, "token")}
    kl4 = {rule: paid[4, rule].kl for rule in (*RULES, "token")}
    few, one, all_, line = (
        found[f"minmax {n}"] for n in ("a few tokens", "one window", "all windows", "one line, repeated")
    )
    # What the text says in words.
    assert kl8["token"] < kl8["mse"] < kl8["percentile"] < kl8["minmax"] < kl8["entropy"]
    assert kl4["token"] < kl4["mse"] < kl4["minmax"] < kl4["entropy"] and kl4["mse"] < 1.5 * kl4["token"]
    assert chosen[8, "mse"][1] > chosen[8, "minmax"][1] > chosen[8, "percentile"][1] > chosen[8, "entropy"][1]
    assert one["kl"] < all_["kl"] < line["kl"] and one["kl"] < few["kl"]
    assert fixed > moving
    assert sqnr[0.25] < sqnr[None] < sqnr[0.5] < sqnr[0.75] < sqnr[1.0]
    assert trade[8][1.0] < trade[8][0.5] < trade[8][None] < trade[3][None] < trade[3][0.5] < trade[3][1.0]
    assert abs(found["mse random tokens"]["kl"] / found["mse all windows"]["kl"] - 1) < 0.1
    return {
        "loud": float(rms[loud] / np.median(rms)),
        "loud_gain": float(gain[loud] / np.median(gain)),
        "product": product,
        "gate": product / up,
        "up": up,
        "token_spread": float(tops.max() / np.median(tops)),
        "kl8": kl8,
        "kl4": kl4,
        "gain": kl8["mse"] / kl8["token"],
        "gain4": kl4["mse"] / kl4["token"],
        "best": [*RULES, "token"].index(min(kl8, key=lambda rule: kl8[rule])) + 1,
        "step_minmax": chosen[8, "minmax"][0].scale,
        "step_mse": chosen[8, "mse"][0].scale,
        "sqnr8": {rule: chosen[8, rule][1] for rule in RULES},
        "high_entropy": chosen[8, "entropy"][0].high,
        "low_entropy": chosen[8, "entropy"][0].low,
        "fixed4": fixed,
        "moving4": moving,
        "sqnr_low": sqnr[0.25],
        "sqnr_off": sqnr[None],
        "sqnr_half": sqnr[0.5],
        "sqnr_one": sqnr[1.0],
        "off8": trade[8][None],
        "half8": trade[8][0.5],
        "one8": trade[8][1.0],
        "off3": trade[3][None],
        "half3": trade[3][0.5],
        "one3": trade[3][1.0],
        "few": few,
        "one": one,
        "all": all_,
        "line": line,
        "mse_few": found["mse a few tokens"],
        "mse_one": found["mse one window"],
        "mse_all": found["mse all windows"],
        "mse_line": found["mse one line, repeated"],
        "mse_cards": found["mse model cards"],
        "mse_random": found["mse random tokens"],
        "worse": found["mse one line, repeated"]["kl"] / found["mse all windows"]["kl"],
        "lint": "\n".join(repeated().lint.lines()),
        "entropy_ratio": kl8["entropy"] / kl8["minmax"],
        "stripes": stripes(),
        "observers": watched,
        "bill": bars,
        "migration": story,
        "traps": scatter,
    }
