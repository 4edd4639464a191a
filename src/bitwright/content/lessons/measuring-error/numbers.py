"""One model in twelve files: how far weights, layer outputs and predictions moved, and how sure that is."""

import re
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch

from bitwright.authoring import lab
from bitwright.authoring.figures import Choice, Figure, Steps, explore, still
from bitwright.authoring.filters import scientific
from bitwright.core.formats import named
from bitwright.core.measure import Error, kl, layer_error
from bitwright.core.qtensor import QTensor
from bitwright.methods import gptq, mse, rtn
from bitwright.methods.descent import solver
from bitwright.models.tasks.estimate import Estimate

METHODS = {
    "rtn": "round to nearest",
    "mse": "searched scales",
    "gptq": "error feedback",
    "descent": "descent",
}
BITS = (2, 3, 4)
LAYER = "layers.1.self_attn.q_proj"
FILES = {"a": ("mse", 2), "b": ("descent", 2)}
"""The two files of the opening question."""
CROP = (slice(0, 40), slice(0, 64))
BIN = 8
"""Directions drawn as one point."""
SHOWN = 5
"""Tokens drawn of one prediction."""


class Quality(NamedTuple):
    """One file measured in every way; intervals are 95 %."""

    weights: Error
    outputs: float
    """Signal to noise of all layer outputs, in dB."""
    kl: Estimate
    change: Estimate
    """Of the loss, in nats per token, paired window by window with the float model."""
    perplexity: float


def loss(logits: torch.Tensor) -> torch.Tensor:
    """Mean of -log p(next token) in each window."""
    found = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), lab.windows("heldout")[:, 1:], reduction="none"
    )
    return found.mean(1)


@cache
def factor(name: str) -> gptq.Factor:
    """What error feedback and descent both need of a matrix's inputs."""
    return gptq.factorise(lab.stats(name))


@cache
def fed(name: str, bits: int) -> QTensor:
    """A matrix after error feedback, where descent starts."""
    return gptq.quantize(lab.weight(name), named(f"int{bits}"), lab.stats(name), factor=factor(name))


@cache
def signal(name: str) -> float:
    """Mean square of a matrix's outputs, summed over them."""
    return layer_error(lab.weight(name), lab.stats(name).hessian)


def quantized(method: str, bits: int) -> dict[str, lab.Floats]:
    """Every matrix through a method: groups of 128, symmetric."""
    format = named(f"int{bits}")
    if method in ("rtn", "mse"):
        plain = {"rtn": rtn, "mse": mse}[method]
        return {n: plain.quantize(lab.weight(n), format).decode() for n in lab.names()}
    if method == "gptq":
        return {n: fed(n, bits).decode() for n in lab.names()}
    return {n: solver.refine(lab.weight(n), fed(n, bits), factor(n), sweeps=1).decode() for n in lab.names()}


def measured(changed: dict[str, lab.Floats], logits: torch.Tensor, reference: torch.Tensor) -> Quality:
    """A changed model against the float one."""
    weights, noise = Error(), 0.0
    for name, decoded in changed.items():
        error = lab.weight(name) - decoded
        weights += Error.between(lab.weight(name), decoded)
        noise += layer_error(error, lab.stats(name).hessian)
    said = loss(logits)
    return Quality(
        weights,
        10 * float(np.log10(sum(signal(name) for name in changed) / noise)),
        Estimate.of(kl(reference, logits).mean(-1)),
        Estimate.of(said - loss(reference)),
        float(said.mean().exp()),
    )


def error_maps(a: lab.Floats, b: lab.Floats) -> Figure:
    """The size of every weight's error in a corner of one matrix, in both files."""
    w = lab.weight(LAYER)
    far = [np.round(np.abs(w - decoded)[CROP], 3) for decoded in (a, b)]
    sqnr = [Error.between(w, decoded).sqnr for decoded in (a, b)]
    return still(
        before={"label": f"File A, {sqnr[0]:.1f} dB", "values": far[0], "tone": "error"},
        after={"label": f"File B, {sqnr[1]:.1f} dB", "values": far[1], "tone": "error"},
        peak=float(np.percentile(far[1], 99)),
        colours="sequential",
        say=f"Errors of file A are pale, those of file B dark: {sqnr[0]:.1f} dB against {sqnr[1]:.1f} dB SQNR here.",
        readouts=[
            {"label": "File A, mean error", "value": f"{np.abs(w - a).mean():.4f}", "tone": "error"},
            {"label": "File B, mean error", "value": f"{np.abs(w - b).mean():.4f}", "tone": "error"},
        ],
    )


