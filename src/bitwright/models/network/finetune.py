"""Short quantization-aware training: weights and step sizes learn together what rounding after training cannot repair.

Learned step size quantization (LSQ; Esser 2020, arXiv 1902.08153) on the nodes of an ONNX network (see `replay`),
with the tensors rounded in training that the written file rounds, and only those (`Placement`). As in the paper the
first and the last layer keep 8 bits. So do tensors that can be negative (a sum's terms before ReLU): ONNX has 8-bit
codes, which saturate at the top of b bits when zero is put b bits below their end, but not at both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.observe import Affine, Histogram, affine, choose
from bitwright.core.qtensor import QTensor, encode
from bitwright.errors import ModelError, RecipeError, TensorError
from bitwright.files.containers.qdq.writer import fit_bias, to_qdq
from bitwright.files.containers.qdq.writer import weight_format as qdq_format
from bitwright.files.layers import Placement, to_matrix
from bitwright.methods import Options, lsq, mse, rtn
from bitwright.methods.lsq import training
from bitwright.models.network.graph import Graph
from bitwright.models.network.replay import Replay, Rounding

Batch = tuple[Mapping[str, npt.NDArray[Any]], npt.NDArray[np.int64] | None]
"""Feeds, and labels [n] or None: without labels the float network's own outputs are what is learned."""
EDGE = 8
"""Bits of the first and the last layer, and of tensors that fewer cannot hold."""


@dataclass(frozen=True)
class Integers:
    """A network in integers, whichever way they were found: what `write` needs besides the graph."""

    weights: Mapping[str, QTensor]
    biases: Mapping[str, npt.NDArray[np.float32]]
    activations: Mapping[str, Affine]
    losses: tuple[float, ...] = ()
    """Mean training loss of each epoch."""

    def write(self, graph: Graph, placement: Placement, **options: Any) -> onnx.ModelProto:
        """The QDQ model: `files.onnx.to_qdq` with `options`. `graph` gets these biases."""
        for name, bias in self.biases.items():
            graph.set_bias(graph.layer(name), bias)
        return to_qdq(graph, placement, self.weights, self.activations, **options)


def widths(
    graph: Graph, placement: Placement, bits: int, activation_bits: int | None = None
) -> tuple[dict[str, int], dict[str, int]]:
    """(bits of each weight, bits of each activation), EDGE where the module's docstring says so; by default equal."""
    activation_bits = activation_bits or bits
    if not (2 <= bits <= 8 and 2 <= activation_bits <= 8):
        what = f"{bits} bits, activations {activation_bits}"
        raise RecipeError(what, where="bits", fix="Choose 2 to 8", key="layer.format")
    layers = graph.layers
    weights = {layer.weight: EDGE if i in (0, len(layers) - 1) else bits for i, layer in enumerate(layers)}
    positive = Replay(graph).never_negative()
    inner = {layer.input for layer in layers[1:-1]}
    tied = {name: group for group in placement.shared for name in group}
    activations = {}
    for name in placement.activations:
        group = tied.get(name, (name,))
        low = any(n in inner for n in group) and all(n in positive for n in group)
        activations[name] = activation_bits if low else EDGE
    return weights, activations


def held(scale: float, bits: int, target: str) -> Affine:
    """Values 0 .. (2^bits - 1) scale as the top 2^bits of the 8-bit codes, so that saturation ends the range.

    >>> a = held(0.5, 4, "x86")
    >>> a.zero, a.fake(np.float32([0.7, 3.0, 7.4, 99.0])).tolist()
    (240, [0.5, 3.0, 7.5, 7.5])
    """
    signed = target != "x86"
    top = 127 if signed else 255
    return Affine(float(np.float32(scale)), top - (2**bits - 1), 8, signed)


def weight_format(bits: int) -> Format:
    """A float32 scale per row. Below 8 bits two's complement: at 2 bits the fourth level is worth having."""
    return named(f"int{bits}", group="channel", scale="fp32") if bits < EDGE else qdq_format(bits)


def observe(replay: Replay, placement: Placement, batches: Iterable[Batch]) -> dict[str, Histogram]:
    """What every tensor of `placement` holds in the float network. Raises TensorError naming one with NaN or Inf."""
    seen = {name: Histogram() for name in placement.activations}
    with torch.no_grad():
        for feeds, _ in batches:
            values = replay.run({name: torch.from_numpy(np.asarray(x)) for name, x in feeds.items()})
            for name in seen:
                seen[name] = seen[name] + Histogram.of(values[name])
    for name, histogram in seen.items():
        if not histogram.finite:
            raise TensorError("holds NaN or Inf", where=name, fix="Check the samples and the float network")
    return seen


