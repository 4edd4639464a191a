"""How rounding moves the mean of a layer's outputs, and what a corrected bias gives back: on the bundled digits."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Bar, Choice, Figure, Point, Series, Slider, Steps, explore
from bitwright.authoring.filters import significant
from bitwright.core.formats import named
from bitwright.core.measure import kl
from bitwright.core.observe import Histogram, affine, choose
from bitwright.files.containers.qdq.writer import weight_format
from bitwright.files.layers import Placement
from bitwright.methods import Options, rtn
from bitwright.models.demos import digits
from bitwright.models.model import Item
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.models.network.settle import Settling, expected_input, stored_bias
from bitwright.models.network.walk import Walk, simulate
from bitwright.recipe import Network
from bitwright.rewrites import bias, chosen

LAYER = "/widen/widen.1/widen.1.0/Conv"
"""A convolution of one pixel, so a plain matrix at every place; a batch norm and a ReLU stand before it."""
WEIGHTS_ONLY = Placement("x86", ())
BINS = 60
KINDS = {"none": "as rounded", "analytic": "analytic, from batch norm", "empirical": "empirical, from samples"}
SHOWN = 6
"""Inputs of the story."""


class Layer(NamedTuple):
    """The layer under study: weights [outputs, inputs], bias, inputs [places, inputs], and E[x] by batch norm."""

    w: np.ndarray
    b: np.ndarray
    calibration: np.ndarray
    test: np.ndarray
    analytic: np.ndarray


@cache
def graph() -> Graph:
    """The float network, batch norm folded."""
    return Graph.open(digits.MODEL)


@cache
def images(part: digits.Part) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a part."""
    return digits.read(part)


@cache
def layer() -> Layer:
    """What `Layer` says, of LAYER."""
    found = graph().layer(LAYER)
    session = Session(graph().with_outputs([found.input]))
    seen = []
    parts: tuple[digits.Part, ...] = ("calibration", "test")
    for part in parts:
        x = session.run({digits.INPUT: images(part)[0]}, [found.input])[found.input]
        seen.append(x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1]))
    analytic = expected_input(graph(), found)
    assert analytic is not None
    return Layer(graph().matrix(found), graph().bias(found), seen[0], seen[1], analytic)


def eps(bits: int) -> np.ndarray:
    """Rounded less float weights, one scale for the whole matrix."""
    w = layer().w
    return np.asarray(rtn.quantize(w, weight_format(bits, "tensor")).decode()) - w


def loudest() -> int:
    """The output whose mean INT3 moves most, in units of its spread."""
    it = layer()
    y = it.test @ it.w.T
    return int((np.abs(it.test.mean(0) @ eps(3).T) / y.std(0)).argmax())


def shifted() -> Figure:
    """One output before and after rounding, and with its bias corrected."""
    it, row = layer(), loudest()
    y = it.test @ it.w[row] + it.b[row]
    low, high = float(y.min()) - 1.5, float(y.max()) + 1.5

    def view(bits: int, fix: str) -> dict[str, Any]:
        error = eps(bits)[row : row + 1]
        back = y + it.test @ error[0]
        if fix == "corrected":
            back = back + bias.correction(error, it.calibration.mean(0))[0]
        before, after = float(y.mean()), float(back.mean())
        return {
            "low": low,
            "high": high,
            "counts": np.histogram(y, BINS, (low, high))[0],
            "second": np.histogram(back, BINS, (low, high))[0],
            "scale": "linear",
            "x": "output before ReLU",
            "labels": ("float weights", "rounded weights"),
            "say": f"{bits} bits, {fix}: the mean goes from {before:.3f} to {after:.3f}.",
            "readouts": [
                {"label": "Mean, float", "value": f"{before:.3f}".replace("-", "−"), "tone": "float"},
                {"label": "Mean, rounded", "value": f"{after:.3f}".replace("-", "−"), "tone": "quant"},
                {"label": "Shift", "value": f"{after - before:+.3f}".replace("-", "−"), "tone": "error"},
                {"label": "Mean squared error", "value": significant(float(((back - y) ** 2).mean())), "tone": "error"},
            ],
        }

    return explore(
        view,
        bits=Slider(label="Bits per weight", values=(2, 3, 4, 8), start=3),
        fix=Choice(label="Bias", options={"as rounded": "As it was", "corrected": "Corrected"}, start="as rounded"),
    )