def rounding_story() -> Figure:
    """Ten weights from arrows to MSE, SQNR and PSNR, and what one outlier does to them."""
    w, format = lab.weight(LAYER), named("int3")
    q = rtn.quantize(w, format)
    step, count = abs(float(q.scale[0, 0])), 10
    values, decoded = w[0, :count], q.decode()[0, :count]
    top = int(np.abs(values).argmax())
    far = 2 * float(np.abs(values).max())
    reach = round(far / step + 1)
    moved = values.copy()
    moved[top] = np.sign(values[top]) * step * round(far / step)
    moved_decoded = decoded.copy()
    moved_decoded[top] = moved[top]
    before, after = Error.between(values, decoded), Error.between(moved, moved_decoded)
    assert after.sqnr > before.sqnr and after.psnr() > before.psnr() + 3
    captions = (
        "Ten weights of one row (blue) and the levels they may take, one step apart (orange).",
        "Each weight goes to its nearest level. The arrow is its error.",
        "Square every arrow and take the mean: the MSE. It has the unit of a squared weight.",
        "Divide the mean square of the weights by it, in decibels: the SQNR. It has no unit, so layers compare.",
        "Put the square of the largest weight in place of the mean square: the PSNR, always the larger number.",
        "One weight moves out, exactly onto a farther level. No arrow grows shorter, yet both ratios rise.",
    )

    def draw(step_: int) -> dict[str, Any]:
        now, back = (moved, moved_decoded) if step_ == 5 else (values, decoded)
        error = after if step_ == 5 else before
        dots = [
            {"id": f"w{i}", "at": float(x), **({"to": float(y) + 0.0} if step_ else {})}
            for i, (x, y) in enumerate(zip(now, back, strict=True))
        ]
        told = [
            {"label": "MSE", "value": scientific(error.mse), "tone": "error"},
            {"label": "SQNR", "value": f"{error.sqnr:.1f} dB", "tone": "error"},
            {"label": "PSNR", "value": f"{error.psnr():.1f} dB", "tone": "error"},
        ][: max(0, step_ - 1)]
        return {
            "low": -reach * step,
            "high": reach * step,
            "levels": [{"at": k * step} for k in range(-reach, reach + 1)],
            "dots": dots,
            "x": "weight",
            "say": captions[step_] + "".join(f" {r['label']} {r['value']}." for r in told),
            "readouts": told,
        }

    return explore(lambda step: draw(step), step=Steps(captions=captions))


def directions(a: lab.Floats, b: lab.Floats) -> tuple[Figure, dict[str, float]]:
    """Error energy of both files along the directions of a layer's input, and what each direction costs."""
    w, hessian = lab.weight(LAYER), lab.stats(LAYER).hessian
    price, axes = np.linalg.eigh(hessian.astype(np.float64))
    price, axes = np.maximum(price[::-1], 0), axes[:, ::-1]
    energy = [((w - decoded) @ axes) ** 2 for decoded in (a, b)]
    energy = [each.sum(0) for each in energy]

    def binned(x: Any, unit: float) -> Any:
        return x.reshape(-1, BIN).mean(1) / unit

    places = np.arange(len(price)).reshape(-1, BIN).mean(1) + 1
    costs = [price * each for each in energy]
    prices = binned(price, price.mean())
    errors = [binned(each, energy[0].mean()) for each in energy]
    shares = [binned(each, costs[0].mean()) for each in costs]
    floor = 1e-3

    def series(name: str, tone: str, values: Any, shape: str, key: str) -> dict[str, Any]:
        points = [
            {"id": f"{key}{i}", "x": float(x), "y": max(float(y), floor)}
            for i, (x, y) in enumerate(zip(places, values, strict=True))
        ]
        return {"name": name, "tone": tone, "shape": shape, "points": points}

    total = [float(each.sum()) for each in costs]
    larger = float(energy[1].sum() / energy[0].sum())
    captions = (
        "What one unit of error costs along each direction of the input, strongest first.",
        "File A's error lies about evenly in all directions: rounding does not know the price.",
        "File B has more error in all, but little of it where it is dear.",
        "Price times error, direction by direction. What counts is the sum.",
    )

    def draw(step: int) -> dict[str, Any]:
        shown = [series("price", "ink", prices, "circle", "p")] if step < 3 else []
        if step in (1, 2):
            shown.append(series("error of A", "error", errors[0], "square", "a"))
        if step == 2:
            shown.append(series("error of B", "good", errors[1], "triangle", "b"))
        if step == 3:
            shown.append(series("cost of A", "error", shares[0], "square", "a"))
            shown.append(series("cost of B", "good", shares[1], "triangle", "b"))
        told = captions[step]
        if step >= 2:
            told += f" B's squared weight error is {larger:.1f} times A's."
        if step == 3:
            told += f" Its output error is {total[1] / total[0]:.2f} of A's."
        return {
            "x": {"label": "direction of the input, strongest first", "low": 1, "high": len(price)},
            "y": {"label": "relative to the mean", "low": floor, "high": 100, "log": True, "unit": "×"},
            "series": shown,
            "say": told,
            "readouts": [
                {"label": "Squared weight error, B / A", "value": f"{larger:.2f}", "tone": "error"},
                {"label": "Output error, B / A", "value": f"{total[1] / total[0]:.2f}", "tone": "good"},
            ],
        }

    trace = layer_error(w - a, hessian)
    assert (
        abs(total[0] / trace - 1) < 0.01 and price[0] > 1000 * price[-1] and larger > 1.5 and total[1] < 0.7 * total[0]
    )
    facts = {
        "spread": float(prices[0] / np.median(prices)),
        "larger": larger,
        "cheaper": total[0] / total[1],
    }
    return explore(draw, step=Steps(captions=captions)), facts


