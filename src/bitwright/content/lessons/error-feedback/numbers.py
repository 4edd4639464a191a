"""Error feedback on eight inputs, on two that can be dragged, then on every matrix, towards better and better goals."""

from itertools import product
from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Mark, Point, Series, Slider, Steps, explore, live, still
from bitwright.authoring.filters import FILTERS, significant
from bitwright.core import drift
from bitwright.core.drift import Drift, Factors, aim
from bitwright.core.formats import named
from bitwright.core.measure import Error, layer_error
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.methods import descent, gptq, mse
from bitwright.methods.descent import solver
from bitwright.methods.gptq import Factor

LAYER = "layers.1.mlp.gate_proj"
FLAT = "layers.1.mlp.down_proj"
SMALL = 8
"""Inputs of the small example."""
SHOWN = 48
"""Inputs of the correlation picture."""
PAIRED = "layers.1.self_attn.v_proj"
"""A matrix whose outputs go together in what they cost."""
STEP = 0.04
"""Of the sliders of the lattice, so that no place lies between two levels; weights stay within `WITHIN` of 0."""
WITHIN = (1.48, 1.0)
WAYS = {"nearest": "error", "feedback": "quant", "descent": "good", "best": "ink"}
STAGES = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""Matrices of a block that are solved together, in order."""
ADDED = {"self_attn.o_proj": "input_layernorm", "mlp.down_proj": "post_attention_layernorm"}
"""Matrices whose answer is added to what flows into that module."""
GROUPS = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate, up", "up_proj": "gate, up"}
"""Matrices that read the same input share a factor."""


def factor_of(name: str, order: str = "activation") -> Factor:
    """The factor of a matrix's input."""
    return gptq.factorise(lab.stats(name), order=order)


def diagonal(factor: Factor) -> np.ndarray:
    """D of H = U D U^T."""
    hessian = factor.hessian[np.ix_(factor.order, factor.order)].astype(np.float64)
    half = np.linalg.solve(factor.upper.astype(np.float64), hessian)
    return np.diagonal(np.linalg.solve(factor.upper.astype(np.float64), half.T))


def bits_promised(factor: Factor) -> float:
    """Half the binary logarithm of tr H / tr D: the bits that feedback is worth on this input."""
    return float(np.log2(np.trace(factor.hessian) / diagonal(factor).sum()) / 2)


def close(stats: Stats) -> np.ndarray:
    """An input and those that go together with it most, of all such sets the closest; strongest first."""
    size = np.sqrt(stats.power)
    alike = np.abs(stats.hessian / size[:, None] / size[None, :])
    sets = np.argsort(-alike, axis=1)[:, :SMALL]
    best = sets[int(np.argmax([alike[np.ix_(each, each)].sum() for each in sets]))]
    return best[np.argsort(-stats.power[best], kind="stable")]