def story() -> Figure:
    """The shift of one output, term by term, and the bias that takes it back."""
    it, row = layer(), loudest()
    mean, w, error = it.calibration.mean(0), it.w[row], eps(3)[row]
    terms = error * mean
    largest = np.sort(np.argsort(-np.abs(terms), kind="stable")[:SHOWN])
    others = np.setdiff1d(np.arange(len(w)), largest)
    shift = float(terms.sum())
    fixed = float(bias.correction(error[None], mean)[0])
    y = float(w @ mean + it.b[row])

    def signed(value: float) -> str:
        return f"{value:+.2f}".replace("-", "−")

    def view(step: int) -> dict[str, Any]:
        nodes = [
            {"id": f"x{j}", "label": f"x{j}", "column": 0, "row": i, "value": f"mean {mean[j]:.2f}", "tone": "float"}
            for i, j in enumerate(largest)
        ]
        nodes.append({"id": "others", "label": f"{len(others)} others", "column": 0, "row": SHOWN, "tone": "float"})
        now = y + (shift if step >= 3 else 0.0) + (fixed if step >= 4 else 0.0)
        tone = "float" if step < 3 else "error" if step == 3 else "good"
        nodes.append({"id": "y", "label": "mean output", "column": 2, "row": 2, "value": signed(now), "tone": tone})
        b = float(it.b[row]) + (fixed if step >= 4 else 0.0)
        nodes.append(
            {
                "id": "b",
                "label": "bias",
                "column": 2,
                "row": 5,
                "value": signed(b),
                "tone": "good" if step >= 4 else "ink",
            }
        )
        parts = [*((f"x{j}", w[j], error[j], terms[j]) for j in largest)]
        parts.append(
            ("others", float(np.abs(w[others]).max()), float(np.abs(error[others]).max()), terms[others].sum())
        )
        links = []
        for name, weight, moved, term in parts:
            label = {0: f"w {signed(weight)}", 1: f"ε {signed(moved)}"}.get(step, signed(term))
            if name == "others" and step < 2:
                label = ""
            size = {0: abs(weight) / np.abs(w).max(), 1: abs(moved) / np.abs(error).max()}.get(
                step, abs(term) / np.abs(terms).max()
            )
            links.append(
                {
                    "source": name,
                    "target": "y",
                    "label": label,
                    "weight": min(1.0, float(size)),
                    "tone": "float" if step == 0 else "error",
                }
            )
        links.append({"source": "b", "target": "y", "weight": 0.3, "tone": "good" if step >= 4 else "mute"})
        return {
            "nodes": nodes,
            "links": links,
            "say": f"Mean output {signed(now)}" + (f", sum of all terms {signed(shift)}." if step >= 2 else "."),
            "readouts": [
                {"label": "Mean output, float", "value": signed(y), "tone": "float"},
                {"label": "Sum of ε E[x]", "value": signed(shift) if step >= 2 else "not yet", "tone": "error"},
                {"label": "Mean output now", "value": signed(now), "tone": tone},
            ],
        }

    captions = (
        "One output of the layer. Its inputs come out of a ReLU: none is negative, so their means are not zero.",
        "The weights are rounded to INT3. Each is off by its own ε, up or down.",
        "Each ε meets the mean of its input. The product is a constant: the same for every image.",
        "The constants do not cancel. Their sum moves the mean of the output.",
        "The sum is known, so the bias takes it back. It costs nothing when the network runs.",
    )
    return explore(view, step=Steps(captions=captions))


def prediction() -> Figure:
    """Predicted against measured shift of every output, for two sources of E[x]."""
    it = layer()
    error = eps(3)
    measured = (it.test @ error.T).mean(0)
    reach = 1.15 * float(np.abs(measured).max())
    sources = {"samples": it.calibration.mean(0), "norm": it.analytic}

    def view(source: str) -> dict[str, Any]:
        guess = -np.asarray(bias.correction(error, sources[source]))
        points = tuple(Point(id=f"c{i}", x=a, y=b) for i, (a, b) in enumerate(zip(guess, measured, strict=True)))
        line = (Point(id="low", x=-reach, y=-reach), Point(id="high", x=reach, y=reach))
        left = float(np.linalg.norm(measured - guess) / np.linalg.norm(measured))
        return {
            "x": Axis(label="predicted shift, ε E[x]", low=-reach, high=reach),
            "y": Axis(label="measured shift", low=-reach, high=reach),
            "series": [
                Series(name="predicted = measured", points=line, tone="mute", line=True),
                Series(name="an output channel", points=points, tone="error"),
            ],
            "say": f"E[x] from {source}: {100 * left:.0f} % of the shift is left after correction.",
            "readouts": [{"label": "Left of the shift (root of squares)", "value": f"{100 * left:.0f} %"}],
        }

    options = {"samples": "Calibration images", "norm": "Batch norm"}
    return explore(view, source=Choice(label="E[x] from", options=options, start="samples"))


class Judged(NamedTuple):
    """A quantized network on the test images: KL in nats from the float one, and accuracy."""

    kl: float
    accuracy: float