def ranges(
    seen: Mapping[str, Histogram], placement: Placement, bits: Mapping[str, int], rule: str = "mse"
) -> dict[str, Affine]:
    """An Affine for every tensor after training, by `rule` of core.observe; tensors of a shared group have one."""
    seen = dict(seen)
    for group in placement.shared:
        total = sum((seen[name] for name in group), Histogram())
        seen.update(dict.fromkeys(group, total))
    found = {}
    for name, histogram in seen.items():
        if bits[name] < EDGE:
            high = choose(histogram, rule, bits[name])[1]
            found[name] = held(high / (2 ** bits[name] - 1) if high > 0 else 1.0, bits[name], placement.target)
            continue
        signed, symmetric = placement.target != "x86", placement.target == "gpu"
        low, high = choose(histogram, rule, EDGE, signed=signed, symmetric=symmetric)
        found[name] = affine(low, high, EDGE, signed=signed, symmetric=symmetric)
    return found


def round_to_nearest(
    graph: Graph,
    placement: Placement,
    batches: Iterable[Batch],
    bits: int,
    activation_bits: int | None = None,
    *,
    rule: str = "mse",
    search: bool = True,
) -> Integers:
    """No training: every weight to its nearest code, steps from the range or (`search`) of the least squared error."""
    weights, activations = widths(graph, placement, bits, activation_bits)
    solve = mse.quantize if search else rtn.quantize
    codes = {layer.weight: solve(graph.matrix(layer), weight_format(weights[layer.weight])) for layer in graph.layers}
    affines = ranges(observe(Replay(graph), placement, batches), placement, activations, rule)
    biases = {layer.name: graph.bias(layer) for layer in graph.layers if layer.bias is not None}
    for layer in graph.layers:
        if layer.name in biases and layer.input in affines:
            tensor, scale = codes[layer.weight], affines[layer.input].scale
            codes[layer.weight] = fit_bias(tensor, graph.matrix(layer), biases[layer.name], scale)
    return Integers(codes, biases, affines)


def steps(low: int, high: int, start: npt.ArrayLike, axis: int | None = None) -> training.Learned:
    """A learned quantizer of codes `low` .. `high`; its step, or steps for each index of `axis`, begin at `start`."""
    first = torch.tensor(np.abs(np.asarray(start, np.float32)).reshape(() if axis is None else -1))
    return training.begin(low, high, first, axis)


def _whole(inputs: training.Learned, weights: training.Learned, b: Tensor) -> Tensor:
    """Bias `b` rounded to multiples of the product of both steps, with the slope of `b`."""
    step = inputs.positive() * weights.positive()
    return b + ((b / step).round() * step - b).detach()


