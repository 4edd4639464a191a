"""Steps and roundings that are learned: LSQ on a small network and on one row, AdaRound on a layer."""

import copy
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.nn.utils import parametrize

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Point, Series, Slider, Steps, explore
from bitwright.authoring.filters import scientific, significant
from bitwright.core.formats import named
from bitwright.core.measure import Error, layer_error
from bitwright.core.stats import Stats
from bitwright.methods import lsq, mse
from bitwright.methods.adaround import rounding
from bitwright.methods.lsq import training
from bitwright.models.demos import digits
from bitwright.models.network.finetune import Integers, finetune, round_to_nearest
from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import place

EPOCHS = 2
ROW = "layers.1.mlp.down_proj"
LOW, HIGH = -4, 3
"""Codes of three bits."""
LAYERS = {"layers.1.self_attn.o_proj": "attention output", "layers.1.mlp.down_proj": "MLP output"}
"""Where the rounding is learned, both in the second block."""
TOKENS = (256, 1024, 3072)
"""How many calibration tokens the rounding is learned from."""
SHOWN = (0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200)
"""Steps of AdaRound's training that the story stops at."""
BINS = 25


class Lessons:
    """The training images of the digits network in batches of 64, in the same random order each time."""

    def __iter__(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        images, labels = digits.read("train")
        order = np.random.default_rng(0).permutation(len(images))
        for start in range(0, len(order), 64):
            chosen = order[start : start + 64]
            yield {digits.INPUT: images[chosen]}, labels[chosen]


def trained() -> tuple[dict[str, dict[int, float]], int, Figure]:
    """Accuracy on the test images of the digits network by three ways to choose steps, the test images, the figure."""
    images, labels = digits.read("test")

    def accuracy(model: bytes) -> float:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return float((session.run(None, {digits.INPUT: images})[0].argmax(1) == labels).mean())

    def written(integers: Integers) -> float:
        fresh = Graph.open(digits.MODEL)
        return accuracy(integers.write(fresh, placement).SerializeToString())

    graph = Graph.open(digits.MODEL)
    placement, plain = place(graph, "x86"), [(feeds, None) for feeds, _ in Lessons()]
    found: dict[str, dict[int, float]] = {"full": {}, "searched": {}, "learned": {}}
    for bits in (2, 3, 4):
        start = round_to_nearest(graph, placement, plain, bits)
        full = round_to_nearest(graph, placement, plain, bits, rule="minmax", search=False)
        found["full"][bits] = written(full)
        found["searched"][bits] = written(start)
        found["learned"][bits] = written(
            finetune(graph, placement, Lessons(), bits, options=lsq.Options(epochs=EPOCHS, rate=5e-3), start=start)
        )
    exact = accuracy(digits.MODEL.read_bytes())

    def view(bits: int) -> dict[str, Any]:
        rows = [
            ("float", "float network", exact, "float"),
            ("full", "nearest, full range", found["full"][bits], "error"),
            ("searched", "nearest, searched steps", found["searched"][bits], "quant"),
            ("learned", "learned with the network", found["learned"][bits], "good"),
        ]
        return {
            "bars": [
                {"id": key, "label": label, "value": 100 * value, "text": f"{100 * value:.1f} %", "tone": tone}
                for key, label, value, tone in rows
            ],
            "high": 100.0,
            "x": "test images read correctly",
            "say": f"{bits} bits: {100 * found['full'][bits]:.1f} % correct with steps from the full range, "
            f"{100 * found['searched'][bits]:.1f} % with searched and {100 * found['learned'][bits]:.1f} % "
            f"with learned steps and weights.",
        }

    found["float"] = {32: exact}
    figure = explore(view, bits=Slider(label="Bits of weights and activations", values=(2, 3, 4), start=2))
    return found, len(labels), figure


def slopes(v: torch.Tensor, step: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `v` is rounded to and, for each value by itself, the slope in it and in the step, by the engine."""
    values = v.clone().requires_grad_()
    steps = torch.full_like(v, step).requires_grad_()
    back = training.fake(values, steps, LOW, HIGH)
    back.sum().backward()
    assert values.grad is not None and steps.grad is not None
    # The engine scales the slope in a step by 1 / sqrt(count * high); each step here has one value.
    return back.detach(), values.grad, steps.grad * math.sqrt(HIGH)


def staircase() -> Figure:
    """The rounded value and its two slopes against the weight, in units of the step."""
    halves = np.arange(LOW - 1.5, HIGH + 2)
    jumps = np.concatenate([halves - 1e-4, halves + 1e-4])
    at = torch.tensor(np.sort(np.concatenate([jumps, np.arange(LOW - 1.25, HIGH + 1.5, 0.5)])), dtype=torch.float32)
    value, in_weight, in_step = (each.tolist() for each in slopes(at, 1.0))
    curves = {
        "value": (value, "rounded value", "quant", "The value is a staircase: flat between its jumps."),
        "weight": (in_weight, "slope used for the weight", "good", "For the weight: one in the range, none outside."),
        "step": (in_step, "slope in the step", "error", "For the step: a saw inside the range, constant outside it."),
    }

    def view(curve: str) -> dict[str, Any]:
        y, name, tone, say = curves[curve]
        points = tuple(Point(id=f"p{i}", x=a, y=b) for i, (a, b) in enumerate(zip(at.tolist(), y, strict=True)))
        ends = (Point(id="low", x=LOW - 0.5, y=LOW - 0.5), Point(id="high", x=HIGH + 0.5, y=HIGH + 0.5))
        return {
            "x": Axis(label="weight / step", low=LOW - 1.5, high=HIGH + 1.5),
            "y": Axis(label="in steps; slopes have no unit", low=LOW - 1, high=HIGH + 1),
            "series": [
                Series(name="the weight itself", tone="float", line=True, points=ends),
                Series(name=name, tone=tone, line=True, points=points),
            ],
            "say": say,
        }

    options = {"value": "Value", "weight": "Slope in the weight", "step": "Slope in the step"}
    return explore(view, curve=Choice(label="Curve", options=options, start="value"))


def balance() -> tuple[dict[str, float], Figure]:
    """A row's step learned by the slope of its own squared error; where it ends beside a search."""
    row = torch.from_numpy(lab.weight(ROW)[0])
    picked = torch.sort(row).values[[0, 10, 51, 123, 210, 312, 415, 497, 511]]
    step = training.step_init(row, HIGH).requires_grad_()
    path: list[float] = []
    for _ in range(81):
        path.append(float(step.detach()))
        loss = ((training.fake(row, step, LOW, HIGH) - row) ** 2).sum()
        (slope,) = torch.autograd.grad(loss, step)
        with torch.no_grad():
            step -= 0.01 * slope
    shown = (0, 0, 1, 2, 4, 8, 16, 80)
    best = float(mse.search(row[None, :], named("int3", group="channel", scale="fp32"), steps=200, least=0.2)[0].abs())
    edge = float(row.abs().max()) * 1.1

    def measured(s: float) -> tuple[float, float, float, float]:
        """Mean squared error, the pulls to a smaller and to a larger step, the share of clipped weights."""
        back, inside, in_step = slopes(row, s)
        pull = 2 * (back - row) * in_step
        clipped = inside == 0
        error = Error.between(row, back).mse
        return error, float(pull[~clipped].sum()), float(-pull[clipped].sum()), float(clipped.float().mean())

    def view(step: int) -> dict[str, Any]:
        s = path[shown[step]]
        error, smaller, larger, share = measured(s)
        back, inside, _ = slopes(picked, s)
        dots = [
            {"id": f"w{i}", "at": a, "tone": "float" if kept else "warn"} | ({"to": b} if step else {})
            for i, (a, b, kept) in enumerate(zip(picked.tolist(), back.tolist(), inside.tolist(), strict=True))
        ]
        return {
            "low": -edge,
            "high": edge,
            "x": "weight",
            "levels": [{"at": s * k, "code": str(k)} for k in range(LOW, HIGH + 1) if abs(s * k) < edge],
            "dots": dots,
            "say": f"Update {shown[step]}: step {significant(s)}, mean squared error {scientific(error)}.",
            "readouts": [
                {"label": "Updates", "value": str(shown[step])},
                {"label": "Step", "value": significant(s), "tone": "quant"},
                {"label": "Pull to a smaller step", "value": significant(smaller), "tone": "error"},
                {"label": "Pull to a larger step", "value": significant(larger), "tone": "warn"},
                {"label": "Clipped", "value": f"{100 * share:.1f} %", "tone": "warn"},
                {"label": "MSE of the row", "value": scientific(error), "tone": "error"},
            ],
        }

    first, last = measured(path[0]), measured(path[-1])
    assert last[0] < first[0] and first[1] > first[2] and last[3] > first[3] and path[-1] < path[0]
    assert abs(last[1] - last[2]) < 0.02 * last[1]
    captions = (
        "Nine of the row's weights, and the levels of LSQ's first step.",
        "Each weight goes to its level. Those inside the range ask for a smaller step.",
        "One update of the step: all levels move together.",
        "Two updates.",
        "Four updates.",
        f"Eight updates: {100 * measured(path[8])[3]:.1f} % of the row are clipped now, and pull the other way.",
        f"Sixteen updates: {100 * measured(path[16])[3]:.1f} % are clipped.",
        "The two pulls balance: the step rests at a minimum of the squared error.",
    )
    told = {
        "first": path[0],
        "last": path[-1],
        "first_mse": first[0],
        "last_mse": last[0],
        "searched_mse": measured(best)[0],
        "clipped": last[3],
        "clipped_first": first[3],
    }
    assert told["last_mse"] < 1.03 * told["searched_mse"]
    return told, explore(view, step=Steps(captions=captions))


def ratios(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(|dL/ds| / s) / (|dL/dW| / |W|) of every matrix of the language model, without and with LSQ's scale."""
    model = copy.deepcopy(lab.model()).requires_grad_(True)
    steps = {}
    for name in lab.names():
        steps[name] = training.Learned(bits)
        parametrize.register_parametrization(model.get_submodule(f"model.{name}"), "weight", steps[name])
    ids = lab.windows("calibration")[:2]
    model(ids, labels=ids).loss.backward()
    scaled, plain = [], []
    for name, learned in steps.items():
        w = model.get_submodule(f"model.{name}").parametrizations.weight.original
        assert learned.step.grad is not None
        ratio = float(learned.step.grad.abs() / learned.step.detach() / (w.grad.norm() / w.detach().norm()))
        scaled.append(ratio)
        plain.append(ratio * math.sqrt(w.numel() * learned.high))
    return np.array(plain), np.array(scaled)


def softened() -> tuple[dict[str, float], Figure]:
    """h of every weight of a layer while AdaRound's regulariser closes in: the training inside `rounding.quantize`."""
    name, bits = next(iter(LAYERS)), 3
    w, x = torch.from_numpy(lab.weight(name))[None], torch.from_numpy(lab.inputs(name))[None]
    layer, format = rounding.Layer.of(w, x, None, None), named(f"int{bits}", group="channel")
    step = mse.search(w[0], format)[0][None]
    position = w / step
    down = position.floor().clip(LOW, HIGH - 1)
    rest = (position - down).clip(0, 1)
    v = -torch.log((rounding.ZETA - rounding.GAMMA) / (rest.clip(0.001, 0.999) - rounding.GAMMA) - 1)
    v.requires_grad_()
    cost = (step**2 * torch.diagonal(layer.gram, dim1=1, dim2=2)[:, None, :]).mean(-1) / 12
    optimizer = torch.optim.Adam([v], lr=0.1)
    kept: dict[int, tuple[np.ndarray, float, float]] = {}
    for i in range(SHOWN[-1] + 1):
        h = (torch.sigmoid(v) * (rounding.ZETA - rounding.GAMMA) + rounding.GAMMA).clip(0, 1)
        loss = layer.loss((down + h) * step - w, False)
        progress = max(0.0, (i / SHOWN[-1] - rounding.WARM_UP) / (1 - rounding.WARM_UP))
        beta = rounding.BETA[1] + (rounding.BETA[0] - rounding.BETA[1]) * (1 + math.cos(math.pi * progress)) / 2
        if i in SHOWN:
            kept[i] = (h.detach().numpy().ravel(), float(loss.detach().sum()), beta)
        total = (loss / cost).sum()
        if i >= rounding.WARM_UP * SHOWN[-1]:
            total = total + rounding.PUSH * (1 - (2 * h - 1).abs() ** beta).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    power = layer_error(w[0], layer.gram[0])
    nearest = float(layer.loss(position.round().clip(LOW, HIGH) * step - w, False).sum()) / power

    def view(step: int) -> dict[str, Any]:
        h, error, _ = kept[SHOWN[step]]
        open_ = float(((h > 0.01) & (h < 0.99)).mean())
        return {
            "low": 0.0,
            "high": 1.0,
            "counts": np.histogram(h, BINS, (0, 1))[0],
            "x": "h: 0 rounds down, 1 rounds up",
            "labels": ("weights of the layer", "", ""),
            "say": f"Update {SHOWN[step]}: {100 * open_:.0f} % of the weights are between down and up.",
            "readouts": [
                {"label": "Updates", "value": str(SHOWN[step])},
                {"label": "Still undecided", "value": f"{100 * open_:.1f} %", "tone": "warn"},
                {"label": "Output error", "value": f"{100 * error / power:.3f} %", "tone": "error"},
                {"label": "Nearest rounding", "value": f"{100 * nearest:.3f} %", "tone": "mute"},
            ],
        }

    captions = [
        f"Update {i}: {'only the error pulls' if i <= 40 else f'the exponent beta is {kept[i][2]:.1f}'}." for i in SHOWN
    ]
    captions[0] = "Each weight starts where it lies between its two levels. The error left is that of clipped weights."
    captions[2] = f"Update {SHOWN[2]}: neighbours have made up for most of the clipping."
    captions[-1] = f"Update {SHOWN[-1]}: nearly every weight has chosen. h is now 0 or 1, a code."
    last = kept[SHOWN[-1]]
    assert kept[SHOWN[2]][1] < kept[0][1] / 4
    other = float((np.round(last[0]) != np.round(rest.numpy().ravel())).mean())
    assert last[1] / power < nearest / 3
    numbers = {"soft_error": last[1] / power, "soft_nearest": nearest, "soft_other": other, "soft_count": w.numel()}
    return numbers, explore(view, step=Steps(captions=tuple(captions)))


@cache
def learned_rounding(name: str, count: int) -> tuple[float, float, float]:
    """Relative output error on the tokens learned from and on others, and KL of the model, of a layer in three bits.

    `count` 0 rounds to nearest, measured on all tokens learned from. The KL is not measured in the middle of TOKENS.
    """
    w, x = lab.weight(name), lab.inputs(name)
    seen, unseen = x[: TOKENS[-1]], x[TOKENS[-1] :]
    x = seen[np.linspace(0, len(seen) - 1, count or len(seen)).astype(int)]
    format = named("int3", group="channel")
    if count:
        back = rounding.quantize(torch.from_numpy(w), format, torch.from_numpy(x), steps=100).decode().numpy()
    else:
        back = mse.quantize(w, format).decode()

    def error(tokens: np.ndarray) -> float:
        hessian = Stats.of(tokens).hessian
        return layer_error(w - back, hessian) / layer_error(w, hessian)

    return error(x), error(unseen), 0.0 if count in TOKENS[1:-1] else lab.quality({name: back}).kl


def overfit() -> Figure:
    """Output error on seen and unseen tokens against the number of tokens, for two layers."""

    def view(layer: str) -> dict[str, Any]:
        found = {count: learned_rounding(layer, count) for count in TOKENS}
        nearest = learned_rounding(layer, 0)

        def line(key: str, name: str, tone: Any, values: list[float]) -> Series:
            points = (
                Point(id=f"{key}{count}", x=count, y=value, label=f"{100 * value:.2g} %")
                for count, value in zip(TOKENS, values, strict=True)
            )
            return Series(name=name, tone=tone, line=True, points=tuple(points))

        return {
            "x": Axis(label="calibration tokens", low=200, high=4000, log=True),
            "y": Axis(label="output error, relative", low=5e-4, high=0.2, log=True),
            "series": [
                line("seen", "on the tokens it learned from", "good", [f[0] for f in found.values()]),
                line("unseen", "on other tokens", "error", [f[1] for f in found.values()]),
                Series(
                    name="nearest, other tokens",
                    tone="mute",
                    line=True,
                    shape="diamond",
                    points=(Point(id="n0", x=200, y=nearest[1]), Point(id="n1", x=4000, y=nearest[1])),
                ),
            ],
            "say": f"{LAYERS[layer]}: with {TOKENS[0]} tokens the error on other tokens is "
            f"{100 * found[TOKENS[0]][1]:.2g} %, with {TOKENS[-1]} it is {100 * found[TOKENS[-1]][1]:.2g} %; "
            f"nearest rounding gives {100 * nearest[1]:.2g} %.",
            "readouts": [
                {"label": "KL, nearest", "value": f"{nearest[2]:.4f} nats", "tone": "mute"},
                *(
                    {"label": f"KL, {count:,} tokens", "value": f"{found[count][2]:.4f} nats", "tone": "quant"}
                    for count in (TOKENS[0], TOKENS[-1])
                ),
            ],
        }

    return explore(view, layer=Choice(label="Matrix", options=LAYERS, start="layers.1.mlp.down_proj"))


def numbers() -> dict[str, Any]:
    found, images, bought = trained()
    told, story = balance()
    plain, scaled = ratios(3)
    soft, annealing = softened()
    attention, mlp = LAYERS
    kl = {
        where: {count: learned_rounding(name, count)[2] for count in (0, TOKENS[0], TOKENS[-1])}
        for where, name in (("attention", attention), ("mlp", mlp))
    }
    unseen = {count: learned_rounding(mlp, count)[1] for count in (0, TOKENS[0], TOKENS[-1])}
    assert found["full"][2] < found["searched"][2] < 0.6 < 0.9 < found["learned"][2]
    assert abs(found["learned"][4] - found["searched"][4]) < 0.01
    assert kl["attention"][0] > 5 * kl["attention"][TOKENS[-1]]
    assert kl["mlp"][TOKENS[0]] > 2 * kl["mlp"][0] and unseen[TOKENS[0]] > 2 * unseen[0]
    assert np.median(plain) > 20 and np.median(scaled) < 1
    return {
        "full": found["full"],
        "searched": found["searched"],
        "learned": found["learned"],
        "exact": found["float"][32],
        "images": images,
        "epochs": EPOCHS,
        **told,
        "row": lab.weight(ROW).shape[1],
        "plain": float(np.median(plain)),
        "plain_high": float(plain.max()),
        "scaled": float(np.median(scaled)),
        "scale_down": math.sqrt(lab.weight(ROW).size * HIGH),
        "matrices": len(plain),
        **soft,
        "kl": kl,
        "unseen": unseen,
        "few": TOKENS[0],
        "many": TOKENS[-1],
        "gain": kl["attention"][0] / kl["attention"][TOKENS[-1]],
        "bought": bought,
        "staircase": staircase(),
        "balance": story,
        "annealing": annealing,
        "overfit": overfit(),
    }
