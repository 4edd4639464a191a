"""Error feedback on eight inputs, column by column, then on every matrix: what it promises and what it gives."""

from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Mark, Point, Series, Steps, explore, still
from bitwright.authoring.filters import significant
from bitwright.core.formats import named
from bitwright.core.measure import Error, layer_error
from bitwright.core.stats import Stats
from bitwright.methods import gptq, mse
from bitwright.methods.descent import solver
from bitwright.methods.gptq import Factor

LAYER = "layers.1.mlp.gate_proj"
FLAT = "layers.1.mlp.down_proj"
SMALL = 8
"""Inputs of the small example."""
SHOWN = 48
"""Inputs of the correlation picture."""
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
    """All matrices by three methods: weight SQNR, mean output error and quality; promised and measured gains."""
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
            "descent": solver.refine(w, fed, factor, 1),
        }
        power = layer_error(w, stats.hessian)
        for key, q in found.items():
            changed[key][name] = q.decode()
            weight[key] += Error.between(w, changed[key][name])
            output[key].append(layer_error(w - changed[key][name], stats.hessian) / power)
        gains.append((name, bits_promised(factor), float(np.log2(output["nearest"][-1] / output["feedback"][-1]) / 2)))
    return {
        key: {
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


def numbers() -> dict[str, Any]:
    bits = 3
    small, story = column_story()
    found, gains = everywhere(bits)
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
    }
