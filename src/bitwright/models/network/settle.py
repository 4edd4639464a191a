"""One layer after its codes are chosen: the scale its bias needs, its corrected bias, and what rounding cost it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bitwright.core.array import Array as Anything
from bitwright.core.observe import Affine
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import Block
from bitwright.core.stats import Stats
from bitwright.files.containers.qdq.writer import fit_bias
from bitwright.files.layers import Layer, from_matrix
from bitwright.methods import Samples, Seen
from bitwright.methods.method import Needs
from bitwright.models.model import Item, Outcome
from bitwright.models.network.graph import Graph
from bitwright.models.network.shared import Moments, Use
from bitwright.models.network.unfold import outputs_as_rows, unfold
from bitwright.models.network.walk import Step
from bitwright.recipe import Network
from bitwright.rewrites import Rewrite
from bitwright.rewrites.bias import clipped_normal

Array = npt.NDArray[Any]
TOKENS = 1 << 14
"""Rows of unfolded input that learned rounding sees at most, spread over all batches."""


class Settling:
    """The layer of `step` on its way into the quantized network. It is what a rewrite corrects (`rewrites.Rounded`).

    `affine` rounds the layer's input (None where that stays float). With the bias corrected empirically, the mean of
    each output channel is that of the float network again, whatever happened before. `later` are the other layers of
    its weight, where it is the first of them.
    """

    def __init__(
        self, graph: Graph, step: Step, network: Network, affine: Affine | None, corrections: Sequence[Rewrite],
        later: Sequence[Use] = (),
    ) -> None:  # fmt: skip
        self.graph, self.step, self.network, self.affine, self.later = graph, step, network, affine, later
        self.layer = step.layer
        self.matrix = graph.matrix(self.layer)
        self.corrections = corrections if self.layer.bias is not None else ()
        self.error: Anything = np.zeros_like(self.matrix)

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return self.layer.groups

    @property
    def batches(self) -> int:
        """Batches of samples that were carried through both networks."""
        return self.step.count

    @property
    def centred(self) -> bool:
        """Whether the bias takes care of the mean, so that codes need only keep the error about it small."""
        return bool(self.corrections) and self.network.bias == "empirical" and self.step.count > 0

    def seen(self, needs: Needs, block: Block = "channel") -> tuple[tuple[Seen, ...], str | None]:
        """What a method that needs so much is shown, for scales of such blocks; or why it cannot be."""
        if needs == "nothing":
            return (Seen(),), None
        if self.layer.op == "ConvTranspose":
            return (Seen(),), "transposed convolution"
        if self.step.count == 0:
            return (Seen(),), "there are no samples"
        if needs == "samples":
            return (Seen(samples=self._samples()),), None
        if self.groups > 1 and block == "tensor":
            return (Seen(),), "groups of other inputs share one scale"
        return tuple(Seen(stats) for stats in self._moments()), None

    def settle(self, item: Item, start: int, w: Anything, q: QTensor) -> Outcome:
        """Fix the codes and the bias, so that the walk goes on with them; what the file stores, and its cost."""
        weight, layer = as_numpy(q), self.layer
        bias = self.graph.bias(layer)
        for user, affine in ((layer, self.affine), *((use.layer, use.affine) for use in self.later)):
            if affine is not None:
                own = self.graph.bias(user) if user.bias else None
                weight = fit_bias(weight, self.matrix, own, affine.scale)
        decoded, notes = weight.decode(), []
        self.error = decoded - self.matrix
        self.step.settle(weight=from_matrix(layer, decoded))
        for rewrite in self.corrections:
            assert rewrite.correct is not None
            change = rewrite.correct(self, self.network)
            if isinstance(change, str):
                notes.append(change)
            elif change is not None:
                bias = bias + np.asarray(change)
        if self.affine is not None and layer.bias is not None:
            bias = stored_bias(bias, weight, self.affine.scale)
        self.step.settle(bias=bias)
        noise, power = self._powers()
        extras = {"bias": bias} if layer.bias is not None else {}
        return Outcome(weight, noise, power, extras, tuple(notes))

    def restore(self, q: QTensor, bias: Array | None) -> None:
        """Go on with what an earlier run settled."""
        self.step.settle(weight=from_matrix(self.layer, np.asarray(q.decode())), bias=bias)

    def means(self) -> tuple[Array, Array]:
        """The mean of each output channel, in the float network and in the quantized one."""
        layer = self.layer
        sums, count = [np.zeros(layer.outputs), np.zeros(layer.outputs)], 0
        for pair in self.step.outputs():
            rows = [outputs_as_rows(layer, y) for y in pair]
            count += len(rows[0])
            for total, r in zip(sums, rows, strict=True):
                total += r.sum(dim=0, dtype=torch.float64).numpy()
        return (sums[0] / count).astype(np.float32), (sums[1] / count).astype(np.float32)

    def expected(self) -> Array | None:
        """E[x] of each input channel by the batch norm that writes it."""
        return expected_input(self.graph, self.layer)

    def _moments(self) -> list[Stats]:
        """The record of the quantized network's inputs, one for each group of the layer; those of later uses added."""
        moments = Moments(self.layer)
        for _, x_hat in self.step:
            moments.add(x_hat)
        found = moments.stats(self.centred)
        for use in self.later:
            found = [a + b for a, b in zip(found, use.moments, strict=True)] if use.moments else found
        return found

    def _samples(self) -> Samples:
        """Rows of the quantized network's unfolded inputs, and the float layer's outputs there."""
        step, layer = self.step, self.layer
        generator = torch.Generator().manual_seed(0)
        each = max(1, TOKENS // step.count)
        inputs, targets = [], []
        for (_, x_hat), (y, _) in zip(step, step.outputs(), strict=True):
            rows, wanted = unfold(layer, x_hat), outputs_as_rows(layer, y)
            assert rows is not None
            rows = rows.transpose(0, 1).reshape(rows.shape[1], -1)
            take = torch.randperm(len(rows), generator=generator)[:each]
            inputs.append(rows[take])
            targets.append(wanted[take])
        bias = torch.from_numpy(self.graph.bias(layer))
        return Samples(torch.cat(inputs), torch.cat(targets), bias, layer.activation == "Relu", layer.groups)

    def _powers(self) -> tuple[float, float]:
        """Sum of squares of the output's error, and of the float output; 0 and 0 without samples."""
        noise = power = 0.0
        for y, y_hat in self.step.outputs():
            d = np.asarray(y, np.float64) - y_hat
            noise += float((d * d).sum())
            power += float((np.asarray(y, np.float64) ** 2).sum())
        return noise, power


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
    return np.asarray(clipped_normal(*graph.normals[producer.input[0]], *limits), np.float32)


def stored_bias(b: Array, q: QTensor, input_scale: float) -> Array:
    """`b` [outputs] as an int32 code times s_x s_w holds it: what the integer kernel really adds."""
    scale = input_scale * np.abs(np.asarray(q.scale, np.float64)).reshape(-1)
    return np.asarray(np.round(b / scale) * scale, np.float32)


def as_numpy(q: QTensor) -> QTensor:
    """The same codes and scales as NumPy arrays, which files are written from."""
    if isinstance(q.codes, np.ndarray):
        return q
    zero = None if q.zero is None else q.zero.numpy()
    return QTensor(q.format, q.codes.numpy(), q.scale.numpy(), zero, outer=q.outer)


def as_before(settling: Settling, first: str) -> Any:
    """What `Turn.settle` does with a layer whose weight the layer `first` has had solved: only its bias is chosen."""

    def settle(item: Item, start: int, w: Anything, q: QTensor) -> Outcome:
        found = settling.settle(item, start, w, q)
        return replace(found, notes=(*found.notes, f"has the weight of {first}, stored once"))

    return settle


def as_trained(bias: Array | None) -> Any:
    """What `Turn.settle` does with a layer whose codes and bias training has found: nothing is changed."""

    def settle(item: Item, start: int, w: Anything, q: QTensor) -> Outcome:
        return Outcome(as_numpy(q), extras={} if bias is None else {"bias": bias})

    return settle