def column_story() -> tuple[dict[str, Any], Figure]:
    """One row of a layer on eight inputs that go together, three bits: column by column, with the errors fed on."""
    stats = lab.stats(LAYER)
    chosen = close(stats)
    small = Stats(stats.n, stats.moment[np.ix_(chosen, chosen)])
    factor = gptq.factorise(small, damping=1e-4, order="natural")
    format = named("int3", group="channel", scale="fp32")
    w = lab.weight(LAYER)[:, chosen]
    fed, plain = gptq.quantize(w, format, factor=factor, stats=small), mse.quantize(w, format, small)

    def objective(q: np.ndarray) -> np.ndarray:
        """The output error of each row."""
        return np.einsum("rc,cd,rd->r", w - q, factor.hessian, w - q)

    after, before = objective(fed.decode()), objective(plain.decode())
    assert after.sum() < before.sum()
    gain = before / after
    overall = float(before.sum() / after.sum())
    differ = (fed.codes != plain.codes).sum(axis=1)
    row = int(np.argmin(np.where(differ >= 3, np.abs(np.log(gain / overall)), np.inf)))
    s = float(fed.scale[row, 0])
    upper, weights = factor.upper, w[row] / s
    levels, errors, wanted = np.zeros(SMALL), np.zeros(SMALL), weights.copy()
    unit, total = s * s, float(w[row] @ factor.hessian @ w[row])

    def sofar(error: np.ndarray, count: int) -> float:
        """What the first `count` columns cost, all that is made up for later taken off: sum of D r^2."""
        return float(((error @ upper)[:count] ** 2 * diagonal(factor)[:count]).sum()) * unit / total

    states = []
    for k in range(SMALL + 1):
        states.append((wanted.copy(), levels.copy(), errors.copy()))
        if k == SMALL:
            break
        levels[k] = fed.decode()[row][k] / s
        errors[k] = weights[k] - levels[k]
        wanted[k + 1 :] = weights[k + 1 :] + errors[: k + 1] @ upper[: k + 1, k + 1 :]
    peak = float(np.ceil(max(np.abs(weights).max(), *(np.abs(each[0]).max() for each in states))))

    def view(step: int) -> dict[str, Any]:
        wanted, levels, errors = states[step]
        mark = min(step, SMALL - 1)
        done = f"{step} of {SMALL}"
        return {
            "values": [weights, wanted, levels, errors],
            "peak": peak,
            "text": True,
            "digits": 2,
            "row_labels": ("weight", "aim now", "level", "error"),
            "column_labels": tuple(f"x{c}" for c in chosen),
            "rows_name": "",
            "columns_name": "input, strongest first",
            "marks": [Mark(row=0, column=mark, rows=4, label="next" if step < SMALL else "done")],
            "say": f"{done} columns rounded; error so far {100 * sofar(errors, step):.2f} % of the output.",
            "readouts": [
                {"label": "Columns rounded", "value": done},
                {"label": "Output error so far", "value": f"{100 * sofar(errors, step):.2f} %", "tone": "error"},
                {"label": "Nearest rounding, in the end", "value": f"{100 * before[row] / total:.2f} %"},
            ],
        }

    captions = ["Eight weights of one row, in steps. Nothing is rounded: each aims at itself."]
    for k in range(SMALL):
        later = f"; the columns after it take {'its error' if k == 0 else 'all errors'} up" if k < SMALL - 1 else ""
        captions.append(f"Input x{chosen[k]} goes to level {significant(levels[k], 1)}{later}.")
    told = {
        "small_before": float(before[row] / total),
        "small_after": float(after[row] / total),
        "small_other": ("no", "one", "two", "three", "four", "five", "six", "seven", "all")[differ[row]],
        "small_same": float((gain == 1).mean()),
        "small_gain": overall,
        "small_worse": float((gain < 1).mean()),
        "small_rows": len(gain),
    }
    assert abs(sofar(errors, SMALL) - told["small_after"]) < 1e-3 * told["small_after"] + 1e-6
    return told, explore(view, step=Steps(captions=tuple(captions), label="Column"))


def together() -> Figure:
    """How the strongest inputs of two matrices go together, as correlations about zero."""
    names = {LAYER: "MLP input (gate, up)", FLAT: "MLP output (down)"}

    def view(layer: str) -> dict[str, Any]:
        factor = factor_of(layer)
        strongest = factor.order[:SHOWN]
        inside = factor.hessian[np.ix_(strongest, strongest)]
        size = np.sqrt(np.diagonal(inside))
        values = inside / size[:, None] / size[None, :]
        strong = float((np.abs(values[np.triu_indices(SHOWN, 1)]) > 0.3).mean())
        bits = bits_promised(factor)
        return {
            "values": [[float(f"{x:.2f}") for x in row] for row in values],
            "peak": 1.0,
            "rows_name": "input, strongest first",
            "columns_name": "input, strongest first",
            "say": f"{names[layer]}: {100 * strong:.0f} % of the pairs go together by more than 0.3 in size.",
            "readouts": [
                {"label": "Pairs above 0.3 in size", "value": f"{100 * strong:.0f} %"},
                {"label": "tr D / tr H", "value": f"{100 * 4**-bits:.0f} %", "tone": "error"},
                {"label": "Worth", "value": f"{bits:.2f} bits", "tone": "good"},
            ],
        }

    return explore(view, layer=Choice(label="Input of", options=names, start=LAYER))