@cache
def answers(bits: int, block: str, how: str) -> np.ndarray:
    """Logits [images, 10] on the test images, weights rounded to nearest; `bits` 0: float."""
    feeds = [{digits.INPUT: images("calibration")[0]}]
    network = Network.model_validate({"bias": how or "none"})
    corrections = [rewrite for rewrite in chosen(network) if rewrite.correct]
    walk = Walk(graph(), WEIGHTS_ONLY, {}, feeds)
    for step in walk.steps() if bits else ():
        w, format = graph().matrix(step.layer), weight_format(bits, block)
        settling = Settling(graph(), step, network, None, corrections)
        settling.settle(Item(step.layer, format, rtn.METHOD, Options()), 0, w, rtn.quantize(w, format))
    (found,) = simulate(graph(), WEIGHTS_ONLY, {}, walk.twin, [{digits.INPUT: images("test")[0]}]).values()
    return np.asarray(found[0])


def judge(bits: int, block: str, how: str) -> Judged:
    """The network against the float one and the labels."""
    wanted, said = answers(0, "", ""), answers(bits, block, how)
    labels = images("test")[1]
    return Judged(float(kl(wanted, said).mean()), float((said.argmax(1) == labels).mean()))


def bill() -> tuple[dict[tuple[int, str, str], Judged], Figure]:
    """What the whole network pays by bits, scales and correction, and the figure."""
    found = {(b, k, h): judge(b, k, h) for b in (3, 4) for k in ("tensor", "channel") for h in KINDS}

    def view(bits: int, block: str) -> dict[str, Any]:
        here = {how: found[bits, block, how] for how in KINDS}
        tones: dict[str, Any] = {"none": "error", "analytic": "quant", "empirical": "good"}
        before, after = here["none"].kl, here["empirical"].kl
        return {
            "bars": [
                Bar(id=how, label=KINDS[how], value=q.kl, text=significant(q.kl, 2), tone=tones[how])
                for how, q in here.items()
            ],
            "low": 1e-3,
            "high": 1.0,
            "log": True,
            "x": "KL, nats an image (logarithmic)",
            "say": f"{bits} bits, a scale a {block}: KL {before:.3f} as rounded, {after:.3f} corrected.",
            "readouts": [
                {"label": f"Right, {KINDS[how]}", "value": f"{100 * q.accuracy:.1f} %", "tone": tones[how]}
                for how, q in here.items()
            ],
        }

    figure = explore(
        view,
        bits=Slider(label="Bits per weight", values=(3, 4), start=3),
        block=Choice(label="A scale for", options={"tensor": "Tensor", "channel": "Channel"}, start="tensor"),
    )
    return found, figure


def stored() -> tuple[dict[int, dict[str, float]], Figure]:
    """The bias of one output as int32, before and after correction, by bits of the weights."""
    it = layer()
    row = int(np.abs(it.b).argmax())
    seen = Histogram.of(it.calibration)
    s_x = affine(*choose(seen, "mse", 8), 8).scale
    found = {}
    for bits in (3, 4, 8):
        q = rtn.quantize(it.w, weight_format(bits))
        moved = bias.correction(np.asarray(q.decode()) - it.w, it.calibration.mean(0))
        step = s_x * float(q.scale[row, 0])
        held = [float(stored_bias(b, q, s_x)[row]) for b in (it.b, it.b + moved)]
        found[bits] = {"before": float(it.b[row]), "after": float((it.b + moved)[row]), "step": step} | {
            "code": round(held[0] / step),
            "new": round(held[1] / step),
            "s_w": float(q.scale[row, 0]),
        }

    def word(name: str, label: str, code: int, value: float) -> dict[str, Any]:
        text = f"{code & 0xFFFFFFFF:032b}"
        used = abs(code).bit_length()
        fields = [
            {"label": "sign", "bits": text[0], "tone": "ink"},
            {"label": "room", "bits": text[1 : 32 - used], "tone": "mute"},
            {"label": "in use", "bits": text[32 - used :], "tone": "quant"},
        ]
        return {"id": name, "fields": fields, "label": label, "value": f"{code} → {value:.5f}".replace("-", "−")}

    def view(bits: int) -> dict[str, Any]:
        f = found[bits]
        step = significant(f["step"])
        return {
            "words": [
                word("before", "bias as it was", int(f["code"]), f["code"] * f["step"]),
                word("after", "bias corrected", int(f["new"]), f["new"] * f["step"]),
            ],
            "say": f"INT{bits} weights: code {f['code']:.0f} becomes {f['new']:.0f}, in steps of {step}.",
            "readouts": [
                {"label": "Input step", "value": significant(s_x), "tone": "quant"},
                {"label": "Weight step of this row", "value": significant(f["s_w"]), "tone": "quant"},
                {"label": "Bias step, their product", "value": step, "tone": "quant"},
                {
                    "label": "Correction",
                    "value": f"{f['new'] - f['code']:+.0f} steps".replace("-", "−"),
                    "tone": "good",
                },
            ],
        }

    return found, explore(view, bits=Slider(label="Bits per weight", values=(3, 4, 8), start=8))


