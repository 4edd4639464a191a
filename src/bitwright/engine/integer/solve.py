"""One layer: its weight by the chosen method, then its bias, from what both networks feed it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bitwright.core.format import Format
from bitwright.core.measure import Error
from bitwright.core.observe import Affine
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats, add_gram, mirror
from bitwright.engine.integer.plan import describe, stored
from bitwright.events import Row
from bitwright.files.onnx import Layer, from_matrix
from bitwright.files.qdq import fit_bias
from bitwright.methods import adaround, descent, gptq, mse, rtn
from bitwright.models.network.graph import Graph
from bitwright.models.network.unfold import outputs_as_rows, unfold
from bitwright.models.network.walk import Step
from bitwright.recipe import Layer as Settings
from bitwright.recipe import Network
from bitwright.rewrites import bias

Array = npt.NDArray[Any]
TOKENS = 1 << 14
"""Rows of unfolded input that learned rounding sees at most, spread over all batches."""


@dataclass(frozen=True)
class Solved:
    """A layer's quantized weight [outputs, inputs per group * kernel], its corrected bias [outputs], and its row."""

    weight: QTensor
    bias: Array
    row: Row


def solve(
    graph: Graph, step: Step, settings: Settings, format: Format, network: Network, affine: Affine | None
) -> Solved:
    """Choose the codes of the layer of `step`, settle them, correct its bias, settle that, and measure.

    `affine` rounds the layer's input (None where that stays float). With the bias corrected empirically, the mean of
    each output channel is that of the float network again, whatever happened before.
    """
    layer, started = step.layer, time.perf_counter()
    matrix = graph.matrix(layer)
    notes: list[str] = []
    corrected = network.bias == "empirical" and layer.bias is not None and step.count > 0
    q = _codes(step, torch.from_numpy(np.array(matrix)), graph.bias(layer), settings, format, corrected, notes)
    weight = _as_numpy(q)
    if affine is not None:
        weight = fit_bias(weight, matrix, graph.bias(layer) if layer.bias else None, affine.scale)
    decoded = weight.decode()
    step.settle(weight=from_matrix(layer, decoded))
    b = graph.bias(layer)
    if corrected:
        b = b + bias.empirical(*_means(step))
    elif network.bias == "analytic" and layer.bias is not None:
        expected = expected_input(graph, layer)
        if expected is None:
            notes.append("no batch norm says what its input is: bias as it was")
        else:
            b = b + np.asarray(bias.correction(decoded - matrix, expected, layer.groups), np.float32)
    if affine is not None and layer.bias is not None:
        b = stored_bias(b, weight, affine.scale)
    step.settle(bias=b)
    noise, power = _powers(step)  # 0 and 0 without samples
    row = row_of(layer.name, weight, settings.method, matrix, network)
    seconds = round(time.perf_counter() - started, 4)
    share = noise / power if power else None
    return Solved(weight, b, replace(row, output_error=share, seconds=seconds, notes=tuple(notes)))


def expected_input(graph: Graph, layer: Layer) -> Array | None:
    """E[x] of each input channel by the batch norm (and ReLU or Clip) that writes it; None where none does."""
    producer = graph.producers.get(layer.input)
    if layer.input in graph.normals:
        return graph.normals[layer.input][0]
    if producer is None or not graph.clips(producer) or producer.input[0] not in graph.normals:
        return None
    limits = [0.0, float("inf")] if producer.op_type == "Relu" else [float("-inf"), float("inf")]
    for i, name in enumerate(producer.input[1:3]):
        if name:
            limits[i] = float(graph.constant(name).item())
    return np.asarray(bias.clipped_normal(*graph.normals[producer.input[0]], *limits), np.float32)


def stored_bias(b: Array, q: QTensor, input_scale: float) -> Array:
    """`b` [outputs] as an int32 code times s_x s_w holds it: what the integer kernel really adds."""
    scale = input_scale * np.abs(np.asarray(q.scale, np.float64)).reshape(-1)
    return np.asarray(np.round(b / scale) * scale, np.float32)


def row_of(name: str, q: QTensor, method: str, matrix: Array, network: Network) -> Row:
    """The report's row of the layer `name`, whose weight was `matrix` [outputs, columns]."""
    f, error = q.format, Error.between(matrix, np.asarray(q.decode()))
    return Row(
        name=name, format=describe(f), method=method, rows=matrix.shape[0], columns=matrix.shape[1],
        stored_bits=stored(f, network).stored_bits(*matrix.shape), mse=error.mse, psnr=error.psnr(), sqnr=error.sqnr,
        cosine=error.cosine,
    )  # fmt: skip