def everywhere(bits: int) -> tuple[dict[str, dict[str, Any]], list[tuple[str, float, float]]]:
    """All matrices by three methods: decoded, weight SQNR, mean output error, quality; promised and measured gains."""
    format = named(f"int{bits}", group=128)
    changed: dict[str, dict[str, np.ndarray]] = {"nearest": {}, "feedback": {}, "descent": {}}
    weight = {key: Error() for key in changed}
    output: dict[str, list[float]] = {key: [] for key in changed}
    gains = []
    factors: dict[str, Factor] = {}
    for name in lab.names():
        w, stats = lab.weight(name), lab.stats(name)
        *where, last = name.split(".")
        shared = ".".join([*where[:2], GROUPS.get(last, last)])
        factor = factors.setdefault(shared, factor_of(name))
        fed = gptq.quantize(w, format, stats, factor=factor)
        found = {
            "nearest": mse.quantize(w, format, stats),
            "feedback": fed,
            "descent": descent.quantize(w, format, stats, factor=factor),
        }
        power = layer_error(w, stats.hessian)
        for key, q in found.items():
            changed[key][name] = q.decode()
            weight[key] += Error.between(w, changed[key][name])
            output[key].append(layer_error(w - changed[key][name], stats.hessian) / power)
        gains.append((name, bits_promised(factor), float(np.log2(output["nearest"][-1] / output["feedback"][-1]) / 2)))
    return {
        key: {
            "decoded": changed[key],
            "sqnr": weight[key].sqnr,
            "output": float(np.mean(output[key])),
            "quality": lab.quality(changed[key]),
        }
        for key in changed
    }, gains


def methods(found: dict[str, dict[str, Any]], bits: int) -> Figure:
    """The three methods by three measures."""
    labels = {"nearest": "nearest level", "feedback": "error feedback", "descent": "then descent"}
    tones = {"nearest": "error", "feedback": "quant", "descent": "good"}
    measures = {
        "weight": ("squared weight error / squared weights", lambda f: 100 * 10 ** (-f["sqnr"] / 10), "{:.1f} %"),
        "output": ("output error / output power, mean of all matrices", lambda f: 100 * f["output"], "{:.2f} %"),
        "kl": ("KL on held-out text, nats per token", lambda f: f["quality"].kl, "{:.4f}"),
    }

    def view(measure: str) -> dict[str, Any]:
        name, value, form = measures[measure]
        values = {key: value(f) for key, f in found.items()}
        told = ", ".join(f"{labels[key]} {form.format(v)}" for key, v in values.items())
        return {
            "bars": [
                {"id": key, "label": labels[key], "value": v, "text": form.format(v), "tone": tones[key]}
                for key, v in values.items()
            ],
            "high": 1.15 * max(values.values()),
            "x": name,
            "say": f"{name}, {bits} bits: {told}.",
        }

    options = {"weight": "Weight error", "output": "Output error", "kl": "KL of the model"}
    return explore(view, measure=Choice(label="Measured by", options=options, start="weight"))


def promise(gains: list[tuple[str, float, float]]) -> Figure:
    """Bits that the factor promises against bits measured, one point a matrix."""

    def points(part: str) -> tuple[Point, ...]:
        return tuple(
            Point(id=name, x=x, y=y, label=f"{name.split('.')[1]}.{name.split('.')[-1].removesuffix('_proj')}")
            for name, x, y in gains
            if part in name
        )

    line = (Point(id="l0", x=0, y=0), Point(id="l1", x=2.5, y=2.5))
    return still(
        x=Axis(label="promised gain", low=0, high=2.5, unit="bits"),
        y=Axis(label="measured gain", low=0, high=2.5, unit="bits"),
        series=[
            Series(name="as promised", tone="mute", line=True, points=line),
            Series(name="attention", tone="quant", points=points("attn")),
            Series(name="MLP", tone="good", shape="square", points=points("mlp")),
        ],
        say=f"Measured gains run from {min(g[2] for g in gains):.2f} to {max(g[2] for g in gains):.2f} bits and "
        f"follow the promise.",
    )