def prediction(reference: torch.Tensor, said: dict[str, torch.Tensor]) -> tuple[Figure, dict[str, Any]]:
    """The held-out position where file A loses most against file B, with the float model's likeliest tokens."""
    tokenizer, ids = lab.tokenizer(), lab.windows("heldout")
    divergence = {key: kl(reference, logits) for key, logits in said.items()}
    loses = (divergence["a"] - divergence["b"]).flatten().argsort(descending=True)
    length = ids.shape[1]

    def words(window: int, place: int) -> tuple[list[int], list[str], str]:
        found = reference[window, place].topk(SHOWN).indices.tolist()
        before = " ".join(tokenizer.decode(ids[window, place - 11 : place + 1]).split())
        return found, [tokenizer.decode([token]) for token in found], before

    def readable(window: int, place: int) -> bool:
        if place < 12:
            return False
        _, texts, before = words(window, place)
        return (
            all(text.strip() and text.isascii() for text in texts) and re.fullmatch(r"[A-Za-z ,.]+", before) is not None
        )

    places = (divmod(int(i), length) for i in loses)
    window, place = next((w, p) for w, p in places if readable(w, p))
    tokens, texts, context = words(window, place)
    chance = {key: logits[window, place].softmax(-1) for key, logits in ({"float": reference} | said).items()}
    top = max(float(chance[key][token]) for key in chance for token in tokens)

    def draw(file: str) -> dict[str, Any]:
        bars = []
        for token, text in zip(tokens, texts, strict=True):
            for key, tone in (("float", "float"), (file, "quant")):
                value = float(chance[key][token])
                name = f"“{text}”, " + ("float" if key == "float" else f"file {file.upper()}")
                who = "float" if key == "float" else "file"
                bars.append(
                    {"id": f"{who}{token}", "label": name, "value": value, "text": f"{100 * value:.0f} %", "tone": tone}
                )
        here = float(divergence[file][window, place])
        return {
            "bars": bars,
            "high": top,
            "x": "probability of the next token",
            "say": f"After “{context}”, file {file.upper()} differs from the float model by {here:.3f} nats.",
            "readouts": [
                {"label": "KL at this position", "value": f"{here:.3f} nats", "tone": "error"},
                {
                    "label": "KL, all held-out text",
                    "value": f"{float(divergence[file].mean()):.3f} nats",
                    "tone": "error",
                },
            ],
        }

    figure = explore(draw, file=Choice(label="File", options={"a": "File A", "b": "File B"}, start="a"))
    better = float((divergence["b"] < divergence["a"]).float().mean())
    facts = {"context": context, "here_a": float(divergence["a"][window, place]), "better": better}
    facts["here_b"] = float(divergence["b"][window, place])
    return figure, facts