def _codes(
    step: Step, w: torch.Tensor, b: Array, settings: Settings, format: Format, centred: bool, notes: list[str]
) -> QTensor:
    """The method's choice for `w`; methods that learn from inputs fall back, noted, where a layer shows none."""
    layer, method, options = step.layer, settings.method, settings.options
    if method != "rtn" and layer.op == "ConvTranspose":
        notes.append("transposed convolution: scales searched, rounded to nearest")
        method = "mse"
    if method == "rtn":
        return rtn.quantize(w, format)
    if method == "mse":
        return mse.quantize(w, format)
    if method == "adaround":
        x, target = _sample(step)
        return adaround.quantize(
            w, format, x, target, bias=torch.from_numpy(b), relu=layer.activation == "Relu", groups=layer.groups
        )
    stats = _moments(step, centred)
    shared: dict[str, Any] = {"damping": options.damping, "order": options.order}
    run: Callable[..., QTensor] = gptq.quantize
    if method == "descent":
        run, shared = descent.quantize, shared | {"sweeps": options.sweeps}
    size = w.shape[0] // layer.groups
    parts = []
    for g, seen in enumerate(stats):
        rows = w[g * size : (g + 1) * size]
        parts.append(run(rows, format, seen, **shared))
    for part in parts:
        notes.extend(note for note in part.notes if note not in notes)
    return _stack(parts)


def _stack(parts: list[QTensor]) -> QTensor:
    """Rows of several QTensors of one format, in one."""
    first = parts[0]
    zeros = [p.zero for p in parts if p.zero is not None]
    return QTensor(
        first.format, torch.cat([p.codes for p in parts]), torch.cat([p.scale for p in parts]),
        torch.cat(zeros) if zeros else None,
    )  # fmt: skip


def _as_numpy(q: QTensor) -> QTensor:
    """The same codes and scales as NumPy arrays, which files are written from."""
    zero = None if q.zero is None else q.zero.numpy()
    return QTensor(q.format, q.codes.numpy(), q.scale.numpy(), zero)


def _moments(step: Step, centred: bool) -> list[Stats]:
    """The record of the quantized network's inputs, one for each group of the layer; `centred`: about their mean."""
    upper: list[torch.Tensor] | None = None
    totals, count = torch.zeros(()), 0
    for _, x_hat in step:
        rows = unfold(step.layer, x_hat)
        assert rows is not None
        totals = totals + rows.sum(dim=1)
        count += rows.shape[1]
        upper = [add_gram(part, None if upper is None else upper[g]) for g, part in enumerate(rows)]
    assert upper is not None
    found = [mirror(moment) for moment in upper]
    if centred:
        # The bias takes care of the mean: what the codes must keep small is the error about it.
        found = [m - torch.outer(total, total) / count for m, total in zip(found, totals, strict=True)]
    return [Stats(count, moment) for moment in found]


def _sample(step: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the quantized network's unfolded inputs [tokens, groups * k], and the float layer's outputs there."""
    generator = torch.Generator().manual_seed(0)
    each = max(1, TOKENS // step.count)
    inputs, targets = [], []
    for (_, x_hat), (y, _) in zip(step, step.outputs(), strict=True):
        rows, wanted = unfold(step.layer, x_hat), outputs_as_rows(step.layer, y)
        assert rows is not None
        rows = rows.transpose(0, 1).reshape(rows.shape[1], -1)
        take = torch.randperm(len(rows), generator=generator)[:each]
        inputs.append(rows[take])
        targets.append(wanted[take])
    return torch.cat(inputs), torch.cat(targets)


def _means(step: Step) -> tuple[Array, Array]:
    """The mean of each output channel, in the float network and in the quantized one."""
    sums, count = [np.zeros(step.layer.outputs), np.zeros(step.layer.outputs)], 0
    for pair in step.outputs():
        rows = [outputs_as_rows(step.layer, y) for y in pair]
        count += len(rows[0])
        for total, r in zip(sums, rows, strict=True):
            total += r.sum(dim=0, dtype=torch.float64).numpy()
    return (sums[0] / count).astype(np.float32), (sums[1] / count).astype(np.float32)


def _powers(step: Step) -> tuple[float, float]:
    """Sum of squares of the output's error, and of the float output."""
    noise = power = 0.0
    for y, y_hat in step.outputs():
        d = np.asarray(y, np.float64) - y_hat
        noise += float((d * d).sum())
        power += float((np.asarray(y, np.float64) ** 2).sum())
    return noise, power