def orders(bits: int) -> dict[str, float]:
    """Output error of one matrix by the order in which its columns are taken, and rounded to nearest."""
    w, stats, format = lab.weight(LAYER), lab.stats(LAYER), named(f"int{bits}", group=128)
    power = layer_error(w, stats.hessian)
    found = {"nearest": mse.quantize(w, format, stats)}
    for order in ("natural", "activation"):
        found[order] = gptq.quantize(w, format, stats, factor=factor_of(LAYER, order))
    return {key: layer_error(w - q.decode(), stats.hessian) / power for key, q in found.items()}


# --- two weights


def code_by_every_way(w: np.ndarray, metric: np.ndarray) -> dict[str, np.ndarray]:
    """Codes [points, 2] of points `w` by each way of rounding, in three bits with a step of one.

    `metric` [2, 2] is H for two weights of a row. For two of one column it is G, because tr(G E H E^T) is then e G e^T
    times a constant, and errors go from row to row as they do from column to column.
    """
    format = named("int3", group="tensor", scale="fp32")
    factor = gptq.factorise(Stats(1, metric), damping=0.0, order="natural")
    scale = np.ones((1, 1), np.float32)
    fed = QTensor(format, gptq.feed_back(w, format, scale, None, factor), scale)
    low, high = format.grid.low, format.grid.high
    every = np.array(list(product(np.arange(low, high + 1), repeat=2)), np.float32)
    errors = w[:, None] - every
    return {
        "nearest": QTensor(format, format.grid.nearest(w), scale).decode(),
        "feedback": fed.decode(),
        "descent": solver.refine(w, fed, factor, 4).decode(),
        "best": every[np.einsum("pei,ij,pej->pe", errors, metric, errors).argmin(1)],
    }


def cells(metric: np.ndarray) -> dict[str, np.ndarray]:
    """Corners of the region of weights that get the codes (0, 0), without the range's ends."""
    u = metric[0, 1] / metric[1, 1]
    square = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    best = 4 * square
    for step in (np.array(each) for each in product((-2, -1, 0, 1, 2), repeat=2)):
        if step.any():  # the half-plane that is nearer to 0 than to `step`
            best = _cut(best, metric @ step, step @ metric @ step / 2)
    return {"nearest": square, "feedback": square - np.outer(square[:, 0], (0, u)), "best": best}


def _cut(corners: np.ndarray, normal: np.ndarray, most: float) -> np.ndarray:
    """The part of a convex polygon where normal . z is at most `most`."""
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside = normal @ a - most, normal @ b - most
        if inside[0] <= 1e-9:
            kept.append(a)
        if (inside[0] > 1e-9) != (inside[1] > 1e-9):
            kept.append(a + (b - a) * inside[0] / (inside[0] - inside[1]))
    return np.array(kept)


def closest(metric: np.ndarray, strength: tuple[float, float]) -> np.ndarray:
    """Of all pairs of about equal power, the one that goes together most within `strength`."""
    size = np.sqrt(np.diagonal(metric))
    alike = np.abs(metric / size[:, None] / size)
    even = np.abs(np.log(size[:, None] / size)) < 0.25
    fits = even & (alike > strength[0]) & (alike < strength[1])
    return np.array(np.unravel_index(int(np.argmax(np.where(fits, alike, -1.0))), alike.shape))