def ranking(found: dict[tuple[str, int], Quality]) -> tuple[Figure, dict[str, Any]]:
    """Twelve files: what the weights, or the outputs, say against what the predictions say."""

    def at(measure: str, quality: Quality) -> float:
        return quality.weights.sqnr if measure == "weights" else quality.outputs

    pairs = list(combinations(found.values(), 2))
    # Compare files whose KL is really different: their intervals do not touch.
    apart = [(p, q) for p, q in pairs if abs(p.kl.value - q.kl.value) > p.kl.interval + q.kl.interval]
    wrong = {
        m: sum((at(m, p) > at(m, q)) != (p.kl.value < q.kl.value) for p, q in apart) for m in ("weights", "outputs")
    }
    assert wrong["outputs"] < wrong["weights"]
    tones = {"rtn": "mute", "mse": "quant", "gptq": "float", "descent": "good"}
    shapes = {"rtn": "circle", "mse": "square", "gptq": "diamond", "descent": "triangle"}
    kind = {"weights": "weights", "outputs": "layer outputs"}

    def draw(measure: str) -> dict[str, Any]:
        series = [
            {
                "name": called,
                "tone": tones[method],
                "shape": shapes[method],
                "line": True,
                "points": [
                    {
                        "id": f"{method}{bits}",
                        "x": at(measure, found[method, bits]),
                        "y": found[method, bits].kl.value,
                        "label": f"{bits} bits",
                    }
                    for bits in BITS
                ],
            }
            for method, called in METHODS.items()
        ]
        return {
            "x": {"label": "SQNR", "low": 0, "high": 32, "unit": "dB"},
            "y": {"label": "KL from the float model", "low": 0.002, "high": 0.5, "log": True, "unit": "nats"},
            "series": series,
            "say": f"SQNR of the {kind[measure]} ranks {wrong[measure]} of {len(apart)} pairs of files wrongly.",
            "readouts": [
                {"label": "Pairs of files that KL tells apart", "value": f"{len(apart)}"},
                {
                    "label": f"Ranked wrongly by SQNR of the {kind[measure]}",
                    "value": f"{wrong[measure]}",
                    "tone": "error",
                },
            ],
        }

    figure = explore(draw, measure=Choice(label="SQNR of the", options=kind, start="weights"))
    return figure, {
        "pairs": len(apart),
        "wrong_weights": wrong["weights"],
        "wrong_outputs": wrong["outputs"],
    }


def numbers() -> dict[str, Any]:
    reference = lab.logits({})
    found: dict[tuple[str, int], Quality] = {}
    changed: dict[str, dict[str, lab.Floats]] = {}
    said: dict[str, torch.Tensor] = {}
    for method in METHODS:
        for bits in BITS + ((6,) if method == "descent" else ()):
            weights = quantized(method, bits)
            logits = lab.logits(weights)
            quality = measured(weights, logits, reference)
            found[method, bits] = quality
            for key, file in FILES.items():
                if file == (method, bits):
                    changed[key], said[key] = weights, logits
    six = found.pop(("descent", 6))
    a, b = (found[FILES[key]] for key in ("a", "b"))
    assert b.weights.mse > 1.9 * a.weights.mse and b.kl.value < 0.5 * a.kl.value

    # PSNR of a whole matrix, and with one weight twice as far out, stored exactly.
    w = lab.weight(LAYER)
    decoded = rtn.quantize(w, named("int4")).decode()
    plain = Error.between(w, decoded)
    out, out_decoded = w.copy(), decoded.copy()
    place = np.unravel_index(int(np.abs(w).argmax()), w.shape)
    out[place] = out_decoded[place] = 2 * w[place]
    spiked = Error.between(out, out_decoded)

    direction_figure, direction = directions(changed["a"][LAYER], changed["b"][LAYER])
    prediction_figure, predicted = prediction(reference, said)
    ranking_figure, ranked = ranking(found)
    assert plain.psnr(float(w.max() - w.min())) > plain.psnr() and spiked.psnr() - plain.psnr() > 5
    floats = Estimate.of(loss(reference))
    sure = {"kl": six.kl.value / six.kl.interval, "change": abs(six.change.value) / six.change.interval}
    assert sure["kl"] > 5 and sure["kl"] > 2 * sure["change"]
    for method in METHODS:
        assert found[method, 2].kl.value > found[method, 3].kl.value > found[method, 4].kl.value
    return {
        "maps": error_maps(changed["a"][LAYER], changed["b"][LAYER]),
        "story": rounding_story(),
        "directions": direction_figure,
        "prediction": prediction_figure,
        "ranking": ranking_figure,
        "matrices": len(lab.names()),
        "a": a,
        "b": b,
        "mse_ratio": b.weights.mse / a.weights.mse,
        "kl_ratio": a.kl.value / b.kl.value,
        "side": len(lab.stats(LAYER).hessian),
        "psnr": plain.psnr(),
        "psnr_range": plain.psnr(float(w.max() - w.min())),
        "psnr_spiked": spiked.psnr(),
        "sqnr": plain.sqnr,
        "sqnr_gain": spiked.sqnr - plain.sqnr,
        "weights": w.size,
        "tokens": int(lab.windows("heldout").numel()),
        "windows": int(lab.windows("heldout").shape[0]),
        "perplexity": float(np.exp(floats.value)),
        "perplexity_low": float(np.exp(floats.value - floats.interval)),
        "perplexity_high": float(np.exp(floats.value + floats.interval)),
        "two": found["descent", 2],
        "three": found["descent", 3],
        "four": found["descent", 4],
        "six": six,
        "sure": sure,
        "direction": direction,
        "predicted": predicted,
        "ranked": ranked,
    }