def language(bits: int) -> tuple[float, float]:
    """KL of the language model with rounded weights: as rounded, and with every output's mean shift taken back."""
    format = named(f"int{bits}", group="channel")
    weights = {name: rtn.quantize(lab.weight(name), format).decode() for name in lab.names()}
    before = lab.quality(weights).kl
    hooks = []
    for name, w in weights.items():
        moved = torch.from_numpy(np.asarray(bias.correction(w - lab.weight(name), lab.inputs(name).mean(0))))
        module = lab.model().get_submodule(f"model.{name}")
        hooks.append(module.register_forward_hook(lambda _, given, out, moved=moved: out + moved))
    try:
        return before, lab.quality(weights).kl
    finally:
        for hook in hooks:
            hook.remove()


def centre(x: np.ndarray) -> np.ndarray:
    """|mean| over root mean square of each channel of `x` [places, channels]; 0 where it is silent."""
    power = np.sqrt((x**2).mean(0))
    return np.abs(x.mean(0)) / np.where(power > 0, power, 1)


def left(mean: np.ndarray) -> float:
    """Squared output error at INT3 on the test images with the bias corrected for `mean`, over that without."""
    error = eps(3)
    d = layer().test @ error.T
    return float(((d + bias.correction(error, mean)) ** 2).sum() / (d**2).sum())


def numbers() -> dict[str, Any]:
    it = layer()
    lab.perplexity()  # the float model's answers, before any hook
    paid, bars = bill()
    codes, words = stored()
    y = it.test @ it.w.T
    shifts = np.abs(it.test.mean(0) @ eps(3).T) / y.std(0)
    plain, moved = language(3)
    sample, norm = left(it.calibration.mean(0)), left(it.analytic)
    gain = {
        key: paid[*key, "none"].kl / paid[*key, "empirical"].kl
        for key in ((3, "tensor"), (3, "channel"), (4, "channel"))
    }
    # What the text says in words.
    assert sample < norm < 1 and norm - sample < 0.02
    assert all(paid[b, k, "empirical"].kl < paid[b, k, "analytic"].kl < paid[b, k, "none"].kl for b, k, _ in paid)
    assert all(1.8 < g < 2.9 for g in gain.values())
    assert all(1.8 < gain[bits, "channel"] < 2.3 for bits in (3, 4))
    assert 0.9 * plain < moved < plain
    return {
        "inputs": it.w.shape[1],
        "outputs": it.w.shape[0],
        "zeros": float((it.test == 0).mean()),
        "largest": float(shifts.max()),
        "middle": float(np.median(shifts)),
        "left_sample": sample,
        "left_norm": norm,
        "mean_off": float(np.linalg.norm(it.analytic - it.test.mean(0)) / np.linalg.norm(it.test.mean(0))),
        "sample_off": float(np.linalg.norm(it.calibration.mean(0) - it.test.mean(0)) / np.linalg.norm(it.test.mean(0))),
        "right": judge(0, "", "").accuracy,
        "kl": {f"{h}_{k}{b}": q.kl for (b, k, h), q in paid.items()},
        "acc": {f"{h}_{k}{b}": q.accuracy for (b, k, h), q in paid.items()},
        "layers": len(graph().layers),
        "covered": sum(expected_input(graph(), found) is not None for found in graph().layers),
        "images": len(images("test")[1]),
        "worth": float(
            np.log(gain[3, "channel"]) / np.log(paid[3, "channel", "none"].kl / paid[4, "channel", "none"].kl)
        ),
        "bit": paid[3, "channel", "none"].kl / paid[4, "channel", "none"].kl,
        "lm_mean": float(np.median(np.concatenate([centre(lab.inputs(name)) for name in lab.names()]))),
        "relu_mean": float(np.median(centre(it.test))),
        "step8": codes[8]["step"],
        "code8": codes[8]["code"],
        "delta8": codes[8]["new"] - codes[8]["code"],
        "step3": codes[3]["step"],
        "delta3": codes[3]["new"] - codes[3]["code"],
        "bits8": 1 + abs(int(codes[8]["code"])).bit_length(),
        "plain": plain,
        "moved": moved,
        "saved": 1 - moved / plain,
        "shifted": shifted(),
        "story": story(),
        "prediction": prediction(),
        "bill": bars,
        "stored": words,
    }