def pairs() -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """What the lattice's metric can be: a title, which two, and the metric, 1 for the first."""
    scale = mse.quantize(lab.weight(PAIRED), named("int3", group="channel"), lab.stats(PAIRED)).scale[:, 0]
    whole = {
        "row": ("Two inputs that go together", lab.stats(LAYER).hessian, (0.5, 0.9)),
        "apart": ("Two that do not", lab.stats(FLAT).hessian, (0.0, 0.001)),
        "column": ("Two outputs, one input", lab.curvature()[PAIRED] * np.outer(scale, scale), (0.5, 0.9)),
    }
    found = {}
    for key, (title, metric, strength) in whole.items():
        chosen = closest(metric, strength)
        found[key] = title, chosen, metric[np.ix_(chosen, chosen)] / metric[chosen[0], chosen[0]]
    return found


def lattice() -> tuple[dict[str, Any], Figure]:
    """Two weights among their codes, to be dragged, and how often each way of rounding finds the best ones."""
    base: dict[str, Any] = {"low": -4, "high": 3, "sweeps": 4, "pairs": {}}
    axes = [STEP * np.arange(-round(reach / STEP), round(reach / STEP) + 1) for reach in WITHIN]
    everywhere = np.random.default_rng(0).uniform(-1.5, 1.5, (4000, 2)).astype(np.float32)
    found = pairs()
    for key, (_, chosen, metric) in found.items():
        metric = metric.astype(np.float32)
        every = code_by_every_way(everywhere, metric)
        for way, corners in cells(metric).items():
            assert _all_inside(everywhere - every[way], corners), f"{key}: the cell of {way}"
        names = [f"weight of input x{c}" if key != "column" else f"weight of output {c}" for c in chosen]
        base["pairs"][key] = {
            "metric": [metric[0, 0], metric[0, 1], metric[1, 1]],
            "x": f"{names[0]}, in steps",
            "y": f"{names[1]}, in steps",
            "cells": cells(metric),
        }
        if key == "row":
            codes = every
            start = _telling(metric, chosen)
    told = {f"right_{way}": float((codes[way] == codes["best"]).all(axis=1).mean()) for way in WAYS}
    assert told["right_nearest"] < told["right_feedback"] < told["right_descent"] < 1

    def view(base: dict[str, Any], pair: str, cell: str, x: float, y: float) -> dict[str, Any]:
        shown = base["pairs"][pair]
        a, b, c = shown["metric"]
        metric, w = np.array([[a, b], [b, c]], np.float32), np.array([[x, y]], np.float32)
        every = {way: codes[0] + 0.0 for way, codes in code_by_every_way(w, metric).items()}  # no -0
        first, fixed = every["feedback"][0], FILTERS["fixed"]
        read = {way: significant(layer_error(w - q, metric)) for way, q in every.items()}
        told = [f"{way} {read[way]} at ({fixed(q[0], 0)}, {fixed(q[1], 0)})" for way, q in every.items()]
        return {
            **{key: shown[key] for key in ("metric", "x", "y")},
            "at": [x, y],
            "cell": shown["cells"][cell],
            "owner": cell,
            "path": [[x, y], [first, y + (x - first) * b / c], every["feedback"]],
            "picks": [{"id": way, "at": every[way], "tone": tone} for way, tone in WAYS.items()],
            "say": f"Weights {fixed(x, 2)} and {fixed(y, 2)}. Output error: {'; '.join(told)}.",
            "readouts": [
                {"label": f"Output error, {way}", "value": read[way], "tone": tone} for way, tone in WAYS.items()
            ],
        }

    places = [tuple(round(float(v), 2) + 0.0 for v in axis) for axis in axes]
    labels = [tuple(FILTERS["fixed"](v, 2) for v in place) for place in places]
    return told, live(
        "lattice",
        base,
        view,
        pair=Choice(label="Weights of", options={key: title for key, (title, *_) in found.items()}, start="row"),
        cell=Choice(
            label="Cells of",
            options={"nearest": "Nearest level", "feedback": "Error feedback", "best": "The best codes"},
            start="nearest",
        ),
        x=Slider(label="First weight", values=places[0], labels=labels[0], start=start[0]),
        y=Slider(label="Second weight", values=places[1], labels=labels[1], start=start[1]),
    )