class Learner(nn.Module):
    """A network in training: every weight and activation of `replay` is rounded by steps that learn."""

    graph: Graph
    placement: Placement

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        start: Integers,
        lessons: Lessons,
        bits: int,
        activation_bits: int | None = None,
        soft: float = 1.0,
    ) -> None:
        super().__init__()
        self.lessons, self.soft = lessons, soft
        self.graph, self.placement, self.replay = graph, placement, Replay(graph)
        widths_of_weights, self.bits = widths(graph, placement, bits, activation_bits)
        self.formats = {name: weight_format(width) for name, width in widths_of_weights.items()}
        self.weights: dict[str, training.Learned] = {}
        for layer in graph.layers:
            grid = self.formats[layer.weight].grid
            scale = start.weights[layer.weight].scale
            self.weights[layer.weight] = steps(int(grid.low), int(grid.high), scale, layer.axis)
        tied = {name: group for group in placement.shared for name in group}
        self.activations: dict[str, training.Learned] = {}
        for name in placement.activations:
            first = tied.get(name, (name,))[0]
            if first not in self.activations:
                a = start.activations[name]
                # LSQ learns no zero point: 0 is the lowest code, or in the middle where values are negative too.
                low, high = (0, 2 ** self.bits[name] - 1) if a.low == 0 or self.bits[name] < EDGE else (-128, 127)
                self.activations[first] = steps(low, high, a.scale if low == 0 else max(-a.low, a.high) / 127)
            self.activations[name] = self.activations[first]
        self.replay.weights.update(self.weights | self._biases())
        self.replay.activations.update(self.activations)
        self.quantizers = nn.ModuleList([*self.weights.values(), *dict.fromkeys(self.activations.values())])

    def _biases(self) -> dict[str, Rounding]:
        """What the file does to biases: whole multiples of s_x s_w, which few bits make coarse enough to matter."""
        found: dict[str, Rounding] = {}
        for layer in self.graph.layers:
            if layer.bias is not None and layer.op != "MatMul" and layer.input in self.activations:
                found[layer.bias] = partial(_whole, self.activations[layer.input], self.weights[layer.weight])
        return found

    def forward(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Replay.forward`."""
        return self.replay(feeds)  # type: ignore[no-any-return]

    @property
    def module(self) -> nn.Module:
        """Itself: `methods.lsq.training.Subject`."""
        return self

    @property
    def rates(self) -> tuple[float, float]:
        """Those of the paper's kind of training."""
        return training.RATES

    def loss(self, out: Any, known: Any) -> Tensor:
        """How far the outputs are from labels and from the float network."""
        return _loss(out, known, self.soft)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(w, Q(w)) of every weight, for `training.Penalty`."""
        return [(w := self.replay.parameter(name), quantizer(w)) for name, quantizer in self.weights.items()]

    def integers(self, losses: list[float]) -> Integers:
        """What has been learned, as codes."""
        activations = {name: self._affine(name) for name in self.placement.activations}
        weights, biases = {}, {}
        for layer in self.graph.layers:
            matrix = to_matrix(layer, self.replay.parameter(layer.weight).detach().numpy())
            scale = self.weights[layer.weight].positive().detach().numpy()[:, None]
            tensor = encode(matrix, self.formats[layer.weight], scale)
            if layer.bias is not None:
                biases[layer.name] = self.replay.parameter(layer.bias).detach().numpy().copy()
                if layer.input in activations:
                    tensor = fit_bias(tensor, matrix, biases[layer.name], activations[layer.input].scale)
            weights[layer.weight] = tensor
        return Integers(weights, biases, activations, tuple(losses))

    def _affine(self, name: str) -> Affine:
        scale, signed = float(self.activations[name].positive().detach()), self.placement.target != "x86"
        if self.activations[name].low == 0:
            return held(scale, self.bits[name], self.placement.target)
        return Affine(scale, 0 if signed else 128, EDGE, signed)


def finetune(
    graph: Graph,
    placement: Placement,
    batches: Iterable[Batch],
    bits: int,
    activation_bits: int | None = None,
    *,
    options: Options = lsq.Options(),
    solve: Callable[..., Iterator[training.Epoch]] = lsq.solve,
    soft: float = 1.0,
    start: Integers | None = None,
    seed: int = 0,
    report: Callable[[training.Epoch], None] | None = None,
) -> Integers:
    """Train the network of `graph` with weights rounded to `bits` and activations to `activation_bits` (by default the
    same); `graph` is left as it was.

    `batches` is gone through once an epoch (an object that makes new random variants each time is welcome). The loss is
    cross-entropy with the labels, where there are any, plus `soft` times the KL divergence from the float network's
    outputs (without labels the only part), plus the penalty that `options` ask for. `start` is where the steps begin:
    by default `round_to_nearest` on these batches. `solve` trains (a method of scope "model"); `report` hears of every
    epoch.

    Raises ModelError for an operator that cannot learn, RecipeError for a loss that is not finite, TensorError for NaN
    in the float network.
    """
    for layer in graph.layers:  # its function has a derivative, but no integer kernel for what is learnt
        if layer.op == "ConvTranspose":
            raise ModelError(f"operator {layer.op} cannot learn", where=layer.name, fix="Use another method")
    torch.manual_seed(seed)
    start = start or round_to_nearest(graph, placement, batches, bits, activation_bits)
    learner = Learner(graph, placement, start, Lessons(batches, Replay(graph)), bits, activation_bits, soft)
    losses = []
    for epoch in solve(learner, options):
        losses.append(epoch.loss)
        if report is not None:
            report(epoch)
    return learner.integers(losses)


@dataclass(frozen=True)
class Lessons:
    """`batches` as tensors: (feeds, (labels or None, what the float network answers)), anew each time."""

    batches: Iterable[Batch]
    teacher: Replay

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], tuple[Tensor | None, dict[str, Tensor]]]]:
        for feeds, labels in self.batches:
            given = {name: torch.from_numpy(np.asarray(x)) for name, x in feeds.items()}
            with torch.no_grad():
                answer = self.teacher(given)
            yield given, (None if labels is None else torch.from_numpy(np.asarray(labels)), answer)


def _loss(out: Any, known: Any, soft: float) -> Tensor:
    """Cross-entropy of the first output [n, classes] with labels (if any), and the KL divergence from the teacher's."""
    labels, target = known
    loss = torch.zeros(())
    for name, logits in out.items():
        kl = functional.kl_div(logits.log_softmax(1), target[name].log_softmax(1), log_target=True, reduction="none")
        loss = loss + (soft if labels is not None else 1.0) * kl.flatten(1).sum(1).mean()
    if labels is not None:
        loss = loss + functional.cross_entropy(next(iter(out.values())), labels)
    return loss