def _all_inside(points: np.ndarray, corners: np.ndarray) -> bool:
    """Whether points lie in a convex polygon whose corners go round against the clock, up to rounding."""
    edges = np.roll(corners, -1, axis=0) - corners
    beside = [e[0] * (points[:, 1] - p[1]) - e[1] * (points[:, 0] - p[0]) for p, e in zip(corners, edges, strict=True)]
    return bool((np.array(beside) > -1e-4).all())


def _telling(metric: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Two weights of a row, at the nearest places of the sliders: the row for which feedback mends most."""
    w = lab.weight(LAYER)
    scale = mse.quantize(w, named("int3", group="channel"), lab.stats(LAYER)).scale
    steps = np.round((w / scale)[:, chosen] / STEP).astype(np.float32) * np.float32(STEP)
    steps = steps[(np.abs(steps) <= WITHIN).all(axis=1)]
    every = code_by_every_way(steps, metric)
    good = (every["feedback"] == every["best"]).all(axis=1)
    errors = steps - every["nearest"]
    missed = np.einsum("pi,ij,pj->p", errors, metric, errors)
    row = int(np.argmax(np.where(good, missed, -1.0)))
    return round(float(steps[row, 0]), 2) + 0.0, round(float(steps[row, 1]), 2) + 0.0


# --- better goals


Fitted = dict[str, list[drift.Choice]]


def in_turn(bits: int, outputs: bool) -> tuple[dict[str, np.ndarray], Fitted, dict[str, np.ndarray]]:
    """All matrices, each aimed at what makes up for those before it, how that was fitted, and the targets.

    With `outputs`, by how much each output counts.
    """
    format, tokens = named(f"int{bits}", group=128), lab.windows("calibration")
    half = np.arange(tokens.numel()) // tokens.shape[1] % 2
    changed: dict[str, np.ndarray] = {}
    fitted: Fitted = {}
    targets: dict[str, np.ndarray] = {}
    blocks = sorted({name.split(".")[1] for name in lab.names()})
    streams = [f"layers.{block}.{added}" for block in blocks for added in ADDED.values()]
    float_ = {name: lab.inputs(name) for name in lab.names()} | lab.flow({}, streams)
    for block, stage in product(blocks, STAGES):
        where = f"layers.{block}."
        beside = [where + ADDED[name] for name in stage if name in ADDED]
        seen = lab.flow(changed, [where + stage[0], *beside])
        x_hat, x = seen[where + stage[0]], float_[where + stage[0]]
        lost = None if not beside else float_[beside[0]] - seen[beside[0]]
        halves = [
            Drift(
                Stats.of(x_hat[half == h]),
                (x - x_hat)[half == h].T @ x_hat[half == h],
                None if lost is None else lost[half == h].T @ x_hat[half == h],
            )
            for h in (0, 1)
        ]
        stats, factors = halves[0].stats + halves[1].stats, Factors()
        factor = gptq.factorise(stats)
        for name in (where + last for last in stage):
            targets[name] = w = lab.weight(name)
            if changed:
                targets[name], fitted[name] = aim(w, (halves[0], halves[1]), factors)
            g = lab.curvature()[name] if outputs else None
            changed[name] = descent.quantize(targets[name], format, stats, factor=factor, curvature=g).decode()
    return changed, fitted, targets


def mended(changed: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> tuple[float, float]:
    """What the stream behind the last block has lost of held-out text before its last matrix is rounded.

    In shares of its power, with the float weights and with the corrected target.
    """
    name = lab.names()[-1]
    stream = f"{name.removesuffix('mlp.down_proj')}post_attention_layernorm"
    before = {other: w for other, w in changed.items() if other != name}
    clean, worn = (lab.flow(each, [name, stream], "heldout") for each in ({}, before))
    wanted = clean[name] @ lab.weight(name).T + clean[stream]
    power = float((wanted**2).sum())
    found = (float(((wanted - worn[name] @ w.T - worn[stream]) ** 2).sum()) for w in (lab.weight(name), targets[name]))
    first, second = (each / power for each in found)
    return first, second


def goals(plain: dict[str, np.ndarray], bits: int) -> tuple[dict[str, Any], Figure]:
    """The same method with the same bits, towards better goals: KL of the model."""
    format = named(f"int{bits}", group=128)
    both, fitted, _ = in_turn(bits, True)
    corrected, _, targets = in_turn(bits, False)
    sided = {
        name: descent.quantize(lab.weight(name), format, lab.stats(name), curvature=lab.curvature()[name]).decode()
        for name in lab.names()
    }
    found = {
        "plain": ("descent, as above", "quant", lab.quality(plain)),
        "corrected": ("corrected targets", "good", lab.quality(corrected)),
        "sided": ("outputs weighed", "good", lab.quality(sided)),
        "both": ("both", "good", lab.quality(both)),
    }
    kl = {key: quality.kl for key, (_, _, quality) in found.items()}
    assert kl["both"] < kl["sided"] < kl["corrected"] < kl["plain"]
    first, second = mended(corrected, targets)
    assert second < first
    shares = [choice.share for choices in fitted.values() for choice in choices]
    numbers = {
        "goal": kl,
        "goal_fall": kl["plain"] / kl["both"],
        "lost": first,
        "lost_after": second,
        "share_least": min(shares),
        "share_most": max(shares),
        "goal_interval": found["plain"][2].interval,
        "tokens": lab.windows("calibration").numel(),
    }
    return numbers, still(
        bars=[
            {"id": key, "label": label, "value": quality.kl, "text": f"{quality.kl:.4f}", "tone": tone}
            for key, (label, tone, quality) in found.items()
        ],
        high=1.15 * kl["plain"],
        x="KL on held-out text, nats per token",
        say=f"KL in nats per token, {bits} bits: "
        + ", ".join(f"{label} {quality.kl:.4f}" for label, _, quality in found.values())
        + ".",
    )


def numbers() -> dict[str, Any]:
    bits = 3
    small, story = column_story()
    found, gains = everywhere(bits)
    two, grabbed = lattice()
    better, aims = goals(found["descent"]["decoded"], bits)
    order = orders(bits)
    nearest, feedback, refined = (found[key] for key in ("nearest", "feedback", "descent"))
    correlation = float(np.corrcoef([g[1] for g in gains], [g[2] for g in gains])[0, 1])
    assert nearest["sqnr"] > feedback["sqnr"] > refined["sqnr"]
    assert nearest["output"] > feedback["output"] > refined["output"]
    assert nearest["quality"].kl > feedback["quality"].kl > refined["quality"].kl
    assert order["activation"] < order["natural"] < order["nearest"]
    assert small["small_after"] < small["small_before"]
    least, most = min(gains, key=lambda g: g[2]), max(gains, key=lambda g: g[2])
    assert "down_proj" in least[0]
    return {
        **small,
        **two,
        **better,
        "sqnr": {key: f["sqnr"] for key, f in found.items()},
        "output": {key: f["output"] for key, f in found.items()},
        "kl": {key: f["quality"].kl for key, f in found.items()},
        "interval": {key: f["quality"].interval for key, f in found.items()},
        "fall": nearest["quality"].kl / refined["quality"].kl,
        "bits_won": float(np.log2(nearest["quality"].kl / refined["quality"].kl) / 2),
        "order": order,
        "least": least[2],
        "most": most[2],
        "most_name": most[0],
        "promised_least": least[1],
        "correlation": correlation,
        "methods": methods(found, bits),
        "story": story,
        "together": together(),
        "promise": promise(gains),
        "lattice": grabbed,
        "goals": aims,
    }
